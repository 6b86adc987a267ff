/*
 * tunnel - a public https://LABEL.trycloudflare.com address for a local port
 *
 * Runs one cloudflared quick tunnel, finds the address in its log, prints it, and looks
 * after the process until it is told to stop.  "help" is the usage.  Three ideas:
 * - A pipe that is never left unread: a full one would block cloudflared, which logs to
 *   it.  We read for as long as it lives, and never write where we might wait.
 * - A process group that is never left behind: cloudflared leads one, so that Ctrl-C
 *   reaches it only through us.  When it ends we look without reaping, kill what is left
 *   of the group while the zombie still holds the id, and only then let that go.
 * - A lock that says who lives: a tunnel holds a write lock on its record, a small file
 *   named after the origin.  The kernel takes it back however we die, and tells whoever
 *   asks which process holds it.  There is no daemon, and nothing goes stale.
 * All that happens comes out of one poll(2) and one table of deadlines.
 */
#undef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64	/* or 32-bit systems refuse files with a large inode number */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#elif defined(__FreeBSD__)
#include <sys/procctl.h>
#endif

#define VERSION "1.0"
#define DIGITS "0123456789"
#ifndef SIGWINCH
#define SIGWINCH 28, 29	/* and SIGINFO: POSIX hides both on macOS and the BSDs */
#endif
#define NAME_CHARS DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"

enum {
	HOST_SIZE = 250, ORIGIN_SIZE = 266, URL_SIZE = 96, PATH_SIZE = 4096,
	MESSAGE_SIZE = 1024, RECORD_SIZE = 2048, DESCRIPTORS = 256, SIGNALS = 64,
	LINE_SIZE = PIPE_BUF - 64,	/* a longer log line is shown in pieces */
	LOG_OVERLAP = 128,		/* more than what we search the log for */
	LOG_TAIL = 8192, LAST_LINES = 10,	/* kept for when cloudflared fails */
	LOG_READ = 65536, READS = 16,	/* what a pipe holds; until signals get a turn */
	PAUSE_MS = 100, PROBE_MS = 100, PROBE_AGAIN_MS = 50, MESSAGE_MS = 250,
	FAILURES = 6, RESTART_MS = 1000, RESTART_MAX_MS = 30000, STOP_EXTRA_MS = 2000,
	EXIT_DEADLINE = 124, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127
};

struct record {		/* what others can know of a tunnel; "-" is nothing */
	char origin[ORIGIN_SIZE], url[URL_SIZE], created[32], error[MESSAGE_SIZE];
	long pid, group;	/* tunnel's process, cloudflared's process group or 0 */
	long long grace_ms;
};

struct tunnel {
	bool has[128];			/* options, by their letters */
	const char *self, *program;	/* argv[0]; the cloudflared asked for, or NULL */
	char path[PATH_SIZE];		/* the one we run */
	char origin[ORIGIN_SIZE];	/* http://localhost:8080 */
	const char *name;		/* localhost:8080, the end of origin */
	char **command;			/* NULL: none */
	long long start_ms, grace_ms, restart_ms;
	/* WAITING for a start or the end; STARTING until the URL is announced; STOPPING
	 * and KILLED since cloudflared got SIGTERM and SIGKILL */
	enum { WAITING, STARTING, UP, STOPPING, KILLED } state;
	enum { START, PAUSE, PROBE, RESTART, STOP, DEADLINES } unused;
	long long deadline[DEADLINES];	/* 0: none */
	pid_t cloudflared, group, command_pid;	/* 0: none, or reaped */
	bool registered, listening;	/* what -w waits for */
	int failures, signals;		/* failures in a row */
	bool ending;			/* with status, of signal if that isn't 0 */
	int status, signal;
	char log[LOG_TAIL + LOG_READ + 1];	/* a string */
	size_t log_length, log_shown;	/* -v has shown the bytes before log_shown */
	unsigned long lost_lines;	/* that -v could not show */
	bool terminal, progress;	/* standard error is one, shows that we wait */
	char said[MESSAGE_SIZE];	/* the last message */
	char result[RECORD_SIZE];	/* for standard output */
	size_t result_length;
	bool delivered;			/* standard output has taken a URL */
	/* descriptors, -1 for none: the log; /dev/null, for reading; standard error; of
	 * records, and ours, which is locked; the pipe to whom -b left waiting */
	int log_fd, null, error_fd, directory, record_fd, waiter;
	struct record record;
};

extern char **environ;
static int signal_pipe[2];

/* ---- text, time, messages ---- */
/* Replaces what could drive a terminal: C0, DEL, and C1 alone or as UTF-8. */
static void make_printable(char *text, size_t length) {
	for (unsigned char before = 0, c; length > 0; before = (unsigned char)*text++, length--) {
		c = (unsigned char)*text;
		bool c1 = c >= 0x80 && c < 0xa0 && (before < 0x80 || before == 0xc2);
		if (c < 0x20 || c == 0x7f || c1) *text = '?';
	}
}

