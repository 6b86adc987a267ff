/*
 * lock: who holds a write lock on this file, as fcntl(2) tells any program.
 *
 * usage: lock [-w] file
 *
 * Prints the process id of the holder; exits 1 if there is none, 2 if it can't
 * say. With -w it takes one itself, on the first byte, prints its own process
 * id, and holds it until a signal ends it.
 */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int
hold(const char *path)
{
	/* Of its first byte, as earlier versions of tunnel did. */
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
		.l_len = 1 };
	int file = open(path, O_RDWR | O_NONBLOCK);

	if (file == -1 || fcntl(file, F_SETLK, &lock) == -1) {
		perror(path);
		return 2;
	}
	printf("%ld\n", (long)getpid());
	fflush(stdout);
	for (;;)
		pause();
}

static int
ask(const char *path)
{
	/* Only a write lock is in the way of a read lock. */
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	int file = open(path, O_RDONLY | O_NONBLOCK);

	if (file == -1 || fcntl(file, F_GETLK, &lock) == -1) {
		perror(path);
		return 2;
	}
	if (lock.l_type == F_UNLCK)
		return 1;
	printf("%ld\n", (long)lock.l_pid);
	return 0;
}

int
main(int argc, char *argv[])
{
	if (argc == 3 && strcmp(argv[1], "-w") == 0)
		return hold(argv[2]);
	if (argc == 2)
		return ask(argv[1]);
	fputs("usage: lock [-w] file\n", stderr);
	return 2;
}
