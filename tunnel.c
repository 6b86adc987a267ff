/*
 * tunnel - a public https://LABEL.trycloudflare.com address for a local port
 *
 * Runs one cloudflared quick tunnel, prints the address when it works, and
 * looks after the process until it is told to stop.  "usage_text" is the
 * usage, "The life of a tunnel" the table of what happens when.
 *
 * Four ideas carry it:
 * - A pipe that is never left unread: a full one would block cloudflared,
 *   which logs to it.  We read for as long as it lives, and write nothing
 *   that we would have to wait for, but for a moment for a message.
 * - A process group that is never left behind: cloudflared leads one, so that
 *   Ctrl-C reaches it only through us.  When it ends we look without reaping,
 *   kill what is left of the group while the zombie still holds the id, and
 *   only then let that go.
 * - A lock that says who lives: a tunnel locks its record, a file named after
 *   the origin.  The kernel takes the lock back however we die, and tells
 *   whoever asks which process holds it.  No daemon, nothing goes stale.
 * - A name that is asked of those only who can't spoil it: a resolver that is
 *   asked too early remembers "no such name" for half an hour, so we ask the
 *   name servers of the zone themselves.
 *
 * All that happens in the life of a tunnel comes out of one poll(2).
 */
#if defined(__linux__) || defined(__sun)
#undef _XOPEN_SOURCE
#undef _POSIX_C_SOURCE
#define _XOPEN_SOURCE 700	/* elsewhere it would hide what we use */
#define __EXTENSIONS__
#endif
/* Or 32-bit systems refuse files with a large inode number. */
#define _FILE_OFFSET_BITS 64

#include <sys/types.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/syscall.h>
#elif defined(__FreeBSD__)
#include <sys/procctl.h>
#endif

#define VERSION "2.0"
#define ZONE "trycloudflare.com"
#define DIGITS "0123456789"
#define CAPITALS "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define LETTERS "abcdefghijklmnopqrstuvwxyz" CAPITALS
#define NAME_CHARS DIGITS LETTERS "-_"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Compilers that can check these are told. */
#if defined(__GNUC__)
#define PRINTF_LIKE(text, first) \
	__attribute__((format(printf, text, first)))
#define NORETURN __attribute__((noreturn))
#else
#define PRINTF_LIKE(text, first)
#define NORETURN
#endif

enum {	/* bytes, with the NUL that ends a string */
	HOST_SIZE = 250,
	NAME_SIZE = HOST_SIZE + 6,	/* host:port */
	ORIGIN_SIZE = NAME_SIZE + 8,	/* https://host:port */
	URL_SIZE = 96,
	PATH_SIZE = 4096,
	MESSAGE_SIZE = PATH_SIZE + 1024,
	REASON_SIZE = 1024,		/* why a tunnel ended, in its record */
	TIME_SIZE = 28,			/* 2026-11-21T01:58:36Z */
	RECORD_SIZE = 4096
};

enum {	/* exit statuses, beside 0, 1 and 128+n */
	EXIT_USAGE = 2,
	EXIT_DEADLINE = 124,
	EXIT_CANNOT_RUN = 126,
	EXIT_NOT_FOUND = 127
};

extern char **environ;

/* Who wants it small wants no tables to unwind the stack by: nothing throws. */
#if defined(__OPTIMIZE_SIZE__) && defined(__ELF__)
__asm__(".cfi_sections .debug_frame");
#endif

/* ======================================================================
 * Text, time and descriptors
 *
 * Small things that everything else uses.  They know nothing of tunnels.
 * ====================================================================== */

static bool
starts_with(const char *text, const char *beginning)
{
	return strncmp(text, beginning, strlen(beginning)) == 0;
}

static bool
is_empty(const char *text)
{
	return text == NULL || text[0] == '\0';
}

static bool
consists_of(const char *text, const char *characters)
{
	return text[strspn(text, characters)] == '\0';
}

/* Copies so many characters of a text, or as many as there is room for. */
static void
copy_part(char *to, size_t size, const char *from, size_t length)
{
	if (length >= size)
		length = size - 1;
	memcpy(to, from, length);
	to[length] = '\0';
}

/* Copies a string, or as much of it as there is room for. */
static void
copy_text(char *to, size_t size, const char *from)
{
	copy_part(to, size, from, strlen(from));
}

/* Puts a text behind a string, or as much of it as there is room for. */
static void
add_text(char *to, size_t size, const char *more)
{
	size_t length = strlen(to);

	copy_text(to + length, size - length, more);
}

/* In any case of letters, as in the DNS. */
static bool
same_name(const char *one, const char *other)
{
	return strncasecmp(one, other, strlen(one) + 1) == 0;
}

/* Finds a string in a line, which a newline ends, or the text. */
static const char *
find(const char *line, const char *wanted)
{
	size_t length = strlen(wanted);

	for (; *line != '\0' && *line != '\n'; line++)
		if (strncmp(line, wanted, length) == 0)
			return line;
	return NULL;
}

static size_t
line_length(const char *line)
{
	return strcspn(line, "\n");
}

/* Says whether a line has its newline. */
static bool
is_whole(const char *line)
{
	return line[line_length(line)] == '\n';
}

/* Returns where the next line begins, or the text ends. */
static const char *
next_line(const char *line)
{
	line += line_length(line);
	return *line == '\n' ? line + 1 : line;
}

/* How many bytes a UTF-8 character has that begins so; 1 if none does. */
static size_t
utf8_length(const char *text)
{
	unsigned char first = (unsigned char)text[0];
	size_t length = 1;

	if (first >= 0xf0)
		length = 4;
	else if (first >= 0xe0)
		length = 3;
	else if (first >= 0xc2)
		length = 2;
	for (size_t i = 1; i < length; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 1;
	return length;
}

/*
 * Replaces what could drive a terminal: C0, DEL, and every character with a
 * byte from 0x80 to 0x9f, which are the C1 controls of a terminal that
 * doesn't read UTF-8.
 */
static void
make_printable(char *text)
{
	while (text[0] != '\0') {
		size_t length = utf8_length(text);
		bool control = false;

		for (size_t i = 0; i < length; i++) {
			unsigned char c = (unsigned char)text[i];

			if (c < 0x20 || (c >= 0x7f && c < 0xa0))
				control = true;
		}
		if (control)
			memset(text, '?', length);
		text += length;
	}
}

/* The clock that nobody sets, in milliseconds. */
static long long
now_ms(void)
{
	struct timespec now = { 0, 0 };

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Writes a time of day as 2026-11-21T01:58:36Z.  The libraries' way is larger
 * than all of our records.
 */
static void
format_time(char text[TIME_SIZE], time_t when)
{
	unsigned days = (unsigned)(when / 86400);
	unsigned seconds = (unsigned)(when % 86400);
	unsigned year = 1970;
	unsigned month = 1;

	for (;;) {
		bool leap = year % 4 == 0 &&
		    (year % 100 != 0 || year % 400 == 0);
		unsigned length = 30 + (month + month / 8) % 2;

		if (month == 2)
			length = leap ? 29 : 28;
		if (days < length)
			break;
		days -= length;
		month++;
		if (month > 12) {
			month = 1;
			year++;
		}
	}
	snprintf(text, TIME_SIZE, "%04u-%02u-%02uT%02u:%02u:%02uZ",
	    (unsigned short)year, (unsigned char)month,
	    (unsigned char)(days + 1), seconds / 3600, seconds / 60 % 60,
	    seconds % 60);
}

/* Sleeps, unless a signal is handled. */
static void
sleep_ms(int ms)
{
	poll(NULL, 0, ms);
}

/*
 * Reads the beginning of a file, as a string.  Returns how many bytes that
 * are, or -1: then the string is empty.
 */
static ssize_t
read_beginning(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t got = -1;

	if (fd != -1) {
		got = read(fd, text, size - 1);
		close(fd);
	}
	text[got > 0 ? got : 0] = '\0';
	return got;
}

static bool
set_close_on_exec(int fd)
{
	return fcntl(fd, F_SETFD, FD_CLOEXEC) != -1;
}

/* Closes a descriptor, if it is one, and forgets it. */
static void
close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

static void
close_pipe(int ends[2])
{
	close_fd(&ends[0]);
	close_fd(&ends[1]);
}

/*
 * Makes a pipe that no program we run inherits, and that is read without
 * waiting.  Returns false with errno, and then nothing is open.
 */
static bool
make_pipe(int ends[2])
{
	int error;

	if (pipe(ends) == -1) {
		ends[0] = ends[1] = -1;
		return false;
	}
	if (set_close_on_exec(ends[0]) && set_close_on_exec(ends[1]) &&
	    fcntl(ends[0], F_SETFL, O_NONBLOCK) != -1)
		return true;
	error = errno;
	close_pipe(ends);
	errno = error;
	return false;
}

/* ======================================================================
 * What differs between systems
 *
 * Nothing but this section asks which system it is.  Each function says what
 * it comes to where the system has no such thing.
 * ====================================================================== */

/* Signals that POSIX doesn't know and that mustn't end a tunnel. */
#if !defined(SIGWINCH)
#define SIGWINCH SIGURG
#endif
#if !defined(SIGINFO)
#define SIGINFO SIGURG	/* Ctrl-T of the BSDs and macOS */
#endif

#if defined(__linux__)
/* Not declared unless one asks for much more than we need. */
long syscall(long number, ...);
#endif

/* Android kills who makes a system call that it doesn't know. */
#if defined(__ANDROID__)
#undef SYS_close_range
#undef SYS_pidfd_open
#undef SYS_pidfd_send_signal
#endif

/*
 * Has the system send us SIGTERM when our parent dies.  Where it can't, a
 * keeper does it (see start_keeper).
 */
static void
die_with_parent(void)
{
#if defined(__linux__)
	prctl(PR_SET_PDEATHSIG, (unsigned long)SIGTERM, 0, 0, 0);
#elif defined(PROC_PDEATHSIG_CTL)
	int number = SIGTERM;

	procctl(P_PID, 0, PROC_PDEATHSIG_CTL, &number);
#endif
}

/* Says whether die_with_parent does nothing here. */
static bool
needs_keeper(void)
{
#if defined(__linux__) || defined(PROC_PDEATHSIG_CTL)
	return false;
#else
	return true;
#endif
}

/*
 * Makes the orphans among our descendants our children, so that they can be
 * found and waited for.  Elsewhere they are lost sight of.
 */
static void
adopt_orphans(void)
{
#if defined(PR_SET_CHILD_SUBREAPER)
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
#endif
}

/* Lets a pipe hold more, so that its writer waits for us less. */
static void
widen_pipe(int fd, int bytes)
{
#if defined(__linux__)
	fcntl(fd, 1031, bytes);		/* F_SETPIPE_SZ */
#else
	(void)fd;
	(void)bytes;
#endif
}

/* Closes every descriptor from this one on, or the first 65,536. */
static void
close_from(int first)
{
#if defined(SYS_close_range)
	if (syscall(SYS_close_range, first, ~0U, 0) == 0)
		return;
#endif
	for (int fd = first; fd < 65536; fd++)
		close(fd);
}

/*
 * Takes hold of a process, so that a signal can't hit another one that has
 * its id by then.  Returns a descriptor, or -1: then only its id is known.
 */
static int
open_process(pid_t pid)
{
#if defined(SYS_pidfd_open)
	return (int)syscall(SYS_pidfd_open, pid, 0);
#else
	(void)pid;
	return -1;
#endif
}

static int
signal_process(int process, pid_t pid, int number)
{
#if defined(SYS_pidfd_send_signal)
	if (process != -1)
		return (int)syscall(SYS_pidfd_send_signal, process, number,
		    NULL, 0);
#else
	(void)process;
#endif
	return kill(pid, number);
}

/*
 * Finds a child of ours, whoever made it.  Returns its id, or 0 if there is
 * none or the system doesn't tell.
 */
static pid_t
find_child(void)
{
#if defined(__linux__)
	static DIR *processes;		/* kept open */
	struct dirent *entry;
	char path[NAME_MAX + 16];
	char stat[512];

	if (processes == NULL)
		processes = opendir("/proc");
	if (processes == NULL)
		return 0;
	rewinddir(processes);
	while ((entry = readdir(processes)) != NULL) {
		char *parent;

		if (atoll(entry->d_name) <= 0)
			continue;
		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		read_beginning(path, stat, sizeof stat);
		/* PID (NAME) STATE PARENT, and a name may hold anything */
		parent = strrchr(stat, ')');
		if (parent != NULL && strlen(parent) > 4 &&
		    atoll(parent + 4) == getpid())
			return (pid_t)atoll(entry->d_name);
	}
#endif
	return 0;
}

/*
 * Writes the path of our own executable, all links followed if the system
 * can do that; else the one that it was called by.
 */
static void
find_executable(const char *name, char *path, size_t size)
{
#if defined(__linux__)
	ssize_t length = readlink("/proc/self/exe", path, size - 1);

	if (length > 0) {
		path[length] = '\0';
		return;
	}
#else
	char *real = realpath(name, NULL);

	if (real != NULL) {
		snprintf(path, size, "%s", real);
		free(real);
		return;
	}
#endif
	snprintf(path, size, "%s", name);
}

/*
 * Writes the name by which another description of a file can be opened.  On
 * macOS and the BSDs that is no more than a dup, but a terminal has its own.
 */
static void
name_descriptor(int fd, char *path, size_t size)
{
#if !defined(__linux__)
	const char *terminal = isatty(fd) ? ttyname(fd) : NULL;

	if (terminal != NULL) {
		snprintf(path, size, "%s", terminal);
		return;
	}
#endif
	snprintf(path, size, "/dev/fd/%d", fd);
}

/* Says whether exec may find a script's interpreter elsewhere: Termux does. */
static bool
has_other_interpreters(void)
{
#if defined(__ANDROID__)
	return true;
#else
	return false;
#endif
}

/* Returns how many columns a terminal has, or 0 if it doesn't tell. */
static int
count_columns(int fd)
{
#if defined(TIOCGWINSZ)
	struct winsize size;

	if (ioctl(fd, TIOCGWINSZ, &size) == 0)
		return size.ws_col;
#endif
	(void)fd;
	return 0;
}

/* ======================================================================
 * The outlet: what is said, and where results go
 *
 * An outlet is a descriptor that we write to and never wait for, whoever
 * shares it: O_NONBLOCK on a description that others have, too, isn't ours
 * to set, so we open our own where the system lets us.  Messages go through
 * the one outlet `errors`, whose progress line any message takes away first.
 * ====================================================================== */

enum {
	/* How long a message waits for its reader, once. */
	MESSAGE_MS = 250,
	/* How long a line of the log may be; the rest comes as another. */
	LINE_SIZE = 4000
};

struct outlet {
	int fd;			/* -1: none */
	bool own;		/* opened by us: close it when done */
	bool may_block;		/* others' description, and no socket */
	bool stuck;		/* the last message found no room */
	bool torn;		/* and it ended in the middle of a line */
};

static struct outlet errors = { STDERR_FILENO, false, true, false, false };
static bool errors_terminal;	/* standard error is a terminal */
static int progress_columns;	/* how much of a progress line is shown */

/*
 * Opens another description of a pipe or a terminal, one that isn't shared.
 * Returns its descriptor, or -1: it is something else, or can't be had.
 */
static int
reopen(int fd, int flags)
{
	char path[64];
	struct stat file;
	int own;

	if (fstat(fd, &file) == -1)
		return -1;
	if (!S_ISFIFO(file.st_mode) && !isatty(fd))
		return -1;
	name_descriptor(fd, path, sizeof path);
	own = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own != -1 && (fcntl(own, F_GETFL) & O_NONBLOCK) == 0)
		close_fd(&own);		/* macOS: a mere dup */
	return own;
}

static void
open_outlet(struct outlet *outlet, int fd)
{
	struct stat file;
	int own = reopen(fd, O_WRONLY);

	outlet->own = own != -1;
	outlet->fd = outlet->own ? own : fd;
	outlet->stuck = false;
	outlet->torn = false;
	/* what goes to a disk or the null device needn't be waited for */
	outlet->may_block = !outlet->own && (fstat(fd, &file) == -1 ||
	    S_ISFIFO(file.st_mode) || isatty(fd));
}

static void
close_outlet(struct outlet *outlet)
{
	if (outlet->own)
		close(outlet->fd);
	outlet->fd = -1;
}

/* Writes what is taken at once.  Returns as write(2) does. */
static ssize_t
write_some(const struct outlet *outlet, const char *text, size_t size)
{
	struct pollfd wait = { outlet->fd, POLLOUT, 0 };
	ssize_t written = send(outlet->fd, text, size, MSG_DONTWAIT);

	if (written != -1 || errno != ENOTSOCK)
		return written;
	if (outlet->may_block) {
		/* as near as one gets: poll tells of room for so much */
		if (size > 512)
			size = 512;
		if (poll(&wait, 1, 0) == 0) {
			errno = EAGAIN;
			return -1;
		}
	}
	return write(outlet->fd, text, size);
}

/*
 * Writes a text, waiting for room for so long at most.  Returns how much of
 * it was written; if that isn't all, errno says why, EAGAIN or EINTR that
 * time is up.
 */
static size_t
put(const struct outlet *outlet, const char *text, size_t size, int wait_ms)
{
	struct pollfd wait = { outlet->fd, POLLOUT, 0 };
	long long until = now_ms() + wait_ms;
	size_t done = 0;

	while (done < size) {
		long long left = until - now_ms();
		ssize_t written = write_some(outlet, text + done, size - done);

		if (written > 0) {
			done += (size_t)written;
			continue;
		}
		if (written == 0)
			errno = ENOSPC;
		if (errno != EAGAIN && errno != EINTR)
			break;
		if (left <= 0)
			break;
		poll(&wait, 1, (int)left);
	}
	return done;
}

/* Takes the progress line away again. */
static void
clear_progress(void)
{
	char line[256];
	int size;

	if (progress_columns == 0)
		return;
	/* and the ^C or ^Z that the terminal puts behind it */
	size = snprintf(line, sizeof line, "\r%*s\r", progress_columns + 2,
	    "");
	put(&errors, line, (size_t)size, 0);
	progress_columns = 0;
}

/*
 * Shows on a terminal what is being waited for, in a line without an end; no
 * wider than the terminal, or it couldn't be taken away.  Where there isn't
 * room for all of it, it begins with what matters.
 */
static void
show_progress(const char *what)
{
	static char shown[200];
	const char *lead = "tunnel: waiting for ";
	char line[200];
	int columns = count_columns(errors.fd);
	int size;

	if (columns < 10 || columns > (int)sizeof line)
		columns = 80;
	columns -= 3;		/* the cursor, and ^C */
	if (strlen(lead) + strlen(what) > (size_t)columns)
		lead = "";
	snprintf(line, sizeof line, "%s%.150s", lead, what);
	line[columns] = '\0';
	if (progress_columns > 0 && strcmp(line, shown) == 0)
		return;
	clear_progress();
	size = (int)strlen(line);
	if (put(&errors, line, (size_t)size, 0) == (size_t)size)
		progress_columns = size;
	copy_text(shown, sizeof shown, line);
}

/*
 * Prints one line to standard error, after who says it.  Waits for room, but
 * not again while nobody makes any.  Returns whether all of it was written.
 */
static bool
put_line(const char *who, const char *text, size_t length, int wait_ms)
{
	char line[MESSAGE_SIZE + 32];
	size_t size;
	size_t done;

	if (length > MESSAGE_SIZE)
		length = MESSAGE_SIZE;
	/* the newline of a line that was torn comes first */
	size = (size_t)snprintf(line, sizeof line, "%s%s: %.*s",
	    errors.torn ? " " : "", who, (int)length, text);
	make_printable(line);
	if (errors.torn)
		line[0] = '\n';
	line[size++] = '\n';
	clear_progress();
	if (errors.stuck)
		wait_ms = 0;
	done = put(&errors, line, size, wait_ms);
	if (done > 0)
		errors.torn = done < size;
	errors.stuck = done < size;
	return done == size;
}

/* Says something in one line.  What it is about comes in the arguments. */
static void say(const char *text, ...) PRINTF_LIKE(1, 2);

/* Says what is wrong with the arguments, and exits. */
static void refuse(const char *text, ...) PRINTF_LIKE(1, 2) NORETURN;

static void
say_arguments(const char *text, va_list arguments, const char *addition)
{
	char message[MESSAGE_SIZE];

	vsnprintf(message, sizeof message, text, arguments);
	add_text(message, sizeof message, addition);
	put_line("tunnel", message, strlen(message), MESSAGE_MS);
}

static void
say(const char *text, ...)
{
	va_list arguments;

	va_start(arguments, text);
	say_arguments(text, arguments, "");
	va_end(arguments);
}

static void
refuse(const char *text, ...)
{
	va_list arguments;

	va_start(arguments, text);
	say_arguments(text, arguments, " (tunnel -h shows the usage)");
	va_end(arguments);
	_exit(EXIT_USAGE);
}

/* Says what the system has refused, for which errno has the reason; exits. */
static NORETURN void
give_up(const char *what)
{
	say("cannot %s: %s", what, strerror(errno));
	_exit(EXIT_FAILURE);
}

/* Prints a result to standard output; if it can't, says so and exits. */
static void
print(const char *text)
{
	struct outlet output;
	size_t size = strlen(text);

	open_outlet(&output, STDOUT_FILENO);
	if (put(&output, text, size, INT_MAX) < size)
		give_up("write to standard output");
	close_outlet(&output);
}

/* ======================================================================
 * Origins: what is tunnelled
 *
 * Pure functions: an origin as people paste it becomes the form that
 * cloudflared, the record and the messages use.
 * ====================================================================== */

struct origin {
	char url[ORIGIN_SIZE];		/* http://localhost:8080 */
	char name[NAME_SIZE];		/* localhost:8080, the record's */
	char host[HOST_SIZE];		/* localhost; IPv6 has its brackets */
	int port;
};

enum origin_fault {
	ORIGIN_RIGHT,
	ORIGIN_NONE,
	ORIGIN_NO_PORT,
	ORIGIN_BAD_PORT,
	ORIGIN_PATH,
	ORIGIN_SCHEME,
	ORIGIN_SLASHES,
	ORIGIN_DIGITS,
	ORIGIN_BRACKETS,
	ORIGIN_USER,
	ORIGIN_HOST
};

static const char *const origin_faults[] = {
	[ORIGIN_RIGHT] = "",
	[ORIGIN_NONE] = "not an origin, which is a port or host:port",
	[ORIGIN_NO_PORT] = "a port is missing, as in localhost:8080",
	[ORIGIN_BAD_PORT] = "the port must be a number from 1 to 65535",
	[ORIGIN_PATH] = "a path cannot be tunnelled, only a whole server",
	[ORIGIN_SCHEME] = "only http and https can be tunnelled",
	[ORIGIN_SLASHES] = "slashes are missing, as in http://localhost:8080",
	[ORIGIN_DIGITS] = "a host cannot be digits alone: type the port once",
	[ORIGIN_BRACKETS] = "an IPv6 address goes in brackets: [::1]:8080",
	[ORIGIN_USER] = "a user name cannot be tunnelled: leave it out",
	[ORIGIN_HOST] = "not a host name or address",
};

/* Reads a port in plain decimal digits.  Returns 0 if it is none. */
static int
parse_port(const char *text)
{
	size_t digits = strspn(text, DIGITS);
	int port;

	if (digits < 1 || digits > 5 || text[digits] != '\0' || text[0] == '0')
		return 0;
	port = (int)atoll(text);
	return port <= 65535 ? port : 0;
}

static enum origin_fault
check_host(const char *host)
{
	size_t length = strlen(host);
	struct in6_addr address;
	char inner[HOST_SIZE];

	if (host[0] == '[') {
		if (host[length - 1] != ']')
			return ORIGIN_HOST;
		copy_part(inner, sizeof inner, host + 1, length - 2);
		if (inet_pton(AF_INET6, inner, &address) != 1)
			return ORIGIN_HOST;
		return ORIGIN_RIGHT;
	}
	if (strchr(host, ':') != NULL) {
		if (consists_of(host, DIGITS "abcdefABCDEF:") ||
		    starts_with(host, "::"))
			return ORIGIN_BRACKETS;
		return ORIGIN_HOST;
	}
	if (!consists_of(host, NAME_CHARS ".") || consists_of(host, ".-"))
		return ORIGIN_HOST;
	return consists_of(host, DIGITS) ? ORIGIN_DIGITS : ORIGIN_RIGHT;
}

/*
 * Splits host:port, both of which may be missing, and checks each.  With a
 * default port (not 0) a host may stand alone.
 */
static enum origin_fault
parse_authority(const char *text, int default_port, struct origin *origin)
{
	const char *colon = strrchr(text, ':');
	const char *bracket = strrchr(text, ']');
	size_t length = strlen(text);
	enum origin_fault fault;

	if (length == 0)
		return ORIGIN_NONE;
	if (colon != NULL && bracket != NULL && colon < bracket)
		colon = NULL;
	if (colon == NULL && consists_of(text, DIGITS)) {
		origin->port = parse_port(text);
		copy_text(origin->host, HOST_SIZE, "localhost");
		return origin->port > 0 ? ORIGIN_RIGHT : ORIGIN_BAD_PORT;
	}
	if (colon != NULL)
		length = (size_t)(colon - text);
	if (length >= HOST_SIZE)
		return ORIGIN_HOST;
	copy_part(origin->host, HOST_SIZE, text, length);
	if (length == 0)
		copy_text(origin->host, HOST_SIZE, "localhost");
	fault = check_host(origin->host);
	if (fault != ORIGIN_RIGHT)
		return fault;
	if (colon == NULL) {
		origin->port = default_port;
		return default_port > 0 ? ORIGIN_RIGHT : ORIGIN_NO_PORT;
	}
	if (colon[1] == '\0')
		return ORIGIN_NO_PORT;
	origin->port = parse_port(colon + 1);
	return origin->port > 0 ? ORIGIN_RIGHT : ORIGIN_BAD_PORT;
}

/*
 * Looks for what is meant as a URL without its slashes: http:localhost:8080,
 * http:/localhost:8080, and the unix:/path that cloudflared knows.  A host
 * may have the name http.
 */
static enum origin_fault
check_slashes(const char *text)
{
	size_t length = strcspn(text, ":");
	bool web = (length == 4 && strncasecmp(text, "http", 4) == 0) ||
	    (length == 5 && strncasecmp(text, "https", 5) == 0);

	if (starts_with(text, "unix:/") || starts_with(text, "unix+tls:/"))
		return ORIGIN_SCHEME;
	if (web && text[length] == ':' && (text[length + 1] == '/' ||
	    strchr(text + length + 1, ':') != NULL))
		return ORIGIN_SLASHES;
	return ORIGIN_RIGHT;
}

/*
 * Reads [scheme://][host:]port[/].  A path is a fault that still fills the
 * origin, so that one can say what to type instead.
 */
static enum origin_fault
parse_origin(const char *text, struct origin *origin)
{
	const char *separator = find(text, "://");
	const char *scheme = "http";
	char authority[ORIGIN_SIZE];
	enum origin_fault fault = check_slashes(text);
	int default_port = 0;
	size_t length;

	if (separator == NULL && fault != ORIGIN_RIGHT)
		return fault;
	if (separator != NULL) {
		default_port = 80;
		if (strncasecmp(text, "https://", 8) == 0) {
			scheme = "https";
			default_port = 443;
		} else if (strncasecmp(text, "http://", 7) != 0) {
			return ORIGIN_SCHEME;
		}
		text = separator + 3;
	}
	length = strcspn(text, "/?#");
	/* cut off, it is still longer than any that is right */
	copy_part(authority, sizeof authority, text, length);
	if (strchr(authority, '@') != NULL)
		return ORIGIN_USER;
	fault = parse_authority(authority, default_port, origin);
	if (fault != ORIGIN_RIGHT)
		return fault;
	snprintf(origin->name, sizeof origin->name, "%s:%d", origin->host,
	    origin->port & 0xffff);
	snprintf(origin->url, sizeof origin->url, "%s://%s", scheme,
	    origin->name);
	text += length;
	if (strcmp(text, "") == 0 || strcmp(text, "/") == 0)
		return ORIGIN_RIGHT;
	return ORIGIN_PATH;
}

static bool
is_origin(const char *text)
{
	struct origin origin;

	return parse_origin(text, &origin) == ORIGIN_RIGHT;
}

/* What one types for it in `tunnel -k`: the port alone where that will do. */
static const char *
short_name(const struct origin *origin)
{
	if (strcmp(origin->host, "localhost") == 0)
		return strrchr(origin->name, ':') + 1;
	return origin->name;
}

/* ======================================================================
 * Addresses
 *
 * IP addresses from text; names are never looked up.
 * ====================================================================== */

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_in ip4;
		struct sockaddr_in6 ip6;
	} to;
	socklen_t size;		/* 0: none */
};