static long long now_ms(void) {
	struct timespec now = { 0, 0 };
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Says whether a descriptor takes PIPE_BUF bytes at once.  Others share it: no O_NONBLOCK. */
static bool is_writable(int fd, int wait_ms) {
	return poll(&(struct pollfd){ fd, POLLOUT, 0 }, 1, wait_ms) == 1;
}

/* Says on a terminal that we wait, in a line without an end, or takes that back. */
static void show_progress(struct tunnel *t, bool show) {
	static const char text[] = "tunnel: waiting for the URL";
	char line[2 * sizeof text];
	int length = snprintf(line, sizeof line, show ? text : "\r%*s\r", (int)strlen(text), "");
	if (show != t->progress && is_writable(t->error_fd, 0) &&
	    write(t->error_fd, line, (size_t)length) == length)
		t->progress = show;
}

/* Writes a printable line to standard error, or returns false. */
static bool put_line(struct tunnel *t, int wait_ms, const char *prefix, const char *text,
    size_t length) {
	char line[PIPE_BUF];
	int size = snprintf(line, sizeof line, "%s%.*s", prefix, (int)length, text);
	if (size >= (int)sizeof line) size = (int)sizeof line - 1;
	make_printable(line, (size_t)size);
	line[size++] = '\n';
	return is_writable(t->error_fd, wait_ms) && write(t->error_fd, line, (size_t)size) > 0;
}

/* Prints a message, one line, and keeps it in t->said. */
static void say(struct tunnel *t, const char *format, ...) {
	va_list list;
	va_start(list, format);
	vsnprintf(t->said, sizeof t->said, format, list);
	va_end(list);
	make_printable(t->said, strlen(t->said));
	show_progress(t, false);
	put_line(t, MESSAGE_MS, "tunnel: ", t->said, strlen(t->said));
}

static void block_signals(bool block) {
	sigset_t set;
	sigemptyset(&set);
	if (block) sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

/* A handler can do little: it leaves word. */
static void on_signal(int signal) {
	int error = errno;
	unsigned char byte = (unsigned char)signal;
	while (write(signal_pipe[1], &byte, 1) == -1 && errno == EINTR) continue;
	errno = error;
}

/* Has all signals handled so; not those that are ignored and would end or stop us, if kept. */
static void handle_signals(void (*handler)(int), bool keep_ignored) {
	static const char crashes[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS,
	    SIGABRT, 0 };
	struct sigaction action = { .sa_handler = handler }, old;
	sigfillset(&action.sa_mask);
	for (int signal = 1; signal <= SIGNALS; signal++) {
		/* a crash is told but once; no SA_RESTART, so that no wait goes on */
		bool crash = strchr(crashes, signal) != NULL;
		action.sa_flags = SA_NOCLDSTOP | (crash ? (int)SA_RESETHAND : 0);
		if (sigaction(signal, &action, &old) == 0 && old.sa_handler == SIG_IGN &&
		    keep_ignored && signal != SIGCHLD && signal != SIGCONT)
			sigaction(signal, &old, NULL);
	}
}

/* Exits, or dies of t->signal as whoever waits for us expects; process 1 can't. */
static void quit(struct tunnel *t, int status) {
	if (t->signal != 0) {
		sigaction(t->signal, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
		block_signals(false);
		raise(t->signal);
	}
	_exit(status);
}

/* Quits because of errno, before there is anything to end. */
static void die(struct tunnel *t, const char *what) {
	say(t, "cannot %s: %s", what, strerror(errno));
	quit(t, 1);
}

/* Prints a line to standard output, or quits; for where we may wait. */
static void print(struct tunnel *t, const char *text) {
	char line[RECORD_SIZE];
	int length = snprintf(line, sizeof line, "%s\n", text);
	sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
	for (ssize_t n, done = 0; done < length; done += n > 0 ? n : 0) {
		n = write(1, line + done, (size_t)(length - done));
		if (n == -1 && errno != EINTR && (errno != EAGAIN || !is_writable(1, -1)))
			die(t, "write to standard output");
	}
}

/* Prints it, and quits. */
static void answer_with(struct tunnel *t, const char *text) {
	print(t, text);
	quit(t, 0);
}

/* ---- options ---- */
static const char help[] =
"usage: tunnel [-bjrvw] [-c path] [-g seconds] [-t seconds] origin\n"
"       tunnel [-vw] [-c path] [-g seconds] [-t seconds] origin command [argument ...]\n"
"       tunnel -l [-j] [origin ...] | -k origin ... | -h | -V\n"
"An origin is [scheme://][host:]port: 8080, 192.168.1.20:3000, https://localhost:8443\n"
"  -b  go to the background once the URL is known; print it, exit 0\n"
"  -c  the cloudflared to run\n"
"  -g  grace: seconds between SIGTERM and SIGKILL when stopping cloudflared (3)\n"
"  -h  print this help; -V the version\n"
"  -j  print a JSON record where the URL would be printed\n"
"  -k  stop the tunnels of these origins, wait until they are gone\n"
"  -l  list the running tunnels, or those of these origins\n"
"  -r  restart cloudflared when it dies; print each new URL\n"
"  -t  start deadline in seconds; 0 is none (30)\n"
"  -v  copy cloudflared's log to standard error\n"
"  -w  wait until the tunnel works before printing the URL\n"
"A command runs with TUNNEL_PUBLIC_URL set, and the tunnel for as long as it does.";

/* Reads [scheme://][host:]port into a URL.  Returns NULL, or the name of what is wrong. */
static const char *parse_origin(const char *text, char url[ORIGIN_SIZE]) {
	char host[HOST_SIZE] = "localhost";
	bool tls = strncmp(text, "https://", 8) == 0;
	text += tls ? 8 : strncmp(text, "http://", 7) == 0 ? 7 : 0;
	const char *colon = strrchr(text, ':'), *port = colon != NULL ? colon + 1 : text;
	if (colon != NULL && snprintf(host, HOST_SIZE, "%.*s", (int)(colon - text), text) >=
	    HOST_SIZE)
		return "invalid origin";
	char *end = host + strcspn(host, "]");
	if (host[0] == '[' && strcmp(end, "]") == 0) {
		*end = '\0';
		if (inet_pton(AF_INET6, host + 1, &(struct in6_addr){ { { 0 } } }) != 1)
			return "invalid origin";
		*end = ']';
	} else if (host[0] == '\0' || host[strspn(host, NAME_CHARS ".")] != '\0') {
		return "invalid origin";
	}
	size_t digits = strspn(port, DIGITS);
	if (port[0] == '0' || digits < 1 || digits > 5 || port[digits] || atoi(port) > 65535)
		return "invalid port number";
	snprintf(url, ORIGIN_SIZE, "http%s://%s:%s", tls ? "s" : "", host, port);
	return NULL;
}

/* Reads decimal seconds, 0 to 86400.  Returns milliseconds, rounded up, or -1. */
static long long parse_seconds(const char *text) {
	size_t whole = strspn(text, DIGITS), point = text[whole] == '.';
	const char *part = text + whole + point;
	size_t digits = strspn(part, DIGITS);
	if (whole < 1 || whole > 9 || digits < point || part[digits] != '\0') return -1;
	long long ms = atoll(text) * 1000, unit = 100;
	for (size_t i = 0; i < digits; i++, unit /= 10) ms += (part[i] - '0') * unit;
	ms += digits > 3 && strspn(part + 3, "0") < digits - 3;
	return ms <= 86400 * 1000 ? ms : -1;
}

/* Writes milliseconds as decimal seconds; floating point would double a static program. */
static const char *format_seconds(char text[32], long long ms) {
	int length = snprintf(text, 32, "%lld.%03d", ms / 1000, (int)(ms % 1000));
	while (text[length - 1] == '0') text[--length] = '\0';
	if (text[length - 1] == '.') text[length - 1] = '\0';
	return text;
}

static void refuse(struct tunnel *t, const char *what, const char *argument) {
	say(t, "%s: %s (tunnel -h shows the usage)", what, argument);
	quit(t, 2);
}

/* Takes an operand as t's origin, or quits. */
static void take_origin(struct tunnel *t, const char *operand) {
	const char *wrong = parse_origin(operand, t->origin);
	if (wrong != NULL) refuse(t, wrong, operand);
	t->name = strchr(t->origin, '/') + 2;
}

static void take_options(struct tunnel *t, int argc, char **argv) {
	opterr = 0;
	for (int letter; (letter = getopt(argc, argv, "+:bc:g:hjklrt:vVw")) != -1; ) {
		char option[] = { '-', (char)optopt, '\0' };
		const char *word = letter == '?' && optopt == '-' && optind < argc ?
		    argv[optind] : option;
		if (letter == 'h' || strcmp(word, "--help") == 0) answer_with(t, help);
		if (letter == 'V' || strcmp(word, "--version") == 0) answer_with(t, "tunnel " VERSION);
		if (letter == ':') refuse(t, "an argument is missing after", word);
		if (letter == '?' || letter == '+') refuse(t, "unknown option", word);
		if (letter == 'c') t->program = optarg;
		if (letter == 'g') t->grace_ms = parse_seconds(optarg);
		if (letter == 't') t->start_ms = parse_seconds(optarg);
		if (t->grace_ms == -1 || t->start_ms == -1)
			refuse(t, "not a number of seconds from 0 to 86400", optarg);
		t->has[letter] = true;
	}
}

/* Sees to it that options and operands go together. */
static void check_operands(struct tunnel *t, int count, char **operands) {
	bool several = t->has['l'] || t->has['k'];
	const char *fitting = t->has['l'] ? "lj" : t->has['k'] ? "k" :
	    count > 1 ? "cgtvw" : "bcgjrtvw";
	for (int i = 1; i < count && (several || i == 1); i++) {
		if (operands[i][0] == '-') refuse(t, "options go before the origin", operands[i]);
	}
	for (char option[] = "-a"; option[1] <= 'z'; option[1]++) {
		if (t->has[(int)option[1]] && strchr(fitting, option[1]) == NULL)
			refuse(t, "does not go with -k, -l or a command", option);
	}
	if (count < 1 && !t->has['l']) refuse(t, "an origin is missing, such as", "8080");
	for (int i = several ? count : count > 0; i > 0; i--)
		take_origin(t, operands[i - 1]);
	t->command = !several && count > 1 ? operands + 1 : NULL;
}

/* ---- URL: what the log says ---- */
/* Returns the length of the tunnel's URL at text, or 0.  A host that ends where the text
 * does counts only if nothing will follow. */
static size_t match_url(const char *text, bool complete) {
	static const char domain[] = ".trycloudflare.com";
	if (strncasecmp(text, "https://", 8) != 0) return 0;
	const char *label = text + 8;
	size_t length = strspn(label, NAME_CHARS);
	if (length < 1 || length > 63 || label[0] == '-' || label[length - 1] == '-' ||
	    memchr(label, '_', length) != NULL ||
	    strncasecmp(label + length, domain, strlen(domain)) != 0 ||
	    /* the API's address, which errors name */
	    (length == 3 && strncasecmp(label, "api", 3) == 0))
		return 0;
	const char *end = label + length + strlen(domain), *next = end + (*end == '.');
	if (*next == '\0' ? !complete : strchr(NAME_CHARS, *next) != NULL) return 0;
	return (size_t)(end - text);
}

/* Returns the first URL of a tunnel in text, and its length, or NULL. */
static const char *find_url(const char *text, bool complete, size_t *length) {
	for (; (text = strpbrk(text, "hH")) != NULL; text++) {
		if ((*length = match_url(text, complete)) > 0) return text;
	}
	return NULL;
}

static const char registered[] = "Registered tunnel connection";

/* Says whether the log tells that Cloudflare's edge has the tunnel. */
static bool find_registered(const char *text) {
	if (strstr(text, registered) != NULL) return true;
	/* until 2022: Connection 0b3cd2b6-... registered */
	for (; (text = strstr(text, "Connection ")) != NULL; text++) {
		const char *end = strstr(text, " registered");
		if (end != NULL && (size_t)(end - text) < strcspn(text, "\n")) return true;
	}
	return false;
}

static const char rate[] =
    "Cloudflare limits the rate of new tunnels: wait some minutes, then try again";
static const char answer[] =
    "Cloudflare's answer makes no sense, which is often rate limiting: try again later";
static const char edge[] = "Cloudflare's edge is out of reach: is port 7844 blocked by a "
    "firewall, WARP or another Zero Trust egress policy?";
static const char network[] =
    "no network or no DNS: check the connection and the resolver, then try again";

/* Signs of a cause in the log, the surer ones first. */
static const struct { const char *sign, *hint; } hints[] = {
	{ "429", rate }, { "1015", rate }, { "7844", edge }, { "dial to edge", edge },
	{ "failed to unmarshal", answer }, { "failed to parse quick Tunnel ID", answer },
	{ "no such host", network }, { "network is unreachable", network },
	{ "dial tcp", network },
};

/* Returns what the end of a log tells about why cloudflared failed, or NULL. */
static const char *choose_hint(const char *text) {
	const char *found;
	/* what went wrong before a connection was there is not why it ended, nor is our origin */
	static const char *const fine[] = { registered, " registered", "the origin service" };
	for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
		while ((found = strstr(text, fine[i])) != NULL) text = found + strcspn(found, "\n");
	}
	for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
		size_t length = strlen(hints[i].sign);
		for (found = text; (found = strstr(found, hints[i].sign)) != NULL; found++) {
			/* not part of a longer number or identifier, nor some port */
			if ((found == text || (strchr(NAME_CHARS, found[-1]) == NULL &&
			    (found[-1] != ':' || hints[i].hint == edge))) &&
			    strspn(found + length, NAME_CHARS) == 0)
				return hints[i].hint;
		}
	}
	return NULL;
}

/* ---- log ---- */
static void fail(struct tunnel *, const char *);

/* Shows the lines that are whole, or too long to wait for their end, or all. */
static void show_log(struct tunnel *t, bool all) {
	static const char start[] = "cloudflared: ";
	char lost[64], *text = t->log + t->log_shown;
	while (*text != '\0') {
		size_t size = strcspn(text, "\n");
		bool whole = text[size] == '\n' && size <= LINE_SIZE;
		if (size < LINE_SIZE && !whole && !all) break;
		size = size < LINE_SIZE ? size : LINE_SIZE;
		size_t shown = size - (whole && size > 0 && text[size - 1] == '\r');
		snprintf(lost, sizeof lost, "[%lu lines lost]", t->lost_lines);
		if (t->lost_lines > 0 && put_line(t, 0, start, lost, strlen(lost)))
			t->lost_lines = 0;
		/* the end of a log may take its time, but not once a line is lost */
		t->lost_lines += t->lost_lines > 0 || !put_line(t, all ? MESSAGE_MS : 0, start, text,
		    shown);
		text += size + whole;
	}
	t->log_shown = (size_t)(text - t->log);
}

/* Shows the log's end and the cause that it tells of, or this one. */
static void show_cause(struct tunnel *t, const char *hint) {
	size_t start = t->log_length, lines = 0;
	strcpy(t->record.error, t->said);
	while (start > 0 && (t->log[start - 1] != '\n' || start == t->log_length ||
	    ++lines < LAST_LINES))
		start--;
	if (!t->has['v']) t->log_shown = start;
	show_log(t, true);
	if (hint == NULL) hint = choose_hint(t->log);
	if (hint == NULL) return;
	say(t, "%s", hint);
	start = strlen(t->record.error);
	snprintf(t->record.error + start, MESSAGE_SIZE - start, "; %s", hint);
}

/* Looks for what we wait for in the log from there on. */
static void search_log(struct tunnel *t, size_t from, bool complete) {
	const char *text = t->log + from, *url;
	size_t length;
	t->registered = t->registered || (t->has['w'] && find_registered(text));
	if (t->record.url[0] != '-') return;
	t->deadline[PAUSE] = 0;
	if ((url = find_url(text, complete, &length)) != NULL)
		snprintf(t->record.url, URL_SIZE, "%.*s", (int)length, url);
	else if (find_url(text, true, &length) != NULL)
		t->deadline[PAUSE] = now_ms() + PAUSE_MS;
}

/* Reads what the pipe holds, but for so long only that signals get their turn. */
static void read_log(struct tunnel *t) {
	for (int reads = 0; reads < READS && t->log_fd != -1; reads++) {
		size_t from = t->log_length < LOG_OVERLAP ? 0 : t->log_length - LOG_OVERLAP;
		char *fresh = t->log + t->log_length, *nul;
		ssize_t n = read(t->log_fd, fresh, LOG_READ);
		if (n == -1 && (errno == EAGAIN || errno == EINTR)) break;
		if (n == -1) fail(t, "read cloudflared's log");
		size_t size = n > 0 ? (size_t)n : 0;
		if (size == 0) {
			close(t->log_fd);
			t->log_fd = -1;
		}
		while ((nul = memchr(fresh, '\0', size)) != NULL) *nul = '?';
		fresh[size] = '\0';
		t->log_length += size;
		if (t->state == STARTING) search_log(t, from, size == 0);
		if (t->has['v']) show_log(t, size == 0);
		size_t old = t->log_length > LOG_TAIL ? t->log_length - LOG_TAIL : 0;
		t->log_length -= old;
		memmove(t->log, t->log + old, t->log_length + 1);
		t->log_shown -= t->log_shown < old ? t->log_shown : old;
	}
}

/* ---- cloudflared ---- */
/* Where it is looked for when neither PATH nor our own directory has it. */
static const char program_directories[] = "~/.local/bin:~/bin:/usr/local/bin:"
    "/opt/homebrew/bin:/home/linuxbrew/.linuxbrew/bin:/usr/bin:/snap/bin";

/* Where it looks for a configuration, whose rules would win over us. */
static const char config_directories[] = "~/.cloudflared:~/.cloudflare-warp:"
    "~/cloudflare-warp:/etc/cloudflared:/usr/local/etc/cloudflared";

/* Looks for a file in directories divided by colons, as in PATH: an empty one is the
 * working directory, ~ is HOME.  Writes its path; returns false if there is none. */
static bool search(char path[PATH_SIZE], const char *directories, const char *name, int mode) {
	struct stat file;
	for (; directories != NULL; directories = strchr(directories, ':')) {
		directories += *directories == ':';
		int length = (int)strcspn(directories, ":");
		bool in_home = length > 1 && strncmp(directories, "~/", 2) == 0;
		const char *home = in_home ? getenv("HOME") : "";
		if (home != NULL && snprintf(path, PATH_SIZE, "%s%.*s%s%s", home,
		    length - in_home, directories + in_home, length > 0 ? "/" : "", name) <
		    PATH_SIZE && access(path, mode) == 0 && (mode != X_OK ||
		    (stat(path, &file) == 0 && S_ISREG(file.st_mode))))
			return true;
	}
	return false;
}

/* Finds the cloudflared to run, or quits. */
static void find_cloudflared(struct tunnel *t) {
	char found[PATH_SIZE], here[PATH_SIZE] = "";
	if (readlink("/proc/self/exe", here, sizeof here - 1) == -1)
		snprintf(here, sizeof here, "%s", t->self);
	here[strrchr(here, '/') != NULL ? strrchr(here, '/') - here : 0] = '\0';
	if (t->program == NULL && (search(found, getenv("PATH"), "cloudflared", X_OK) ||
	    (here[0] != '\0' && search(found, here, "cloudflared", X_OK)) ||
	    search(found, program_directories, "cloudflared", X_OK)))
		t->program = found;
	/* -b leaves the working directory */
	bool relative = t->program != NULL && t->program[0] != '/' &&
	    getcwd(here, sizeof here) != NULL;
	errno = ENAMETOOLONG;
	if (snprintf(t->path, PATH_SIZE, "%s%s%s", relative ? here : "", relative ? "/" : "",
	    t->program != NULL ? t->program : "") < PATH_SIZE && access(t->path, X_OK) == 0)
		return;		/* the rest can be told only by trying */
	int status = errno == ENOENT || errno == ENOTDIR ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
	if (t->program != NULL) say(t, "cannot run %s: %s", t->path, strerror(errno));
	else say(t, "cloudflared is not installed: get it from https://github.com/cloudflare/"
	    "cloudflared/releases, or name it with -c");
	quit(t, status);
}

/* Makes a pipe that no program we run inherits, and that is read without waiting. */
static bool make_pipe(int ends[2]) {
	return pipe(ends) == 0 && fcntl(ends[0], F_SETFD, FD_CLOEXEC) != -1 &&
	    fcntl(ends[1], F_SETFD, FD_CLOEXEC) != -1 &&
	    fcntl(ends[0], F_SETFL, O_NONBLOCK) != -1;
}

/* Becomes a program, in a child; why it can't is told on standard error. */
static void become(struct tunnel *t, char **arguments, bool keep_ignored) {
	handle_signals(SIG_DFL, keep_ignored);
	block_signals(false);
	if (arguments[0] == t->path) execv(t->path, arguments);
	else execvp(arguments[0], arguments);
	int error = errno;
	t->error_fd = 2;
	say(t, "cannot run %s: %s", arguments[0], strerror(error));
	/* a file that is there lacks its interpreter */
	bool there = strchr(arguments[0], '/') != NULL && access(arguments[0], F_OK) == 0;
	_exit(error == ENOENT && !there ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

static size_t count_variables(void) {
	size_t count = 0;
	while (environ[count] != NULL) count++;
	return count;
}

/* Sets NAME=VALUE in environ, which has room for it: setenv would bring malloc along. */
static void set_variable(char *variable) {
	size_t i = 0, name = strcspn(variable, "=") + 1;
	while (environ[i] != NULL && strncmp(environ[i], variable, name) != 0) i++;
	if (environ[i] == NULL) environ[i + 1] = NULL;
	environ[i] = variable;
}

/* Becomes cloudflared, in the child, with its log going to this descriptor. */
static void become_cloudflared(struct tunnel *t, int log, pid_t parent) {
	char grace[64], seconds[32], config[PATH_SIZE];
	const char *level = getenv("TUNNEL_LOGLEVEL");
	bool configured = search(config, config_directories, "config.yml", F_OK) ||
	    search(config, config_directories, "config.yaml", F_OK);
	char *arguments[] = { t->path, "tunnel", "--url", t->origin,
	    configured ? "--config" : NULL, "/dev/null", NULL };
	/* it should end before we kill it; three minutes are the most it takes */
	long long ms = t->grace_ms < 1000 ? t->grace_ms / 2 : t->grace_ms - 500;
	snprintf(grace, sizeof grace, "TUNNEL_GRACE_PERIOD=%ss",
	    format_seconds(seconds, ms < 180000 ? ms : 180000));
	char *variables[count_variables() + 4];
	environ = memcpy(variables, environ, (count_variables() + 1) * sizeof environ[0]);
	if (getenv("TUNNEL_GRACE_PERIOD") == NULL) set_variable(grace);
	/* an update would restart it under a new URL */
	if (getenv("NO_AUTOUPDATE") == NULL) set_variable("NO_AUTOUPDATE=true");
	/* these levels hide the URL */
	if (level != NULL && (strcasecmp(level, "warn") == 0 || strcasecmp(level, "error") == 0
	    || strcasecmp(level, "fatal") == 0 || strcasecmp(level, "panic") == 0))
		set_variable("TUNNEL_LOGLEVEL=info");
	int done = 0;
#if defined(__linux__)
	done = prctl(PR_SET_PDEATHSIG, (unsigned long)SIGTERM, 0, 0, 0);
#elif defined(__FreeBSD__)
	done = procctl(P_PID, 0, PROC_PDEATHSIG_CTL, &(int){ SIGTERM });
#endif
	if (done == 0 && getppid() == parent && setpgid(0, 0) == 0 && dup2(log, 2) != -1 &&
	    dup2(log, 1) != -1 && dup2(t->null, 0) != -1)
		become(t, arguments, false);
	_exit(EXIT_CANNOT_RUN);
}

/* Starts cloudflared, and all that is new with it. */
static void start_cloudflared(struct tunnel *t) {
	int log[2] = { -1, -1 };
	pid_t parent = getpid(), child = -1;
	block_signals(true);
	if (make_pipe(log) && (child = fork()) == 0)
		become_cloudflared(t, log[1], parent);
	if (child == -1) fail(t, "start cloudflared");
	block_signals(false);
	close(log[1]);
	t->log_fd = log[0];
	t->log_length = t->log_shown = 0;
	t->log[0] = '\0';
	if (child == -1) return;
	/* it does so itself; whoever comes first, no signal misses the group */
	setpgid(child, child);
	t->record.group = (long)(t->cloudflared = t->group = child);
	t->state = STARTING;
	t->registered = t->listening = false;
	memset(t->deadline, 0, sizeof t->deadline);
	if (t->start_ms > 0) t->deadline[START] = now_ms() + t->start_ms;
	if (t->has['w'] || (!t->delivered && t->failures == 0)) t->deadline[PROBE] = now_ms();
}

/* Sends SIGTERM, with a deadline, or SIGKILL to what we have started. */
static void stop_cloudflared(struct tunnel *t, int signal) {
	t->state = signal == SIGTERM ? STOPPING : KILLED;
	t->deadline[STOP] = signal == SIGTERM ? now_ms() + t->grace_ms : 0;
	if (t->cloudflared > 0 && kill(-t->cloudflared, signal) == 0)
		kill(-t->cloudflared, SIGCONT);
	if (t->command_pid > 0 && kill(t->command_pid, signal) == 0)
		kill(t->command_pid, SIGCONT);
}

/* Says whether something listens on HOST:PORT; a name other than localhost would take a
 * resolver, and counts as listening.  Waits for PROBE_MS at most, and not if a signal has
 * come: no answer is no refusal. */
static bool is_listening(const char *name) {
	union { struct sockaddr any; struct sockaddr_in ip4; struct sockaddr_in6 ip6; } to;
	char host[HOST_SIZE];
	bool known = false, bracket = name[0] == '[';
	const char *colon = strrchr(name, ':');
	snprintf(host, HOST_SIZE, "%.*s", (int)(colon - name) - 2 * bracket, name + bracket);
	bool local = strcasecmp(host, "localhost") == 0;
	for (int ip6 = 0; ip6 < 2; ip6++) {
		memset(&to, 0, sizeof to);
		to.any.sa_family = ip6 ? AF_INET6 : AF_INET;
		*(ip6 ? &to.ip6.sin6_port : &to.ip4.sin_port) = htons((in_port_t)atoi(colon + 1));
		if (inet_pton(to.any.sa_family, !local ? host : ip6 ? "::1" : "127.0.0.1",
		    ip6 ? (void *)&to.ip6.sin6_addr : &to.ip4.sin_addr) != 1)
			continue;
		known = true;
		int fd = socket(to.any.sa_family, SOCK_STREAM, 0), error = 0;
		if (fd == -1 || fcntl(fd, F_SETFL, O_NONBLOCK) == -1 ||
		    connect(fd, &to.any, ip6 ? sizeof to.ip6 : sizeof to.ip4) == -1)
			error = errno;
		struct pollfd wait[] = { { fd, POLLOUT, 0 }, { signal_pipe[0], POLLIN, 0 } };
		if (error == EINPROGRESS && (poll(wait, 2, PROBE_MS) <= 0 || !wait[0].revents ||
		    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error,
		    &(socklen_t){ sizeof error }) == -1))
			error = 0;
		if (fd != -1) close(fd);
		if (error == 0) return true;
	}
	return !known;
}

/* ---- record ---- */
/* The locked bytes of a record: for as long as the tunnel lives, until it has a URL. */
enum { ALIVE, NO_URL };

/* Opens the directory of the records, or says why not; -b, -k and -l quit without it. */
static void open_directory(struct tunnel *t) {
	char path[PATH_SIZE], user[32];
	struct stat status;
	const char *base = getenv("XDG_RUNTIME_DIR"), *warning = "warning: ";
	snprintf(user, sizeof user, "-%ld", (long)geteuid());
	bool runtime = base != NULL && base[0] != '\0';
	if (!runtime) base = getenv("TMPDIR");
	if (base == NULL || base[0] == '\0') base = "/tmp";
	snprintf(path, sizeof path, "%s/tunnel%s", base, runtime ? "" : user);
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		t->directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool known = t->directory != -1 && fstat(t->directory, &status) == 0;
	if (known && status.st_uid == geteuid() && (status.st_mode & 0777) == 0700) return;
	if (t->waiter != -1 || t->has['k'] || t->has['l']) warning = "";
	say(t, "%scannot keep records in %s: %s", warning, path, known ?
	    "it must be yours, with mode 0700" : strerror(errno));
	if (warning[0] == '\0') quit(t, 1);
	close(t->directory);
	t->directory = -1;
}

/* Opens the record of t's origin.  Returns -1 with errno, EINVAL if it isn't our file. */
static int open_record(struct tunnel *t, int flags) {
	struct stat file;
	int fd = openat(t->directory, t->name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd == -1 || (fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && file.st_nlink == 1 &&
	    file.st_uid == geteuid()))
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

/* Locks bytes of a record, or asks for the process that has.  Returns -1 with errno. */
static pid_t lock_record(int fd, int command, short type, int start, int count) {
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET };
	lock.l_start = start;
	lock.l_len = count;
	if (fcntl(fd, command, &lock) == -1) return -1;
	if (command != F_GETLK || lock.l_type == F_UNLCK) return 0;
	return lock.l_pid > 0 ? lock.l_pid : -1;
}

/* Reads a record's text, which it cuts into fields.  Returns false if it isn't whole. */
static bool parse_record(char *text, struct record *record) {
	char *field[7], origin[ORIGIN_SIZE];
	for (int i = 0; i < 7; i++) {
		field[i] = text;
		text += strcspn(text, i < 6 ? " " : "\n");
		if (*text == '\0') return false;
		*text++ = '\0';
		make_printable(field[i], strlen(field[i]));
	}
	snprintf(record->origin, ORIGIN_SIZE, "%s", field[0]);
	snprintf(record->url, URL_SIZE, "%s", field[1]);
	snprintf(record->created, sizeof record->created, "%s", field[2]);
	snprintf(record->error, MESSAGE_SIZE, "%s", field[6]);
	record->pid = atol(field[3]);
	record->group = atol(field[4]);
	record->grace_ms = atol(field[5]);
	bool url = record->url[0] != '\0' && match_url(record->url, true) == strlen(record->url);
	return parse_origin(record->origin, origin) == NULL && record->pid > 0 &&
	    strcmp(origin, record->origin) == 0 && (url || strcmp(record->url, "-") == 0) &&
	    record->created[strspn(record->created, DIGITS "-:TZ")] == '\0' &&
	    (record->group == 0 || record->group > 1) && record->group <= INT_MAX &&
	    record->grace_ms >= 0 && record->grace_ms <= 86400 * 1000;
}

/* Reads a record.  Returns the process of the tunnel that holds it, 0 if none does, -1 if
 * it can't be named, as in another PID namespace.  Only what it wrote itself is taken. */
static pid_t read_record(int fd, const char *name, struct record *record) {
	char text[RECORD_SIZE];
	/* those who wait have read locks, which a question about a read lock leaves out */
	pid_t holder = fd == -1 ? 0 : lock_record(fd, F_GETLK, F_RDLCK, ALIVE, 1);
	ssize_t length = fd == -1 ? 0 : pread(fd, text, sizeof text - 1, 0);
	text[length > 0 ? length : 0] = '\0';
	if (!parse_record(text, record) || (holder != 0 && holder != record->pid) ||
	    strcmp(strchr(record->origin, '/') + 2, name) != 0)
		*record = (struct record){ .url = "-", .error = "-" };
	return holder;
}

/* Writes to our record what there is to know of us; at the end only what went wrong. */
static void write_record(struct tunnel *t) {
	struct record *record = &t->record;
	char text[RECORD_SIZE];
	bool over = t->state == WAITING && t->ending && record->error[0] == '-';
	size_t length = over ? 0 : (size_t)snprintf(text, sizeof text,
	    "%s %s %s %ld %ld %lld %s\n", t->origin, record->url, record->created, record->pid,
	    record->group, record->grace_ms, record->error);
	if (t->record_fd != -1 && (pwrite(t->record_fd, text, length, 0) != (ssize_t)length ||
	    ftruncate(t->record_fd, (off_t)length) == -1))
		say(t, "warning: cannot write the record of %s: %s", t->name, strerror(errno));
}

/* Returns what is printed of a tunnel: its URL, or JSON, which is written to text. */
static const char *get_result(struct tunnel *t, const struct record *record, char *text) {
	unsigned long id = 2166136261;		/* FNV-1a */
	for (const char *c = record->url; *c != '\0'; c++)
		id = ((id ^ (unsigned char)*c) * 16777619) & 0xffffffff;
	snprintf(text, RECORD_SIZE, "{\"id\":\"quick-%08lx\",\"origin\":\"%s\",\"port\":%s,"
	    "\"url\":\"%s\",\"hostname\":\"%s\",\"createdAt\":\"%s\",\"pid\":%ld}", id,
	    record->origin, strrchr(record->origin, ':') + 1, record->url,
	    record->url + strlen("https://"), record->created, record->pid);
	return t->has['j'] ? text : record->url;
}

/* SIGALRM's: lets a wait for a lock fail, even one that begins after the signal. */
static void on_alarm(int signal) {
	if (signal == SIGALRM) alarm(1);
}

/* Waits until this byte of a record is not locked, for ms at most. */
static void wait_for_lock(int fd, int byte, long long ms) {
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	alarm((unsigned)(ms < INT_MAX ? ms / 1000 + 1 : INT_MAX));
	lock_record(fd, F_SETLKW, F_RDLCK, byte, 1);
	lock_record(fd, F_SETLK, F_UNLCK, byte, 1);
	alarm(0);
	poll(NULL, 0, 5);	/* whoever is between two locks gets to the next one */
}

/* Locks the record of our origin; if a tunnel has, -b waits for its URL, and we quit. */
static void claim_record(struct tunnel *t) {
	bool background = t->waiter != -1;
	long long until = t->start_ms > 0 ? now_ms() + t->start_ms : LLONG_MAX;
	struct record record;
	char text[RECORD_SIZE];
	open_directory(t);
	int fd = t->directory == -1 ? -1 : open_record(t, O_RDWR | O_CREAT), locked = -1;
	while (fd != -1 && (locked = lock_record(fd, F_SETLK, F_WRLCK, ALIVE, 2)) == -1 &&
	    (errno == EAGAIN || errno == EACCES)) {
		pid_t holder = read_record(fd, t->name, &record);
		bool up = record.url[0] != '-';
		if (background && holder != 0 && up)
			answer_with(t, get_result(t, &record, text));
		if ((holder != 0 && !background) || now_ms() >= until) {
			say(t, "a tunnel of %s runs already: process %ld, %s (tunnel -k %s stops it)",
			    t->name, (long)holder, up ? record.url : "no URL yet", t->name);
			quit(t, background ? EXIT_DEADLINE : 1);
		}
		wait_for_lock(fd, NO_URL, until - now_ms());
	}
	if (locked == 0) t->record_fd = fd;
	else if (background) die(t, "lock the record");
	else if (t->directory != -1)
		say(t, "warning: cannot lock the record of %s: %s", t->name, strerror(errno));
}

/* ---- the tunnel: what happens, and what is done about it ---- */
/* Ends the tunnel: the command, cloudflared, then us. */
static void end(struct tunnel *t, int status) {
	if (t->ending) return;
	t->ending = true;
	t->status = status;
	memset(t->deadline, 0, STOP * sizeof t->deadline[0]);
	if (t->state < STOPPING) stop_cloudflared(t, SIGTERM);
}

/* Ends the tunnel because of errno. */
static void fail(struct tunnel *t, const char *what) {
	say(t, "cannot %s: %s", what, strerror(errno));
	if (!t->ending) strcpy(t->record.error, t->said);
	end(t, 1);
}

/* Points descriptors at the null device, so that nobody waits for us to close them. */
static void let_go(struct tunnel *t, int first, int last) {
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = first; fd <= last; fd++) {
		if (dup2(null, fd) == -1) fail(t, "point a descriptor at /dev/null");
	}
	close(null);
}

/* Prints the URL as far as standard output takes it; then lets go of who waits for it. */
static void print_url(struct tunnel *t) {
	while (t->result_length > 0 && is_writable(1, 0)) {
		ssize_t n = write(1, t->result, t->result_length);
		if (n == -1 && (errno == EINTR || errno == EAGAIN)) return;
		if (n == -1 && !t->delivered) fail(t, "print the URL to standard output");
		if (n == -1 && t->delivered) let_go(t, 1, 1);
		t->result_length -= n == -1 ? t->result_length : (size_t)n;
		memmove(t->result, t->result + (n == -1 ? 0 : n), t->result_length);
	}
	if (t->result_length > 0 || t->delivered || t->ending) return;
	t->delivered = true;
	t->deadline[START] = 0;
	if (t->waiter != -1) {
		let_go(t, 0, 2);
		t->terminal = false;
		if (write(t->waiter, "", 1) == 1) kill(getppid(), SIGCHLD);
		close(t->waiter);
		t->waiter = -1;
	} else if (t->command == NULL) {
		if (!t->has['r']) let_go(t, 1, 1);
		if (t->terminal) say(t, "Ctrl-C to stop");
	}
}

static void start_command(struct tunnel *t) {
	char url[URL_SIZE + 32], *variables[count_variables() + 2];
	block_signals(true);
	t->command_pid = fork();
	if (t->command_pid == 0) {
		environ = memcpy(variables, environ, (count_variables() + 1) * sizeof environ[0]);
		snprintf(url, sizeof url, "TUNNEL_PUBLIC_URL=%s", t->record.url);
		set_variable(url);
		become(t, t->command, true);
	}
	if (t->command_pid == -1) {
		t->command_pid = 0;
		fail(t, "start the command");
	}
	block_signals(false);
}

/* Writes a time as 2026-11-21T01:58:36Z; strftime is larger than all of us. */
static void format_time(char text[32], time_t time) {
	/* days since a March 1 that begins 400 years, whose leap days end a year */
	long days = (long)(time / 86400) + 719468, century = days / 146097 * 4;
	int second = (int)(time % 86400), day = (int)(days % 146097);
	int year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	day -= 365 * year + year / 4 - year / 100;
	int month = (5 * day + 2) / 153;
	snprintf(text, 32, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)century * 100 + year +
	    (month > 9), month < 10 ? month + 3 : month - 9, day - (153 * month + 2) / 5 + 1,
	    second / 3600, second / 60 % 60, second % 60);
}

