/*
 * race: times programs from their start to the URL, in turn, and compares them.
 *
 * usage: race ROUNDS NAME=COMMAND ...
 *
 * A command is split at spaces. Each round runs every command once: it is
 * started in a process group of its own with standard output and standard error
 * on one pipe, timed until "trycloudflare.com" and a newline have come through
 * it, told to end by SIGTERM to the group, and timed again until it has. The
 * first round isn't counted. Prints for each name, tab-separated: the median
 * microseconds to the URL, their ratio to the first one's, and the median
 * microseconds from SIGTERM to the end. A command that gives no URL within 20 s
 * ends the race with status 1.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS_MAX = 1000, RUNNERS_MAX = 16, WORDS_MAX = 32, URL_MS = 20000 };

struct runner {
	char *name, *words[WORDS_MAX + 1];
	long start_us[ROUNDS_MAX], stop_us[ROUNDS_MAX];
};

static long
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Reads until the URL's line is there. Returns 0 without one. */
static int
await_url(int fd)
{
	char text[65536];
	size_t length = 0;
	long end = now_us() + URL_MS * 1000L;

	while (length < sizeof text - 1 && now_us() < end) {
		struct pollfd ready = { fd, POLLIN, 0 };
		ssize_t n;
		char *url;

		if (poll(&ready, 1, 1000) != 1)
			continue;
		n = read(fd, text + length, sizeof text - 1 - length);
		if (n <= 0)
			return 0;
		length += (size_t)n;
		text[length] = '\0';
		url = strstr(text, ".trycloudflare.com");
		if (url != NULL && strchr(url, '\n') != NULL)
			return 1;
	}
	return 0;
}

static int
run(struct runner *runner, int round)
{
	int ends[2], found;
	long start = now_us(), stop;
	pid_t pid;

	if (pipe(ends) == -1 || (pid = fork()) == -1) {
		perror("race");
		return 0;
	}
	if (pid == 0) {
		setpgid(0, 0);
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		close(ends[0]);
		close(ends[1]);
		execvp(runner->words[0], runner->words);
		perror(runner->words[0]);
		_exit(127);
	}
	setpgid(pid, pid);
	close(ends[1]);
	found = await_url(ends[0]);
	stop = now_us();
	runner->start_us[round] = stop - start;
	kill(-pid, SIGTERM);
	while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		continue;
	runner->stop_us[round] = now_us() - stop;
	close(ends[0]);
	if (!found)
		fprintf(stderr, "race: %s gave no URL\n", runner->name);
	return found;
}

static int
compare(const void *a, const void *b)
{
	long left = *(const long *)a, right = *(const long *)b;

	return (left > right) - (left < right);
}

static long
median(long *values, int count)
{
	qsort(values, (size_t)count, sizeof *values, compare);
	return values[count / 2];
}

int
main(int argc, char **argv)
{
	static struct runner runners[RUNNERS_MAX];
	int rounds = argc > 1 ? atoi(argv[1]) : 0, count = argc - 2;
	double first = 0;

	if (rounds < 1 || rounds > ROUNDS_MAX ||
	    count < 1 || count > RUNNERS_MAX) {
		fputs("usage: race ROUNDS NAME=COMMAND ...\n", stderr);
		return 2;
	}
	for (int i = 0; i < count; i++) {
		char *word;
		int words = 0;

		runners[i].name = strtok(argv[i + 2], "=");
		while (words < WORDS_MAX && (word = strtok(NULL, " ")) != NULL)
			runners[i].words[words++] = word;
	}
	for (int round = -1; round < rounds; round++) {
		for (int i = 0; i < count; i++) {
			if (!run(&runners[i], round < 0 ? 0 : round))
				return 1;
		}
	}
	for (int i = 0; i < count; i++) {
		long start = median(runners[i].start_us, rounds);

		if (i == 0)
			first = (double)start;
		printf("%s\t%ld\t%.2f\t%ld\n", runners[i].name, start,
		    (double)start / first,
		    median(runners[i].stop_us, rounds));
	}
	return 0;
}
