/*
 * quick: what takes part in a run whose system calls fail, and must not be
 * hit itself.
 *
 * usage: quick tunnel --url ORIGIN [--config /dev/null]
 *        quick command
 *        quick skip CALL COUNT program [argument ...]
 *
 * The first plays cloudflared: it logs a URL and a connection, and stays
 * until TERM. The second is a command: it prints TUNNEL_PUBLIC_URL and exits
 * 7. Neither makes a system call that faults injects: they write with
 * writev(2) and wait with sigsuspend(2).
 *
 * The third makes this system call COUNT times, in vain, and becomes the
 * program. strace counts the calls of each process for itself; so the first
 * process of a program can be told from those that it forks, which begin to
 * count at 1.
 */
#define _DEFAULT_SOURCE

#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	long number;
} calls[] = {
#ifdef SYS_open
	{ "open", SYS_open }, { "pipe", SYS_pipe }, { "fork", SYS_fork },
	{ "vfork", SYS_fork }, { "dup2", SYS_dup2 }, { "poll", SYS_poll },
	{ "mkdir", SYS_mkdir }, { "stat", SYS_stat }, { "access", SYS_access },
	{ "readlink", SYS_readlink },
#endif
#ifdef SYS_mmap
	{ "mmap", SYS_mmap },
#endif
#ifdef SYS_close_range
	{ "close_range", SYS_close_range },
#endif
#ifdef SYS_newfstatat
	{ "newfstatat", SYS_newfstatat },
#endif
#ifdef SYS_clone3
	{ "clone3", SYS_clone3 },
#endif
	{ "openat", SYS_openat }, { "pipe2", SYS_pipe2 },
	{ "clone", SYS_clone },
	{ "dup3", SYS_dup3 }, { "ppoll", SYS_ppoll },
	{ "mkdirat", SYS_mkdirat },
	{ "execve", SYS_execve }, { "fcntl", SYS_fcntl }, { "read", SYS_read },
	{ "pread64", SYS_pread64 }, { "write", SYS_write },
	{ "pwrite64", SYS_pwrite64 },
	{ "ftruncate", SYS_ftruncate }, { "waitid", SYS_waitid },
	{ "wait4", SYS_wait4 },
	{ "brk", SYS_brk }, { "socket", SYS_socket },
	{ "connect", SYS_connect },
	{ "fstat", SYS_fstat }, { "setpgid", SYS_setpgid },
	{ "chdir", SYS_chdir },
	{ "getcwd", SYS_getcwd }, { "socketpair", SYS_socketpair },
	{ "sendto", SYS_sendto }, { "recvfrom", SYS_recvfrom },
	{ "getsockname", SYS_getsockname }, { "getsockopt", SYS_getsockopt },
	{ "faccessat", SYS_faccessat }, { "fchmod", SYS_fchmod },
	{ "ioctl", SYS_ioctl }, { "prctl", SYS_prctl }, { "kill", SYS_kill },
};

static void
end(int signal_number)
{
	(void)signal_number;
	_exit(0);
}

static void
put(int fd, const char *before, const char *text)
{
	struct iovec parts[] = {
		{ (void *)before, strlen(before) },
		{ (void *)text, strlen(text) },
		{ (void *)"\n", 1 },
	};

	if (writev(fd, parts, 3) == -1)
		_exit(1);
}

static int
skip(const char *name, int count, char *program[])
{
	sigset_t child;

	/* A fork that a signal interrupts begins anew, and is counted twice. */
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		/* No arguments are as wrong as these; a fork has none. */
		if (strcmp(name, calls[i].name) != 0)
			continue;
		for (int n = 0; n < count; n++) {
			if (syscall(calls[i].number, -1L, -1L, -1L, -1L, -1L,
			    -1L) == 0 && strstr(name, "fork") != NULL)
				_exit(0);
		}
	}
	while (strstr(name, "fork") != NULL && wait(NULL) > 0)
		continue;
	sigprocmask(SIG_UNBLOCK, &child, NULL);
	execv(program[0], program);
	perror(program[0]);
	return 127;
}

int
main(int argc, char *argv[])
{
	sigset_t none;
	const char *url = getenv("TUNNEL_PUBLIC_URL");

	if (argc > 4 && strcmp(argv[1], "skip") == 0)
		return skip(argv[2], atoi(argv[3]), argv + 4);
	if (argc == 2 && strcmp(argv[1], "command") == 0) {
		put(STDOUT_FILENO, "", url != NULL ? url : "no URL");
		return 7;
	}
	signal(SIGTERM, end);
	put(STDERR_FILENO, "2026-11-21T02:25:21Z INF |  ",
	    "https://quick-words-of-a-stand-in.trycloudflare.com  |");
	put(STDERR_FILENO,
	    "2026-11-21T02:25:21Z INF Registered tunnel connection ",
	    "connIndex=0 event=0 protocol=quic");
	sigemptyset(&none);
	sigsuspend(&none);
	return 1;
}