/* Makes the URL known, once there is all that was asked for. */
static void announce(struct tunnel *t) {
	struct record *record = &t->record;
	char text[RECORD_SIZE];
	if (t->state != STARTING || t->ending || record->url[0] == '-' ||
	    (t->has['w'] && !(t->registered && t->listening)))
		return;
	time_t now = time(NULL);
	format_time(record->created, now);
	strcpy(record->error, "-");
	show_progress(t, false);
	t->state = UP;
	t->failures = 0;
	t->restart_ms = RESTART_MS;
	write_record(t);
	lock_record(t->record_fd, F_SETLK, F_UNLCK, NO_URL, 1);
	if (t->delivered) t->deadline[START] = 0;
	if (t->command != NULL)
		start_command(t);
	else
		t->result_length = (size_t)snprintf(t->result, RECORD_SIZE, "%s\n",
		    get_result(t, record, text));
	print_url(t);
}

/* cloudflared has ended: starts it again in a while, or ends the tunnel. */
static void take_death(struct tunnel *t, int status) {
	bool was_up = t->state == UP, expected = t->state > UP, killed = WIFSIGNALED(status);
	int code = killed ? WTERMSIG(status) : WEXITSTATUS(status);
	/* what become said, if it didn't come to an exec */
	const char *own = strstr(t->log, "tunnel: cannot run ");
	bool unusable = t->state == STARTING && own != NULL && !killed && code >= EXIT_CANNOT_RUN;
	t->state = WAITING;
	if (!t->ending) memset(t->deadline, 0, sizeof t->deadline);
	close(t->log_fd);
	t->log_fd = -1;
	if (t->ending) return;
	if (unusable) {
		say(t, "%.*s", (int)strcspn(own, "\n") - 8, own + 8);
		strcpy(t->record.error, t->said);
	} else if (!expected) {
		say(t, "cloudflared ended (%s %d) %s%s", killed ? "signal" : "exit status",
		    code, was_up ? "and took the tunnel along: " : "before the tunnel was there",
		    was_up ? t->record.url : "");
		show_cause(t, NULL);
	}
	strcpy(t->record.url, "-");
	write_record(t);
	lock_record(t->record_fd, F_SETLK, F_WRLCK, NO_URL, 1);
	t->failures += !was_up;
	if (!t->has['r'] || unusable || t->failures == FAILURES) {
		end(t, unusable ? code : 1);
		return;
	}
	say(t, "starting cloudflared again in %lld s", t->restart_ms / 1000);
	t->deadline[RESTART] = now_ms() + t->restart_ms;
	t->restart_ms *= 2;
	if (t->restart_ms > RESTART_MAX_MS) t->restart_ms = RESTART_MAX_MS;
}

