/*
 * dump: has a program that is measured by gcov count up to its very end.
 *
 * The counters are written at an exit(3). Tunnel never calls that: its
 * processes end by _exit, by a signal to themselves, or as another program.
 * Linked with --wrap, these come instead of the four, and write first. After it
 * counting starts again, for what still happens where the call comes back.
 */
#include <sys/types.h>
#include <signal.h>
#include <unistd.h>

void __gcov_dump(void);
void __gcov_reset(void);
void __real__exit(int);
int __real_kill(pid_t, int);
int __real_execv(const char *, char *const []);
int __real_execvp(const char *, char *const []);
void __wrap__exit(int);
int __wrap_kill(pid_t, int);
int __wrap_execv(const char *, char *const []);
int __wrap_execvp(const char *, char *const []);

static void
dump(void)
{
	__gcov_dump();
	__gcov_reset();
}

void
__wrap__exit(int status)
{
	dump();
	__real__exit(status);
}

int
__wrap_kill(pid_t pid, int number)
{
	/* a stop is no end, and writing would put it off: SIGCONT may come */
	if (pid == getpid() && number != SIGSTOP && number != SIGTSTP)
		dump();
	return __real_kill(pid, number);
}

int
__wrap_execv(const char *file, char *const arguments[])
{
	dump();
	return __real_execv(file, arguments);
}

int
__wrap_execvp(const char *file, char *const arguments[])
{
	dump();
	return __real_execvp(file, arguments);
}
