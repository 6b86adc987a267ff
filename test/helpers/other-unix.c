/*
 * other-unix: has tunnel meet another Unix, on Linux.
 *
 * It is linked to a tunnel that was compiled without Linux's extras, and by the
 * linker's --wrap comes before the C library where macOS, above all, does
 * otherwise:
 *
 *   poll        takes no devices but terminals (POLLNVAL), and reports nothing
 *               of a descriptor that is asked for no event, not even a hang-up
 *   kill        EPERM for a group that has nothing but zombies
 *   open        of /dev/fd/N is a dup, whatever the flags; there is no /proc
 *   readlink, realpath
 *               the same: no /proc
 *   waitid      leaves siginfo as it was where there is nothing to report
 *   getopt      of the BSDs: a + in front is an option like any other
 *   write       to a non-blocking pipe is whole up to 512 bytes only
 *   setpgid     of a child comes after the child's exec: EACCES
 *
 * Where a system may do one thing or the other, it does what is harder to live
 * with.
 */
#define _GNU_SOURCE

#include <sys/types.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLL_MAX = 64, SMALL_WRITE = 512, EXEC_MS = 1000 };

int __real_poll(struct pollfd *, nfds_t, int);
int __real_kill(pid_t, int);
int __real_open(const char *, int, ...);
ssize_t __real_readlink(const char *, char *, size_t);
char *__real_realpath(const char *, char *);
int __real_waitid(idtype_t, id_t, siginfo_t *, int);
ssize_t __real_write(int, const void *, size_t);
int __real_setpgid(pid_t, pid_t);

int __wrap_poll(struct pollfd *, nfds_t, int);
int __wrap_kill(pid_t, int);
int __wrap_open(const char *, int, ...);
int __wrap_open64(const char *, int, ...);
ssize_t __wrap_readlink(const char *, char *, size_t);
char *__wrap_realpath(const char *, char *);
int __wrap_waitid(idtype_t, id_t, siginfo_t *, int);
ssize_t __wrap_write(int, const void *, size_t);
int __wrap_setpgid(pid_t, pid_t);
int __wrap_getopt(int, char *const [], const char *);

/* --- poll, write: what a descriptor is ----------------------------------- */

static bool
is_device(int fd)
{
	struct stat file;
	int error = errno;
	bool known = fstat(fd, &file) == 0;
	bool device = known && S_ISCHR(file.st_mode) && !isatty(fd);

	errno = error;
	return device;
}

int
__wrap_poll(struct pollfd *asked, nfds_t count, int timeout)
{
	struct pollfd known[POLL_MAX];
	int devices = 0, ready;

	if (count > POLL_MAX) {
		errno = EINVAL;
		return -1;
	}
	for (nfds_t i = 0; i < count; i++) {
		known[i] = asked[i];
		known[i].revents = 0;
		if (asked[i].fd >= 0 && asked[i].events == 0)
			known[i].fd = -1;
		else if (asked[i].fd >= 0 && is_device(asked[i].fd))
			devices++;
	}
	ready = __real_poll(known, count, devices > 0 ? 0 : timeout);
	if (ready == -1)
		return -1;
	ready = 0;
	for (nfds_t i = 0; i < count; i++) {
		if (known[i].fd >= 0 && is_device(known[i].fd))
			known[i].revents = POLLNVAL;
		asked[i].revents = known[i].revents;
		ready += asked[i].revents != 0;
	}
	return ready;
}

ssize_t
__wrap_write(int fd, const void *bytes, size_t size)
{
	struct stat file;
	int error = errno;
	int flags = fcntl(fd, F_GETFL);
	bool pipe = fstat(fd, &file) == 0 && S_ISFIFO(file.st_mode);

	errno = error;
	if (pipe && (flags & O_NONBLOCK) && size > SMALL_WRITE)
		size = SMALL_WRITE;
	return __real_write(fd, bytes, size);
}

/* --- processes ----------------------------------------------------------- */

/* Counts a member of a group, and whether it is more than a zombie. */
static void
count_member(const char *process, pid_t group, int *members, int *living)
{
	char path[64], text[512], *rest;
	size_t size;
	FILE *file;
	long its;

	snprintf(path, sizeof path, "/proc/%.20s/stat", process);
	file = fopen(path, "r");
	if (file == NULL)
		return;
	size = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[size] = '\0';
	/* PID (NAME) STATE PARENT GROUP, and a name may have parentheses. */
	rest = strrchr(text, ')');
	if (rest == NULL || sscanf(rest, ") %*c %*d %ld", &its) != 1)
		return;
	if ((pid_t)its != group)
		return;
	*members += 1;
	*living += rest[2] != 'Z' && rest[2] != 'X';
}

static bool
are_all_zombies(pid_t group)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	int members = 0, living = 0;

	if (processes == NULL)
		return false;
	while ((entry = readdir(processes)) != NULL)
		if (atoi(entry->d_name) > 0)
			count_member(entry->d_name, group, &members, &living);
	closedir(processes);
	return members > 0 && living == 0;
}