/* Reaps whoever has ended; as process 1 that is every orphan.  What is left of the group
 * of cloudflared is killed while its zombie keeps the group's id from being reused. */
static void reap(struct tunnel *t) {
	siginfo_t info = { 0 };
	int status;
	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
		pid_t pid = info.si_pid;
		if (pid == t->cloudflared) {
			kill(-pid, SIGKILL);
			for (int i = 0; i < READS && t->log_fd != -1; i++)
				read_log(t);	/* what it wrote before its end */
			if (t->command == NULL) announce(t);
			t->cloudflared = 0;
			t->record.group = 0;
			write_record(t);
			if (waitpid(pid, &status, 0) == pid) take_death(t, status);
		} else if (waitpid(pid, &status, 0) == pid && pid == t->command_pid) {
			t->command_pid = 0;
			end(t, WIFSIGNALED(status) ? 128 + WTERMSIG(status) :
			    WEXITSTATUS(status));
		}
		info.si_pid = 0;
	}
}

static void take_signal(struct tunnel *t, int signal) {
	static const char harmless[] = { SIGPIPE, SIGXFSZ, SIGURG, SIGTTIN, SIGTTOU, SIGWINCH, 0 };
	long long before = now_ms();
	if (strchr(harmless, signal) != NULL) {
		return;
	} else if (signal == SIGCHLD) {
		reap(t);
	} else if (signal == SIGTSTP) {
		show_progress(t, false);
		if (t->cloudflared > 0) kill(-t->cloudflared, SIGSTOP);
		raise(SIGSTOP);
		if (t->cloudflared > 0) kill(-t->cloudflared, SIGCONT);
		for (int i = 0; i < DEADLINES; i++)
			t->deadline[i] += t->deadline[i] > 0 ? now_ms() - before : 0;
	} else if (signal == SIGCONT) {
		if (t->cloudflared > 0) kill(-t->cloudflared, SIGCONT);
	} else if (t->command_pid > 0 && !t->ending) {
		/* the terminal sends it the others itself */
		if (signal != SIGINT && signal != SIGQUIT) kill(t->command_pid, signal);
	} else if (t->signals++ == 0) {
		if (!t->ending) {
			t->signal = signal;
			strcpy(t->record.error, "-");
		}
		end(t, 128 + signal);
	} else {
		stop_cloudflared(t, SIGKILL);
	}
}