/* Fills in an address of either kind, from its bytes. */
static void
set_address(struct address *address, int family, const void *bytes, int port)
{
	memset(address, 0, sizeof *address);
	if (family == AF_INET) {
		address->to.ip4.sin_family = AF_INET;
		address->to.ip4.sin_port = htons((in_port_t)port);
		memcpy(&address->to.ip4.sin_addr, bytes, 4);
		address->size = sizeof address->to.ip4;
	} else {
		address->to.ip6.sin6_family = AF_INET6;
		address->to.ip6.sin6_port = htons((in_port_t)port);
		memcpy(&address->to.ip6.sin6_addr, bytes, 16);
		address->size = sizeof address->to.ip6;
	}
}

static bool
parse_ip(const char *text, int port, struct address *address)
{
	unsigned char bytes[16];
	int family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;

	if (inet_pton(family, text, bytes) != 1)
		return false;
	set_address(address, family, bytes, port);
	return true;
}

/*
 * Gives an origin's address of one kind.  Localhost has one of each; another
 * host name has none.
 */
static bool
find_address(const struct origin *origin, int family, struct address *address)
{
	char host[HOST_SIZE];

	copy_text(host, sizeof host, origin->host);
	if (host[0] == '[') {
		host[strlen(host) - 1] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	if (same_name(host, "localhost"))
		copy_text(host, sizeof host,
		    family == AF_INET6 ? "::1" : "127.0.0.1");
	return parse_ip(host, origin->port, address) &&
	    address->to.any.sa_family == family;
}

/* ======================================================================
 * Options
 *
 * Read once, in main, and constant from then on.  Whatever is wrong with the
 * arguments is told here, with what to type instead, and ends the program.
 * ====================================================================== */

struct options {
	bool all;			/* -a */
	bool background;		/* -b */
	bool input;			/* -i */
	bool json;			/* -j */
	bool kill;			/* -k */
	bool list;			/* -l */
	bool now;			/* -n */
	bool restart;			/* -r */
	bool verbose;			/* -v */
	bool wait;			/* -w */
	const char *program;		/* -c; NULL: look for cloudflared */
	long long grace_ms;		/* -g */
	long long start_ms;		/* -t; 0: no deadline */
	const char *start_text;		/* -t as it was typed */
	char letters[64];		/* all that were given */
	char **command;			/* NULL: none */
	char **typed;			/* all arguments, as typed */
};

static const char usage_text[] =
"usage: tunnel [-ijnrvw] [-c path] [-g seconds] [-t seconds] origin\n"
"       tunnel -b [-jnrvw] [-c path] [-g seconds] [-t seconds] origin\n"
"       tunnel [-nrvw] [-c path] [-g seconds] [-t seconds] origin [--]\n"
"              command [argument ...]\n"
"       tunnel -l [-j] [origin ...]\n"
"       tunnel -k origin ... | -ka | -h | -V\n"
"An origin is [scheme://][host:]port[/], such as 8080; a command finds its\n"
"URL in TUNNEL_PUBLIC_URL.\n"
"  -a  with -k: all tunnels               -k  stop the tunnels of origins\n"
"  -b  go to the background with the URL  -l  list the running tunnels\n"
"  -c  the cloudflared to run             -n  print the URL before it works\n"
"  -g  seconds from SIGTERM to SIGKILL    -r  restart when the tunnel dies\n"
"      (3)                                -t  start deadline in seconds (30)\n"
"  -h  show this                          -v  copy cloudflared's log\n"
"  -i  end when standard input ends       -V  show the version\n"
"  -j  print JSON records                 -w  wait for the local server, too\n";

/*
 * What people type who know another program, and what to type here; ":" is
 * for what takes the origin as its argument.
 */
static const struct mistake {
	char typed[14];
	char option[4];
} mistakes[] = {
	{ "stop", "-k" },	{ "kill", "-k" },	{ "all", "-a" },
	{ "down", "-k" },	{ "list", "-l" },	{ "ls", "-l" },
	{ "status", "-l" },	{ "start", "" },	{ "run", "" },
	{ "http", "" },		{ "help", "-h" },	{ "version", "-V" },
	{ "--help", "-h" },	{ "--version", "-V" },
	{ "-p", ":" },		{ "-d", "-b" },		{ "--port", ":" },
	{ "--url", ":" },	{ "--quiet", "" },	{ "--all", "-ka" },
	{ "--background", "-b" },			{ "--daemon", "-b" },
	{ "--detach", "-b" },	{ "--cloudflared", "-c" },
	{ "--grace", "-g" },	{ "--timeout", "-t" },	{ "--json", "-j" },
	{ "--kill", "-k" },	{ "--stop", "-k" },	{ "--list", "-l" },
	{ "--now", "-n" },	{ "--no-wait", "-n" },	{ "--restart", "-r" },
	{ "--retry", "-r" },	{ "--verbose", "-v" },	{ "--debug", "-v" },
	{ "--wait", "-w" },	{ "--input", "-i" },
};

/*
 * Finds a known mistake: --port, --port=8080, -port or -p8080.  Then *value
 * is what is attached to it, or "".
 */
static const struct mistake *
find_mistake(const char *typed, const char **value)
{
	for (size_t i = 0; i < COUNT(mistakes); i++) {
		const char *known = mistakes[i].typed;
		size_t length;

		if (starts_with(known, "--") && !starts_with(typed, "--"))
			known++;
		length = strlen(known);
		if (!starts_with(typed, known))
			continue;
		*value = typed + length + (typed[length] == '=' ? 1 : 0);
		if (typed[length] == '\0' || typed[length] == '=' ||
		    (length == 2 && is_origin(*value)))
			return &mistakes[i];
	}
	return NULL;
}

static const char option_letters[] = ":abc:g:hijklnrt:vVw";

/* The flags that letters set. */
static const struct flag {
	char letter;
	unsigned char offset;
} flag_letters[] = {
	{ 'a', offsetof(struct options, all) },
	{ 'b', offsetof(struct options, background) },
	{ 'i', offsetof(struct options, input) },
	{ 'j', offsetof(struct options, json) },
	{ 'k', offsetof(struct options, kill) },
	{ 'l', offsetof(struct options, list) },
	{ 'n', offsetof(struct options, now) },
	{ 'r', offsetof(struct options, restart) },
	{ 'v', offsetof(struct options, verbose) },
	{ 'w', offsetof(struct options, wait) },
};

/* Notes that an option was given. */
static void
note_letter(struct options *options, int letter)
{
	size_t count = strlen(options->letters);

	for (size_t i = 0; i < COUNT(flag_letters); i++)
		if (flag_letters[i].letter == letter)
			*(bool *)((char *)options + flag_letters[i].offset) =
			    true;
	if (strchr(options->letters, letter) == NULL)
		options->letters[count] = (char)letter;
}

/* What goes together: the letters that each way to use tunnel takes. */
enum use { USE_KILL, USE_LIST, USE_COMMAND, USE_BACKGROUND, USE_ALONE };

static const struct {
	const char *name;
	const char *letters;
} uses[] = {
	[USE_KILL] = { "-k", "ka" },
	[USE_LIST] = { "-l", "lj" },
	[USE_COMMAND] = { "a command", "cgnrtvw" },
	[USE_BACKGROUND] = { "-b", "bcgjnrtvw" },
	[USE_ALONE] = { "an origin alone", "cgijnrtvw" },
};

static enum use
choose_use(const struct options *options)
{
	if (options->kill)
		return USE_KILL;
	if (options->list)
		return USE_LIST;
	if (options->command != NULL)
		return USE_COMMAND;
	return options->background ? USE_BACKGROUND : USE_ALONE;
}

static void
check_combination(const struct options *options)
{
	enum use use = choose_use(options);

	if (options->all && !options->kill)
		refuse("-a goes only with -k");
	if (options->now && options->wait)
		refuse("-n and -w exclude each other");
	for (const char *letter = options->letters; *letter != '\0'; letter++)
		if (strchr(uses[use].letters, *letter) == NULL)
			refuse("-%c doesn't go with %s", *letter,
			    uses[use].name);
}

static bool
is_option(const char *argument)
{
	return argument[0] == '-' && argument[1] != '\0';
}

/* Says what is wrong with an origin, and exits. */
static NORETURN void
refuse_origin(enum origin_fault fault, const char *typed)
{
	/* a word, such as a command's, that has no meaning here */
	if (fault == ORIGIN_NO_PORT && consists_of(typed, NAME_CHARS) &&
	    strcmp(typed, "localhost") != 0)
		fault = ORIGIN_NONE;
	refuse("%s: %s", origin_faults[fault], typed);
}

/* Adds a word to a command line, as a shell has to be given it. */
static void
add_word(char line[MESSAGE_SIZE], const char *word)
{
	bool plain = word[0] != '\0' &&
	    consists_of(word, NAME_CHARS "./:=@%+,[]");

	add_text(line, MESSAGE_SIZE, plain ? " " : " '");
	for (; *word != '\0'; word++) {
		char letter[] = { *word, '\0' };

		/* '\'' is one in quotes */
		add_text(line, MESSAGE_SIZE, *word == '\'' ? "'\\''" : letter);
	}
	add_text(line, MESSAGE_SIZE, plain ? "" : "'");
}

/*
 * Adds an option to a command line, with its argument, which may be attached,
 * and notes its letters.  Returns where the arguments go on.
 */
static char **
add_option(struct options *mended, char line[MESSAGE_SIZE],
    const char *option, const char *attached, char **next)
{
	const char *letter = option + 1;
	bool alone = strlen(letter) == 1;

	/* `tunnel -k stop` says it twice */
	if (alone && strchr(mended->letters, *letter) != NULL &&
	    strchr("cgt", *letter) == NULL)
		return next;
	add_word(line, option);
	do {
		if (*letter == ':' || *letter == '\0' ||
		    strchr(option_letters, *letter) == NULL)
			refuse("unknown option: %s", option);
		note_letter(mended, *letter);
		if (strchr("cgt", *letter) == NULL)
			continue;
		if (letter[1] != '\0')
			break;		/* -t5 */
		if (attached[0] == '\0' && *next == NULL)
			refuse("an argument is missing after %s", next[-1]);
		add_word(line, attached[0] != '\0' ? attached : *next++);
	} while (*++letter != '\0');
	return next;
}

/*
 * Adds an origin, which must be one, but for a path: that is left out, and
 * *path is the word.
 */
static void
add_origin(char line[MESSAGE_SIZE], const char *word, const char **path)
{
	struct origin origin;
	enum origin_fault fault = parse_origin(word, &origin);

	if (fault == ORIGIN_RIGHT) {
		add_word(line, word);
		return;
	}
	if (fault != ORIGIN_PATH)
		refuse_origin(fault, word);
	add_word(line, origin.url);
	*path = word;
}

/* Says what is still wrong, and exits, or adds what is still missing. */
static void
complete(const struct options *mended, char origins[MESSAGE_SIZE])
{
	if (strpbrk(mended->letters, "hV") != NULL)
		return;
	check_combination(mended);
	if (mended->all && origins[0] != '\0')
		refuse("-ka takes no origin:%s", origins);
	if (origins[0] == '\0' && !mended->all && !mended->list)
		add_word(origins, "8080");
}

/*
 * Puts a mistaken command line in order: options, by our letters; origins;
 * the command, which begins with the first word behind the origin that is
 * none, nor an option.  What is still wrong then is told instead, and exits.
 * Returns the origin that had a path, or NULL.
 */
static const char *
mend(char **next, char line[MESSAGE_SIZE])
{
	char origins[MESSAGE_SIZE] = "";
	const char *path = NULL;
	struct options mended;

	memset(&mended, 0, sizeof mended);
	copy_text(line, MESSAGE_SIZE, "tunnel");
	while (*next != NULL) {
		const char *word = *next;
		const char *value = "";
		const struct mistake *mistake = find_mistake(word, &value);
		bool option = word[0] == '-' && strcmp(word, "--") != 0;
		bool other = !option && !is_origin(word);

		if (other && origins[0] != '\0' && !mended.kill &&
		    !mended.list)
			break;
		next++;
		if (mistake != NULL) {
			word = mistake->option;
			option = word[0] == '-';
		}
		if (option)
			next = add_option(&mended, line, word, value, next);
		else if (mistake == NULL && word[0] != '-')
			add_origin(origins, word, &path);
		if (word[0] == ':' && value[0] == '\0' && *next != NULL)
			value = *next++;
		if (value[0] == '\0' || origins[0] != '\0')
			continue;
		/* --port=3000, --stop=3000, but not --grace=5 */
		if (word[0] == ':' ||
		    (strpbrk(word, "cgt") == NULL && is_origin(value)))
			add_origin(origins, value, &path);
	}
	mended.command = *next != NULL ? next : NULL;
	complete(&mended, origins);
	add_text(line, MESSAGE_SIZE, origins);
	for (; *next != NULL; next++)
		add_word(line, *next);
	return path;
}

/* Says what is wrong, or that a path is, and what to type; exits. */
static NORETURN void
refuse_and_advise(const struct options *options, const char *wrong)
{
	char line[MESSAGE_SIZE];
	const char *path = mend(options->typed, line);

	if (path != NULL)
		refuse("%s: %s: type %s", origin_faults[ORIGIN_PATH], path,
		    line);
	refuse("%s: type %s", wrong, line);
}

/* Tells, if it is a known mistake, what to type instead, and exits. */
static void
refuse_mistake(const struct options *options, const char *what,
    const char *typed)
{
	char wrong[MESSAGE_SIZE];
	const char *value;

	if (find_mistake(typed, &value) == NULL)
		return;
	snprintf(wrong, sizeof wrong, "%s: %s", what, typed);
	refuse_and_advise(options, wrong);
}

/* Takes an origin from the arguments, or tells what is wrong with it. */
static void
take_origin(const struct options *options, const char *typed,
    struct origin *origin)
{
	enum origin_fault fault = parse_origin(typed, origin);

	if (fault == ORIGIN_RIGHT)
		return;
	refuse_mistake(options, "not an origin", typed);
	if (fault == ORIGIN_PATH)
		refuse_and_advise(options, origin_faults[fault]);
	refuse_origin(fault, typed);
}

/*
 * Reads decimal seconds, 0 to 86400.  Returns milliseconds, rounded up, or
 * -1 if it is something else.
 */
static long long
parse_seconds(const char *text)
{
	size_t whole = strspn(text, DIGITS);
	long long ms = 0;
	long long unit = 100;

	if (whole < 1 || whole > 9)
		return -1;
	ms = atoll(text) * 1000;
	text += whole;
	if (text[0] == '.') {
		text++;
		if (text[0] == '\0' || !consists_of(text, DIGITS))
			return -1;
		for (; unit > 0 && text[0] != '\0'; text++) {
			ms += (text[0] - '0') * unit;
			unit /= 10;
		}
		if (!consists_of(text, "0"))
			ms++;
		text = "";
	}
	if (text[0] != '\0' || ms > 86400 * 1000)
		return -1;
	return ms;
}

static long long
take_seconds(int letter, const char *text)
{
	long long ms = parse_seconds(text);

	if (ms == -1)
		refuse("-%c takes seconds from 0 to 86400, as 0.5: %s", letter,
		    text);
	return ms;
}

static void
take_option(struct options *options, int letter)
{
	note_letter(options, letter);
	switch (letter) {
	case 'c':
		options->program = optarg;
		break;
	case 'g':
		options->grace_ms = take_seconds(letter, optarg);
		break;
	case 't':
		options->start_ms = take_seconds(letter, optarg);
		options->start_text = optarg;
		break;
	case 'h':
		print(usage_text);
		_exit(EXIT_SUCCESS);
	case 'V':
		print("tunnel " VERSION "\n");
		_exit(EXIT_SUCCESS);
	}
}

/* Tells that there is no such option, in the word that was typed. */
static NORETURN void
refuse_option(const struct options *options, const char *typed,
    const char *option)
{
	refuse_mistake(options, "unknown option", typed);
	refuse("unknown option: %s", option);
}

/* Takes a word that getopt doesn't know: most have a letter here. */
static NORETURN void
take_long_option(struct options *options, const char *typed)
{
	if (strcmp(typed, "--help") == 0)
		take_option(options, 'h');
	if (strcmp(typed, "--version") == 0)
		take_option(options, 'V');
	refuse_option(options, typed, typed);
}

/*
 * getopt(3) is shown options only, so that it can't look for more of them
 * behind the first operand, as some do.
 */
static void
take_options(struct options *options, int argc, char **argv)
{
	options->typed = argv + 1;
	while (optind < argc && is_option(argv[optind])) {
		const char *typed = argv[optind];
		char option[] = { '-', '?', '\0' };
		int letter;

		if (starts_with(typed, "--") && typed[2] != '\0')
			take_long_option(options, typed);
		letter = getopt(argc, argv, option_letters);
		if (letter == -1)
			return;		/* "--" */
		option[1] = (char)optopt;
		if (letter == ':')
			refuse("an argument is missing after %s", option);
		if (letter == '?')
			refuse_option(options, typed, option);
		take_option(options, letter);
	}
}

static const char wrong_order[] = "options go before the origin";

/* Takes the command, which stands behind the origin, perhaps after "--". */
static void
take_command(struct options *options, char **operands)
{
	if (operands[1] == NULL)
		return;
	if (strcmp(operands[1], "--") == 0) {
		operands++;
		if (operands[1] == NULL)
			refuse("a command is missing after --");
	} else if (operands[1][0] == '-') {
		refuse_and_advise(options, wrong_order);
	} else if (is_origin(operands[1])) {
		refuse("one origin a tunnel: type tunnel -b %s; tunnel -b %s",
		    operands[0], operands[1]);
	}
	if (operands[1][0] == '\0')
		refuse("the command has no name");
	options->command = operands + 1;
}

/* Says that there is no origin, and where it may have gone. */
static NORETURN void
refuse_nothing(const struct options *options, char **operands)
{
	if (options->letters[0] != '\0' && operands[-1][0] != '-' &&
	    is_origin(operands[-1]))
		refuse("an origin is missing: %s is the argument of %s",
		    operands[-1], operands[-2]);
	refuse("an origin is missing, such as 8080%s",
	    options->kill ? ", or -a for all" : "");
}

/* Checks the operands, and sets the origin: the first, if there are more. */
static void
take_operands(struct options *options, char **operands, struct origin *origin)
{
	struct origin other;

	if (operands[0] == NULL) {
		check_combination(options);
		if (!options->list && !options->all)
			refuse_nothing(options, operands);
		return;
	}
	if (options->all && options->kill)
		refuse("-ka takes no origin: %s", operands[0]);
	take_origin(options, operands[0], origin);
	if (!options->kill && !options->list) {
		take_command(options, operands);
		check_combination(options);
		return;
	}
	for (size_t i = 1; operands[i] != NULL; i++) {
		if (operands[i][0] == '-')
			refuse_and_advise(options, wrong_order);
		take_origin(options, operands[i], &other);
	}
	check_combination(options);
}

/* ======================================================================
 * What the log says
 *
 * Pure functions over pieces of cloudflared's log: the URL, what became of
 * the connection to Cloudflare's edge, and why it all failed.  The formats
 * are those of cloudflared since 2021, as text and as JSON.
 * ====================================================================== */

/* Whether what is after a text is known: nothing, or not yet. */
enum ending { TEXT_ENDS, TEXT_GOES_ON };

/*
 * Returns the length of the URL at the beginning of a text, or 0.  The end
 * of a text that goes on ends no URL.
 */
static size_t
match_url(const char *text, enum ending ending)
{
	static const char scheme[] = "https://";
	static const char domain[] = "." ZONE;
	const char *label = text + strlen(scheme);
	const char *end;
	size_t length;

	if (strncasecmp(text, scheme, strlen(scheme)) != 0)
		return 0;
	length = strspn(label, DIGITS LETTERS "-");
	if (length < 1 || length > 63)
		return 0;
	if (label[0] == '-' || label[length - 1] == '-')
		return 0;
	/* errors name the service, documents the site */
	if (length == 3 && (strncasecmp(label, "api", 3) == 0 ||
	    strncasecmp(label, "www", 3) == 0))
		return 0;
	end = label + length;
	if (strncasecmp(end, domain, strlen(domain)) != 0)
		return 0;
	end += strlen(domain);
	length = (size_t)(end - text);
	if (end[0] == '.')
		end++;
	if (end[0] == '\0')
		return ending == TEXT_ENDS ? length : 0;
	return strchr(NAME_CHARS, end[0]) == NULL ? length : 0;
}

/* Finds the first URL of a text.  Returns where it is, or NULL. */
static const char *
find_url(const char *text, size_t *length)
{
	for (text = strpbrk(text, "hH"); text != NULL;
	    text = strpbrk(text + 1, "hH")) {
		*length = match_url(text, TEXT_ENDS);
		if (*length > 0)
			return text;
	}
	return NULL;
}

enum level {
	LEVEL_NONE,		/* a bare line: cloudflared's last words */
	LEVEL_DEBUG,		/* may quote anything that a visitor sends */
	LEVEL_INFO,
	LEVEL_ERROR		/* warnings and worse */
};

/* By how they begin, as text and in JSON; any other is an error. */
static const struct {
	char name[6];
	enum level level;
} level_names[] = {
	{ "TRC", LEVEL_DEBUG }, { "trace", LEVEL_DEBUG },
	{ "DBG", LEVEL_DEBUG }, { "debug", LEVEL_DEBUG },
	{ "INF", LEVEL_INFO }, { "info", LEVEL_INFO },
};

static enum level
name_level(const char *name)
{
	for (size_t i = 0; i < COUNT(level_names); i++)
		if (starts_with(name, level_names[i].name))
			return level_names[i].level;
	return LEVEL_ERROR;
}

/*
 * Finds a member of a JSON object, a line that begins with "{".  Returns
 * where its string begins, or NULL.
 */
static const char *
find_member(const char *line, const char *name)
{
	const char *member = find(line, name);

	while (member != NULL && member[-1] == '\\')
		member = find(member + 1, name);
	return member != NULL ? member + strlen(name) : NULL;
}

/* Passes over what colours the log at a terminal, such as ESC [90m. */
static const char *
skip_colour(const char *text)
{
	while (starts_with(text, "\x1b[")) {
		const char *end = text + 2 + strspn(text + 2, DIGITS ";");

		if (*end != 'm')
			break;
		text = end + 1;
	}
	return text;
}

/*
 * Tells how grave a line of the log is and where its message begins.  Text
 * is "TIME LVL message field=value", JSON {"level":"...","message":"..."}.
 */
static const char *
read_level(const char *line, enum level *level)
{
	const char *message;
	const char *name;

	*level = LEVEL_NONE;
	if (line[0] == '{') {
		name = find_member(line, "\"level\":\"");
		message = find_member(line, "\"message\":\"");
		if (name != NULL)
			*level = name_level(name);
		return message != NULL ? message : line + line_length(line);
	}
	line = skip_colour(line);
	message = line;
	if (strspn(line, DIGITS) > 0 && find(line, " ") != NULL)
		message = skip_colour(find(line, " ") + 1);
	if (strspn(message, CAPITALS) != 3 || *skip_colour(message + 3) != ' ')
		return message;
	*level = name_level(message);
	return skip_colour(skip_colour(message + 3) + 1);
}

/*
 * Lines that are no evidence: about a visitor's request, where the fault is
 * the origin's, and about what a quick tunnel does without.
 */
static const char harmless_signs[] =
    "originService|the origin service|ingressRule|dest=|\"dest\":|"
    "Failed to determine the IP|DNS local resolver|update check failed";

/*
 * Looks whether a sign, in which a star stands for anything and which has at
 * most 63 characters, is in a line.
 */
static bool
matches_sign(const char *line, const char *sign)
{
	char part[64];

	while (line != NULL) {
		size_t length = strcspn(sign, "*");

		copy_part(part, sizeof part, sign, length);
		line = find(line, part);
		if (line == NULL || sign[length] == '\0')
			return line != NULL;
		line += length;
		sign += length + 1;
	}
	return false;
}

/* The same of signs between bars. */
static bool
has_sign(const char *line, const char *signs)
{
	char sign[64];

	while (*signs != '\0') {
		size_t length = strcspn(signs, "|");

		copy_part(sign, sizeof sign, signs, length);
		if (matches_sign(line, sign))
			return true;
		signs += length;
		if (*signs == '|')
			signs++;
	}
	return false;
}

/* What a line tells of the connection to Cloudflare's edge. */
enum edge_event {
	EVENT_NONE,		/* nothing */
	EVENT_REGISTERED,	/* it is there */
	EVENT_LOST,		/* it isn't there any more */
	EVENT_RETRYING,		/* cloudflared tries again */
	EVENT_REFUSED,		/* the edge has said no */
	EVENT_UNSERVED,		/* the same, if cloudflared tried again */
	EVENT_UNREACHABLE,	/* the edge doesn't answer */
	EVENT_QUIC_FAILED	/* the edge doesn't answer by UDP */
};

static const struct {
	const char *message;
	enum edge_event event;
} edge_messages[] = {
	{ "Lost connection with the edge", EVENT_LOST },
	{ "Unregistered tunnel connection", EVENT_LOST },
	{ "Retrying connection", EVENT_RETRYING },
	{ "Connection terminated", EVENT_LOST },
	{ "Register tunnel error", EVENT_REFUSED },
	/* what is left of that in QUIC's words */
	{ "Serve tunnel error", EVENT_UNSERVED },
	{ "Unable to establish connection with Cloudflare", EVENT_UNREACHABLE },
	{ "Failed to dial a quic connection", EVENT_QUIC_FAILED },
	{ "Failed to create new quic connection", EVENT_QUIC_FAILED },
};

static const char registered[] = "Registered tunnel connection";

/*
 * It may stand anywhere in a line, as behind what has no newline, but not in
 * the destination of a visitor's request.
 */
static bool
has_registration(const char *line)
{
	const char *found = find(line, registered);
	const char *destination = find(line, "dest");

	if (found == NULL)
		return false;
	return destination == NULL || found < destination;
}

/* Before 2022: Connection 0b3cd2b6-... registered */
static bool
is_old_registration(const char *message)
{
	if (!starts_with(message, "Connection "))
		return false;
	message += strlen("Connection ");
	return starts_with(message + strcspn(message, " \n"), " registered");
}

static enum edge_event
read_edge(const char *line)
{
	enum level level;
	const char *message = read_level(line, &level);

	if (level == LEVEL_DEBUG)
		return EVENT_NONE;
	if (has_registration(line) || is_old_registration(message))
		return EVENT_REGISTERED;
	for (size_t i = 0; i < COUNT(edge_messages); i++) {
		if (!starts_with(message, edge_messages[i].message))
			continue;
		/* other streams fail when a connection is lost */
		if (edge_messages[i].event == EVENT_UNSERVED &&
		    find(line, "control stream") == NULL)
			break;
		return edge_messages[i].event;
	}
	return EVENT_NONE;
}

static const char portal[] = "something answers in Cloudflare's place, a proxy "
    "or a captive portal: log in with a browser; cloudflared needs direct "
    "access";

static const char out_of_reach[] = "Cloudflare's edge is out of reach: is "
    "port 7844 blocked by a firewall, WARP or another Zero Trust policy? QUIC "
    "needs UDP, TUNNEL_TRANSPORT_PROTOCOL=http2 needs TCP; "
    "TUNNEL_EDGE_IP_VERSION=4 may help";

static const char wrong_build[] = "it may be a build for another processor "
    "or libc: get the one for this machine (see uname -m)";

/* How much a sign tells: less is believed if no other line tells more. */
enum weight { WEIGHT_VAGUE, WEIGHT_LIKELY, WEIGHT_SURE };

/*
 * Why cloudflared failed, by its signs in one line of the log; the first row
 * that fits counts.
 */
static const struct hint {
	const char *text;
	const char *signs;
	bool limited;		/* to be tried again after a minute only */
	enum weight weight;
} hints[] = {
	{ "Cloudflare limits the rate of new tunnels: wait some minutes, then "
	    "try again",
	    "error code: 1015|429 Too Many|status_code=\"429|"
	    "\"status_code\":\"429|\"status\":429", true, WEIGHT_SURE },
	{ "a certificate isn't valid at this machine's time: set its clock "
	    "(see date), then try again",
	    "x509: *not yet valid|x509: *expired", false, WEIGHT_SURE },
	{ "the certificate of Cloudflare's service isn't trusted: install "
	    "ca-certificates, or have the proxy or antivirus that opens TLS "
	    "let cloudflared pass",
	    "x509: |failed to verify certificate", false, WEIGHT_SURE },
	{ portal, "status_code=\"511|\"status_code\":\"511", false,
	    WEIGHT_SURE },
	{ "Cloudflare's service has a fault: try again later",
	    "status_code=\"5|\"status_code\":\"5|\"status\":5", false,
	    WEIGHT_SURE },
	{ portal, "proxyconnect|Proxy Authentication Required", false,
	    WEIGHT_SURE },
	{ portal, "invalid character '<'|<html|<!DOCTYPE", false,
	    WEIGHT_LIKELY },
	{ "no way to Cloudflare's edge by IPv6: try "
	    "TUNNEL_EDGE_IP_VERSION=4",
	    "]:7844*network is unreachable|]:7844*no route to host|"
	    "]:7844*cannot assign requested address", false, WEIGHT_SURE },
	{ "no way to Cloudflare's edge by IPv4: check the connection; where "
	    "there is only IPv6 try TUNNEL_EDGE_IP_VERSION=6",
	    ":7844*network is unreachable|:7844*no route to host", false,
	    WEIGHT_SURE },
	{ "no network, or no way to the DNS: check the connection and the "
	    "resolver, then try again",
	    "network is unreachable|no route to host|network is down",
	    false, WEIGHT_SURE },
	{ "the DNS doesn't answer as it should: check the resolver "
	    "(/etc/resolv.conf), then try again",
	    "lookup |no such host|server misbehaving|the DNS query failed|"
	    "Temporary failure in name", false, WEIGHT_SURE },
	{ out_of_reach,
	    "dial a quic connection|create new quic connection|"
	    "dial to edge|:7844|DialContext error|with edge error|"
	    "connection with Cloudflare edge|free edge addresses", false,
	    WEIGHT_SURE },
	{ "Cloudflare's edge answers but doesn't accept the tunnel: try again "
	    "in some minutes",
	    "Register tunnel error|Unauthorized|Serve tunnel error|"
	    "control stream encountered a failure|"
	    "failed to serve tunnel connection|already connected", false,
	    WEIGHT_SURE },
	{ wrong_build, "SIGILL: |can only be run on|this CPU has no|GLIBC_|"
	    "error while loading shared libraries|Exec format error",
	    false, WEIGHT_SURE },
	{ "the address in TUNNEL_METRICS is in use: choose another, or unset "
	    "it", "metrics server*address already in use", false, WEIGHT_SURE },
	{ "Cloudflare's service (api." ZONE ") cannot be reached: try again "
	    "later; a firewall or proxy must let cloudflared out directly, "
	    "and the DNS must work",
	    "failed to request quick Tunnel|"
	    "failed to read quick-tunnel|dial tcp|"
	    "api." ZONE "*i/o timeout|api." ZONE "*EOF|"
	    "api." ZONE "*deadline exceeded|api." ZONE "*reset by peer|"
	    "api." ZONE "*handshake", false, WEIGHT_SURE },
	{ "Cloudflare's answer makes no sense, which is often rate limiting: "
	    "wait some minutes, then try again",
	    "failed to unmarshal*invalid character 'e'", true, WEIGHT_VAGUE },
	{ "Cloudflare's answer makes no sense: try again later",
	    "failed to unmarshal|failed to parse quick Tunnel ID|"
	    "Error unmarshaling", false, WEIGHT_VAGUE },
};

/* What one line tells about a failure, or NULL. */
static const struct hint *
read_hint(const char *line)
{
	enum level level;

	read_level(line, &level);
	if (level == LEVEL_DEBUG || level == LEVEL_INFO ||
	    has_sign(line, harmless_signs))
		return NULL;
	for (size_t i = 0; i < COUNT(hints); i++)
		if (has_sign(line, hints[i].signs))
			return &hints[i];
	return NULL;
}

/*
 * What the end of a log tells about why cloudflared failed, or NULL.  The
 * last sure sign since the last success counts, or the first one of those
 * that tell most: what was overcome is no reason.
 */
static const struct hint *
choose_hint(const char *log)
{
	const struct hint *chosen = NULL;
	const struct hint *before = NULL;	/* at the last stamped line */

	for (const char *line = log; *line != '\0'; line = next_line(line)) {
		const struct hint *hint = read_hint(line);
		enum level level;
		const char *message = read_level(line, &level);

		/* what comes of being told to end is no reason for that */
		if (starts_with(message, "Initiating graceful shutdown"))
			break;
		/* the lines of a page, logged whole, are no words of Go's */
		if (level == LEVEL_NONE && find(line, " error=\"") != NULL)
			chosen = before;
		if (read_edge(line) == EVENT_REGISTERED)
			chosen = NULL;
		else if (hint != NULL && (chosen == NULL ||
		    hint->weight == WEIGHT_SURE ||
		    hint->weight > chosen->weight))
			chosen = hint;
		if (level != LEVEL_NONE)
			before = chosen;
	}
	return chosen;
}

/*
 * Says whether a log is what cloudflared leaves when it can't read a value:
 * nothing, or a page of help, perhaps only its options.  Another program's
 * last words are neither.
 */
static bool
is_no_log(const char *log)
{
	bool help = log[0] == '\0';

	for (const char *line = log; *line != '\0'; line = next_line(line)) {
		enum level level;

		read_level(line, &level);
		if (level != LEVEL_NONE)
			return false;
		help = help || has_sign(line, "Usage|USAGE|  --");
	}
	return help;
}

/* ======================================================================
 * DNS packets
 *
 * Pure functions (RFC 1035): a question is built, an answer is read.  They
 * trust no length and no pointer.  Names are text without the last dot, of
 * letters, digits, hyphens and underscores; other names are no names here.
 * ====================================================================== */

enum {
	DNS_A = 1,
	DNS_NS = 2,
	DNS_CNAME = 5,
	DNS_SOA = 6,
	DNS_AAAA = 28,
	DNS_IN = 1,			/* class */
	DNS_NXDOMAIN = 3,		/* response code */
	DNS_HEADER = 12,		/* bytes */
	DNS_PACKET = 512,		/* bytes, the most without EDNS */
	DNS_NAME_SIZE = 256
};

enum answer_kind {
	ANSWER_NONE,		/* none to our question: wait for another */
	ANSWER_USELESS,		/* it is, but says neither yes nor no */
	ANSWER_YES,		/* there is what was asked for */
	ANSWER_NO		/* there is no such name, or no such data */
};

struct dns_question {
	unsigned id;
	unsigned type;
	bool recursion;		/* wanted: RD */
	const char *name;
};

struct dns_answer {
	bool authoritative;			/* AA */
	bool exists;				/* the name, whatever it has */
	int count;				/* of what was asked for */
	char names[2][DNS_NAME_SIZE];		/* NS: the first two */
	unsigned char address[16];		/* A, AAAA: the first */
};

struct packet {
	const unsigned char *bytes;
	size_t size;
	size_t at;		/* where to read on */
};

static void
put_16(unsigned char *at, unsigned value)
{
	at[0] = (unsigned char)(value >> 8 & 0xff);
	at[1] = (unsigned char)(value & 0xff);
}

static unsigned
get_16(const unsigned char *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

/* Says whether so many bytes are left to read. */
static bool
has_left(const struct packet *packet, size_t size)
{
	return packet->at <= packet->size && packet->size - packet->at >= size;
}

/* Builds a question; a name of DNS_NAME_SIZE has room.  Returns its size. */
static size_t
build_question(unsigned char packet[DNS_PACKET],
    const struct dns_question *question)
{
	const char *name = question->name;
	size_t at = DNS_HEADER;

	memset(packet, 0, DNS_HEADER);
	put_16(packet, question->id);
	packet[2] = question->recursion ? 1 : 0;
	packet[5] = 1;			/* one question */
	while (*name != '\0') {
		size_t length = strcspn(name, ".");

		packet[at++] = (unsigned char)length;
		memcpy(packet + at, name, length);
		at += length;
		name += length;
		if (*name == '.')
			name++;
	}
	packet[at++] = 0;
	put_16(packet + at, question->type);
	put_16(packet + at + 2, DNS_IN);
	return at + 4;
}

/* Adds a label and a dot to a name.  Returns false if it isn't one for us. */
static bool
add_label(char name[DNS_NAME_SIZE], size_t *length,
    const unsigned char *label, size_t size)
{
	char *end = name + *length;

	if (*length + size + 1 >= DNS_NAME_SIZE)
		return false;
	memcpy(end, label, size);
	end[size] = '\0';
	if (strlen(end) != size || !consists_of(end, NAME_CHARS))
		return false;
	end[size] = '.';
	*length += size + 1;
	return true;
}

/*
 * Reads a name, following compression pointers, each of which must lead to
 * before where the last one stood, so that they come to an end.
 */
static bool
read_name(struct packet *packet, char name[DNS_NAME_SIZE])
{
	const unsigned char *bytes = packet->bytes;
	size_t limit = packet->size;
	size_t at = packet->at;
	size_t length = 0;
	bool jumped = false;

	while (at < limit) {
		size_t label = bytes[at++];

		if (label >= 0xc0) {
			size_t pointer = at - 1;

			if (at >= limit)
				return false;
			at = (label & 0x3f) << 8 | bytes[at];
			if (!jumped)
				packet->at = pointer + 2;
			jumped = true;
			limit = pointer;
			continue;
		}
		if (label == 0) {
			if (!jumped)
				packet->at = at;
			name[length > 0 ? length - 1 : 0] = '\0';
			return true;
		}
		if (label > 63 || limit - at < label ||
		    !add_label(name, &length, bytes + at, label))
			return false;
		at += label;
	}
	return false;
}

/*
 * Reads what one record of an answer holds.  Returns false if it is broken;
 * sets *found if it is what was asked for.
 */
static bool
take_data(struct packet *data, unsigned type, unsigned wanted,
    struct dns_answer *answer, bool *found)
{
	size_t left = data->size - data->at;

	if (type == DNS_CNAME && (wanted == DNS_A || wanted == DNS_AAAA))
		*found = true;
	if (type != wanted)
		return true;
	*found = true;
	if (type == DNS_A || type == DNS_AAAA) {
		if (left != (type == DNS_A ? 4 : 16))
			return false;
		if (answer->count == 0)
			memcpy(answer->address, data->bytes + data->at, left);
		answer->count++;
	} else if (type == DNS_NS && answer->count < 2) {
		if (!read_name(data, answer->names[answer->count]))
			return false;
		answer->count++;
	}
	return true;
}

/* Reads one resource record.  Returns false if the packet is broken. */
static bool
take_resource(struct packet *packet, const struct dns_question *question,
    struct dns_answer *answer, bool *found)
{
	const unsigned char *at;
	char owner[DNS_NAME_SIZE];
	struct packet data;
	size_t length;

	/* type, class, time to live (4 bytes), length */
	if (!read_name(packet, owner) || !has_left(packet, 10))
		return false;
	at = packet->bytes + packet->at;
	length = get_16(at + 8);
	packet->at += 10;
	if (!has_left(packet, length))
		return false;
	data = *packet;
	data.size = packet->at + length;
	packet->at += length;
	if (get_16(at + 2) != DNS_IN || !same_name(owner, question->name))
		return true;
	return take_data(&data, get_16(at), question->type, answer, found);
}

/* Says whether a packet is a response to this question, of whatever kind. */
static bool
is_response(struct packet *packet, const struct dns_question *question)
{
	const unsigned char *bytes = packet->bytes;
	char name[DNS_NAME_SIZE];

	if (packet->size < DNS_HEADER || get_16(bytes) != question->id)
		return false;
	/* a response to a query, and one question */
	if ((bytes[2] & 0xf8) != 0x80 || get_16(bytes + 4) != 1)
		return false;
	if (!read_name(packet, name) || !has_left(packet, 4) ||
	    !same_name(name, question->name))
		return false;
	bytes += packet->at;
	packet->at += 4;
	return get_16(bytes) == question->type && get_16(bytes + 2) == DNS_IN;
}

/*
 * Reads an answer.  What isn't a well-formed response to this very question
 * is ANSWER_NONE; what is, but cut short or an error, is ANSWER_USELESS.
 */
static enum answer_kind
read_answer(const unsigned char *bytes, size_t size,
    const struct dns_question *question, struct dns_answer *answer)
{
	struct packet packet = { bytes, size, DNS_HEADER };
	bool found = false;
	unsigned count;
	unsigned code;

	memset(answer, 0, sizeof *answer);
	if (!is_response(&packet, question))
		return ANSWER_NONE;
	answer->authoritative = (bytes[2] & 0x04) != 0;
	code = bytes[3] & 0xf;
	if ((bytes[2] & 0x02) != 0)
		return ANSWER_USELESS;	/* truncated */
	if (code == DNS_NXDOMAIN)
		return ANSWER_NO;
	if (code != 0)
		return ANSWER_USELESS;
	answer->exists = true;
	for (count = get_16(bytes + 6); count > 0; count--)
		if (!take_resource(&packet, question, answer, &found))
			return ANSWER_NONE;
	return found ? ANSWER_YES : ANSWER_NO;
}

/* ======================================================================
 * The name servers
 *
 * Whether the tunnel's name is in the DNS, found out without doing harm: the
 * zone's name servers are looked up through the system's resolvers, each has
 * to prove its authority by the zone's SOA, and only then is it asked for
 * the name.  No resolver ever learns it.  This section owns its sockets, at
 * most one a server, and never waits: the tunnel polls them, and calls
 * names_receive for what has come and names_step for what is due.
 * ====================================================================== */

enum {
	SERVERS = 4,		/* two names, two kinds of address each */
	RESOLVERS = 3,		/* as in resolv.conf(5) */
	DNS_PORT = 53,
	ASK_AGAIN_MS = 1000,	/* the same question, it may be lost */
	ASK_MS = 3000,		/* no answer by then: there is none */
	PUBLISH_MS = 250,	/* between two questions for a new name */
	PUBLISH_MAX_MS = 2000,
	WATCH_MS = 5000,	/* between two questions for an old one */
	SURE = 3		/* so many answers in a row */
};

enum server_stage {
	SERVER_NONE,		/* not known, or no authority */
	SERVER_NAME,		/* its name is looked up: NS of the zone */
	SERVER_ADDRESS,		/* its address is looked up */
	SERVER_PROOF,		/* it is asked for the zone's SOA */
	SERVER_PROVEN		/* it can be asked for anything */
};

struct server {
	enum server_stage stage;
	char name[DNS_NAME_SIZE];
	struct address address;
	unsigned address_type;	/* DNS_A or DNS_AAAA */
	unsigned name_type;	/* what to ask for the tunnel's name */
	bool answers;		/* as far as we know */
	int yes, no;		/* in a row */

	bool asked;		/* a question is open: */
	int fd;			/* its socket; -1: none */
	unsigned id;
	int tries;
	long long asked_ms;
	long long send_ms;	/* when it, or the next one, is due */
	int interval_ms;	/* from one question to the next */
};

struct names {
	bool off;		/* TRYCLOUDFLARE_NS=none */
	struct address named;	/* TRYCLOUDFLARE_NS=address */
	struct address resolvers[RESOLVERS];
	int resolver_count;
	struct server servers[SERVERS];
	char name[URL_SIZE];	/* the tunnel's; "": don't ask for it yet */
	long long voted_ms;	/* when a server last said yes or no */
	int first_ms, most_ms;	/* the interval, and how far it grows */
};

/* Reads TRYCLOUDFLARE_NS, once, into what is zero yet. */
static void
names_configure(struct names *names)
{
	const char *setting = getenv("TRYCLOUDFLARE_NS");
	struct origin server;

	for (int i = 0; i < SERVERS; i++)
		names->servers[i].fd = -1;
	if (is_empty(setting))
		return;
	if (strcmp(setting, "none") == 0)
		names->off = true;
	else if (!parse_ip(setting, DNS_PORT, &names->named) &&
	    (parse_authority(setting, DNS_PORT, &server) != ORIGIN_RIGHT ||
	    same_name(server.host, "localhost") ||
	    (!find_address(&server, AF_INET, &names->named) &&
	    !find_address(&server, AF_INET6, &names->named))))
		refuse("TRYCLOUDFLARE_NS is none or address[:port]: %s",
		    setting);
}

/* Adds a resolver; a link-local address has its interface behind a %. */
static void
add_resolver(struct names *names, char *ip)
{
	struct address *resolver = &names->resolvers[names->resolver_count];
	char *zone = strchr(ip, '%');

	if (zone != NULL)
		*zone++ = '\0';
	if (names->resolver_count == RESOLVERS ||
	    !parse_ip(ip, DNS_PORT, resolver))
		return;
	names->resolver_count++;
	if (zone == NULL)
		return;
	resolver->to.ip6.sin6_scope_id = if_nametoindex(zone);
	if (resolver->to.ip6.sin6_scope_id == 0)
		resolver->to.ip6.sin6_scope_id = (uint32_t)atoll(zone);
}

/* Reads the resolvers of /etc/resolv.conf; if it has none it is this host. */
static void
read_resolvers(struct names *names)
{
	static char here[] = "127.0.0.1";
	char text[16384];
	const char *line;

	read_beginning("/etc/resolv.conf", text, sizeof text);
	names->resolver_count = 0;
	for (line = text; *line != '\0'; line = next_line(line)) {
		const char *value = line + strlen("nameserver");
		char ip[64];

		if (!starts_with(line, "nameserver"))
			continue;
		value += strspn(value, " \t");
		copy_part(ip, sizeof ip, value, strcspn(value, " \t\r\n#;"));
		add_resolver(names, ip);
	}
	if (names->resolver_count == 0)
		add_resolver(names, here);
}

/* A number that nobody can guess, if the system has such. */
static unsigned
random_id(void)
{
	char bytes[3];

	if (read_beginning("/dev/urandom", bytes, sizeof bytes) == 2)
		return get_16((unsigned char *)bytes);
	return (unsigned)now_ms() & 0xffff;
}

static bool
asks_resolver(const struct server *server)
{
	return server->stage == SERVER_NAME ||
	    server->stage == SERVER_ADDRESS;
}

/* What the server is to be asked in its stage. */
static struct dns_question
next_question(const struct names *names, const struct server *server)
{
	struct dns_question question = { server->id, DNS_NS, false, ZONE };

	question.recursion = asks_resolver(server);
	switch (server->stage) {
	case SERVER_ADDRESS:
		question.type = server->address_type;
		question.name = server->name;
		break;
	case SERVER_PROOF:
		question.type = DNS_SOA;
		break;
	case SERVER_PROVEN:
		question.type = server->name_type;
		question.name = names->name;
		break;
	default:
		break;
	}
	return question;
}

/* Opens a socket, and so a new port, to this address. */
static int
open_socket(const struct address *address)
{
	int fd = socket(address->to.any.sa_family, SOCK_DGRAM, 0);

	if (!set_close_on_exec(fd) ||
	    fcntl(fd, F_SETFL, O_NONBLOCK) == -1 ||
	    connect(fd, &address->to.any, address->size) == -1)
		close_fd(&fd);
	return fd;
}

/* Sends the open question, perhaps again, then to another resolver. */
static void
send_question(struct names *names, struct server *server)
{
	struct dns_question question = next_question(names, server);
	const struct address *address = &server->address;
	unsigned char packet[DNS_PACKET];
	size_t size = build_question(packet, &question);

	if (asks_resolver(server)) {
		int count = names->resolver_count;	/* 1 at least */

		address = &names->resolvers[server->tries % count];
		if (count > 1)
			close_fd(&server->fd);
	}
	if (server->fd == -1)
		server->fd = open_socket(address);
	/* where there is no socket it is lost like a packet */
	send(server->fd, packet, size, 0);
	server->tries++;
	server->send_ms = now_ms() + ASK_AGAIN_MS;
}

/* Opens a question.  What has no way to its server is lost like a packet. */
static void
ask(struct names *names, struct server *server)
{
	close_fd(&server->fd);
	server->asked = true;
	server->asked_ms = now_ms();
	server->id = random_id();
	server->tries = 0;
	send_question(names, server);
}

static void
enter_stage(struct names *names, struct server *server,
    enum server_stage stage)
{
	server->stage = stage;
	ask(names, server);
}

/* Closes the question; the next one is due when the interval is over. */
static void
close_question(struct names *names, struct server *server)
{
	close_fd(&server->fd);
	server->asked = false;
	server->send_ms = server->asked_ms + server->interval_ms;
	server->interval_ms += server->interval_ms / 2;
	if (server->interval_ms > names->most_ms)
		server->interval_ms = names->most_ms;
}

/* There is no answer: this server is out of it, or silent for now. */
static void
take_silence(struct names *names, struct server *server)
{
	close_question(names, server);
	server->answers = false;
	if (server->stage != SERVER_PROVEN)
		server->stage = SERVER_NONE;
}

/* A resolver has named the servers: their addresses come next. */
static void
take_servers(struct names *names, const struct dns_answer *answer)
{
	for (int i = 0; i < SERVERS; i++) {
		struct server *server = &names->servers[i];

		close_fd(&server->fd);
		server->asked = false;
		server->stage = SERVER_NONE;
		if (i / 2 >= answer->count)
			continue;
		copy_text(server->name, sizeof server->name,
		    answer->names[i / 2]);
		server->address_type = i % 2 == 0 ? DNS_A : DNS_AAAA;
		enter_stage(names, server, SERVER_ADDRESS);
	}
}

/* A resolver has told a server's address: it has to prove itself. */
static void
take_address(struct names *names, struct server *server,
    const struct dns_answer *answer)
{
	if (answer->count == 0) {
		take_silence(names, server);
		return;
	}
	set_address(&server->address,
	    server->address_type == DNS_A ? AF_INET : AF_INET6,
	    answer->address, DNS_PORT);
	enter_stage(names, server, SERVER_PROOF);
}

/* A server has authority over the zone: it can be asked at once. */
static void
take_proof(struct names *names, struct server *server)
{
	close_question(names, server);
	server->stage = SERVER_PROVEN;
	server->answers = true;
	server->send_ms = now_ms();
	server->interval_ms = names->first_ms;
}

/* A server has said whether the tunnel's name is there. */
static void
take_vote(struct names *names, struct server *server, bool there,
    const struct dns_answer *answer)
{
	names->voted_ms = now_ms();
	server->answers = true;
	server->yes = there ? server->yes + 1 : 0;
	server->no = there ? 0 : server->no + 1;
	if (there && server->yes < SURE)
		server->interval_ms = names->first_ms;
	/* a name may have an address of the other kind only */
	if (!there && answer->exists)
		server->name_type = DNS_A + DNS_AAAA - server->name_type;
	close_question(names, server);
}

/* Takes a yes or no to what was asked in the server's stage. */
static void
take_answer(struct names *names, struct server *server, bool yes,
    const struct dns_answer *answer)
{
	if (server->stage == SERVER_NAME)
		take_servers(names, answer);
	else if (server->stage == SERVER_ADDRESS)
		take_address(names, server, answer);
	else if (!answer->authoritative)
		take_silence(names, server);
	else if (server->stage == SERVER_PROVEN)
		take_vote(names, server, yes, answer);
	else if (yes)
		take_proof(names, server);
	else
		take_silence(names, server);
}

/*
 * That is no answer.  If a resolver can't help the next is asked, if there is
 * one left; what is sought is asked again in its time, from a new port.
 */
static void
take_failure(struct names *names, struct server *server)
{
	if (asks_resolver(server) && server->tries < names->resolver_count)
		send_question(names, server);
	else if (server->stage == SERVER_PROVEN)
		take_silence(names, server);
	else
		close_fd(&server->fd);
}

/* Reads what has come for one server. */
static void
names_receive(struct names *names, struct server *server)
{
	unsigned char packet[DNS_PACKET];
	struct dns_question question = next_question(names, server);
	struct dns_answer answer;
	ssize_t size = recv(server->fd, packet, sizeof packet, 0);

	if (size == -1) {
		if (errno != EAGAIN && errno != EINTR)
			take_failure(names, server);
		return;
	}
	switch (read_answer(packet, (size_t)size, &question, &answer)) {
	case ANSWER_NONE:
		break;
	case ANSWER_USELESS:
		take_failure(names, server);
		break;
	case ANSWER_YES:
		take_answer(names, server, true, &answer);
		break;
	case ANSWER_NO:
		take_answer(names, server, false, &answer);
		break;
	}
}

/* Says whether something is to be asked, or asked again, of a server. */
static bool
is_busy(const struct names *names, const struct server *server)
{
	return server->asked ||
	    (server->stage == SERVER_PROVEN && names->name[0] != '\0');
}

/* Does what is due. */
static void
names_step(struct names *names)
{
	long long now = now_ms();

	for (int i = 0; i < SERVERS; i++) {
		struct server *server = &names->servers[i];

		if (!is_busy(names, server) || now < server->send_ms)
			continue;
		if (!server->asked)
			ask(names, server);
		else if (now >= server->asked_ms + ASK_MS)
			take_silence(names, server);
		else
			send_question(names, server);
	}
}

/* When names_step is due next; 0 if nothing is. */
static long long
names_due(const struct names *names)
{
	long long due = 0;

	for (int i = 0; i < SERVERS; i++) {
		const struct server *server = &names->servers[i];

		if (!is_busy(names, server))
			continue;
		if (due == 0 || server->send_ms < due)
			due = server->send_ms;
	}
	return due;
}

/* Stops asking. */
static void
names_close(struct names *names)
{
	names->name[0] = '\0';
	for (int i = 0; i < SERVERS; i++) {
		struct server *server = &names->servers[i];

		close_fd(&server->fd);
		memset(server, 0, sizeof *server);
		server->fd = -1;
	}
}

/* Finds the servers, anew: since the last time the network may be another. */
static void
names_open(struct names *names)
{
	struct server *first = &names->servers[0];

	names_close(names);
	if (names->off)
		return;
	if (names->named.size > 0) {
		first->address = names->named;
		enter_stage(names, first, SERVER_PROOF);
	} else {
		read_resolvers(names);
		enter_stage(names, first, SERVER_NAME);
	}
}

/* Has the servers asked for a name, each as soon as it is proven. */
static void
names_ask(struct names *names, const char *name, int first_ms, int most_ms)
{
	names->first_ms = first_ms;
	names->most_ms = most_ms;
	copy_text(names->name, sizeof names->name, name);
	for (int i = 0; i < SERVERS; i++) {
		struct server *server = &names->servers[i];

		server->name_type = DNS_A;
		server->interval_ms = first_ms;
	}
}

/* How many servers there are that... */
struct tally {
	int sought;		/* aren't found or proven yet */
	int answering;		/* answer with authority */
	int yes;		/* have the name, by their last answer */
	int sure_yes;		/* and said so often enough */
	int sure_no;		/* don't have it, and said so often enough */
};

static struct tally
names_count(const struct names *names)
{
	struct tally tally = { 0, 0, 0, 0, 0 };

	for (int i = 0; i < SERVERS; i++) {
		const struct server *server = &names->servers[i];

		if (server->stage != SERVER_PROVEN &&
		    server->stage != SERVER_NONE)
			tally.sought++;
		if (!server->answers)
			continue;
		tally.answering++;
		if (server->yes > 0)
			tally.yes++;
		if (server->yes >= SURE)
			tally.sure_yes++;
		if (server->no >= SURE)
			tally.sure_no++;
	}
	return tally;
}

/* ======================================================================
 * Records: who runs, for others to see
 *
 * A record is the file host:port in a directory of the user's own.  Its text
 * says what there is to know of a tunnel; the lock on it says that the
 * tunnel lives, and is the only truth about that.  A tunnel holds one
 * descriptor of its record and opens no other, since closing that would give
 * up the lock.  Records are emptied, never removed.
 * ====================================================================== */

enum record_state {
	RECORD_OVER,		/* no tunnel; perhaps why the last one ended */
	RECORD_STARTING,
	RECORD_UP,
	RECORD_LOST,		/* up, but the edge has no connection */
	RECORD_STOPPING,
	RECORD_STATES		/* no state of this version */
};

static const char *const record_states[] = {
	[RECORD_OVER] = "over",
	[RECORD_STARTING] = "starting",
	[RECORD_UP] = "up",
	[RECORD_LOST] = "lost",
	[RECORD_STOPPING] = "stopping",
};

struct record {
	enum record_state state;
	long long pid;			/* the tunnel */
	long long group;		/* cloudflared's; 0: none */
	long long command;		/* process; 0: none */
	long long grace_ms;
	long long waited;		/* 1: the URL came when it worked */
	char origin[ORIGIN_SIZE];
	char url[URL_SIZE];		/* given out; "": none yet */
	char created[TIME_SIZE];	/* when it was */
	char error[REASON_SIZE];	/* why the last one ended */
	char log[REASON_SIZE];		/* cloudflared's last words then */
};

/*
 * Version and end: what has both is a whole record of this kind.  Behind the
 * end there may be what is left of a longer one for a moment.
 */
static const char record_head[] = "tunnel 2\n";
static const char record_tail[] = "end\n";

/* The lines of a record, behind that of its state: "KEY VALUE". */
static const struct field {
	char key[8];		/* with its NUL */
	size_t offset;
	size_t size;		/* of a text; 0: it is a number */
} fields[] = {
	{ "pid", offsetof(struct record, pid), 0 },
	{ "grace", offsetof(struct record, grace_ms), 0 },
	{ "group", offsetof(struct record, group), 0 },
	{ "command", offsetof(struct record, command), 0 },
	{ "waited", offsetof(struct record, waited), 0 },
	{ "origin", offsetof(struct record, origin), ORIGIN_SIZE },
	{ "url", offsetof(struct record, url), URL_SIZE },
	{ "created", offsetof(struct record, created), TIME_SIZE },
	{ "error", offsetof(struct record, error), REASON_SIZE },
	{ "log", offsetof(struct record, log), REASON_SIZE },
};

/* Writes a record as text.  Returns its length. */
static size_t
format_record(const struct record *record, char text[RECORD_SIZE])
{
	const char *base = (const char *)record;
	char *at = text;
	char *end = text + RECORD_SIZE;

	if (record->state == RECORD_OVER && record->error[0] == '\0')
		return 0;
	at += snprintf(at, RECORD_SIZE, "%sstate %s\n", record_head,
	    record_states[record->state]);
	for (size_t i = 0; i < COUNT(fields); i++) {
		const void *value = base + fields[i].offset;

		if (fields[i].size > 0)
			at += snprintf(at, (size_t)(end - at), "%s %s\n",
			    fields[i].key, (const char *)value);
		else
			at += snprintf(at, (size_t)(end - at), "%s %lld\n",
			    fields[i].key, *(const long long *)value);
	}
	at += snprintf(at, (size_t)(end - at), "%s", record_tail);
	return (size_t)(at - text);
}

/* Reads a number from 0 on.  Returns -1 if it is none. */
static long long
parse_number(const char *text)
{
	if (text[0] == '\0' || strlen(text) > 10 || !consists_of(text, DIGITS))
		return -1;
	return atoll(text);
}

static enum record_state
parse_state(const char *name)
{
	for (size_t i = 0; i < COUNT(record_states); i++)
		if (strcmp(name, record_states[i]) == 0)
			return (enum record_state)i;
	return RECORD_STATES;
}

/* Takes one line of a record.  A key that isn't known is passed over. */
static void
take_line(struct record *record, const char *key, const char *value)
{
	if (strcmp(key, "state") == 0)
		record->state = parse_state(value);
	for (size_t i = 0; i < COUNT(fields); i++) {
		void *field = (char *)record + fields[i].offset;

		if (strcmp(key, fields[i].key) != 0)
			continue;
		if (fields[i].size > 0)
			copy_text(field, fields[i].size, value);
		else
			*(long long *)field = parse_number(value);
	}
}

static bool
is_process_or_none(long long number)
{
	return number == 0 || (number > 1 && number <= INT_MAX);
}

/* Says whether we could have written it: others' words aren't passed on. */
static bool
is_sound(struct record *record)
{
	struct origin origin;

	if (record->pid < 1 || record->pid > INT_MAX ||
	    record->state == RECORD_STATES)
		return false;
	if (!is_process_or_none(record->group) ||
	    !is_process_or_none(record->command))
		return false;
	if (record->grace_ms < 0 || record->grace_ms > 86400 * 1000)
		return false;
	if (parse_origin(record->origin, &origin) != ORIGIN_RIGHT ||
	    strcmp(origin.url, record->origin) != 0)
		return false;
	if (match_url(record->url, TEXT_ENDS) != strlen(record->url))
		return false;
	return consists_of(record->created, DIGITS "-:TZ");
}

/*
 * Reads a record's text, which it takes apart.  Returns false, and an empty
 * record, if that isn't one: of another version, half written, forged.
 */
static bool
parse_record(char *text, struct record *record)
{
	char *line = text + strlen(record_head);

	memset(record, 0, sizeof *record);
	if (!starts_with(text, record_head))
		return false;
	while (!starts_with(line, record_tail)) {
		char *end = line + strcspn(line, "\n");
		char *value = line + strcspn(line, " \n");

		if (*end == '\0' || *value != ' ')
			break;
		*end = '\0';
		*value = '\0';
		take_line(record, line, value + 1);
		line = end + 1;
	}
	if (starts_with(line, record_tail) && is_sound(record))
		return true;
	memset(record, 0, sizeof *record);
	return false;
}

/* What a look at somebody's record finds. */
enum look_kind {
	LOOK_ABSENT,		/* there is none */
	LOOK_FREE,		/* nobody holds it; of the rest somebody may */
	LOOK_HELD,		/* process `holder` does */
	LOOK_HELD_UNNAMED,	/* one in another PID namespace does */
	LOOK_UNKNOWN		/* `error` says why that can't be told */
};

struct look {
	enum look_kind kind;
	pid_t holder;		/* unnamed: as the record has it, or 0 */
	int error;		/* with LOOK_UNKNOWN */
	struct record record;	/* empty if it can't be read or trusted */
};

/* The whole file, so that earlier versions' locks of single bytes count. */
static struct flock
whole_file(short type)
{
	struct flock lock;

	memset(&lock, 0, sizeof lock);
	lock.l_type = type;
	lock.l_whence = SEEK_SET;
	return lock;
}

/*
 * Opens a record, which must be a file of ours.  Returns -1 with errno,
 * EINVAL if it is something else.
 */
static int
open_record(int directory, const char *name, int flags)
{
	struct stat file;
	int fd = openat(directory, name, flags | O_NOFOLLOW | O_NONBLOCK |
	    O_CLOEXEC, S_IRUSR | S_IWUSR);

	if (fd == -1)
		return -1;
	if (fstat(fd, &file) == 0 && S_ISREG(file.st_mode) &&
	    file.st_uid == geteuid())
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

/* Says what an errno tells about a record that can't be used. */
static const char *
describe_fault(int error)
{
	switch (error) {
	case EINVAL:
	case EISDIR:
	case ENXIO:
		return "its record is no file of yours";
	case ELOOP:
	case EMLINK:
		return "its record is a link, or has one";
	default:
		return strerror(error);
	}
}

/* Reads an open record, again if it is just being written. */
static void
read_record(int fd, struct record *record)
{
	char text[RECORD_SIZE];

	for (int i = 0; i < 5; i++) {
		ssize_t size = pread(fd, text, sizeof text - 1, 0);

		text[size > 0 ? size : 0] = '\0';
		if (parse_record(text, record) ||
		    !starts_with(text, record_head))
			return;
		sleep_ms(2);
	}
}

/*
 * Looks at an open record: who holds it, and what it says.  The look has to
 * be all zeros before.
 */
static void
look_at_fd(int fd, struct look *look)
{
	struct flock lock = whole_file(F_WRLCK);

	if (fcntl(fd, F_GETLK, &lock) == -1) {
		look->kind = LOOK_UNKNOWN;
		look->error = errno;
		return;
	}
	read_record(fd, &look->record);
	look->kind = LOOK_FREE;
	if (lock.l_type == F_UNLCK)
		return;
	look->kind = LOOK_HELD_UNNAMED;
	look->holder = (pid_t)look->record.pid;
	if (lock.l_pid <= 0)
		return;
	look->kind = LOOK_HELD;
	look->holder = lock.l_pid;
	/* only what the holder wrote is of interest */
	if (look->record.pid != lock.l_pid)
		memset(&look->record, 0, sizeof look->record);
	else if (look->record.state == RECORD_OVER)
		look->record.state = RECORD_STOPPING;	/* just leaving */
}

/* Looks at a record by its name.  A directory of -1 has none. */
static void
look_at(int directory, const char *name, struct look *look)
{
	int fd = -1;

	memset(look, 0, sizeof *look);
	look->kind = LOOK_ABSENT;
	if (directory == -1)
		return;
	fd = open_record(directory, name, O_RDONLY);
	if (fd == -1 && errno == ENOENT)
		return;
	if (fd == -1) {
		look->kind = LOOK_UNKNOWN;
		look->error = errno;
		return;
	}
	look_at_fd(fd, look);
	close(fd);
}

static bool
is_held(const struct look *look)
{
	return look->kind == LOOK_HELD || look->kind == LOOK_HELD_UNNAMED;
}

/* Says whether it is a tunnel that others may have the URL of. */
static bool
is_listed(const struct look *look)
{
	return is_held(look) && look->record.url[0] != '\0' &&
	    look->record.state != RECORD_STOPPING;
}

static bool
is_own_directory(const char *path)
{
	struct stat file;

	return stat(path, &file) == 0 && S_ISDIR(file.st_mode) &&
	    file.st_uid == geteuid();
}

/* Names the directory of the records, which may not exist. */
static void
name_directory(char path[PATH_SIZE])
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	const char *temporary = getenv("TMPDIR");

	if (!is_empty(runtime) && is_own_directory(runtime)) {
		snprintf(path, PATH_SIZE, "%s/tunnel", runtime);
		return;
	}
	if (is_empty(temporary))
		temporary = "/tmp";
	snprintf(path, PATH_SIZE, "%s/tunnel-%ld", temporary,
	    (long)geteuid());
}

/*
 * Says why a directory isn't one for records, or returns NULL if it is.  If
 * it is -1, errno tells why path couldn't be opened.
 */
static const char *
check_directory(int directory, const char *path)
{
	struct stat file;
	int error = errno;

	if (directory == -1 && lstat(path, &file) == 0 &&
	    !S_ISDIR(file.st_mode))
		return "it must be a directory, and no link";
	if (directory == -1)
		return strerror(error);
	if (fstat(directory, &file) == -1)
		return strerror(errno);
	if (file.st_uid != geteuid() || (file.st_mode & 0777) != 0700)
		return "it must be yours, with mode 0700";
	return NULL;
}

/* Says whether the directory that something would be in is there. */
static bool
has_parent(const char *path)
{
	char parent[PATH_SIZE];

	copy_part(parent, sizeof parent, path,
	    (size_t)(strrchr(path, '/') - path));
	return access(parent, F_OK) == 0;
}

/* To keep a record a directory is made; to look at one it isn't. */
enum need { TO_KEEP, TO_LOOK };

/*
 * Opens the directory of the records, after making it if need be.  Returns
 * -1 if it isn't there, with errno ENOENT, or can't be used, which is said:
 * where it couldn't be made no tunnel has a record.
 */
static int
open_directory(enum need need, const char *severity)
{
	char path[PATH_SIZE];
	const char *fault;
	int directory;
	int made = ENOENT;

	name_directory(path);
	if (need == TO_KEEP && mkdir(path, 0700) == 0)
		chmod(path, 0700);	/* whatever the umask is */
	else if (need == TO_KEEP)
		made = errno;
	directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
	    O_CLOEXEC);
	if (directory == -1 && errno == ENOENT) {
		if (need == TO_LOOK && has_parent(path))
			return -1;
		errno = made;		/* why it isn't there */
	}
	fault = check_directory(directory, path);
	if (fault == NULL)
		return directory;
	close_fd(&directory);
	say("%scannot keep records in %s: %s (or set XDG_RUNTIME_DIR or "
	    "TMPDIR to a directory of yours)", severity, path, fault);
	errno = EINVAL;
	return -1;
}

/* Those who look at a tunnel are told two states; "-n" is up at once. */
static const char *
shown_state(const struct record *record)
{
	return record->state == RECORD_LOST ? "lost" : "up";
}

/* Writes a tunnel as one line of JSON. */
static void
format_json(const struct record *record, const struct origin *origin,
    char *text, size_t size)
{
	unsigned long id = 2166136261UL;	/* FNV-1a, 32 bits */

	for (const char *c = record->url; *c != '\0'; c++)
		id = ((id ^ (unsigned char)*c) * 16777619UL) & 0xffffffffUL;
	snprintf(text, size, "{\"id\":\"quick-%08lx\",\"origin\":\"%s\","
	    "\"port\":%d,\"url\":\"%s\",\"hostname\":\"%s\","
	    "\"createdAt\":\"%s\",\"pid\":%lld,\"state\":\"%s\"}\n",
	    id, record->origin, origin->port, record->url,
	    record->url + strlen("https://"), record->created, record->pid,
	    shown_state(record));
}

/* Writes what is printed of a running tunnel: JSON, a list line, the URL. */
static void
format_result(const struct options *options, const struct record *record,
    const struct origin *origin, char *text, size_t size)
{
	if (options->json)
		format_json(record, origin, text, size);
	else if (options->list)
		snprintf(text, size, "%s\t%s\t%lld\t%s\t%s\n", origin->name,
		    record->url, record->pid, record->created,
		    shown_state(record));
	else
		snprintf(text, size, "%s\n", record->url);
}

/* ======================================================================
 * Programs: cloudflared and the command
 *
 * Where they are, why they can't be run, and what surrounds them when they
 * are.  Children get here between fork and exec; only they change the
 * environment or their signals' actions.
 * ====================================================================== */

/* Where cloudflared may be beside PATH; and its configuration. */
static const char *const program_directories[] = {
	"~/.local/bin", "~/bin", "/usr/local/bin", "/opt/homebrew/bin",
	"/home/linuxbrew/.linuxbrew/bin", "/usr/bin", "/snap/bin",
};

static const char *const config_files[] = {
	"~/.cloudflared/config.yml", "~/.cloudflared/config.yaml",
	"~/.cloudflare-warp/config.yml", "~/.cloudflare-warp/config.yaml",
	"~/cloudflare-warp/config.yml", "~/cloudflare-warp/config.yaml",
	"/etc/cloudflared/config.yml", "/etc/cloudflared/config.yaml",
	"/usr/local/etc/cloudflared/config.yml",
	"/usr/local/etc/cloudflared/config.yaml",
};

/* These make something else of a quick tunnel, whatever their value. */
static const char *const variables_out[] = {
	"TUNNEL_NAME", "TUNNEL_HELLO_WORLD", "TUNNEL_BASTION",
};

/* These are set unless the user has. */
static char variables_in[][32] = {
	"NO_AUTOUPDATE=true",		/* an update would end the tunnel */
	"TUNNEL_NO_PRECHECKS=true",	/* 22 lines that tell nothing */
};

/* How many variables a child adds at most. */
enum { NEW_VARIABLES = 8 };

/* These end the start if they are empty, and tune it otherwise. */
static const char *const variables_not_empty[] = {
	"TUNNEL_TRANSPORT_PROTOCOL", "TUNNEL_EDGE_IP_VERSION",
};

/* Levels of its log that show the URL; an empty one hides all. */
static const char *const loud_levels[] = {
	"info", "debug", "trace",
};

/*
 * Writes a path of two parts, in which a leading ~ is HOME.  Returns false if
 * it is too long, or without HOME.
 */
static bool
expand_path(char path[PATH_SIZE], const char *first, const char *second)
{
	const char *home = getenv("HOME");

	if (first[0] != '~')
		home = "";
	else if (is_empty(home))
		return false;
	else
		first++;
	return snprintf(path, PATH_SIZE, "%s%s%s", home, first, second) <
	    PATH_SIZE;
}

/* What a place has; the later the better. */
enum found { FOUND_NOT, FOUND_UNUSABLE, FOUND };

/* Looks whether a path is that of a program. */
static enum found
look_for_program(const char *path)
{
	struct stat file;

	if (stat(path, &file) == -1 || S_ISDIR(file.st_mode))
		return FOUND_NOT;
	if (!S_ISREG(file.st_mode) || access(path, X_OK) == -1)
		return FOUND_UNUSABLE;
	return FOUND;
}

/*
 * Looks for a program along PATH.  One that can't be used is passed over,
 * and is in path if nothing better is found.
 */
static enum found
look_along_path(const char *name, char path[PATH_SIZE])
{
	const char *directories = getenv("PATH");
	char candidate[PATH_SIZE];
	enum found best = FOUND_NOT;

	if (directories == NULL)
		directories = "/usr/bin:/bin";	/* as env(1) does */
	while (directories != NULL && best != FOUND) {
		int length = (int)strcspn(directories, ":");
		enum found found = FOUND_NOT;

		/* "" is the current directory, and ~ only a name */
		if (snprintf(candidate, PATH_SIZE, "%.*s%s%s", length,
		    directories, length > 0 ? "/" : "", name) < PATH_SIZE)
			found = look_for_program(candidate);
		if (found > best) {
			best = found;
			memcpy(path, candidate, PATH_SIZE);
		}
		directories = strchr(directories, ':');
		if (directories != NULL)
			directories++;
	}
	return best;
}

/* Files that people take for a program, by how they begin. */
static const char an_archive[] = "an archive, not a program: unpack it";
static const char a_package[] = "a package, not a program: install it";
static const char for_other[] = "a program for another machine: get the one "
    "for this (see uname -sm)";

static const struct {
	char head[7];
	unsigned char size;
	const char *what;
} file_kinds[] = {
	{ "\x1f\x8b", 2, an_archive },		/* gzip */
	{ "PK\x03\x04", 4, an_archive },	/* zip */
	{ "BZh", 3, an_archive },
	{ "\xfd" "7zXZ", 5, an_archive },
	{ "\x28\xb5\x2f\xfd", 4, an_archive },	/* zstd */
	{ "7z\xbc\xaf", 4, an_archive },
	{ "!<arch", 6, a_package },		/* Debian */
	{ "\xed\xab\xee\xdb", 4, a_package },	/* RPM */
	{ "xar!", 4, a_package },		/* macOS */
	{ "\x7f" "ELF", 4, for_other },
	{ "MZ", 2, for_other },			/* Windows */
	{ "\xcf\xfa\xed\xfe", 4, for_other },	/* macOS */
	{ "\xca\xfe\xba\xbe", 4, for_other },
	{ "<", 1, "a web page, not a program: download it again" },
};

enum {
	HEAD_SIZE = 512,	/* of a file: enough to know it by */
	TAR_AT = 257		/* where a tar tells what it is */
};

/* What a file is that can't be executed. */
static const char *
describe_file(const unsigned char *head, size_t size)
{
	if (size == 0)
		return "an empty file: download it again";
	for (size_t i = 0; i < COUNT(file_kinds); i++)
		if (size >= file_kinds[i].size &&
		    memcmp(head, file_kinds[i].head, file_kinds[i].size) == 0)
			return file_kinds[i].what;
	if (size > TAR_AT + 5 && memcmp(head + TAR_AT, "ustar", 5) == 0)
		return an_archive;
	return "not a program: download it again";
}

/*
 * Cuts the beginning of a script down to its interpreter, which stands after
 * "#!".  Returns false if there is none.
 */
static bool
cut_to_interpreter(char *head)
{
	size_t length;

	if (!starts_with(head, "#!"))
		return false;
	head[strcspn(head, "\n")] = '\0';
	length = strspn(head + 2, " \t");
	memmove(head, head + 2 + length, strlen(head + 2 + length) + 1);
	head[strcspn(head, " \t")] = '\0';
	return head[0] != '\0';
}

/*
 * Says why a program that is there can't be run, with what to do, if more is
 * known than the error that exec gave.
 */
static void
explain_program(const char *path, int error, char *text, size_t size)
{
	char head[HEAD_SIZE];
	ssize_t got = read_beginning(path, head, sizeof head);

	if (error == EACCES)
		snprintf(text, size, "%s (is it executable? chmod +x; or is "
		    "its file system mounted noexec?)", strerror(error));
	if (got < 0)
		return;
	if (error == EACCES && access(path, X_OK) == 0 &&
	    cut_to_interpreter(head) && access(head, X_OK) == -1)
		snprintf(text, size, "%s: its interpreter %s cannot be "
		    "executed", strerror(error), head);
	if (error == ENOENT && cut_to_interpreter(head)) {
		size_t length = strlen(head);
		bool carriage = head[length - 1] == '\r';

		if (carriage)
			head[length - 1] = '\0';
		snprintf(text, size, "its interpreter %s is missing%s", head,
		    carriage ? " (the line ends with CR: convert the file)" :
		    "");
	} else if (error == ENOENT) {
		snprintf(text, size, "its loader (interpreter) is missing: "
		    "get a build for this libc, or a static one");
	} else if (error == ENOEXEC) {
		snprintf(text, size, "%s: it is %s", strerror(error),
		    describe_file((unsigned char *)head, (size_t)got));
	}
}

/* Says in a text that and why a program can't be run.  Returns the status. */
static int
explain_failure(const char *path, int error, char why[MESSAGE_SIZE])
{
	char reason[REASON_SIZE];
	bool there = access(path, F_OK) == 0;

	copy_text(reason, sizeof reason, strerror(error));
	if (there)
		explain_program(path, error, reason, sizeof reason);
	snprintf(why, MESSAGE_SIZE, "cannot run %s: %s", path, reason);
	if (!there && (error == ENOENT || error == ENOTDIR))
		return EXIT_NOT_FOUND;
	return EXIT_CANNOT_RUN;
}

/* Says whether a program that is there could be executed, as far as known. */
static int
check_program(const char *path)
{
	struct stat file;
	char head[HEAD_SIZE];

	if (stat(path, &file) == -1)
		return errno;
	if (S_ISDIR(file.st_mode))
		return EISDIR;
	if (!S_ISREG(file.st_mode) || access(path, X_OK) == -1)
		return EACCES;
	/* it needn't be readable */
	read_beginning(path, head, sizeof head);
	if (cut_to_interpreter(head) && access(head, F_OK) == -1 &&
	    !has_other_interpreters())
		return ENOENT;
	return 0;
}

/*
 * Finds the directory that our own executable is in, where an application
 * may have bundled a cloudflared.
 */
static bool
find_own_directory(const char *self, char path[PATH_SIZE])
{
	char found[PATH_SIZE];

	if (strchr(self, '/') == NULL &&
	    look_along_path(self, found) == FOUND)
		self = found;
	find_executable(self, path, PATH_SIZE);
	if (strchr(path, '/') == NULL)
		return false;
	strrchr(path, '/')[0] = '\0';
	return true;
}

/* Looks for cloudflared in one directory more; the best that is found stays. */
static enum found
look_there_too(enum found best, const char *directory, char path[PATH_SIZE])
{
	char candidate[PATH_SIZE];
	enum found found;

	if (best == FOUND ||
	    !expand_path(candidate, directory, "/cloudflared"))
		return best;
	found = look_for_program(candidate);
	if (found <= best)
		return best;
	memcpy(path, candidate, PATH_SIZE);
	return found;
}

/* Looks for cloudflared in all places but those that the user names. */
static enum found
search_cloudflared(const char *self, char path[PATH_SIZE])
{
	char own[PATH_SIZE];
	enum found best = look_along_path("cloudflared", path);

	if (best != FOUND && find_own_directory(self, own))
		best = look_there_too(best, own, path);
	for (size_t i = 0; i < COUNT(program_directories); i++)
		best = look_there_too(best, program_directories[i], path);
	return best;
}

/* Makes a path absolute, since -b goes to another directory. */
static bool
make_absolute(char path[PATH_SIZE])
{
	char relative[PATH_SIZE];
	size_t length;

	if (path[0] == '/')
		return true;
	memcpy(relative, path, PATH_SIZE);
	if (getcwd(path, PATH_SIZE) == NULL)
		return false;
	length = strlen(path);
	return snprintf(path + length, PATH_SIZE - length, "/%s", relative) <
	    (int)(PATH_SIZE - length);
}

/*
 * Finds the cloudflared to run: the one that was named, and no other; else
 * by looking for it.  Returns 0, or the exit status and why in a text.
 */
static int
find_cloudflared(const struct options *options, const char *self,
    char path[PATH_SIZE], char why[MESSAGE_SIZE])
{
	const char *named = options->program;
	enum found found;
	int error = 0;

	if (named == NULL && !is_empty(getenv("CLOUDFLARED")))
		named = getenv("CLOUDFLARED");
	if (named != NULL) {
		if (named[0] == '\0')
			error = ENOENT;
		else if (snprintf(path, PATH_SIZE, "%s", named) >= PATH_SIZE)
			error = ENAMETOOLONG;
		else if (!make_absolute(path))
			error = errno;
		else
			error = check_program(path);
		return error == 0 ? 0 : explain_failure(named, error, why);
	}
	found = search_cloudflared(self, path);
	if (found == FOUND)
		return make_absolute(path) ? 0 :
		    explain_failure(path, errno, why);
	if (found == FOUND_UNUSABLE)
		snprintf(why, MESSAGE_SIZE, "cloudflared is there, but not "
		    "executable: chmod +x %s (or is its file system mounted "
		    "noexec?)", path);
	else
		snprintf(why, MESSAGE_SIZE, "cloudflared is not installed: "
		    "get it from https://github.com/cloudflare/cloudflared/"
		    "releases, or name it with -c");
	return EXIT_NOT_FOUND;
}

/* Looks a command up before anything is started for it.  Returns as above. */
static int
find_command(const char *name, char path[PATH_SIZE], char why[MESSAGE_SIZE])
{
	int error;

	if (strchr(name, '/') != NULL) {
		if (snprintf(path, PATH_SIZE, "%s", name) >= PATH_SIZE)
			return explain_failure(name, ENAMETOOLONG, why);
	} else if (look_along_path(name, path) == FOUND_NOT) {
		snprintf(why, MESSAGE_SIZE, "cannot run %s: not found in "
		    "PATH", name);
		return EXIT_NOT_FOUND;
	}
	error = check_program(path);
	return error == 0 ? 0 : explain_failure(path, error, why);
}

/*
 * In a child the environment is an array of its own, with room to add some.
 * setenv(3) would do, and bring along an allocator to match.
 */
static size_t
count_variables(void)
{
	size_t count = 0;

	while (environ[count] != NULL)
		count++;
	return count;
}

static bool
is_variable(const char *variable, const char *name)
{
	size_t length = strcspn(name, "=");

	return strncmp(variable, name, length) == 0 && variable[length] == '=';
}

/* Takes a variable out, however often it is there. */
static void
unset_variable(const char *name)
{
	char **to = environ;

	for (char **from = environ; *from != NULL; from++)
		if (!is_variable(*from, name))
			*to++ = *from;
	*to = NULL;
}

/* Sets a variable, NAME=VALUE. */
static void
set_variable(char *variable)
{
	size_t count;

	unset_variable(variable);
	count = count_variables();
	environ[count] = variable;
	environ[count + 1] = NULL;
}

/* The same, unless the user has set it to something. */
static void
set_unless_set(char *variable)
{
	size_t name = strcspn(variable, "=");

	for (char **other = environ; *other != NULL; other++)
		if (is_variable(*other, variable) && (*other)[name + 1] != '\0')
			return;
	set_variable(variable);
}

/*
 * cloudflared should end before we kill it: half a second earlier, or after
 * half the time.  Three minutes are the most it takes.
 */
static void
format_grace(char *text, size_t size, long long grace_ms)
{
	long long ms = grace_ms - 500;
	size_t end;

	if (ms < grace_ms / 2)
		ms = grace_ms / 2;
	if (ms > 180 * 1000)
		ms = 180 * 1000;
	snprintf(text, size, "TUNNEL_GRACE_PERIOD=%lld.%03lld", ms / 1000,
	    ms % 1000);
	end = strlen(text);
	while (text[end - 1] == '0')
		end--;
	if (text[end - 1] == '.')
		end--;
	snprintf(text + end, size - end, "s");
}

/* Changes the environment to that of cloudflared, in the child. */
static void
set_environment(long long grace_ms, bool http2)
{
	static char protocol[] = "TUNNEL_TRANSPORT_PROTOCOL=http2";
	static char info[] = "TUNNEL_LOGLEVEL=info";
	static char grace[64];
	const char *level = getenv("TUNNEL_LOGLEVEL");

	for (size_t i = 0; i < COUNT(variables_out); i++)
		unset_variable(variables_out[i]);
	for (size_t i = 0; i < COUNT(variables_not_empty); i++)
		if (is_empty(getenv(variables_not_empty[i])))
			unset_variable(variables_not_empty[i]);
	for (size_t i = 0; i < COUNT(variables_in); i++)
		set_unless_set(variables_in[i]);
	format_grace(grace, sizeof grace, grace_ms);
	set_unless_set(grace);
	if (http2)
		set_unless_set(protocol);
	for (size_t i = 0; level != NULL && i < COUNT(loud_levels); i++)
		if (same_name(level, loud_levels[i]))
			level = NULL;
	if (level != NULL)
		set_variable(info);
}

/*
 * Says whether cloudflared would load a configuration, whose rules would win
 * over ours: any kind of file; and without HOME it asks elsewhere for one.
 */
static bool
has_config(void)
{
	char path[PATH_SIZE];
	struct stat file;

	if (is_empty(getenv("HOME")))
		return true;
	for (size_t i = 0; i < COUNT(config_files); i++)
		if (expand_path(path, config_files[i], "") &&
		    stat(path, &file) == 0)
			return true;
	return false;
}

/* ======================================================================
 * The log window
 *
 * The end of cloudflared's log, in a buffer of fixed size: what is read is
 * looked through at once and then forgotten, but for the last lines, which
 * tell why cloudflared ended.  This section owns the reading end of the pipe.
 * ====================================================================== */

enum {
	LOG_TAIL = 8192,	/* bytes that are kept */
	LOG_READ = 65536,	/* bytes that a read takes */
	READS = 16,		/* reads until signals get a turn */
	FLOOD = 16,		/* full reads in a row make one */
	LAST_READS = 256,	/* after its end: others may write on */
	LAST_LINES = 10		/* that are shown when cloudflared fails */
};

struct log {
	int fd;			/* -1: closed */
	size_t length;
	size_t shown;		/* -v has shown what is before */
	size_t scanned;		/* whole lines before it have been read */
	enum level level;	/* of the line there, by its beginning */
	bool cut;		/* it has lost that */
	bool trimmed;		/* so has the first line of text */
	unsigned flood;		/* reads in a row that were full */
	unsigned long lost;	/* lines that -v could not show */
	char text[LOG_TAIL + LOG_READ + 1];
};

static void
log_open(struct log *log, int fd)
{
	log->fd = fd;
	log->length = 0;
	log->shown = 0;
	log->scanned = 0;
	log->cut = false;
	log->level = LEVEL_NONE;
	log->trimmed = false;
	log->flood = 0;
	log->lost = 0;
	log->text[0] = '\0';
}

/*
 * Reads what is there; bytes that would end a string are replaced.  Returns
 * whether something was, and how much: 0 is the end, which is closed.
 */
static bool
log_read(struct log *log, size_t *read_size)
{
	char *fresh = log->text + log->length;
	ssize_t size;

	*read_size = 0;
	if (log->fd == -1)
		return false;
	size = read(log->fd, fresh, LOG_READ);
	if (size == -1 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (size <= 0) {
		close_fd(&log->fd);
		return true;
	}
	for (char *end = fresh + size; fresh < end; fresh++) {
		fresh = memchr(fresh, '\0', (size_t)(end - fresh));
		if (fresh == NULL)
			break;
		*fresh = '?';
	}
	log->flood = size == LOG_READ ? log->flood + 1 : 0;
	*read_size = (size_t)size;
	log->length += *read_size;
	log->text[log->length] = '\0';
	return true;
}

/* Moves a place in the text as far back as the text is moved. */
static void
move_back(size_t *place, size_t bytes)
{
	*place = *place > bytes ? *place - bytes : 0;
}

/* Forgets all but the tail. */
static void
log_trim(struct log *log)
{
	size_t old = log->length;

	move_back(&old, LOG_TAIL);
	if (old == 0)
		return;
	if (log->scanned < old)
		log->cut = true;
	log->trimmed = true;
	log->length -= old;
	move_back(&log->shown, old);
	move_back(&log->scanned, old);
	memmove(log->text, log->text + old, log->length + 1);
}

/* Tells how many lines -v could not show, once there is room again. */
static void
log_tell_lost(struct log *log)
{
	char note[64];

	if (log->lost == 0)
		return;
	snprintf(note, sizeof note, "[%lu lines lost]", log->lost);
	if (put_line("cloudflared", note, strlen(note), 0))
		log->lost = 0;
}

/* Shows what -v hasn't shown yet: whole lines, or to the end all of it. */
static void
log_show(struct log *log, enum ending ending)
{
	if (errors.fd == -1)
		return;		/* -b: nobody is there any more */
	log_tell_lost(log);
	while (log->text[log->shown] != '\0') {
		const char *line = log->text + log->shown;
		size_t size = line_length(line);
		bool ended = line[size] == '\n';

		if (!ended && ending == TEXT_GOES_ON && size < LINE_SIZE)
			break;
		if (size > LINE_SIZE) {
			size = LINE_SIZE;
			ended = false;
		}
		if (log->lost > 0 || !put_line("cloudflared", line, size, 0))
			log->lost++;
		log->shown += ended ? size + 1 : size;
	}
	log_tell_lost(log);
}

/* The text from its first whole line on. */
static const char *
log_lines(const struct log *log)
{
	return log->trimmed ? next_line(log->text) : log->text;
}

/* What every log begins with tells nothing. */
static bool
is_boilerplate(const char *line)
{
	return find(line, "Thank you for trying Cloudflare Tunnel") != NULL;
}

/* Shows the last lines, those that -v hasn't shown. */
static void
log_show_last(struct log *log)
{
	const char *first = log->text + log->shown;
	const char *line = log->text + log->length;
	int lines = 0;

	while (line > first && lines < LAST_LINES) {
		line--;
		while (line > first && line[-1] != '\n')
			line--;
		if (!is_boilerplate(line))
			lines++;
	}
	for (; *line != '\0'; line = next_line(line)) {
		size_t size = line_length(line);

		if (size > LINE_SIZE)
			size = LINE_SIZE;
		if (!is_boilerplate(line))
			put_line("cloudflared", line, size, MESSAGE_MS);
	}
	log->shown = log->length;
}

/* Copies the last line, without control characters. */
static void
log_copy_last(const struct log *log, char *text, size_t size)
{
	const char *end = log->text + log->length;
	const char *line;

	while (end > log->text && (end[-1] == '\n' || end[-1] == '\r'))
		end--;
	line = end;
	while (line > log->text && line[-1] != '\n')
		line--;
	copy_part(text, size, line, (size_t)(end - line));
	make_printable(text);
}

/* ======================================================================
 * The life of a tunnel
 *
 *                CLAIMING  STARTING  UP        RENEWING  WAITING   STOPPING
 * ready          -         publish   -         -         -         -
 * cloudflared    -         died      died      next life -         [6]
 *  has ended
 * edge registers -         note      note [3]  -         -         -
 * edge lost      -         note      note [3]  -         -         -
 * edge refuses   -         note      note [3]  -         -         -
 * QUIC failed    -         renew [1] note      -         -         -
 * name gone (-r) -         -         renew     -         -         -
 * command ended  -         stop      stop      stop      stop      [6]
 * stop signal    stop      stop [5]  stop [5]  stop [5]  stop [5]  kill [4]
 * end of input,  stop      stop      stop      stop      stop      -
 *  of the waiter
 * SIGTSTP        suspend   suspend   suspend   suspend   suspend   suspend
 * SIGCONT        continue  continue  continue  continue  continue  continue
 * LOOK passed    claim [8] -         -         -         -         -
 * START passed   stop      late [2]  -         stop      stop      -
 * PAUSE passed   -         find URL  -         -         -         -
 * PROBE passed   probe     probe     -         -         -         -
 * FALLBACK       judge     judge     -         -         -         -
 *  passed
 * LOST passed    -         -         say [3]   -         -         -
 * WATCH passed   -         -         ask [3]   -         -         -
 * GRACE passed   -         -         -         kill      -         kill
 * LEAVE passed   -         -         -         -         -         [7]
 * RESTART passed -         -         -         -         start     -
 *
 * CLAIMING: another tunnel has the record of the origin.  STARTING:
 * cloudflared runs, and its URL isn't given out.  UP: it is.  RENEWING:
 * cloudflared was told to end, and another one will follow.  WAITING: until
 * the next start.  STOPPING: to the end; t->stop says why.
 *
 * publish   the URL to the record, to standard output or the command; UP
 * died      says why; then WAITING, or without -r and after six failures stop
 * renew     SIGTERM to cloudflared, SIGKILL after the grace; RENEWING
 * next life HTTP/2 at once, else WAITING
 * stop      SIGTERM to cloudflared and the command, SIGKILL after the grace
 * suspend   cloudflared and we stop, until SIGCONT
 * claim     if the record is free: STARTING
 * judge     whether the name is there: if nobody can tell, it counts as that
 *
 * [1] once, before a URL is given out and unless the user has chosen a
 *     protocol: HTTP/2 from then on
 * [2] before the first URL stop, later renew
 * [3] a loss is noted in the record; when it has lasted it is said, and with
 *     -r the tunnel renewed if the edge refuses it or the network is there;
 *     with -r the name servers are asked once a minute, too
 * [4] half a second or more after the stop began
 * [5] but TERM, a command that runs has them for itself: INT and QUIT come
 *     from its terminal, others are passed on; the tunnel stops when it ends
 * [6] the program ends when neither cloudflared nor the command is left
 * [7] what cloudflared has left behind is given up, and that is said
 * [8] else the other tunnel is met: its URL is given out once it works (-b),
 *     it is named, which ends the program, or its end is waited for
 *
 * The events of one poll are taken in this order:
 * 1. the log: what cloudflared said before it ended counts;
 * 2. signals, ends of children among them, in the order in which they came:
 *    a stop wins over a URL that came at the same time;
 * 3. the end of input, of the waiter of -b, of the reader of results;
 * 4. answers of name servers;
 * 5. deadlines, in the order of enum timer: what is known by then counts
 *    before them (see on_late);
 * 6. with -w the local server is looked for if nothing else is missing;
 * 7. if all that the URL waited for is there now, it is given out.
 * Before cloudflared is reaped its log is read to the end, and a URL that is
 * ready then is still given out, unless -b or a command would be misled.
 * ====================================================================== */

enum state { CLAIMING, STARTING, UP, RENEWING, WAITING, STOPPING };

/* Why the tunnel stops: one value, set once. */
enum stop_reason {
	STOP_NOT,
	STOP_SIGNAL,		/* somebody asked for it */
	STOP_INPUT,		/* -i: standard input has ended */
	STOP_WAITER,		/* -b: who waited for the URL was killed */
	STOP_COMMAND,		/* the command has ended */
	STOP_DEADLINE,		/* no URL in time */
	STOP_DEATH,		/* cloudflared has ended */
	STOP_FAULT		/* something that we need has failed */
};

struct stop {
	enum stop_reason reason;
	long long since_ms;
	int status;		/* to exit with */
	int signal;		/* to die of; 0: none */
};

/* Why cloudflared is ended and another one started. */
enum renewal {
	RENEW_HTTP2,		/* QUIC doesn't get through */
	RENEW_DEAD		/* it doesn't work, or not in time */
};

enum timer {			/* in the order in which they are taken */
	TIMER_LOOK,		/* at the record that another tunnel has */
	TIMER_START,		/* -t */
	TIMER_PAUSE,		/* the log pauses behind what may be a URL */
	TIMER_PROBE,		/* look whether the local server listens */
	TIMER_FALLBACK,		/* whether a name is there: nobody knows */
	TIMER_RESTART,
	TIMER_GRACE,		/* -g */
	TIMER_LEAVE,		/* wait no longer for stragglers */
	TIMER_LOST,		/* the edge has been lost for long */
	TIMER_WATCH,		/* look whether the name is still there */
	TIMERS
};

#define IN(state) (1U << (state))

/* The states in which each counts; others cancel it. */
static const unsigned char timer_states[TIMERS] = {
	[TIMER_LOOK] = IN(CLAIMING),
	[TIMER_START] = IN(CLAIMING) | IN(STARTING) | IN(RENEWING) |
	    IN(WAITING),
	[TIMER_PAUSE] = IN(STARTING),
	[TIMER_PROBE] = IN(CLAIMING) | IN(STARTING),
	[TIMER_FALLBACK] = IN(CLAIMING) | IN(STARTING),
	[TIMER_RESTART] = IN(WAITING),
	[TIMER_GRACE] = IN(RENEWING) | IN(STOPPING),
	[TIMER_LEAVE] = IN(STOPPING),
	[TIMER_LOST] = IN(UP),
	[TIMER_WATCH] = IN(UP),
};

enum slot {			/* of poll */
	SLOT_LOG,
	SLOT_SIGNALS,
	SLOT_OUTPUT,
	SLOT_INPUT,
	SLOT_WAITER,
	SLOT_SERVER,		/* the first of SERVERS */
	SLOTS = SLOT_SERVER + SERVERS
};

enum {				/* milliseconds, and a count */
	PAUSE_MS = 100,
	PROBE_MS = 100,		/* for a server to accept a connection */
	PROBE_AGAIN_MS = 50,
	FALLBACK_MS = 5000,	/* until a name is there, unless one knows */
	INSIST_MS = 500,	/* a signal that soon is the same once more */
	RESUME_MS = 20,		/* between two looks for a SIGCONT */
	RESUME_LOOKS = 3,	/* that find nothing, before a stop */
	RESUME_LAST_MS = 1000,	/* however many other signals come */
	LEAVE_MS = 2000,
	LOOK_MS = 50,		/* between two looks at another's record */
	UNKNOWN_LOOKS = 20,	/* at one that says nothing of its holder */
	LOST_MS = 60000,	/* -t 0 */
	MINUTE_MS = 60000,	/* between two looks; a life that worked */
	RESTART_MS = 1000,	/* the first wait, which doubles */
	RESTART_MAX_MS = 30000,
	LIMITED_MS = 60000,	/* the same when the rate is limited */
	LIMITED_MAX_MS = 600000,
	FAILURES = 6		/* in a row, and it is given up */
};

/* The connection to Cloudflare's edge, as the log tells it. */
enum edge_state { EDGE_NEVER, EDGE_UP, EDGE_DOWN };

struct edge {
	enum edge_state state;
	long long since_ms;
	bool retrying;		/* cloudflared has tried since it was up */
	bool refused;		/* and the edge has said no */
	bool loss_said;		/* it has been lost for long */
};

/* A program that we run. */
struct child {
	pid_t pid;		/* 0: none, or reaped */
	int report;		/* says why exec failed; -1: closed */
	bool beyond_reach;	/* the system lets us send it no SIGKILL */
};

enum { LAST_SIGNAL = 64 };

/* Signals that have come and wait for their turn, each once. */
struct signals {
	unsigned char numbers[LAST_SIGNAL];
	size_t count;
};

struct tunnel {
	const struct options *options;
	const struct origin *origin;
	const struct caller *caller;
	const char *self;		/* as we were called */
	char program[PATH_SIZE];	/* cloudflared's path */
	char command_path[PATH_SIZE];	/* "": no command */

	enum state state;
	struct stop stop;
	enum renewal renewal;		/* in RENEWING */
	long long deadline[TIMERS];	/* 0: none */
	struct signals signals;

	struct child cloudflared;	/* leads a group of its id */
	struct child command;
	pid_t group;			/* the last cloudflared's */
	int keeper;			/* a pipe: see start_keeper */
	bool sweeps;			/* all children are cloudflared's */
	bool given_up;			/* what cloudflared has left behind */

	struct look other;		/* CLAIMING: it has the record */
	int looks;			/* at it, that told nothing */

	/* This life of cloudflared; CLAIMING: the other tunnel's. */
	struct log log;
	char url[URL_SIZE];		/* "": not found yet */
	struct edge edge;
	bool in_dns;			/* its name is there, or unasked */
	bool listening;			/* the local server */
	long long up_since_ms;

	/* All lives. */
	bool delivered;			/* a first URL has been given out */
	bool probed;			/* the local server was looked for */
	bool http2;			/* QUIC doesn't get through */
	int failures;			/* in a row */
	long long restart_ms, limited_ms;	/* the next waits */
	struct names names;
	bool watching;			/* names looks for a dead tunnel */

	struct record record;
	int directory;			/* of the records; -1: none */
	int record_fd;			/* locked; -1: none */
	bool record_failed;		/* it doesn't say what it should */
	struct outlet output;		/* results; fd -1: no more */
	char result[1024];		/* what is being printed there */
	size_t printed;			/* so much of it is out */
	int input;			/* -i: what to watch; -1: nothing */
	short input_events;		/* for what, beside its hang-up */
	int input_own;			/* the same, read without waiting */
	int waiter;			/* -b: a socket; -1: none */
	int null;			/* /dev/null */
};

/* --- signals --- */

static int signal_pipe[2] = { -1, -1 };

/* What stops us, until a SIGCONT makes it 0: see stop_ourselves. */
static volatile sig_atomic_t stop_signal;

/* How the caller had set us up, which a command gets back. */
struct caller {
	sigset_t mask;			/* blocked */
	sigset_t ignored;
	bool had_children;		/* which are none of our business */
};

static void
note_caller(struct caller *caller)
{
	struct sigaction action;
	siginfo_t info;

	sigprocmask(SIG_SETMASK, NULL, &caller->mask);
	sigemptyset(&caller->ignored);
	for (int number = 1; number <= LAST_SIGNAL; number++)
		if (sigaction(number, NULL, &action) == 0 &&
		    action.sa_handler == SIG_IGN)
			sigaddset(&caller->ignored, number);
	caller->had_children = waitid(P_ALL, 0, &info,
	    WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* Leaves word; the pipe never blocks. */
static void
on_signal(int number)
{
	int error = errno;
	unsigned char byte = (unsigned char)number;

	while (write(signal_pipe[1], &byte, 1) == -1 && errno == EINTR)
		continue;
	errno = error;
	if (number == SIGCONT)
		stop_signal = 0;
}

/* Sets what a signal does; a handler isn't interrupted by another one. */
static void
set_action(int number, void (*handler)(int), int flags)
{
	struct sigaction action;

	action.sa_handler = handler;
	action.sa_flags = flags;
	sigfillset(&action.sa_mask);
	sigaction(number, &action, NULL);
}

/* Blocks or unblocks one signal. */
static void
mask_signal(int how, int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(how, &set, NULL);
}

/* These end nothing and stay blocked, so that a write fails instead. */
static const int harmless[] = {
	SIGPIPE, SIGXFSZ, SIGTTOU, SIGTTIN, SIGURG, SIGWINCH, SIGINFO,
};

static void
unblock_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < COUNT(harmless); i++)
		sigaddset(&set, harmless[i]);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

static void
block_all_signals(void)
{
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

/* Signals that a fault of our own raises: told once, then they kill. */
static bool
is_crash(int number)
{
	static const int crashes[] = {
		SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT,
	};

	for (size_t i = 0; i < COUNT(crashes); i++)
		if (crashes[i] == number)
			return true;
	return false;
}

static bool
is_ignored(const struct caller *caller, int number)
{
	return sigismember(&caller->ignored, number) == 1;
}

/* Has every signal handled that the caller doesn't ignore. */
static void
handle_signals(const struct caller *caller)
{
	for (int number = 1; number <= LAST_SIGNAL; number++) {
		bool needed = number == SIGCHLD || number == SIGCONT;

		if (needed || !is_ignored(caller, number))
			set_action(number, on_signal,
			    is_crash(number) ? (int)SA_RESETHAND : 0);
	}
}

/*
 * Sets the signals of a child about to be another program: as the caller
 * had them, or without one, all at their default.
 */
static void
restore_signals(const struct caller *caller)
{
	sigset_t mask;

	sigemptyset(&mask);
	for (int number = 1; number <= LAST_SIGNAL; number++) {
		bool ignored = caller != NULL && is_ignored(caller, number);

		set_action(number, ignored ? SIG_IGN : SIG_DFL, 0);
	}
	if (caller != NULL)
		mask = caller->mask;
	sigprocmask(SIG_SETMASK, &mask, NULL);
}

/* Makes the pipe that signals come through. */
static bool
open_signals(const struct caller *caller)
{
	if (!make_pipe(signal_pipe) ||
	    fcntl(signal_pipe[1], F_SETFL, O_NONBLOCK) == -1)
		return false;
	handle_signals(caller);
	return true;
}

/* Dies of a signal, as whoever waits for us expects; process 1 exits. */
static NORETURN void
die_of(int number)
{
	set_action(number, SIG_DFL, 0);
	kill(getpid(), number);
	_exit(128 + number);
}

static bool
has_signal(const struct signals *signals, int number)
{
	return memchr(signals->numbers, number, signals->count) != NULL;
}

static void
drop_signal(struct signals *signals, int number)
{
	unsigned char *end = signals->numbers + signals->count;
	unsigned char *at = memchr(signals->numbers, number, signals->count);

	if (at == NULL)
		return;
	memmove(at, at + 1, (size_t)(end - at - 1));
	signals->count--;
}

/*
 * Adds what has come to the signals that wait.  As the system has it, a
 * signal waits once, and a SIGCONT takes the stop before it back.
 */
static void
collect_signals(struct signals *signals)
{
	unsigned char come[256];
	ssize_t size;

	do {
		size = read(signal_pipe[0], come, sizeof come);
		for (ssize_t i = 0; i < size; i++) {
			if (come[i] == SIGCONT)
				drop_signal(signals, SIGTSTP);
			if (!has_signal(signals, come[i]))
				signals->numbers[signals->count++] = come[i];
		}
	} while (size == (ssize_t)sizeof come);
}

static const char *
name_signal(int number)
{
	static const struct {
		int number;
		char name[8];
	} names[] = {
		{ SIGHUP, "SIGHUP" }, { SIGINT, "SIGINT" },
		{ SIGQUIT, "SIGQUIT" }, { SIGILL, "SIGILL" },
		{ SIGTRAP, "SIGTRAP" }, { SIGABRT, "SIGABRT" },
		{ SIGBUS, "SIGBUS" }, { SIGFPE, "SIGFPE" },
		{ SIGKILL, "SIGKILL" }, { SIGSTOP, "SIGSTOP" },
		{ SIGUSR1, "SIGUSR1" },
		{ SIGSEGV, "SIGSEGV" }, { SIGUSR2, "SIGUSR2" },
		{ SIGPIPE, "SIGPIPE" }, { SIGALRM, "SIGALRM" },
		{ SIGTERM, "SIGTERM" }, { SIGSYS, "SIGSYS" },
		{ SIGXCPU, "SIGXCPU" }, { SIGXFSZ, "SIGXFSZ" },
	};

	for (size_t i = 0; i < COUNT(names); i++)
		if (names[i].number == number)
			return names[i].name;
	return "no name";
}

/* Says whether a child has ended, without reaping it. */
static bool
has_ended(pid_t pid)
{
	siginfo_t info;

	memset(&info, 0, sizeof info);
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) ==
	    0 && info.si_pid == pid;
}

/* --- deadlines and the record --- */

static void
set_timer(struct tunnel *t, enum timer timer, long long ms)
{
	t->deadline[timer] = now_ms() + ms;
}

static void
cancel_timer(struct tunnel *t, enum timer timer)
{
	t->deadline[timer] = 0;
}

static enum record_state
record_state_of(const struct tunnel *t)
{
	if (t->state == STOPPING)
		return RECORD_STOPPING;
	if (t->record.url[0] == '\0')
		return RECORD_STARTING;
	if (t->edge.state == EDGE_UP)
		return RECORD_UP;
	/* -n: there is nothing to lose yet */
	if (t->edge.state == EDGE_NEVER && !t->edge.loss_said)
		return RECORD_STARTING;
	return RECORD_LOST;
}

/* In messages: without records a tunnel in the foreground goes on. */
static const char *
name_severity(const struct tunnel *t)
{
	return t->options->background ? "" : "warning: ";
}

/* Writes to our record what there is to know of us.  Complains once. */
static void
write_record(struct tunnel *t)
{
	char text[RECORD_SIZE];
	bool failed = t->record_failed;
	size_t size;

	if (t->record_fd == -1)
		return;
	size = format_record(&t->record, text);
	errno = ENOSPC;		/* if it writes less */
	t->record_failed =
	    pwrite(t->record_fd, text, size, 0) != (ssize_t)size ||
	    ftruncate(t->record_fd, (off_t)size) == -1;
	if (t->record_failed && !failed)
		say("%scannot write the record of %s: %s", name_severity(t),
		    t->origin->name, strerror(errno));
}

/* Says whether nobody would find the tunnel of a -b that leaves now. */
static bool
is_untraceable(const struct tunnel *t)
{
	return t->record_failed && t->waiter != -1;
}

static void
update_record(struct tunnel *t)
{
	t->record.state = record_state_of(t);
	t->record.group = t->cloudflared.pid;
	t->record.command = t->command.pid;
	write_record(t);
}

/* Enters another state; deadlines that don't count there are off. */
static void
enter(struct tunnel *t, enum state state)
{
	t->state = state;
	for (int i = 0; i < TIMERS; i++)
		if ((timer_states[i] & IN(state)) == 0)
			cancel_timer(t, (enum timer)i);
	update_record(t);
}

/*
 * Says what has gone wrong, and keeps it for those who ask later: what made
 * the tunnel stop, not what comes of that.
 */
static void
complain(struct tunnel *t, const char *message)
{
	size_t length = strlen(message);

	say("%s", message);
	if (t->state == STOPPING)
		return;
	/* of a long one, with a path in it, the end tells more */
	if (length >= REASON_SIZE)
		message += length - REASON_SIZE + 1;
	copy_text(t->record.error, REASON_SIZE, message);
	make_printable(t->record.error);
}

/* The same of what the system has refused. */
static void
complain_of(struct tunnel *t, const char *what, int error)
{
	char message[256];

	snprintf(message, sizeof message, "cannot %s: %s", what,
	    strerror(error));
	complain(t, message);
}

/* --- stopping --- */

/* As kill(2), a group; and its leader if that has gone to another one. */
static int
signal_group(pid_t leader, int number)
{
	int result = kill(-leader, number);

	return getpgid(leader) == leader ? result : kill(leader, number);
}

/*
 * Signals a child, or the group it leads.  Nobody else can have its id while
 * it isn't reaped.  Says so if the system doesn't let us.
 */
static void
signal_child(struct child *child, const char *name,
    int (*send_signal)(pid_t, int), int number)
{
	if (child->pid == 0)
		return;
	/* one of the group is enough, as a keeper, and the leader it must be */
	if (send_signal(child->pid, number) == 0 && kill(child->pid, 0) == 0)
		return;
	/* macOS refuses a group of zombies */
	if (errno != EPERM || has_ended(child->pid))
		return;
	say("cannot send %s to %s, process %ld, which runs as another user: "
	    "end it yourself", name_signal(number), name, (long)child->pid);
	if (number == SIGKILL)
		child->beyond_reach = true;
}

static void
signal_cloudflared(struct tunnel *t, int number)
{
	signal_child(&t->cloudflared, "cloudflared", signal_group, number);
}

static void
signal_command(struct tunnel *t, int number)
{
	signal_child(&t->command, "the command", kill, number);
}

static void
continue_children(struct tunnel *t)
{
	if (t->cloudflared.pid != 0)
		signal_group(t->cloudflared.pid, SIGCONT);
	if (t->command.pid != 0)
		kill(t->command.pid, SIGCONT);
}

/* Asks cloudflared to end, with a deadline. */
static void
terminate_cloudflared(struct tunnel *t)
{
	signal_cloudflared(t, SIGTERM);
	set_timer(t, TIMER_GRACE, t->options->grace_ms);
}

/* The tunnel stops: cloudflared, the command, then we. */
static void
stop(struct tunnel *t, enum stop_reason reason, int status, int number)
{
	if (t->state == STOPPING)
		return;
	t->stop.reason = reason;
	t->stop.since_ms = now_ms();
	t->stop.status = status;
	t->stop.signal = number;
	names_close(&t->names);
	clear_progress();
	if (reason == STOP_SIGNAL || reason == STOP_INPUT) {
		t->record.error[0] = '\0';	/* it was overcome */
		t->record.log[0] = '\0';
	}
	enter(t, STOPPING);
	/* one that is RENEWING knows */
	if (t->deadline[TIMER_GRACE] == 0)
		terminate_cloudflared(t);
	if (t->command.pid != 0)
		set_timer(t, TIMER_GRACE, t->options->grace_ms);
	signal_command(t, SIGTERM);
	continue_children(t);		/* who is stopped can't end */
	if (t->cloudflared.pid == 0)
		set_timer(t, TIMER_LEAVE, LEAVE_MS);
}

/* Something that we need fails. */
static void
fail(struct tunnel *t, const char *what, int error)
{
	complain_of(t, what, error);
	stop(t, STOP_FAULT, EXIT_FAILURE, 0);
}

/* The same for a program that couldn't be executed. */
static void
fail_program(struct tunnel *t, const char *path, int error,
    enum stop_reason reason)
{
	char why[MESSAGE_SIZE];
	int status = explain_failure(path, error, why);

	complain(t, why);
	stop(t, reason, status, 0);
}

/* The grace is over, or somebody insists. */
static void
kill_children(struct tunnel *t)
{
	signal_cloudflared(t, SIGKILL);
	if (t->state == STOPPING)
		signal_command(t, SIGKILL);
	else if (t->cloudflared.beyond_reach)
		stop(t, STOP_DEATH, EXIT_FAILURE, 0);
}

/* Says whether children are left that cloudflared has left us. */
static bool
has_stragglers(const struct tunnel *t)
{
	siginfo_t info;
	int options = WEXITED | WNOHANG | WNOWAIT;

	if (t->sweeps)
		return waitid(P_ALL, 0, &info, options) == 0;
	if (t->group == 0)
		return false;
	return waitid(P_PGID, (id_t)t->group, &info, options) == 0;
}

/* Says whether there is nothing left of a child, or nothing to be done. */
static bool
is_settled(const struct child *child)
{
	return child->pid == 0 || child->beyond_reach;
}

static bool
is_over(const struct tunnel *t)
{
	if (t->state != STOPPING || !is_settled(&t->cloudflared) ||
	    !is_settled(&t->command))
		return false;
	if (t->given_up || t->cloudflared.beyond_reach)
		return true;
	return !has_stragglers(t);
}

/*
 * Kills one child that cloudflared has left us; its end comes as a signal,
 * and then the next one has its turn.
 */
static void
sweep(struct tunnel *t)
{
	pid_t pid;

	if (!t->sweeps || t->cloudflared.pid != 0 || !has_stragglers(t))
		return;
	pid = find_child();
	if (pid == 0 || kill(pid, SIGKILL) == 0 || errno != EPERM)
		return;
	say("cannot send SIGKILL to process %ld, which cloudflared started "
	    "as another user: end it yourself", (long)pid);
	t->given_up = t->state == STOPPING;
}

/* --- starting programs --- */

/* Tells the parent what has failed in a child, and ends that. */
static NORETURN void
report_failure(int report)
{
	int error = errno;

	block_all_signals();
	while (write(report, &error, sizeof error) == -1 && errno == EINTR)
		continue;
	_exit(EXIT_CANNOT_RUN);
}

/*
 * Becomes a command, which may be a script that doesn't say of what: then it
 * is the shell's, whose name takes the place of the origin before it.
 */
static NORETURN void
become_command_line(const char *path, char **arguments, int report)
{
	static char shell[] = "sh";

	execv(path, arguments);
	if (errno == ENOEXEC) {
		arguments[0] = (char *)path;
		arguments[-1] = shell;
		execv("/bin/sh", arguments - 1);
	}
	report_failure(report);
}

/* Reads why exec failed in a child.  Returns 0 if it didn't. */
static int
read_report(struct child *child)
{
	int error;

	if (read(child->report, &error, sizeof error) != sizeof error)
		error = 0;
	close_fd(&child->report);
	return error;
}

/*
 * What the system doesn't do where it has no parent-death signal: a small
 * process in cloudflared's group holds nothing but the reading end of a pipe
 * of ours, and ends the group when we are gone.  It is a shell, so that
 * whoever kills all processes of our name doesn't kill it, too.
 */
static NORETURN void
become_keeper(const struct tunnel *t, const int ends[2], pid_t group)
{
	static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };
	char script[160];
	const char *arguments[] = { "sh", "-c", script, NULL };

	restore_signals(NULL);
	for (size_t i = 0; i < COUNT(ignored); i++)
		set_action(ignored[i], SIG_IGN, 0);
	snprintf(script, sizeof script,
	    "read -r _; kill -s TERM 0; n=%lld; "
	    "while [ $n -gt 0 ] && kill -s 0 %ld; "
	    "do sleep 1; n=$((n - 1)); done; kill -s KILL 0",
	    (t->options->grace_ms + 999) / 1000, (long)group);
	if (setpgid(0, group) == 0 && dup2(ends[0], STDIN_FILENO) != -1 &&
	    fcntl(STDIN_FILENO, F_SETFL, 0) != -1 &&
	    dup2(t->null, STDOUT_FILENO) != -1 &&
	    dup2(t->null, STDERR_FILENO) != -1) {
		close_from(STDERR_FILENO + 1);
		execv("/bin/sh", (char *const *)arguments);
	}
	_exit(EXIT_CANNOT_RUN);
}

/* Starts the keeper of a group; signals are blocked. */
static bool
start_keeper(struct tunnel *t, pid_t group)
{
	int ends[2];
	pid_t pid;

	if (!make_pipe(ends))
		return false;
	close_fd(&t->keeper);
	pid = fork();
	if (pid == 0)
		become_keeper(t, ends, group);
	if (pid > 0)
		setpgid(pid, group);
	close(ends[0]);
	t->keeper = ends[1];
	return pid > 0;
}

/* What the child of start_cloudflared gets. */
struct start {
	pid_t parent;
	int log;		/* where to write the log */
	int report;
	int go;			/* readable once there is a keeper; or -1 */
};

/* Becomes cloudflared.  Whatever fails here is reported as exec would be. */
static NORETURN void
become_cloudflared(struct tunnel *t, const struct start *start)
{
	const char *arguments[] = { t->program, "tunnel", "--url",
	    t->origin->url, NULL, NULL, NULL };
	char *variables[count_variables() + NEW_VARIABLES];
	int report = STDERR_FILENO + 1;
	char byte;

	memcpy(variables, environ, (count_variables() + 1) * sizeof *environ);
	environ = variables;
	if (has_config()) {
		arguments[4] = "--config";
		arguments[5] = "/dev/null";
	}
	die_with_parent();
	if (getppid() != start->parent)
		_exit(EXIT_CANNOT_RUN);
	if (setpgid(0, 0) == -1 ||
	    (start->go != -1 && read(start->go, &byte, 1) != 1))
		_exit(EXIT_CANNOT_RUN);
	if (dup2(t->null, STDIN_FILENO) == -1 ||
	    dup2(start->log, STDOUT_FILENO) == -1 ||
	    dup2(start->log, STDERR_FILENO) == -1 ||
	    dup2(start->report, report) == -1 || !set_close_on_exec(report))
		report_failure(start->report);
	close_from(report + 1);
	set_environment(t->options->grace_ms, t->http2);
	restore_signals(NULL);
	execv(t->program, (char *const *)arguments);
	report_failure(report);
}

/*
 * Forks cloudflared, which leads a group: both of us see to that, so that no
 * signal can miss it.  Returns its id, or -1 with errno.
 */
static pid_t
fork_cloudflared(struct tunnel *t, int log, int report)
{
	struct start start = { getpid(), log, report, -1 };
	int go[2] = { -1, -1 };
	pid_t pid;

	if (needs_keeper() && (!make_pipe(go) ||
	    fcntl(go[0], F_SETFL, 0) == -1))
		return -1;
	start.go = go[0];
	block_all_signals();
	pid = fork();
	if (pid == 0) {
		close_fd(&go[1]);
		become_cloudflared(t, &start);
	}
	if (pid > 0)
		setpgid(pid, pid);
	if (pid > 0 && needs_keeper()) {
		if (start_keeper(t, pid)) {
			while (write(go[1], "", 1) == -1 && errno == EINTR)
				continue;
		} else {
			close_pipe(go);		/* it ends without a word */
			waitpid(pid, NULL, 0);
			pid = -1;
			errno = EAGAIN;
		}
	}
	unblock_signals();
	close_pipe(go);
	return pid;
}

static void
begin_life(struct tunnel *t, pid_t pid, int log, int report)
{
	t->cloudflared.pid = pid;
	t->cloudflared.report = report;
	t->group = pid;
	log_open(&t->log, log);
	t->url[0] = '\0';
	memset(&t->edge, 0, sizeof t->edge);
	t->listening = false;
	enter(t, STARTING);
	t->in_dns = t->options->now || t->names.off;
	if (!t->in_dns)
		names_open(&t->names);
	if (t->delivered && t->options->start_ms > 0)
		set_timer(t, TIMER_START, t->options->start_ms);
	/* -w looks for the server last; a command may be the server itself */
	cancel_timer(t, TIMER_PROBE);
	if (!t->probed && !t->options->wait && t->options->command == NULL)
		set_timer(t, TIMER_PROBE, 0);
}

/* How soon to start again: a limited rate needs patience. */
enum pace { PACE_USUAL, PACE_LIMITED };

/* How long to wait until the next start: longer with each that fails. */
static long long
next_wait(struct tunnel *t, enum pace pace)
{
	long long *wait = &t->restart_ms;
	long long most = RESTART_MAX_MS;
	long long ms;

	if (pace == PACE_LIMITED) {
		wait = &t->limited_ms;
		most = LIMITED_MAX_MS;
	}
	ms = *wait;
	*wait *= 2;
	if (*wait > most)
		*wait = most;
	return ms;
}

/* Has cloudflared started again, if that is wanted and may help. */
static void
start_again(struct tunnel *t, enum pace pace)
{
	long long ms;

	if (!t->options->restart || t->failures >= FAILURES) {
		stop(t, STOP_DEATH, EXIT_FAILURE, 0);
		return;
	}
	ms = next_wait(t, pace);
	enter(t, WAITING);
	say("starting cloudflared again in %lld s", ms / 1000);
	set_timer(t, TIMER_RESTART, ms);
}

/* Starts cloudflared.  A fork that fails is a failure like any other. */
static void
start_cloudflared(struct tunnel *t)
{
	int log[2];
	int report[2] = { -1, -1 };
	pid_t pid = -1;
	int error;

	if (make_pipe(log) && make_pipe(report)) {
		widen_pipe(log[0], 4 * LOG_READ);
		pid = fork_cloudflared(t, log[1], report[1]);
	}
	error = errno;
	close_fd(&log[1]);
	close_fd(&report[1]);
	if (pid > 0) {
		begin_life(t, pid, log[0], report[0]);
		return;
	}
	close_fd(&log[0]);
	close_fd(&report[0]);
	complain_of(t, "start cloudflared", error);
	t->failures++;
	start_again(t, PACE_USUAL);
}

/* Becomes the command, with all that the caller gave us. */
static NORETURN void
become_command(struct tunnel *t, int report)
{
	char *variables[count_variables() + NEW_VARIABLES];
	char url[URL_SIZE + 32];

	memcpy(variables, environ, (count_variables() + 1) * sizeof *environ);
	environ = variables;
	snprintf(url, sizeof url, "TUNNEL_PUBLIC_URL=%s", t->record.url);
	set_variable(url);
	restore_signals(t->caller);
	become_command_line(t->command_path, t->options->command, report);
}

/*
 * Starts the command.  Ctrl-C goes to its group, which is ours: if one comes
 * just now, the command may not have been there to get it.
 */
static void
start_command(struct tunnel *t)
{
	static const int typed[] = { SIGINT, SIGQUIT };
	int report[2];
	sigset_t pending;
	pid_t pid = -1;
	int error;

	if (make_pipe(report)) {
		block_all_signals();
		collect_signals(&t->signals);
		pid = fork();
		if (pid == 0)
			become_command(t, report[1]);
	}
	error = errno;
	close_fd(&report[1]);
	if (pid == -1) {
		close_fd(&report[0]);
		unblock_signals();
		fail(t, "start the command", error);
		return;
	}
	t->command.pid = pid;
	t->command.report = report[0];
	update_record(t);
	sigemptyset(&pending);
	sigpending(&pending);
	for (size_t i = 0; i < COUNT(typed); i++)
		if (sigismember(&pending, typed[i]) == 1 ||
		    has_signal(&t->signals, typed[i]))
			kill(pid, typed[i]);
	unblock_signals();
}

/* --- the local server --- */

enum probe {
	PROBE_IMPOSSIBLE,	/* it is a host name: that takes a resolver */
	PROBE_REFUSED,
	PROBE_LISTENS,
	PROBE_INTERRUPTED	/* by a signal */
};

/*
 * Waits for a connection to be made.  No answer in time is no refusal; a
 * signal comes first.
 */
static enum probe
await_connection(int fd, long long until_ms)
{
	long long left = until_ms - now_ms();
	struct pollfd wait[] = {
		{ fd, POLLOUT, 0 },
		{ signal_pipe[0], POLLIN, 0 },
	};
	int error = 0;
	socklen_t size = sizeof error;
	int ready = poll(wait, COUNT(wait), left > 0 ? (int)left : 0);

	if (wait[0].revents == 0)
		return ready != 0 ? PROBE_INTERRUPTED : PROBE_LISTENS;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error == 0 ? PROBE_LISTENS : PROBE_REFUSED;
}

/* Tries to connect to an address; to be connected to oneself is no success. */
static enum probe
try_address(const struct address *address, long long until_ms)
{
	enum probe probe = PROBE_REFUSED;
	struct address own;
	socklen_t size = sizeof own.to;
	int fd = socket(address->to.any.sa_family, SOCK_STREAM, 0);

	if (fd == -1)
		return PROBE_REFUSED;
	if (!set_close_on_exec(fd) || fcntl(fd, F_SETFL, O_NONBLOCK) == -1)
		probe = PROBE_REFUSED;
	else if (connect(fd, &address->to.any, address->size) == 0)
		probe = PROBE_LISTENS;
	else if (errno == EINPROGRESS)
		probe = await_connection(fd, until_ms);
	/* the port is in the same place for both families */
	if (probe == PROBE_LISTENS &&
	    getsockname(fd, &own.to.any, &size) == 0 &&
	    own.to.ip4.sin_port == address->to.ip4.sin_port)
		probe = PROBE_REFUSED;
	close(fd);
	return probe;
}

/* Looks whether something listens on the origin; localhost has two places. */
static enum probe
probe_origin(const struct origin *origin)
{
	static const int families[] = { AF_INET, AF_INET6 };
	long long until_ms = now_ms() + PROBE_MS;
	enum probe found = PROBE_IMPOSSIBLE;
	struct address address;

	for (size_t i = 0; i < COUNT(families); i++) {
		if (!find_address(origin, families[i], &address))
			continue;
		found = try_address(&address, until_ms);
		if (found != PROBE_REFUSED)
			break;
	}
	return found;
}

/* Looks for the local server; -w looks again until it is there. */
static void
look_for_server(struct tunnel *t)
{
	enum probe probe = probe_origin(t->origin);
	bool wait = t->options->wait;
	bool again = probe == PROBE_INTERRUPTED ||
	    (probe == PROBE_REFUSED && wait);

	t->listening = probe == PROBE_LISTENS || probe == PROBE_IMPOSSIBLE;
	if (again)
		set_timer(t, TIMER_PROBE, PROBE_AGAIN_MS);
	else if (probe == PROBE_REFUSED)
		say("warning: nothing is listening on %s yet",
		    t->origin->name);
	else if (probe == PROBE_IMPOSSIBLE && wait && !t->probed)
		say("warning: whether %s listens cannot be tested: it is a "
		    "host name", t->origin->name);
	t->probed = true;
}

/* --- giving the URL out --- */

/* Says whether the name may be there, but isn't known to be. */
static bool
is_name_wanted(const struct tunnel *t)
{
	return (t->state == STARTING || t->state == CLAIMING) &&
	    t->url[0] != '\0' && t->edge.state == EDGE_UP && !t->in_dns;
}

/*
 * Judges whether the name is in the DNS: all servers that answer have to say
 * so, or for long nobody could tell, since the edge had it and since a server
 * last spoke.  Once it is there nobody is asked any more.
 */
static void
judge_name(struct tunnel *t)
{
	struct tally tally = names_count(&t->names);
	long long silent_ms = now_ms() - FALLBACK_MS;

	if (!is_name_wanted(t))
		return;
	if (tally.answering > 0)
		t->in_dns = tally.sure_yes == tally.answering;
	else
		t->in_dns = t->edge.since_ms <= silent_ms &&
		    t->names.voted_ms <= silent_ms;
	if (t->in_dns)
		names_close(&t->names);
}

enum missing {
	MISSING_NOTHING,
	MISSING_READER,
	MISSING_END,
	MISSING_START,
	MISSING_RECORD,
	MISSING_OTHER,
	MISSING_URL,
	MISSING_EDGE,
	MISSING_NAME,
	MISSING_SERVER
};

/* How that is called while it is waited for, and when it never came. */
static const struct {
	const char *wait;
	const char *fault;
} missing_texts[] = {
	[MISSING_READER] = { "a reader of standard output",
	    "nobody reads standard output" },
	[MISSING_END] = { "the end of the last tunnel",
	    "it is still stopping" },
	[MISSING_START] = { "the next start of cloudflared",
	    "cloudflared was to be started again" },
	[MISSING_RECORD] = { "the URL", "its record cannot be read here" },
	[MISSING_OTHER] = { "the URL", "it has no URL yet" },
	[MISSING_URL] = { "the URL", "cloudflared gave no URL" },
	[MISSING_EDGE] = { "Cloudflare's edge",
	    "Cloudflare's edge has no connection" },
	[MISSING_NAME] = { "the name in the DNS",
	    "the tunnel's name is not in the DNS yet" },
	[MISSING_SERVER] = { "a server on ", "cloudflared is ready" },
};

/* What the other tunnel, which has our record, lacks for its URL to be ours. */
static enum missing
find_missing_of_other(const struct tunnel *t)
{
	const struct look *other = &t->other;

	if (other->record.state == RECORD_STOPPING)
		return MISSING_END;
	if (is_held(other) && other->record.pid == 0)
		return MISSING_RECORD;
	if (!is_listed(other))
		return MISSING_OTHER;
	if (t->options->now)
		return MISSING_NOTHING;
	if (other->record.state != RECORD_UP)
		return MISSING_EDGE;
	if (other->record.waited == 0 && !t->in_dns)
		return MISSING_NAME;
	if (t->options->wait && !t->listening)
		return MISSING_SERVER;
	return MISSING_NOTHING;
}

/* What the URL waits for. */
static enum missing
find_missing(const struct tunnel *t)
{
	if (t->state == CLAIMING)
		return find_missing_of_other(t);
	if (t->state == RENEWING && t->renewal == RENEW_HTTP2)
		return MISSING_EDGE;
	if (t->state != STARTING)
		return MISSING_START;
	if (t->url[0] == '\0')
		return MISSING_URL;
	if (t->options->now)
		return MISSING_NOTHING;
	if (t->edge.state != EDGE_UP)
		return MISSING_EDGE;
	if (!t->in_dns)
		return MISSING_NAME;
	if (t->options->wait && !t->listening)
		return MISSING_SERVER;
	return MISSING_NOTHING;
}

/* -w: looks for the server as soon as nothing else is missing. */
static void
await_server(struct tunnel *t)
{
	if (find_missing(t) == MISSING_SERVER && t->deadline[TIMER_PROBE] == 0)
		look_for_server(t);
}

static bool
is_ready(const struct tunnel *t)
{
	return t->state == STARTING && find_missing(t) == MISSING_NOTHING;
}

/*
 * Shows what is waited for, where somebody can see it.  While a command runs
 * the terminal is that one's.
 */
static void
show_waiting(struct tunnel *t)
{
	enum missing missing = find_missing(t);
	char what[NAME_SIZE + 64];

	if (missing == MISSING_NOTHING)
		missing = MISSING_READER;
	if (!errors_terminal || t->options->verbose || t->state == UP ||
	    t->state == STOPPING || t->command.pid != 0)
		return;
	snprintf(what, sizeof what, "%s%s%s", missing_texts[missing].wait,
	    missing == MISSING_SERVER ? t->origin->name : "",
	    t->options->command != NULL ? ", to run the command" : "");
	show_progress(what);
}

/* Points a descriptor at the null device: nobody waits for us to close it. */
static void
let_go(struct tunnel *t, int fd)
{
	if (dup2(t->null, fd) == -1)
		fail(t, "point a descriptor at /dev/null", errno);
}

static void
let_go_of_output(struct tunnel *t)
{
	close_outlet(&t->output);
	let_go(t, STDOUT_FILENO);
}

/* Says whether Ctrl-C would reach us. */
static bool
is_in_foreground(const struct tunnel *t)
{
	return !is_ignored(t->caller, SIGINT) &&
	    tcgetpgrp(STDERR_FILENO) == getpgrp();
}

/* Shows a person the URL, where it isn't seen yet, and how to end it. */
static void
show_url(struct tunnel *t)
{
	bool command = t->options->command != NULL;
	const char *how = "Ctrl-C to stop";
	char stops[NAME_SIZE + 32];

	snprintf(stops, sizeof stops, "tunnel -k %s stops it",
	    short_name(t->origin));
	if (t->delivered && command)
		how = "the tunnel's new URL";
	else if (!errors_terminal)
		return;
	else if (t->waiter != -1 || !is_in_foreground(t))
		how = stops;
	if (command || !isatty(STDOUT_FILENO))
		say("%s -> %s, %s", t->record.url, t->origin->url, how);
	else if (!t->delivered)
		say("%s", how);
}

static bool
is_unprinted(const struct tunnel *t)
{
	return t->output.fd != -1 && t->printed < strlen(t->result);
}

/*
 * Prints the result as far as there is room.  Returns whether nothing is
 * left to be printed.  A URL that can't be printed ends a tunnel that has
 * given none out; with -r a later one is lost.
 */
static bool
print_result(struct tunnel *t)
{
	size_t size = strlen(t->result);
	bool reader_left;

	if (!is_unprinted(t))
		return true;
	t->printed += put(&t->output, t->result + t->printed,
	    size - t->printed, 0);
	if (t->printed == size)
		return true;
	if (errno == EAGAIN || errno == EINTR)
		return false;
	if (!t->delivered) {
		fail(t, "print the URL to standard output", errno);
		return true;
	}
	reader_left = errno == EPIPE;
	if (!reader_left)
		say("cannot print the URL to standard output: %s",
		    strerror(errno));
	if (reader_left || t->printed > 0)
		let_go_of_output(t);	/* what is torn stays so */
	else
		t->printed = size;	/* for the next one there may be room */
	return true;
}

/* -b: the tunnel is in the background from now on. */
static void
dismiss_waiter(struct tunnel *t)
{
	ssize_t sent;

	close_outlet(&t->output);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		let_go(t, fd);
	if (t->state != UP)
		return;			/* that failed, which was said */
	close_outlet(&errors);
	errors_terminal = false;
	do
		sent = write(t->waiter, "", 1);
	while (sent == -1 && errno == EINTR);
	close_fd(&t->waiter);
	if (sent == -1)			/* it has died meanwhile */
		stop(t, STOP_WAITER, EXIT_FAILURE, SIGHUP);
}

/* --- dead tunnels, and the next life --- */

/* This cloudflared works no more.  Before the first URL -t goes on. */
static void
end_life(struct tunnel *t)
{
	if (t->delivered)
		cancel_timer(t, TIMER_START);
	names_close(&t->names);
	t->watching = false;
	t->record.url[0] = '\0';
}

/* Ends this cloudflared, for another one to follow. */
static void
renew(struct tunnel *t, enum renewal renewal)
{
	t->renewal = renewal;
	if (t->state == STARTING && renewal != RENEW_HTTP2)
		t->failures++;
	end_life(t);
	enter(t, RENEWING);
	terminate_cloudflared(t);
	continue_children(t);
}

/* A life that worked for a minute takes the waits back. */
static void
ease_waits(struct tunnel *t)
{
	long long until = now_ms();

	if (t->edge.state == EDGE_NEVER)
		return;
	if (t->edge.state == EDGE_DOWN)
		until = t->edge.since_ms;
	if (until - t->up_since_ms < MINUTE_MS)
		return;
	t->restart_ms = RESTART_MS;
	t->limited_ms = LIMITED_MS;
}

/*
 * What to do about a cloudflared that has ended without a sign in its log;
 * NULL if nobody knows.  A page of help isn't shown: it tells less.
 */
static const char *
guess_cause(struct tunnel *t, int status)
{
	int code = WIFSIGNALED(status) ? WTERMSIG(status) :
	    WEXITSTATUS(status) - 128;	/* as a shell says it */

	if (t->url[0] != '\0')
		return NULL;
	if (is_crash(code))
		return wrong_build;
	if (status != 0 || !is_no_log(log_lines(&t->log)))
		return NULL;
	t->log.shown = t->log.length;
	return "a variable has a value that it cannot read (true, not yes; "
	    "10s, not 10): look at those in TUNNEL_... and NO_...";
}

/*
 * Complains, and shows the end of the log and what to do, if that is known.
 * The record keeps all three.
 */
static void
tell_failure(struct tunnel *t, const char *what, const char *advice)
{
	complain(t, what);
	log_copy_last(&t->log, t->record.log, REASON_SIZE);
	log_show_last(&t->log);
	if (advice == NULL)
		return;
	say("%s", advice);
	add_text(t->record.error, REASON_SIZE, "; ");
	add_text(t->record.error, REASON_SIZE, advice);
}

/* Says that and how cloudflared has ended, and keeps it. */
static void
tell_death(struct tunnel *t, int status, const struct hint *hint)
{
	char how[64];
	char what[URL_SIZE + 128];

	if (WIFSIGNALED(status))
		snprintf(how, sizeof how, "signal %d, %s", WTERMSIG(status),
		    name_signal(WTERMSIG(status)));
	else
		snprintf(how, sizeof how, "exit status %d",
		    WEXITSTATUS(status));
	if (t->state == UP)
		snprintf(what, sizeof what, "cloudflared ended (%s) and with "
		    "it the tunnel %s", how, t->url);
	else
		snprintf(what, sizeof what, "cloudflared ended (%s) before "
		    "the tunnel was there", how);
	tell_failure(t, what, hint != NULL ? hint->text :
	    guess_cause(t, status));
}

/* cloudflared has ended by itself, or couldn't be executed: the error. */
static void
died(struct tunnel *t, int status, int error)
{
	const struct hint *hint = choose_hint(log_lines(&t->log));
	bool limited = hint != NULL && hint->limited;

	if (error != 0) {
		fail_program(t, t->program, error, STOP_DEATH);
		return;
	}
	tell_death(t, status, hint);
	if (t->state == UP && t->edge.state != EDGE_NEVER)
		ease_waits(t);
	else
		t->failures++;
	end_life(t);
	start_again(t, limited ? PACE_LIMITED : PACE_USUAL);
}

/* The cloudflared that was told to end has ended. */
static void
next_life(struct tunnel *t)
{
	if (t->renewal == RENEW_HTTP2)
		start_cloudflared(t);
	else
		start_again(t, PACE_USUAL);
}

/* --- the edge and the name --- */

/* How long the edge may be lost before that is said, in milliseconds. */
static long long
patience(const struct tunnel *t)
{
	return t->options->start_ms > 0 ? t->options->start_ms : LOST_MS;
}

static void
note_loss(struct tunnel *t)
{
	if (t->deadline[TIMER_LOST] == 0 && !t->edge.loss_said)
		set_timer(t, TIMER_LOST, patience(t));
}

/* The edge has the tunnel; what the URL waits for next is its name. */
static void
on_registered(struct tunnel *t)
{
	t->edge.state = EDGE_UP;
	t->edge.retrying = false;
	t->edge.refused = false;
	t->edge.since_ms = now_ms();
	cancel_timer(t, TIMER_LOST);
	if (t->edge.loss_said)
		say("Cloudflare's edge has the tunnel again: %s works",
		    t->url);
	t->edge.loss_said = false;
	update_record(t);
	if (t->state != UP)
		return;
	t->failures = 0;
	if (t->watching) {		/* for why it was lost */
		t->watching = false;
		names_close(&t->names);
	}
}

/* Has the name servers asked for the tunnel's name, once it may be there. */
static void
ask_for_name(struct tunnel *t)
{
	if (!is_name_wanted(t))
		return;
	if (t->names.name[0] == '\0')
		names_ask(&t->names, t->url + strlen("https://"), PUBLISH_MS,
		    PUBLISH_MAX_MS);
	t->deadline[TIMER_FALLBACK] = t->edge.since_ms + FALLBACK_MS;
}

/* Renews a tunnel of -r that is dead for sure, which cloudflared isn't. */
static void
renew_dead(struct tunnel *t, const char *why)
{
	say("%s is dead: %s", t->url, why);
	if (t->edge.state == EDGE_NEVER)
		t->failures++;
	ease_waits(t);
	renew(t, RENEW_DEAD);
}

/* The edge has lost the tunnel, or goes on not having it. */
static void
on_lost(struct tunnel *t)
{
	if (t->edge.state == EDGE_UP) {
		t->edge.state = EDGE_DOWN;
		t->edge.since_ms = now_ms();
		update_record(t);
	}
	if (t->state == UP)
		note_loss(t);
}

/* The edge doesn't know the tunnel any more. */
static void
on_refused(struct tunnel *t)
{
	t->edge.refused = true;
	on_lost(t);
	if (t->state == UP && t->edge.loss_said && t->options->restart)
		renew_dead(t, "Cloudflare's edge refuses it");
}

static void
on_quic_failed(struct tunnel *t)
{
	bool chosen = !is_empty(getenv("TUNNEL_TRANSPORT_PROTOCOL"));

	t->edge.refused = false;
	if (t->edge.state != EDGE_NEVER || t->record.url[0] != '\0')
		return;
	if (t->http2 || chosen)
		return;
	t->http2 = true;
	renew(t, RENEW_HTTP2);
}

static void
on_edge_event(struct tunnel *t, enum edge_event event)
{
	if (t->state != STARTING && t->state != UP)
		return;
	switch (event) {
	case EVENT_REGISTERED:
		on_registered(t);
		break;
	case EVENT_RETRYING:
		t->edge.retrying = true;
		on_lost(t);
		break;
	case EVENT_LOST:
		on_lost(t);
		break;
	case EVENT_REFUSED:
		on_refused(t);
		break;
	case EVENT_UNSERVED:
		if (t->edge.retrying)
			on_refused(t);
		else
			on_lost(t);
		break;
	case EVENT_UNREACHABLE:
		t->edge.refused = false;
		break;
	case EVENT_QUIC_FAILED:
		on_quic_failed(t);
		break;
	case EVENT_NONE:
		break;
	}
}

/* The edge has been lost for long: say so, and with -r find out why. */
static void
on_lost_long(struct tunnel *t)
{
	t->edge.loss_said = true;
	say("Cloudflare's edge has no connection, for %s s now: %s doesn't "
	    "work%s", t->options->start_ms > 0 ? t->options->start_text :
	    "60", t->url, t->options->restart ? "" :
	    " (if that lasts, start a new one, or use -r)");
	update_record(t);
	if (!t->options->restart)
		return;
	if (t->edge.refused) {
		renew_dead(t, "Cloudflare's edge refuses it");
	} else {
		t->watching = true;
		names_open(&t->names);
	}
}

/* Once a minute, with -r: look whether the tunnel is dead. */
static void
on_watch(struct tunnel *t)
{
	set_timer(t, TIMER_WATCH, MINUTE_MS);
	if (t->watching)
		return;
	t->watching = true;
	names_open(&t->names);
	if (t->edge.state == EDGE_UP)
		names_ask(&t->names, t->url + strlen("https://"), WATCH_MS,
		    WATCH_MS);
}

/* What the name servers have said of a tunnel that is up. */
static void
judge_tunnel(struct tunnel *t)
{
	struct tally tally = names_count(&t->names);
	bool lost = t->edge.state != EDGE_UP;
	bool answered = tally.answering > 0;

	if (!t->watching || t->state != UP)
		return;
	if (lost && t->edge.loss_said && answered) {
		renew_dead(t, "its edge is lost, and the network is there");
	} else if (!lost && answered && tally.sure_no == tally.answering) {
		renew_dead(t, "its name is gone from the DNS");
	} else if (tally.sought == 0 &&
	    (!answered || lost || tally.yes > 0)) {
		/* nothing to fear, or nobody to ask: until the next minute */
		t->watching = false;
		names_close(&t->names);
	}
}

/* The URL is out: what follows from it. */
static void
enter_up(struct tunnel *t)
{
	enter(t, UP);
	t->up_since_ms = now_ms();
	if (t->edge.state == EDGE_UP)
		t->failures = 0;
	show_url(t);
	if (t->options->command != NULL && !t->delivered)
		start_command(t);
	else if (!t->options->restart)
		let_go_of_output(t);
	t->delivered = true;
	if (t->state != UP)
		return;
	if (t->edge.state != EDGE_UP)
		note_loss(t);
	if (t->options->restart && !t->names.off)
		set_timer(t, TIMER_WATCH, MINUTE_MS);
	if (t->waiter != -1)
		dismiss_waiter(t);
}

/*
 * Gives the URL out: to others by the record, then to who started us.  If
 * nobody reads standard output, it stays ready for that.
 */
static void
publish(struct tunnel *t)
{
	clear_progress();
	if (t->record.url[0] == '\0') {
		copy_text(t->record.url, URL_SIZE, t->url);
		format_time(t->record.created, time(NULL));
		t->record.waited = !t->options->now;
		t->record.error[0] = '\0';
		t->record.log[0] = '\0';
		update_record(t);
		if (is_untraceable(t)) {
			stop(t, STOP_FAULT, EXIT_FAILURE, 0);
			return;
		}
		format_result(t->options, &t->record, t->origin, t->result,
		    sizeof t->result);
		t->printed = 0;
	}
	/* -r: once there was a URL the later ones needn't be read at once */
	if ((print_result(t) || t->delivered) && t->state != STOPPING)
		enter_up(t);
}

/* --- one tunnel an origin --- */

/* Says whether the name still leads to the file: a cleaner may have come. */
static bool
is_named(const struct stat *file, int directory, const char *name)
{
	struct stat named;

	return fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	    named.st_dev == file->st_dev && named.st_ino == file->st_ino;
}

enum claim { CLAIM_OURS, CLAIM_TAKEN, CLAIM_FAILED };

/* Locks the record, which is emptied at once: nothing old is ever believed. */
static enum claim
lock_record(struct tunnel *t, int fd)
{
	struct flock lock = whole_file(F_WRLCK);
	struct stat file;

	if (fcntl(fd, F_SETLK, &lock) == -1)
		return errno == EAGAIN || errno == EACCES ? CLAIM_TAKEN :
		    CLAIM_FAILED;
	if (fstat(fd, &file) == -1)
		return CLAIM_FAILED;
	if (file.st_nlink > 1) {
		errno = EMLINK;		/* it is somebody's, too */
		return CLAIM_FAILED;
	}
	if (!is_named(&file, t->directory, t->origin->name))
		return CLAIM_TAKEN;	/* of a file that is gone: again */
	if (ftruncate(fd, 0) == -1)
		return CLAIM_FAILED;
	/* cleaners of temporary files pass it over */
	fchmod(fd, S_IRUSR | S_IWUSR | S_ISVTX);
	return CLAIM_OURS;
}

/*
 * Tries to get the record.  Looks at who has it, if another tunnel does.
 * CLAIM_FAILED comes with errno.
 */
static enum claim
try_claim(struct tunnel *t)
{
	int fd = open_record(t->directory, t->origin->name,
	    O_RDWR | O_CREAT);
	enum claim claim;
	int error;

	memset(&t->other, 0, sizeof t->other);
	if (fd == -1)
		return CLAIM_FAILED;
	claim = lock_record(t, fd);
	if (claim == CLAIM_OURS) {
		t->record_fd = fd;
		return claim;
	}
	if (claim == CLAIM_TAKEN)
		look_at_fd(fd, &t->other);
	error = errno;
	close(fd);
	errno = error;
	return claim;
}

/* -b: gives the URL of the other tunnel out, once it works and can be read. */
static void
share_other(struct tunnel *t)
{
	const struct record *record = &t->other.record;

	await_server(t);
	if (find_missing(t) == MISSING_NOTHING) {
		if (t->printed == 0)
			format_result(t->options, record, t->origin,
			    t->result, sizeof t->result);
		clear_progress();
		if (!print_result(t) || t->state == STOPPING)
			return;
		t->record = *record;
		show_url(t);
		_exit(EXIT_SUCCESS);
	}
	/* its URL was given out before it worked: see if it does now */
	if (record->state != RECORD_UP || record->waited != 0 ||
	    strcmp(t->url, record->url) == 0)
		return;
	copy_text(t->url, URL_SIZE, record->url);
	t->edge.state = EDGE_UP;
	t->edge.since_ms = now_ms();
	t->in_dns = t->names.off;
	names_open(&t->names);
	ask_for_name(t);
}

/* The record says who has it. */
static void
meet_other(struct tunnel *t)
{
	const struct look *other = &t->other;
	bool listed = is_listed(other);

	if (other->record.pid == 0)
		t->looks++;
	/* it is just coming or going, or of another version */
	if (other->record.pid == 0 && t->looks <= UNKNOWN_LOOKS)
		return;
	if (t->options->background)
		share_other(t);
	if (t->options->background || !is_held(other) ||
	    other->record.state == RECORD_STOPPING)
		return;
	if (other->record.pid == 0)
		say("a tunnel of %s runs already: process %ld, its record "
		    "cannot be read here (tunnel -k %s stops it)",
		    t->origin->name, (long)other->holder,
		    short_name(t->origin));
	else
		say("a tunnel of %s runs already: process %ld, %s (tunnel -b "
		    "%s prints it, tunnel -k %s stops it)", t->origin->name,
		    (long)other->holder,
		    listed ? other->record.url : "no URL yet",
		    short_name(t->origin), short_name(t->origin));
	_exit(EXIT_FAILURE);
}

/* The record is ours, or there is none: the first cloudflared is started. */
static void
begin(struct tunnel *t)
{
	const struct options *options = t->options;
	char why[MESSAGE_SIZE];
	int status = find_cloudflared(options, t->self, t->program, why);

	update_record(t);
	if (status == 0 && options->command != NULL)
		status = find_command(options->command[0], t->command_path,
		    why);
	if (status != 0) {
		complain(t, why);
		stop(t, STOP_FAULT, status, 0);
	} else if (is_untraceable(t)) {
		stop(t, STOP_FAULT, EXIT_FAILURE, 0);
	} else if (t->waiter != -1 && chdir("/") == -1) {
		fail(t, "start", errno);
	} else {
		start_cloudflared(t);
	}
}

/* Tries to get the record of our origin, so that there is one tunnel of it. */
static void
on_look(struct tunnel *t)
{
	enum claim claim = try_claim(t);

	if (claim == CLAIM_TAKEN) {
		set_timer(t, TIMER_LOOK, LOOK_MS);
		meet_other(t);
		return;
	}
	if (claim == CLAIM_FAILED) {
		say("%scannot lock the record of %s: %s", name_severity(t),
		    t->origin->name, describe_fault(errno));
		if (t->options->background)
			_exit(EXIT_FAILURE);
	}
	begin(t);
}

/* --- events --- */

/* Looks for the URL in the log, which may end in the middle of it. */
static void
scan_url(struct tunnel *t, enum ending ending)
{
	size_t length;
	const char *url;

	cancel_timer(t, TIMER_PAUSE);	/* the log goes on */
	if (t->state != STARTING || t->url[0] != '\0')
		return;
	url = find_url(t->log.text, &length);
	if (url == NULL)
		return;
	if (ending == TEXT_ENDS || match_url(url, TEXT_GOES_ON) > 0)
		copy_part(t->url, URL_SIZE, url, length);
	else
		set_timer(t, TIMER_PAUSE, PAUSE_MS);
}

/*
 * Looks for the edge's state in the lines that are new; the one without an
 * end comes again when there is more of it.
 */
static void
scan_edge(struct tunnel *t)
{
	struct log *log = &t->log;
	const char *line = log->text + log->scanned;

	while (*line != '\0') {
		bool whole = is_whole(line);

		if (!log->cut) {
			read_level(line, &log->level);
			/* of an object the level may come last */
			if (whole || line[0] != '{')
				on_edge_event(t, read_edge(line));
		} else if (log->level != LEVEL_DEBUG &&
		    find(line, registered) != NULL) {
			on_edge_event(t, EVENT_REGISTERED);
		}
		line = next_line(line);
		if (whole) {
			log->scanned = (size_t)(line - log->text);
			log->cut = false;
		}
	}
}

/*
 * Reads what the pipe holds, but not for so long that signals starve.  A
 * read that isn't full has emptied it.  Of a flood, which is visitors'
 * requests at the level debug, only the beginning and the end are read for
 * the edge's state: there are none any more once that is lost.
 */
static void
take_log(struct tunnel *t)
{
	size_t size = LOG_READ;

	for (int i = 0; i < READS && size == LOG_READ; i++) {
		if (!log_read(&t->log, &size))
			break;
		scan_url(t, t->log.fd == -1 ? TEXT_ENDS : TEXT_GOES_ON);
		if (t->log.flood < FLOOD || t->state != UP)
			scan_edge(t);
		if (t->options->verbose)
			log_show(&t->log,
			    t->log.fd == -1 ? TEXT_ENDS : TEXT_GOES_ON);
		log_trim(&t->log);
	}
	ask_for_name(t);
}

/*
 * cloudflared has ended, but isn't reaped yet: what is left of its group is
 * killed while its zombie keeps the id from being used again.
 */
static void
on_cloudflared_end(struct tunnel *t)
{
	pid_t pid = t->cloudflared.pid;
	int status = 0;
	int error;

	kill(-pid, SIGKILL);
	for (int i = 0; i < LAST_READS / READS; i++)
		take_log(t);
	if (t->options->verbose)
		log_show(&t->log, TEXT_ENDS);
	/* its last words may have been the URL */
	await_server(t);
	if (is_ready(t) && t->options->command == NULL && t->waiter == -1)
		publish(t);
	waitpid(pid, &status, 0);	/* it is known to have ended */
	t->cloudflared.pid = 0;
	error = read_report(&t->cloudflared);
	close_fd(&t->log.fd);
	close_fd(&t->keeper);
	if (t->state == RENEWING) {
		next_life(t);
	} else if (t->state == STOPPING) {
		update_record(t);
		set_timer(t, TIMER_LEAVE, LEAVE_MS);
	} else {
		died(t, status, error);
	}
}

static void
on_command_end(struct tunnel *t, int wait_status)
{
	int error = read_report(&t->command);
	int status = WEXITSTATUS(wait_status);

	if (WIFSIGNALED(wait_status))
		status = 128 + WTERMSIG(wait_status);
	t->command.pid = 0;
	update_record(t);
	if (error != 0)
		fail_program(t, t->command_path, error, STOP_COMMAND);
	else
		stop(t, STOP_COMMAND, status, 0);
	if (t->stop.reason == STOP_SIGNAL) {
		t->stop.status = status;	/* the command was asked, too */
		t->stop.signal = 0;
	}
}

/*
 * Says whether SIGCONT has come since the stop signal, or comes at once.  Who
 * sends it so soon must not meet the moment of the stop, in which the system
 * forgets one that is on its way.  It is looked for more than once, since a
 * machine that paused lets its sender and us run again at the same instant.
 */
static bool
is_resumed(struct signals *signals)
{
	struct pollfd wait = { signal_pipe[0], POLLIN, 0 };
	long long last = now_ms() + RESUME_LAST_MS;
	int looks = RESUME_LOOKS;

	while (!has_signal(signals, SIGCONT) && looks > 0 &&
	    now_ms() < last) {
		if (poll(&wait, 1, RESUME_MS) == 0)
			looks--;
		collect_signals(signals);
	}
	return has_signal(signals, SIGCONT);
}

/* Lets a stop signal have its effect on us, unless a SIGCONT came since. */
static void
suspend_ourselves(struct tunnel *t)
{
	bool ignored = is_ignored(t->caller, SIGTSTP);

	mask_signal(SIG_BLOCK, SIGTSTP);
	set_action(SIGTSTP, SIG_DFL, 0);
	/* from here on the system forgets the one when the other comes */
	kill(getpid(), SIGTSTP);
	collect_signals(&t->signals);
	if (has_signal(&t->signals, SIGCONT))
		set_action(SIGTSTP, SIG_IGN, 0);
	mask_signal(SIG_UNBLOCK, SIGTSTP);
	set_action(SIGTSTP, ignored ? SIG_IGN : on_signal, 0);
	collect_signals(&t->signals);
}

/*
 * Stops us by SIGSTOP, which no SIGCONT before it takes back: so one that
 * comes between the last look for it and the stop makes that a signal 0.
 */
static void
stop_ourselves(struct signals *signals)
{
	pid_t pid = getpid();

	stop_signal = SIGSTOP;
	collect_signals(signals);
	if (!has_signal(signals, SIGCONT))
		kill(pid, stop_signal);
}

/* Says whether there is a terminal that Ctrl-Z could be typed at. */
static bool
has_terminal(void)
{
	int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);

	if (fd == -1)
		return false;
	close(fd);
	return true;
}

enum suspender { BY_SIGNAL, BY_COMMAND };

/*
 * Stops cloudflared and us until somebody continues us.  The system stops
 * nobody that no shell could continue, which is right at a terminal; away
 * from one, who sends SIGTSTP means it.
 */
static void
suspend(struct tunnel *t, enum suspender suspender)
{
	struct signals *signals = &t->signals;

	if (is_resumed(signals))
		return;
	clear_progress();
	signal_cloudflared(t, SIGSTOP);
	suspend_ourselves(t);
	if (suspender == BY_SIGNAL && !has_signal(signals, SIGCONT) &&
	    !has_terminal())
		stop_ourselves(signals);
	/* the command is continued when SIGCONT has its turn, if it came */
	if (t->cloudflared.pid != 0)
		signal_group(t->cloudflared.pid, SIGCONT);
}

/* A command that stops itself stops us, as if we were it. */
static void
follow_command(struct tunnel *t)
{
	siginfo_t info;

	if (t->command.pid == 0)
		return;
	memset(&info, 0, sizeof info);
	if (waitid(P_PID, (id_t)t->command.pid, &info,
	    WSTOPPED | WNOHANG) == 0 && info.si_pid == t->command.pid &&
	    !has_signal(&t->signals, SIGCONT))
		suspend(t, BY_COMMAND);
}

/* Reaps whoever has ended; as process 1 that is every orphan. */
static void
reap(struct tunnel *t)
{
	siginfo_t info;
	int options = WEXITED | WNOHANG | WNOWAIT;
	int status;

	for (;;) {
		memset(&info, 0, sizeof info);
		if (waitid(P_ALL, 0, &info, options) == -1 || info.si_pid == 0)
			break;
		if (info.si_pid == t->cloudflared.pid)
			on_cloudflared_end(t);
		else if (waitpid(info.si_pid, &status, 0) == info.si_pid &&
		    info.si_pid == t->command.pid)
			on_command_end(t, status);
	}
	follow_command(t);
	sweep(t);
}

/* Somebody asks for the end; but for TERM a command decides, if one runs. */
static void
on_stop_signal(struct tunnel *t, int number)
{
	if (t->state == STOPPING) {
		if (now_ms() - t->stop.since_ms >= INSIST_MS)
			kill_children(t);
		return;
	}
	if (t->command.pid == 0 || number == SIGTERM) {
		stop(t, STOP_SIGNAL, EXIT_FAILURE, number);
	} else if (number != SIGINT && number != SIGQUIT) {
		signal_command(t, number);
		signal_command(t, SIGCONT);
	}
}

static void
on_signal_event(struct tunnel *t, int number)
{
	switch (number) {
	case SIGCHLD:
		reap(t);
		break;
	case SIGTSTP:
		suspend(t, BY_SIGNAL);
		break;
	case SIGCONT:
		t->input_events = POLLIN;
		continue_children(t);
		break;
	default:
		on_stop_signal(t, number);
		break;
	}
}

/* Takes the signals that have come, in their order. */
static void
take_signals(struct tunnel *t)
{
	struct signals *signals = &t->signals;

	collect_signals(signals);
	while (signals->count > 0) {
		int number = signals->numbers[0];

		drop_signal(signals, number);
		on_signal_event(t, number);
	}
}

/*
 * -i: reads what nobody wants, until its end.  A terminal says nothing to a
 * job in the background; it is looked at again when that is continued.
 */
static void
take_input(struct tunnel *t)
{
	char bytes[4096];
	ssize_t size = recv(t->input_own, bytes, sizeof bytes, MSG_DONTWAIT);
	pid_t group;

	if (size == -1 && errno == ENOTSOCK)
		size = read(t->input_own, bytes, sizeof bytes);
	if (size > 0 || (size == -1 && (errno == EAGAIN || errno == EINTR)))
		return;
	t->input_events = 0;
	group = tcgetpgrp(STDIN_FILENO);
	if (size == -1 && group != -1 && group != getpgrp())
		return;
	t->input = -1;
	stop(t, STOP_INPUT, EXIT_SUCCESS, 0);
}

/* Tells what was missing when the start deadline passed. */
static void
tell_missing(const struct tunnel *t, enum missing missing, char *text,
    size_t size)
{
	char other[NAME_SIZE + 64] = "";
	char server[NAME_SIZE + 64] = "";

	if (missing == MISSING_NOTHING)
		missing = MISSING_READER;
	if (t->state == CLAIMING)
		snprintf(other, sizeof other, "one of %s runs already, "
		    "process %ld: ", t->origin->name, (long)t->other.holder);
	if (t->options->wait && !t->listening && missing != MISSING_END)
		snprintf(server, sizeof server, "; nothing is listening on "
		    "%s%s", t->origin->name, t->options->command != NULL ?
		    ", which the command waits for" : "");
	snprintf(text, size, "no tunnel within %s s: %s%s%s",
	    t->options->start_text, other, missing_texts[missing].fault,
	    server);
}

/* The start deadline has passed, unless all is there just now. */
static void
on_late(struct tunnel *t)
{
	enum missing missing;
	const struct hint *hint;
	const char *advice = NULL;
	char what[REASON_SIZE];

	if (t->options->wait && !t->listening)
		look_for_server(t);
	if (t->state == CLAIMING)
		on_look(t);
	missing = find_missing(t);
	if (is_ready(t))
		publish(t);
	if (t->state == UP || t->state == STOPPING)
		return;
	tell_missing(t, missing, what, sizeof what);
	if (missing == MISSING_URL || missing == MISSING_EDGE) {
		hint = choose_hint(log_lines(&t->log));
		if (hint != NULL)
			advice = hint->text;
		else if (t->http2 && !t->delivered)
			advice = out_of_reach;	/* QUIC's was, before */
		tell_failure(t, what, advice);
	} else {
		complain(t, what);
	}
	if (t->delivered)
		renew(t, RENEW_DEAD);
	else
		stop(t, STOP_DEADLINE, EXIT_DEADLINE, 0);
}

/* The log has paused: what ends it may be a URL. */
static void
on_pause(struct tunnel *t)
{
	scan_url(t, TEXT_ENDS);
	ask_for_name(t);
}

/* What cloudflared has left us should be gone by now. */
static void
on_leave(struct tunnel *t)
{
	if (t->command.pid != 0) {
		set_timer(t, TIMER_LEAVE, LEAVE_MS);
		return;
	}
	say("cannot end all that cloudflared has left behind (process group "
	    "%ld)", (long)t->group);
	t->given_up = true;
}

static void (*const timer_handlers[TIMERS])(struct tunnel *) = {
	[TIMER_LOOK] = on_look,
	[TIMER_START] = on_late,
	[TIMER_PAUSE] = on_pause,
	[TIMER_PROBE] = look_for_server,
	[TIMER_FALLBACK] = judge_name,
	[TIMER_RESTART] = start_cloudflared,
	[TIMER_GRACE] = kill_children,
	[TIMER_LEAVE] = on_leave,
	[TIMER_LOST] = on_lost_long,
	[TIMER_WATCH] = on_watch,
};

static void
take_deadlines(struct tunnel *t)
{
	for (int i = 0; i < TIMERS; i++) {
		if (t->deadline[i] == 0 || t->deadline[i] > now_ms())
			continue;
		cancel_timer(t, (enum timer)i);
		timer_handlers[i](t);
	}
}

static void
watch_fd(struct pollfd *slot, int fd, short events)
{
	slot->fd = fd;
	slot->events = events;
	slot->revents = 0;
}

/*
 * Fills the slots.  A descriptor of -1 is passed over by poll.  The output
 * is watched for room if there is something to print, and with -r for its
 * reader to leave.
 */
static void
fill_slots(struct tunnel *t, struct pollfd slots[SLOTS])
{
	bool print = is_unprinted(t) && (t->state == UP || is_ready(t));
	bool leave = t->options->restart && t->state == UP;

	watch_fd(&slots[SLOT_LOG], t->log.fd, POLLIN);
	watch_fd(&slots[SLOT_SIGNALS], signal_pipe[0], POLLIN);
	watch_fd(&slots[SLOT_OUTPUT], print || leave ? t->output.fd : -1,
	    print ? POLLOUT : 0);
	watch_fd(&slots[SLOT_INPUT], t->input, t->input_events);
	watch_fd(&slots[SLOT_WAITER], t->waiter, POLLIN);
	for (int i = 0; i < SERVERS; i++)
		watch_fd(&slots[SLOT_SERVER + i], t->names.servers[i].fd,
		    POLLIN);
}

/* How long poll may sleep: until the first deadline, or -1 for ever. */
static int
find_timeout(const struct tunnel *t)
{
	long long next = names_due(&t->names);
	long long left;

	if (t->signals.count > 0)
		return 0;
	for (int i = 0; i < TIMERS; i++) {
		long long deadline = t->deadline[i];

		if (deadline > 0 && (next == 0 || deadline < next))
			next = deadline;
	}
	if (next == 0)
		return -1;
	left = next - now_ms();		/* a day at most */
	return left > 0 ? (int)left : 0;
}

static void
take_answers(struct tunnel *t, const struct pollfd slots[SLOTS])
{
	for (int i = 0; i < SERVERS; i++) {
		struct server *server = &t->names.servers[i];

		if (slots[SLOT_SERVER + i].revents != 0 &&
		    server->fd == slots[SLOT_SERVER + i].fd)
			names_receive(&t->names, server);
	}
	names_step(&t->names);
	judge_name(t);
	judge_tunnel(t);
}

/* The reader of results has made room, or has left. */
static void
take_output(struct tunnel *t, int revents)
{
	if (t->state != UP)
		return;
	if (is_unprinted(t))
		print_result(t);
	else if ((revents & ~POLLOUT) != 0)
		let_go_of_output(t);
}

/* One turn: sleeps until something happens, and takes what has. */
static void
take_events(struct tunnel *t)
{
	struct pollfd slots[SLOTS];

	show_waiting(t);
	fill_slots(t, slots);
	if (poll(slots, SLOTS, find_timeout(t)) == -1 && errno != EINTR &&
	    errno != EAGAIN) {
		if (t->state != STOPPING)
			fail(t, "wait for events", errno);
		slots[SLOT_SIGNALS].revents = POLLIN;	/* so that it ends */
	}
	if (slots[SLOT_LOG].revents != 0)
		take_log(t);
	if (slots[SLOT_SIGNALS].revents != 0 || t->signals.count > 0)
		take_signals(t);
	if (slots[SLOT_INPUT].revents != 0)
		take_input(t);
	if (slots[SLOT_WAITER].revents != 0) {
		close_fd(&t->waiter);
		stop(t, STOP_WAITER, EXIT_FAILURE, SIGHUP);
	}
	if (slots[SLOT_OUTPUT].revents != 0)
		take_output(t, slots[SLOT_OUTPUT].revents);
	take_answers(t, slots);
	take_deadlines(t);
	await_server(t);
	if (is_ready(t))
		publish(t);
}

/* ======================================================================
 * The ways to use it
 *
 * A tunnel in the foreground or the background; and -l and -k, which are
 * clients of the records, create nothing and know nothing of the above.
 * ====================================================================== */

/* Ends the program as the tunnel has ended. */
static NORETURN void
leave(struct tunnel *t)
{
	t->record.state = RECORD_OVER;
	t->record.url[0] = '\0';
	write_record(t);
	if (t->stop.signal != 0)
		die_of(t->stop.signal);
	_exit(t->stop.status);
}

static NORETURN void
run_tunnel(struct tunnel *t)
{
	const struct options *options = t->options;

	t->record.pid = getpid();
	t->record.grace_ms = options->grace_ms;
	copy_text(t->record.origin, ORIGIN_SIZE, t->origin->url);
	t->restart_ms = RESTART_MS;
	t->limited_ms = LIMITED_MS;
	if (options->start_ms > 0)
		set_timer(t, TIMER_START, options->start_ms);
	if (options->input) {
		t->input = STDIN_FILENO;
		t->input_events = POLLIN;
		t->input_own = reopen(STDIN_FILENO, O_RDONLY);
		if (t->input_own == -1)
			t->input_own = STDIN_FILENO;
	}
	if (options->command == NULL)
		open_outlet(&t->output, STDOUT_FILENO);
	t->sweeps = options->command == NULL && !t->caller->had_children &&
	    getpid() != 1;
	if (!t->caller->had_children)
		adopt_orphans();
	t->directory = open_directory(TO_KEEP, name_severity(t));
	if (t->directory == -1 && options->background)
		_exit(EXIT_FAILURE);
	if (!open_signals(t->caller))
		give_up("start");
	if (t->directory == -1)
		begin(t);
	else
		on_look(t);
	while (!is_over(t))
		take_events(t);
	leave(t);
}

/* Waits for the tunnel in the background, passing signals on to it. */
static NORETURN void
wait_for_url(int socket, pid_t child)
{
	struct pollfd slots[2];
	struct signals signals;
	bool asked = false;		/* to stop, which it will */
	int status = 0;
	char byte;

	while (socket != -1 || waitpid(child, &status, WNOHANG) == 0) {
		watch_fd(&slots[0], socket, POLLIN);
		watch_fd(&slots[1], signal_pipe[0], POLLIN);
		poll(slots, COUNT(slots), -1);
		/* first: a stop wins over a URL that came at the same time */
		signals.count = 0;
		collect_signals(&signals);
		for (size_t i = 0; i < signals.count; i++) {
			int number = signals.numbers[i];

			/* it is in another session: no Ctrl-Z for it */
			if (number == SIGCHLD || number == SIGTSTP)
				continue;
			kill(child, number);
			kill(child, SIGCONT);	/* who is stopped can't end */
			asked = asked || number != SIGCONT;
		}
		if (slots[0].revents == 0)
			continue;
		if (!asked && read(socket, &byte, 1) == 1)
			_exit(EXIT_SUCCESS);
		close_fd(&socket);	/* SIGCHLD tells when it has ended */
	}
	if (WIFSIGNALED(status))
		die_of(WTERMSIG(status));
	_exit(WEXITSTATUS(status));
}

/* Runs the tunnel in a child, and waits until that has the URL out. */
static NORETURN void
run_in_background(struct tunnel *t)
{
	int ends[2];
	struct caller caller = *t->caller;
	pid_t child = -1;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 &&
	    open_signals(t->caller)) {
		block_all_signals();
		child = fork();
	}
	if (child == -1)
		give_up("go to the background");
	if (child > 0) {
		close(ends[1]);
		unblock_signals();
		wait_for_url(ends[0], child);
	}
	/* the caller's locks and pipes are none of a long life's business */
	if (dup2(t->null, 3) == -1 || dup2(ends[1], 4) == -1)
		give_up("go to the background");
	t->null = 3;
	t->waiter = 4;
	close_from(5);
	open_outlet(&errors, STDERR_FILENO);
	setsid();		/* needs no /dev/tty now, nor minds a Ctrl-Z */
	restore_signals(&caller);
	unblock_signals();
	caller.had_children = false;
	t->caller = &caller;
	run_tunnel(t);
}

