/*
 * lock: who holds a write lock on this file, as fcntl(2) tells any program.
 *
 * usage: lock file
 *
 * Prints the process id of the holder; exits 1 if there is none, 2 if it can't say.
 */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int
main(int argc, char *argv[])
{
	/* Only a write lock is in the way of a read lock. */
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	int file = argc == 2 ? open(argv[1], O_RDONLY | O_NONBLOCK) : -1;

	if (file == -1 || fcntl(file, F_GETLK, &lock) == -1) {
		perror(argc == 2 ? argv[1] : "usage: lock file");
		return 2;
	}
	if (lock.l_type == F_UNLCK)
		return 1;
	printf("%ld\n", (long)lock.l_pid);
	return 0;
}