static void take_deadline(struct tunnel *t, int which) {
	bool no_url = t->record.url[0] == '-', no_edge = t->has['w'] && !t->registered;
	bool no_port = t->has['w'] && !t->listening;
	char seconds[32];
	t->deadline[which] = 0;
	if (which == START) {
		say(t, "no tunnel within %s s: %s%s%s%s", format_seconds(seconds, t->start_ms), no_url ?
		    "cloudflared gave no URL" : t->state == UP ? "standard output is held up" :
		    no_edge ? "Cloudflare's edge has no connection" : "", no_port && (no_url ||
		    no_edge) ? "; " : "", no_port ? "nothing is listening on " : "",
		    no_port ? t->name : "");
		strcpy(t->record.error, t->said);
		if (no_url || no_edge) show_cause(t, no_url ? NULL : edge);
		if (t->has['r'] && t->delivered) stop_cloudflared(t, SIGTERM);
		else end(t, EXIT_DEADLINE);
	} else if (which == PAUSE) {
		search_log(t, t->log_length < LOG_OVERLAP ? 0 : t->log_length - LOG_OVERLAP, true);
	} else if (which == PROBE) {
		t->listening = is_listening(t->name);
		if (!t->listening && t->has['w'])
			t->deadline[PROBE] = now_ms() + PROBE_AGAIN_MS;
		else if (!t->listening)
			say(t, "warning: nothing is listening on %s yet", t->name);
	} else if (which == RESTART) {
		start_cloudflared(t);
	} else {
		stop_cloudflared(t, SIGKILL);
	}
}