/* An error that isn't "no such file" says nothing about who runs. */
static void
tell_unknown(const char *name, int error)
{
	say("cannot tell whether a tunnel of %s runs: %s", name,
	    describe_fault(error));
}

/* Says why a tunnel isn't listed, and what ended the last one. */
static void
tell_unlisted(const struct origin *origin, const struct look *look)
{
	const struct record *record = &look->record;

	if (is_held(look))
		say("the tunnel of %s, process %ld, %s%s", origin->name,
		    (long)look->holder, record->state == RECORD_STOPPING ?
		    "is stopping" : "has no URL yet", record->pid == 0 ?
		    ", or a record that cannot be read here" : "");
	else if (record->error[0] == '\0')
		say("no tunnel of %s runs", origin->name);
	else
		say("no tunnel of %s runs; the last one failed: %s%s%s",
		    origin->name, record->error,
		    record->log[0] != '\0' ? "; its log ended with: " : "",
		    record->log);
}

/* What -l and -k look at: the origins that were named, or all records. */
struct subjects {
	char **operands;	/* what is left of them; NULL: all records */
	DIR *records;		/* NULL: there are none */
};

/* Opens the directory for -l and -k.  Returns -1 if there is none. */
static int
open_subjects(struct subjects *subjects, char **operands)
{
	int directory = open_directory(TO_LOOK, "");

	if (directory == -1 && errno != ENOENT)
		_exit(EXIT_FAILURE);
	subjects->operands = operands[0] != NULL ? operands : NULL;
	subjects->records = NULL;
	if (subjects->operands != NULL || directory == -1)
		return directory;
	subjects->records = fdopendir(directory);
	if (subjects->records == NULL)
		give_up("read the directory of the records");
	return directory;
}