int
__wrap_kill(pid_t pid, int number)
{
	if (pid < -1 && are_all_zombies(-pid)) {
		errno = EPERM;
		return -1;
	}
	return __real_kill(pid, number);
}

int
__wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
	siginfo_t found;
	int result;

	memset(&found, 0, sizeof found);
	result = __real_waitid(type, id, &found, options);
	if (result == 0 && found.si_pid != 0)
		*info = found;
	return result;
}

/*
 * The child has moved itself before its exec; until it has, wait. One that
 * never does, since it is to run nothing, is moved as anywhere.
 */
int
__wrap_setpgid(pid_t pid, pid_t group)
{
	pid_t wanted = group != 0 ? group : pid;

	if (pid == 0 || pid == getpid())
		return __real_setpgid(pid, group);
	for (int ms = 0; ms < EXEC_MS; ms++) {
		if (getpgid(pid) == wanted) {
			errno = EACCES;
			return -1;
		}
		__real_poll(NULL, 0, 1);
	}
	return __real_setpgid(pid, group);
}

/* --- files --------------------------------------------------------------- */

static bool
is_below(const char *path, const char *directory)
{
	return strncmp(path, directory, strlen(directory)) == 0;
}

/* Returns the number of the descriptor that a path names, or -1. */
static int
named_descriptor(const char *path)
{
	static const char *const standard[] = {
		"/dev/stdin", "/dev/stdout", "/dev/stderr"
	};

	for (int fd = 0; fd < 3; fd++)
		if (strcmp(path, standard[fd]) == 0)
			return fd;
	if (is_below(path, "/dev/fd/"))
		return atoi(path + strlen("/dev/fd/"));
	return -1;
}

static int
open_descriptor(int fd, int flags)
{
	int has = fcntl(fd, F_GETFL) & O_ACCMODE;
	int wants = flags & O_ACCMODE;

	if (has != O_RDWR && has != wants) {
		errno = EACCES;
		return -1;
	}
	return fcntl(fd, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
}

static int
open_path(const char *path, int flags, mode_t mode)
{
	int fd = named_descriptor(path);

	if (fd >= 0)
		return open_descriptor(fd, flags);
	if (is_below(path, "/proc/")) {
		errno = ENOENT;
		return -1;
	}
	return __real_open(path, flags, mode);
}

/* Takes the mode, which is there only if the flags have a file created. */
#define OPEN(path, flags)                                            \
	do {                                                         \
		mode_t mode = 0;                                     \
		va_list rest;                                        \
                                                                     \
		va_start(rest, flags);                               \
		if (flags & O_CREAT)                                 \
			mode = (mode_t)va_arg(rest, unsigned);       \
		va_end(rest);                                        \
		return open_path(path, flags, mode);                 \
	} while (0)

int
__wrap_open(const char *path, int flags, ...)
{
	OPEN(path, flags);
}

int
__wrap_open64(const char *path, int flags, ...)
{
	OPEN(path, flags);
}

ssize_t
__wrap_readlink(const char *path, char *target, size_t size)
{
	if (is_below(path, "/proc/")) {
		errno = ENOENT;
		return -1;
	}
	return __real_readlink(path, target, size);
}

char *
__wrap_realpath(const char *path, char *resolved)
{
	if (is_below(path, "/proc/")) {
		errno = ENOENT;
		return NULL;
	}
	return __real_realpath(path, resolved);
}

/* --- getopt -------------------------------------------------------------- */

static int
complain(char *const arguments[], const char *options, const char *what,
    int answer)
{
	if (opterr != 0 && options[0] != ':')
		fprintf(stderr, "%s: %s -- %c\n", arguments[0], what, optopt);
	return answer;
}

int
__wrap_getopt(int count, char *const arguments[], const char *options)
{
	/* Behind the letter that was returned last, within its argument. */
	static const char *next = "";
	const char *known;
	int missing = options[0] == ':' ? ':' : '?';

	if (*next == '\0') {
		next = optind < count ? arguments[optind] : "";
		if (next[0] != '-' || next[1] == '\0') {
			next = "";
			return -1;
		}
		next++;
		if (strcmp(next, "-") == 0) {
			next = "";
			optind++;
			return -1;
		}
	}
	optopt = (unsigned char)*next++;
	known = optopt == ':' ? NULL : strchr(options, optopt);
	if (known == NULL || known[1] != ':') {
		if (*next == '\0')
			optind++;
		if (known == NULL)
			return complain(arguments, options,
			    "illegal option", '?');
		optarg = NULL;
		return optopt;
	}
	optind++;
	if (*next != '\0') {
		optarg = (char *)(size_t)next;
	} else if (optind < count) {
		optarg = arguments[optind++];
	} else {
		return complain(arguments, options,
		    "option requires an argument", missing);
	}
	next = "";
	return optopt;
}