/* Waits until something happens, and does what there is to do about it. */
static void wait_for_events(struct tunnel *t) {
	bool out = t->result_length > 0, watched = out || (t->has['r'] && t->delivered);
	long long next = LLONG_MAX;
	struct pollfd polled[] = { { t->log_fd, POLLIN, 0 }, { signal_pipe[0], POLLIN, 0 },
	    { watched ? 1 : -1, out ? POLLOUT : 0, 0 }, { t->waiter, 0, 0 } };
	for (int i = 0; i < DEADLINES; i++)
		next = t->deadline[i] > 0 && t->deadline[i] < next ? t->deadline[i] : next;
	long long now = now_ms();
	next = next < now ? 0 : next - now;
	if (poll(polled, 4, next < INT_MAX ? (int)next : -1) == -1 && errno != EINTR) {
		fail(t, "wait for events");
		stop_cloudflared(t, SIGKILL);
		reap(t);
	}
	if (polled[0].revents != 0) read_log(t);
	unsigned char signals[64];
	ssize_t count = polled[1].revents != 0 ? read(signal_pipe[0], signals, 64) : 0;
	for (ssize_t i = 0; i < count; i++) take_signal(t, signals[i]);
	if (polled[2].revents != 0 && out)
		print_url(t);
	else if (polled[2].revents != 0)
		let_go(t, 1, 1);	/* its reader is gone */
	if (polled[3].revents != 0 && t->waiter != -1) {
		close(t->waiter);	/* killed: nobody wants us any more */
		t->waiter = -1;
		end(t, 1);
	}
	/* what is in the pipe counts before a deadline does */
	if (t->deadline[START] > 0 && t->deadline[START] <= now_ms()) read_log(t);
	announce(t);
	for (int i = 0; i < DEADLINES; i++) {
		if (t->deadline[i] > 0 && t->deadline[i] <= now_ms()) take_deadline(t, i);
	}
	announce(t);
	show_progress(t, t->terminal && !t->has['v'] && !t->ending && t->state < UP);
}

