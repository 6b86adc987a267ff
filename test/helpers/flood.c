/*
 * flood: plays cloudflared where a shell is too slow.
 *
 * usage: flood tunnel --url ORIGIN [--config /dev/null]
 *
 * Logs a URL, then FLOOD_BYTES bytes (0; with K, M or G: times 1024, ...) of
 * log lines as fast as they are taken, then a registered connection, and
 * stays until TERM or INT, whereupon it exits 0. With FLOOD_LINE set, the
 * bytes come before the URL and are a single line. If FAKE_DIR names a
 * directory it appends its process id to starts there, and writes to
 * PID.flooded how many milliseconds the bytes took.
 */
#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STAMP "2026-11-25T23:10:56Z "
#define HOST "flood-of-log-lines.trycloudflare.com"
#define BAR "+--------------------------------------------------------------" \
	"------------------------------+"

/* As 2026.8.2 has them. */
static const char url_lines[] =
	STAMP "INF Requesting new quick Tunnel on trycloudflare.com...\n"
	STAMP "INF " BAR "\n"
	STAMP "INF |  Your quick Tunnel has been created! Visit it at "
	"(it may take some time to be reachable):  |\n"
	STAMP "INF |  https://" HOST
	"                                              |\n"
	STAMP "INF " BAR "\n";
static const char log_line[] =
	STAMP "DBG GET https://" HOST "/ HTTP/1.1 connIndex=0 content-length=0 "
	"event=1 headers={\"Accept\":[\"*/*\"]} host=" HOST " ingressRule=0 "
	"originService=http://localhost:8080 path=/\n";
static const char registered[] =
	STAMP "INF Registered tunnel connection connIndex=0 "
	"connection=ebd8e349-9f9c-41f8-9655-d119ad1b3269 event=0 "
	"ip=198.41.200.193 location=tst01 protocol=quic\n";

static void
end(int signal_number)
{
	(void)signal_number;
	_exit(0);
}

static void
put(const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(STDERR_FILENO, text, length);

		if (written == -1)
			_exit(1);
		text += written;
		length -= (size_t)written;
	}
}

static unsigned long long
bytes_wanted(void)
{
	const char *text = getenv("FLOOD_BYTES");
	char *unit;
	unsigned long long bytes;

	if (text == NULL)
		return 0;
	bytes = strtoull(text, &unit, 10);
	switch (*unit) {
	case 'G':
		bytes *= 1024;
		/* FALLTHROUGH */
	case 'M':
		bytes *= 1024;
		/* FALLTHROUGH */
	case 'K':
		bytes *= 1024;
		break;
	}
	return bytes;
}

static void
record(const char *name, const char *mode, long long number)
{
	const char *directory = getenv("FAKE_DIR");
	char path[4096];
	FILE *file;

	if (directory == NULL)
		return;
	snprintf(path, sizeof path, "%s/%s", directory, name);
	file = fopen(path, mode);
	if (file == NULL)
		return;
	fprintf(file, "%lld\n", number);
	fclose(file);
}

static void
flood(int one_line)
{
	static char block[65536];
	unsigned long long left = bytes_wanted();
	const size_t line = sizeof log_line - 1;
	const size_t whole_lines = sizeof block - sizeof block % line;
	struct timespec start, stop;
	char name[64];

	for (size_t i = 0; i < sizeof block; i++)
		block[i] = one_line ? 'x' : log_line[i % line];
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (left > 0) {
		size_t length = left < whole_lines ? (size_t)left : whole_lines;

		put(block, length);
		left -= length;
	}
	clock_gettime(CLOCK_MONOTONIC, &stop);
	snprintf(name, sizeof name, "%ld.flooded", (long)getpid());
	record(name, "w", (stop.tv_sec - start.tv_sec) * 1000LL +
	    (stop.tv_nsec - start.tv_nsec) / 1000000);
}

int
main(void)
{
	int one_line = getenv("FLOOD_LINE") != NULL;

	signal(SIGTERM, end);
	signal(SIGINT, end);
	record("starts", "a", (long long)getpid());
	if (one_line) {
		flood(1);
		put(" ", 1);
		put(url_lines, sizeof url_lines - 1);
	} else {
		put(url_lines, sizeof url_lines - 1);
		flood(0);
		/* The last line of the flood may have been cut short. */
		put("\n", 1);
	}
	put(registered, sizeof registered - 1);
	for (;;)
		pause();
}