/*
 * Takes the next origin; of the names in the directory those that records
 * have.  Returns false if there is no more.
 */
static bool
next_origin(struct subjects *subjects, struct origin *origin)
{
	struct dirent *entry;

	if (subjects->operands != NULL)
		return *subjects->operands != NULL &&
		    parse_origin(*subjects->operands++, origin) == ORIGIN_RIGHT;
	for (;;) {
		errno = 0;
		entry = subjects->records == NULL ? NULL :
		    readdir(subjects->records);
		if (entry == NULL && errno != 0)
			give_up("read the directory of the records");
		if (entry == NULL)
			return false;
		if (parse_origin(entry->d_name, origin) == ORIGIN_RIGHT &&
		    strcmp(origin->name, entry->d_name) == 0)
			return true;
	}
}

/*
 * Looks at a record, again if it says nothing, since its tunnel may be just
 * coming.  Returns whether somebody holds it, but it can't be read.
 */
static bool
look_again(int directory, const char *name, struct look *look)
{
	for (int looks = 6; looks > 0; looks--) {
		look_at(directory, name, look);
		if (!is_held(look) || look->record.pid != 0)
			return false;
		sleep_ms(10);
	}
	return true;
}

/*
 * -l: lists the tunnels of these origins, or all.  Of all, one without a URL
 * is told at a terminal only.
 */