/* ---- modes ---- */
/* Runs the tunnel until its end. */
static void run_tunnel(struct tunnel *t) {
	claim_record(t);
	find_cloudflared(t);
	block_signals(true);
	handle_signals(on_signal, true);
	if (!make_pipe(signal_pipe) || fcntl(signal_pipe[1], F_SETFL, O_NONBLOCK) == -1 ||
	    (t->waiter != -1 && chdir("/") == -1))
		die(t, "start");
	block_signals(false);
#ifdef PR_SET_CHILD_SUBREAPER
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);	/* so that stragglers become ours */
#endif
	/* a terminal that is held up can't block us through a description of our own */
	const char *name = t->terminal && t->has['v'] && t->waiter == -1 ? ttyname(2) : NULL;
	int fd = name == NULL ? -1 : open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	t->error_fd = fd != -1 ? fd : 2;
	t->record = (struct record){ .url = "-", .created = "-", .error = "-", .pid = getpid(),
	    .grace_ms = t->grace_ms };
	strcpy(t->record.origin, t->origin);
	start_cloudflared(t);
	write_record(t);
	/* the group counts until it is empty */
	while (!t->ending || t->cloudflared != 0 || t->command_pid != 0 || (t->group != 0 &&
	    waitid(P_PGID, (id_t)t->group, &(siginfo_t){ 0 }, WEXITED | WNOHANG | WNOWAIT) == 0))
		wait_for_events(t);
	t->state = WAITING;
	strcpy(t->record.url, "-");
	write_record(t);
	quit(t, t->status);
}

