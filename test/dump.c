/*
 * dump: has a program that is measured by gcov count up to its very end.
 *
 * The counters are written at an exit(3). Tunnel never calls that: its processes end by
 * _exit, by a signal that they raise, or as another program. Linked with --wrap, these
 * come instead of the three, and write first. After it counting starts again, for what
 * still happens where the call comes back.
 */
#include <signal.h>
#include <unistd.h>

void __gcov_dump(void);
void __gcov_reset(void);
void __real__exit(int);
int __real_raise(int);
int __real_execvp(const char *, char *const []);
void __wrap__exit(int);
int __wrap_raise(int);
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
__wrap_raise(int number)
{
	dump();
	return __real_raise(number);
}

int
__wrap_execvp(const char *file, char *const arguments[])
{
	dump();
	return __real_execvp(file, arguments);
}