static NORETURN void
list_tunnels(const struct options *options, char **operands)
{
	struct subjects subjects;
	int directory = open_subjects(&subjects, operands);
	bool named = subjects.operands != NULL;
	struct origin origin;
	struct look look;
	char text[1024];
	bool idle = true;
	bool ok = true;

	while (next_origin(&subjects, &origin)) {
		bool unread = look_again(directory, origin.name, &look);

		idle = idle && !is_held(&look);
		if (is_listed(&look)) {
			format_result(options, &look.record, &origin, text,
			    sizeof text);
			print(text);
			continue;
		}
		if (look.kind == LOOK_UNKNOWN)
			tell_unknown(origin.name, look.error);
		else if (named || unread ||
		    (is_held(&look) && errors_terminal))
			tell_unlisted(&origin, &look);
		if (named || look.kind == LOOK_UNKNOWN)
			ok = false;
	}
	if (!named && idle && ok && errors_terminal)
		say("no tunnel runs");
	_exit(ok ? EXIT_SUCCESS : EXIT_FAILURE);
}

enum {
	BATCH = 64,		/* tunnels that -k stops at a time */
	UNKNOWN_GRACE_MS = 10000,
	EXIT_LOOK_MS = 10	/* between two looks for a process */
};

/* A tunnel that -k was told to stop, and what was found of it. */
struct target {
	char name[NAME_SIZE];
	enum look_kind kind;
	pid_t holder;
	pid_t group;
	long long grace_ms;
};

