/*
 * start: run a program in a state of the test's choosing.
 *
 * usage: start [-g] [-b signal] [-c fd] [-e file] [-i signal] [-n files]
 *              [-o file] [-r file] -- program [argument ...]
 *
 *   -b signal   block it          -c fd       close it
 *   -i signal   ignore it         -n files    set RLIMIT_NOFILE
 *   -o file     standard output   -e file     standard error (both appended to)
 *   -g          give the program a process group of its own
 *   -r file     see below
 *
 * Whatever the test runner ignores, blocks or has open beyond standard error is
 * put right first: background jobs of a shell have INT ignored, and an
 * inherited descriptor of the runner would make it wait for the program.
 *
 * With -r, start prints the program's process id and ends. A process left
 * behind waits for the program and then writes "exit N" or "signal N" to the
 * file, which tells an exit with 143 from a death by SIGTERM; a shell's $?
 * can't.
 */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	int number;
} signals[] = {
	{ "ALRM", SIGALRM }, { "CHLD", SIGCHLD }, { "CONT", SIGCONT },
	{ "HUP", SIGHUP },   { "INT", SIGINT },   { "PIPE", SIGPIPE },
	{ "QUIT", SIGQUIT }, { "TERM", SIGTERM }, { "TSTP", SIGTSTP },
	{ "TTIN", SIGTTIN }, { "TTOU", SIGTTOU }, { "USR1", SIGUSR1 },
	{ "USR2", SIGUSR2 },
};

static void
die(const char *what)
{
	fprintf(stderr, "start: %s: %s\n", what, strerror(errno));
	exit(125);
}

static int
signal_number(const char *name)
{
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		if (strcmp(signals[i].name, name) == 0)
			return signals[i].number;
	errno = EINVAL;
	die(name);
	return 0;
}

static void
reset_signals(void)
{
	sigset_t none;

	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		signal(signals[i].number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void
close_inherited(void)
{
	DIR *directory = opendir("/dev/fd");
	struct dirent *entry;

	if (directory == NULL)
		return;
	while ((entry = readdir(directory)) != NULL) {
		int fd = atoi(entry->d_name);

		if (fd > 2 && fd != dirfd(directory))
			close(fd);
	}
	closedir(directory);
}

static void
open_as(const char *path, int fd)
{
	int opened;

	if (path == NULL)
		return;
	opened = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
	if (opened == -1 || dup2(opened, fd) == -1)
		die(path);
	if (opened != fd)
		close(opened);
}

static void
write_result(const char *path, int status)
{
	char line[32];
	int length, fd;

	if (WIFEXITED(status))
		length = snprintf(line, sizeof line, "exit %d\n",
		    WEXITSTATUS(status));
	else
		length = snprintf(line, sizeof line, "signal %d\n",
		    WTERMSIG(status));
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (fd == -1 || write(fd, line, (size_t)length) != length)
		_exit(125);
}

/*
 * Returns in the program's process. The other two let go of standard output, so
 * that pid=$(start ...) ends.
 */
static void
leave_a_keeper(const char *result)
{
	pid_t program = 0;
	int status, null;

	switch (fork()) {
	case -1:
		die("fork");
		break;
	case 0:
		program = fork();
		break;
	default:
		_exit(0);
	}
	if (program == -1)
		die("fork");
	if (program > 0) {
		printf("%ld\n", (long)program);
		fflush(stdout);
	}
	null = open("/dev/null", O_RDWR);
	if (null == -1 || dup2(null, 1) == -1)
		die("/dev/null");
	if (program > 0)
		dup2(null, 2);
	if (null > 2)
		close(null);
	if (program == 0)
		return;

	/* A signal to everyone in the terminal must not cost the result. */
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		if (signals[i].number != SIGCHLD)
			signal(signals[i].number, SIG_IGN);
	while (waitpid(program, &status, 0) == -1)
		if (errno != EINTR)
			_exit(125);
	write_result(result, status);
	_exit(0);
}

static void
limit_files(const char *number)
{
	struct rlimit limit;

	limit.rlim_cur = limit.rlim_max = (rlim_t)strtoul(number, NULL, 10);
	if (setrlimit(RLIMIT_NOFILE, &limit) == -1)
		die("setrlimit");
}

int
main(int argc, char *argv[])
{
	const char *output = NULL, *errors = NULL, *result = NULL;
	const char *files = NULL;
	int close_fd[3] = { 0, 0, 0 };
	int own_group = 0, option;
	sigset_t blocked, ignored;

	sigemptyset(&blocked);
	sigemptyset(&ignored);
	while ((option = getopt(argc, argv, "gb:c:e:i:n:o:r:")) != -1) {
		switch (option) {
		case 'b':
			sigaddset(&blocked, signal_number(optarg));
			break;
		case 'c':
			if (strlen(optarg) != 1 ||
			    strchr("012", *optarg) == NULL) {
				errno = EINVAL;
				die(optarg);
			}
			close_fd[*optarg - '0'] = 1;
			break;
		case 'e':
			errors = optarg;
			break;
		case 'g':
			own_group = 1;
			break;
		case 'i':
			sigaddset(&ignored, signal_number(optarg));
			break;
		case 'n':
			files = optarg;
			break;
		case 'o':
			output = optarg;
			break;
		case 'r':
			result = optarg;
			break;
		default:
			return 125;
		}
	}
	if (optind == argc) {
		errno = EINVAL;
		die("no program");
	}

	close_inherited();
	reset_signals();
	if (result != NULL)
		leave_a_keeper(result);
	if (own_group && setpgid(0, 0) == -1)
		die("setpgid");
	open_as(errors, 2);
	open_as(output, 1);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		if (sigismember(&ignored, signals[i].number))
			signal(signals[i].number, SIG_IGN);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	if (files != NULL)
		limit_files(files);
	for (int fd = 0; fd <= 2; fd++)
		if (close_fd[fd])
			close(fd);
	execvp(argv[optind], argv + optind);
	if (!close_fd[2])
		die(argv[optind]);
	return 125;
}