/* Runs the tunnel in a child, and waits until that has the URL out, passing signals on. */
static void run_in_background(struct tunnel *t) {
	int ready[2], signal, status = 0;
	ssize_t size = -1;
	char byte;
	sigset_t all;
	sigfillset(&all);
	sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	block_signals(true);
	pid_t child = make_pipe(ready) ? fork() : -1;
	if (child == -1) die(t, "go to the background");
	if (child == 0) {
		/* the caller's locks and pipes are none of a long life's business */
		for (int fd = 3; fd < DESCRIPTORS; fd++) {
			if (fd != t->null && fd != ready[1]) close(fd);
		}
		t->waiter = ready[1];
		setsid();
		block_signals(false);
		run_tunnel(t);
	}
	close(ready[1]);
	while (size == -1 && sigwait(&all, &signal) == 0) {
		if (signal == SIGCHLD)
			size = read(ready[0], &byte, 1);
		else kill(child, signal);
		if (signal == SIGTSTP) raise(SIGSTOP);
	}
	if (size == 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status))
		t->signal = WTERMSIG(status);
	quit(t, t->signal != 0 ? 128 + t->signal : WEXITSTATUS(status));
}

/* Prints the tunnels of these origins, or of all. */
static void list_tunnels(struct tunnel *t, int count, char **operands) {
	struct dirent *entry = NULL;
	DIR *all = NULL;
	struct record record;
	char text[RECORD_SIZE];
	int status = 0, named = count;
	open_directory(t);
	if (named == 0 && (all = fdopendir(t->directory)) == NULL)
		die(t, "read the directory of the records");
	for (int i = 0; named ? i < count : (entry = readdir(all)) != NULL; i++) {
		if (parse_origin(named ? operands[i] : entry->d_name, t->origin) != NULL) continue;
		t->name = strchr(t->origin, '/') + 2;
		if (!named && strcmp(t->name, entry->d_name) != 0) continue;
		int fd = open_record(t, O_RDONLY);
		pid_t holder = read_record(fd, t->name, &record);
		bool up = holder != 0 && record.url[0] != '-', failed = record.error[0] != '-';
		close(fd);
		if (up && !t->has['j'])
			snprintf(text, sizeof text, "%s\t%s\t%ld\t%s", t->name, record.url,
			    record.pid, record.created);
		if (up) print(t, t->has['j'] ? get_result(t, &record, text) : text);
		else if (named && holder != 0)
			say(t, "the tunnel of %s, process %ld, has no URL yet", t->name, (long)holder);
		else if (named)
			say(t, "no tunnel of %s runs%s%s", t->name, failed ?
			    "; the last one failed: " : "", failed ? record.error : "");
		status |= named && !up;
	}
	quit(t, status);
}

/* Ends the tunnel of t's origin, waits until it is gone, and quits with a status. */
static void stop_tunnel(struct tunnel *t) {
	struct record record;
	int fd = open_record(t, O_RDONLY), tries = 0;
	pid_t holder = read_record(fd, t->name, &record), now = holder;
	if (holder > 0 && kill(holder, SIGTERM) == 0) kill(holder, SIGCONT);
	long long until = now_ms() + STOP_EXTRA_MS + record.grace_ms;
	while (holder > 0 && now_ms() < until && now == holder) {
		wait_for_lock(fd, ALIVE, until - now_ms());
		now = read_record(fd, t->name, &record);
	}
	if (holder > 0 && now == holder) {
		/* while the tunnel lives, stopped so that it can't reap, the group is its own */
		kill(holder, SIGSTOP);
		if (record.group > 0) kill((pid_t)-record.group, SIGKILL);
		kill(holder, SIGKILL);
		wait_for_lock(fd, ALIVE, STOP_EXTRA_MS);
		/* not our child, so we can't wait for it; signal 0 is none */
		while (record.group > 0 && kill((pid_t)-record.group, 0) == 0 && tries++ < 200)
			poll(NULL, 0, 10);
		now = read_record(fd, t->name, &record);
	}
	/* its lock goes before it does; whoever started it may leave it a zombie for long */
	for (tries = 0; holder > 0 && now != holder && tries < 20 && kill(holder, 0) == 0; tries++)
		poll(NULL, 0, 5);
	if (holder != 0 && now == holder)
		say(t, "cannot stop the tunnel of %s, process %ld", t->name, (long)holder);
	quit(t, holder != 0 && now == holder);
}

/* Stops the tunnels of these origins, all at a time. */
static void stop_tunnels(struct tunnel *t, int count, char **operands) {
	int failed = 0, status;
	open_directory(t);
	sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	for (int i = 0; i < count; i++) {
		take_origin(t, operands[i]);
		pid_t child = fork();
		if (child == 0) stop_tunnel(t);
		failed |= child == -1;
	}
	while (wait(&status) > 0) failed |= status != 0;
	quit(t, failed);
}

int main(int argc, char **argv) {
	static struct tunnel t;		/* too large for a stack, or to be part of the file */
	t.start_ms = 30000;
	t.grace_ms = 3000;
	t.restart_ms = RESTART_MS;
	t.log_fd = t.directory = t.record_fd = t.waiter = -1;
	t.error_fd = 2;
	block_signals(false);
	/* if we lack some of 0 to 2, fill them; writing to them still fails */
	while ((t.null = open("/dev/null", O_RDONLY)) >= 0 && t.null <= 2) continue;
	t.terminal = isatty(2);
	t.program = getenv("CLOUDFLARED");
	if (t.program != NULL && t.program[0] == '\0') t.program = NULL;
	take_options(&t, argc, argv);
	check_operands(&t, argc - optind, argv + optind);
	if (t.null == -1 || fcntl(t.null, F_SETFD, FD_CLOEXEC) == -1) die(&t, "open /dev/null");
	if (t.has['l']) list_tunnels(&t, argc - optind, argv + optind);
	if (t.has['k']) stop_tunnels(&t, argc - optind, argv + optind);
	t.self = argv[0];
	if (t.has['b']) run_in_background(&t);
	run_tunnel(&t);
}