/*
 * Signals the process that holds a record.  It may end between the question
 * who that is and the signal: so it is held on to, and asked for again.
 */
static void
signal_holder(int directory, const struct target *target, int number)
{
	int process = open_process(target->holder);
	struct look look;

	look_at(directory, target->name, &look);
	if (look.kind == LOOK_HELD && look.holder == target->holder)
		signal_process(process, target->holder, number);
	close_fd(&process);
}

/* Asks a tunnel to stop, unless it does so already. */
static bool
ask_to_stop(int directory, struct target *target)
{
	struct look look;

	look_at(directory, target->name, &look);
	target->kind = look.kind;
	target->holder = look.holder;
	target->group = (pid_t)look.record.group;
	target->grace_ms = look.record.grace_ms;
	if (look.record.pid == 0)	/* another version's, or new */
		target->grace_ms = UNKNOWN_GRACE_MS;
	switch (look.kind) {
	case LOOK_HELD:
		if (look.record.state != RECORD_STOPPING)
			signal_holder(directory, target, SIGTERM);
		signal_holder(directory, target, SIGCONT);
		return true;
	case LOOK_HELD_UNNAMED:
		say("cannot stop the tunnel of %s: it runs in another PID "
		    "namespace (stop it from there)", target->name);
		return false;
	case LOOK_UNKNOWN:
		tell_unknown(target->name, look.error);
		return false;
	default:
		return true;
	}
}

static bool
is_still_held(int directory, const struct target *target, struct look *look)
{
	look_at(directory, target->name, look);
	return look->kind == LOOK_HELD && look->holder == target->holder;
}

/*
 * Waits until a tunnel has let go of its record.  Returns whether it has for
 * sure: that one can't tell is no sign of it.
 */
static bool
await_release(int directory, const struct target *target, long long until)
{
	struct look look;

	while (is_still_held(directory, target, &look) ||
	    look.kind == LOOK_UNKNOWN) {
		if (now_ms() >= until)
			return false;
		sleep_ms(5);
	}
	return true;
}

/*
 * The tunnel hasn't stopped in its time.  While it is stopped itself it
 * can't reap, so that its children's ids are their own.
 */
static void
kill_tunnel(int directory, const struct target *target, int process)
{
	struct look look;

	signal_holder(directory, target, SIGSTOP);
	if (!is_still_held(directory, target, &look)) {
		/* it may be: then it has to go on */
		if (look.kind == LOOK_UNKNOWN)
			signal_process(process, target->holder, SIGCONT);
		return;
	}
	if (look.record.group > 0)
		kill(-(pid_t)look.record.group, SIGKILL);
	if (look.record.command > 0)
		kill((pid_t)look.record.command, SIGKILL);
	signal_holder(directory, target, SIGKILL);
}

/*
 * Waits a moment for the end of a tunnel that has let go of its record, and
 * of cloudflared's group.  A zombie that nobody reaps is none of our
 * business.
 */
static bool
await_exit(int process, pid_t group)
{
	struct pollfd wait = { process, POLLIN, 0 };
	int looks = INSIST_MS / EXIT_LOOK_MS;

	poll(&wait, 1, process != -1 ? INSIST_MS : EXIT_LOOK_MS);
	while (group > 0 && kill(-group, 0) == 0 && looks-- > 0)
		sleep_ms(EXIT_LOOK_MS);
	if (group <= 0 || (kill(-group, 0) == -1 && errno == ESRCH))
		return true;
	/* not the group: macOS refuses zombies, and a keeper lets us */
	if (kill(group, 0) == 0 || errno != EPERM)
		return true;
	say("cannot end cloudflared, process %ld, which runs as another user: "
	    "end it yourself", (long)group);
	return false;
}

/* Waits until a tunnel that was asked to stop is gone, or kills it. */
static bool
await_end(int directory, const struct target *target, long long asked_ms)
{
	long long until = asked_ms + target->grace_ms + LEAVE_MS;
	int process = open_process(target->holder);
	bool ok = await_release(directory, target, until);

	if (!ok) {
		kill_tunnel(directory, target, process);
		ok = await_release(directory, target, now_ms() + LEAVE_MS);
	}
	if (ok)
		ok = await_exit(process, target->group);
	else
		say("cannot stop the tunnel of %s, process %ld",
		    target->name, (long)target->holder);
	close_fd(&process);
	return ok;
}

/* Stops these tunnels: asks all of them, then waits for each. */
static bool
stop_targets(int directory, struct target *targets, size_t count)
{
	long long asked_ms;
	bool ok = true;

	for (size_t i = 0; i < count; i++)
		if (!ask_to_stop(directory, &targets[i]))
			ok = false;
	asked_ms = now_ms();
	for (size_t i = 0; i < count; i++)
		if (targets[i].kind == LOOK_HELD &&
		    !await_end(directory, &targets[i], asked_ms))
			ok = false;
	return ok;
}

/* Adds a target, once.  Returns how many there are. */
static size_t
add_target(struct target *targets, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(targets[i].name, name) == 0)
			return count;
	copy_text(targets[count].name, NAME_SIZE, name);
	return count + 1;
}

/*
 * -k: stops the tunnels of these origins, -ka: all; so many at a time.  That
 * there was nothing to stop is told at a terminal only.
 */
static NORETURN void
stop_tunnels(const struct options *options, char **operands)
{
	static struct target targets[BATCH];
	struct subjects subjects;
	int directory = open_subjects(&subjects, operands);
	struct origin origin;
	size_t count = BATCH;
	bool idle = true;
	bool ok = true;

	while (count == BATCH) {
		count = 0;
		while (count < BATCH && next_origin(&subjects, &origin))
			count = add_target(targets, count, origin.name);
		if (!stop_targets(directory, targets, count))
			ok = false;
		for (size_t i = 0; i < count; i++) {
			bool none = targets[i].kind == LOOK_ABSENT ||
			    targets[i].kind == LOOK_FREE;

			idle = idle && none;
			if (none && errors_terminal && !options->all)
				say("no tunnel of %s runs", targets[i].name);
		}
	}
	if (options->all && idle && errors_terminal)
		say("no tunnel runs");
	_exit(ok ? EXIT_SUCCESS : EXIT_FAILURE);
}

/*
 * Opens the null device, and fills those of 0 to 2 that are missing, so that
 * no other file gets there; writing to them still fails.
 */
static int
open_null(void)
{
	int null;

	do {
		null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	} while (null >= STDIN_FILENO && null <= STDERR_FILENO);
	return null;
}

int
main(int argc, char **argv)
{
	static struct tunnel tunnel;
	static struct options options;
	static struct origin origin;
	static struct caller caller;
	struct tunnel *t = &tunnel;
	int null_error;

	note_caller(&caller);
	unblock_signals();
	t->null = open_null();
	null_error = errno;
	errors_terminal = isatty(STDERR_FILENO) == 1;
	open_outlet(&errors, STDERR_FILENO);
	options.grace_ms = 3000;
	options.start_ms = 30000;
	options.start_text = "30";
	take_options(&options, argc, argv);
	take_operands(&options, argv + optind, &origin);
	if (t->null == -1) {
		errno = null_error;
		give_up("open /dev/null");
	}
	if (options.list)
		list_tunnels(&options, argv + optind);
	if (options.kill)
		stop_tunnels(&options, argv + optind);
	t->options = &options;
	t->origin = &origin;
	t->caller = &caller;
	t->self = argv[0];
	t->log.fd = t->cloudflared.report = t->command.report = -1;
	t->keeper = t->record_fd = t->directory = -1;
	t->output.fd = t->input = t->waiter = -1;
	names_configure(&t->names);
	if (options.background)
		run_in_background(t);
	run_tunnel(t);
}
