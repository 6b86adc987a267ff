/*
 * tunnel - a public https://LABEL.trycloudflare.com address for a local port
 *
 * Runs one cloudflared quick tunnel, prints the address that is in its log, and looks after
 * the process until it is told to stop.  "help" is the usage.  Three ideas:
 * - A pipe that is never left unread: a full one would block cloudflared, which logs to
 *   it.  We read for as long as it lives, and never write where we might wait.
 * - A process group that is never left behind: cloudflared leads one, so that Ctrl-C
 *   reaches it only through us.  When it ends we look without reaping, kill what is left
 *   of the group while the zombie still holds the id, and only then let that go.
 * - A lock that says who lives: a tunnel locks its record, a file named after the origin.
 *   The kernel takes the lock back however we die, and tells whoever asks which process
 *   holds it.  There is no daemon, and nothing goes stale.
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
#define NAME_CHARS DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
#ifndef SIGWINCH
#define SIGWINCH 28, 29	/* and SIGINFO: POSIX hides both on macOS and the BSDs */
#endif

enum { START, PAUSE, PROBE, RESTART, STOP, DEADLINES };
enum { ALIVE, NO_URL };	/* bytes of a record that are locked while that is so */
enum {
	HOST_SIZE = 250, ORIGIN_SIZE = 264, URL_SIZE = 96, PATH_SIZE = 4096, MESSAGE_SIZE = 1024,
	LINE_SIZE = PIPE_BUF - 64,	/* a longer log line is shown in pieces */
	LOG_TAIL = 8192, LAST_LINES = 10,	/* kept for when cloudflared fails */
	LOG_READ = 65536, READS = 16,	/* what a pipe holds; until signals get a turn */
	PAUSE_MS = 100, PROBE_MS = 100, PROBE_AGAIN_MS = 50, MESSAGE_MS = 250,
	FAILURES = 6, RESTART_MS = 1000, RESTART_MAX_MS = 30000, STOP_EXTRA_MS = 2000,
	EXIT_DEADLINE = 124, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127
};

struct record {	/* what others can know of a tunnel, as it is in its file */
	long long grace_ms;
	pid_t pid, group;	/* tunnel's process, cloudflared's process group or 0 */
	char url[URL_SIZE], created[40], error[MESSAGE_SIZE], tls;
};

struct tunnel {
	/* for a start or the end; for the URL; until SIGTERM; until SIGKILL */
	enum { WAITING, STARTING, UP, STOPPING, KILLED } state;
	pid_t cloudflared, group, command_pid;	/* 0: none, or reaped */
	int log_fd, null, error_fd;	/* descriptors, -1: none; /dev/null; standard error */
	int directory, record_fd, waiter;	/* records; ours, locked; to whom -b let wait */
	int status, signal, signals, failures;	/* failures in a row */
	bool ending, delivered;		/* with status or signal; a URL is printed */
	bool registered, listening;	/* what -w waits for */
	bool terminal, progress;	/* standard error is one, shows that we wait */
	const char *name;		/* localhost:8080, the end of origin */
	char *log;			/* a string; -v has shown what is before log_shown */
	size_t log_length, log_shown, lost_lines;	/* that it could not show */
	long long start_ms, grace_ms, restart_ms, deadline[DEADLINES];	/* 0: none */
	const char *program, *start;	/* arguments of -c, or NULL, and -t */
	char **command;			/* NULL: none */
	bool has[128];			/* options, by their letters */
	struct record record;		/* ours, or the last one read */
	char path[PATH_SIZE], origin[ORIGIN_SIZE];	/* cloudflared's, http://localhost:8080 */
	char said[MESSAGE_SIZE], result[2048];	/* the last message; the URL's line */
};

extern char **environ;
static int signal_pipe[2] = { -1, -1 };

/* ---- time, messages, ends ---- */
static long long now_ms(void) {
	struct timespec now = { 0, 0 };
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Replaces what could drive a terminal: C0, DEL, and C1 as UTF-8 or where that has no such byte. */
static void make_printable(char *text) {
	for (int c, more; (c = (unsigned char)*text) != '\0'; text += more + 1) {
		more = (c >= 0xc2) + (c >= 0xe0) + (c >= 0xf0);
		for (int i = 1; i <= more; i++) if ((text[i] & 0xc0) != 0x80) more = 0;
		bool c1 = (text[more] & 0xe0) == 0x80 && (more == 0 || c == 0xc2);
		if (c < 0x20 || c == 0x7f || c1) text[more] = '?';
	}
}

/* Writes what a descriptor takes at once, which others share: O_NONBLOCK isn't ours to set. */
static bool put(int fd, int wait_ms, const char *text) {
	errno = EAGAIN;
	if (poll(&(struct pollfd){ fd, POLLOUT, 0 }, 1, wait_ms) != 1) return false;
	errno = ENOSPC;	/* a disk may take a part */
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* Says on a terminal that we wait, in a line without an end, or takes that back. */
static void show_progress(struct tunnel *t, bool show) {
	const char *line = show ? "tunnel: waiting for the URL" : "\r                           \r";
	if (show != t->progress && put(t->error_fd, 0, line)) t->progress = show;
}

/* Prints a line of the log, or if that is NULL what we have said. */
static bool put_line(struct tunnel *t, int length, const char *log) {
	char line[PIPE_BUF];
	int size = snprintf(line, sizeof line, "%s%.*s", log != NULL ? "cloudflared: " : "tunnel: ",
	    length < LINE_SIZE ? length : LINE_SIZE, log != NULL ? log : t->said);
	make_printable(line);
	memcpy(line + size, "\n", 2);
	show_progress(t, false);
	return put(t->error_fd, log != NULL && t->has['v'] ? t->lost_lines == 0 : MESSAGE_MS, line);
}

/* Prints a message, one line; a macro, so that compilers check the format. */
#define say(t, ...) put_line(t, snprintf((t)->said, MESSAGE_SIZE, __VA_ARGS__), NULL)

static void block_signals(bool all, bool ours) {
	sigset_t set;
	(all ? sigfillset : sigemptyset)(&set);
	static const char harmless[] = { SIGPIPE, SIGXFSZ, SIGTTOU, SIGTTIN, SIGURG, SIGWINCH };
	for (size_t i = 0; ours && i < sizeof harmless; i++) sigaddset(&set, harmless[i]);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

/* Leaves word.  SIGALRM, without a pipe, lets a wait for a lock fail, even one about to begin. */
static void on_signal(int number) {
	int error = errno;
	if (signal_pipe[1] == -1 && number == SIGALRM) alarm(1);
	while (write(signal_pipe[1], &(char){ (char)number }, 1) == -1 && errno == EINTR) continue;
	errno = error;
}

/* Has all signals handled so, but not those that are ignored and would end or stop us, if kept.
 * There is no SA_RESTART, so that no wait goes on, and a crash is told but once. */
static void handle_signals(void (*handler)(int), bool keep_ignored) {
	static const char crashes[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, 0 };
	struct sigaction action = { .sa_handler = handler }, old;
	sigfillset(&action.sa_mask);
	for (int number = 1; number <= 64; number++) {
		action.sa_flags = SA_NOCLDSTOP | (strchr(crashes, number) ? (int)SA_RESETHAND : 0);
		if (sigaction(number, &action, &old) == 0 && old.sa_handler == SIG_IGN &&
		    keep_ignored && number != SIGCHLD && number != SIGCONT)
			sigaction(number, &old, NULL);
	}
}

/* Exits, or dies of t->signal as whoever waits for us expects; process 1 can't. */
static void quit(struct tunnel *t, int status) {
	if (t->signal != 0) {
		handle_signals(SIG_DFL, true);
		block_signals(false, true);
		kill(getpid(), t->signal);
	}
	_exit(status);
}

static void die(struct tunnel *t, int status, const char *what, const char *which) {
	say(t, "cannot %s%s: %s", what, which, strerror(errno));
	quit(t, status);
}

static void refuse(struct tunnel *t, const char *what, const char *argument) {
	say(t, "%s: %s (tunnel -h shows the usage)", what, argument);
	quit(t, 2);
}

static void print(struct tunnel *t, const char *text) {
	if (!put(1, -1, text)) die(t, 1, "write to standard output", "");
}

/* Sends SIGTERM, with a deadline, or SIGKILL to what we have started. */
static void stop_cloudflared(struct tunnel *t, int number) {
	t->state = number == SIGTERM ? STOPPING : KILLED;
	t->deadline[STOP] = number == SIGTERM ? now_ms() + t->grace_ms : 0;
	if (t->cloudflared > 0 && kill(-t->cloudflared, number) == 0) kill(-t->cloudflared, SIGCONT);
	if (t->command_pid > 0 && kill(t->command_pid, number) == 0) kill(t->command_pid, SIGCONT);
}

/* Ends the tunnel: the command, cloudflared, then us.  Without a signal, why was said last. */
static void end(struct tunnel *t, int status, int number) {
	if (t->ending) return;
	t->ending = true;
	t->status = status;
	t->signal = number;
	snprintf(t->record.error, MESSAGE_SIZE, "%s", number == 0 ? t->said : "");
	memset(t->deadline, 0, STOP * sizeof t->deadline[0]);
	if (t->state < STOPPING) stop_cloudflared(t, SIGTERM);
}

static void fail(struct tunnel *t, const char *what) {
	say(t, "cannot %s: %s", what, strerror(errno));
	end(t, 1, 0);
}

/* ---- options ---- */
static const char help[] =
"usage: tunnel [-bjrvw] [-c path] [-g seconds] [-t seconds] origin\n"
"       tunnel [-vw] [-c path] [-g seconds] [-t seconds] origin command [argument ...]\n"
"       tunnel -l [-j] [origin ...] | -k origin ... | -h | -V\n"
"An origin is [scheme://][host:]port; a command finds its URL in TUNNEL_PUBLIC_URL.\n"
"  -b  go to the background with the URL   -l  list the running tunnels\n"
"  -c  the cloudflared to run              -r  restart cloudflared when it dies\n"
"  -g  seconds from SIGTERM to SIGKILL (3) -t  start deadline in seconds (30)\n"
"  -j  print JSON records                  -v  copy cloudflared's log\n"
"  -k  stop the tunnels of these origins   -w  wait until the tunnel works\n";

static bool starts(const char *text, const char *with) {
	return strncmp(text, with, strlen(with)) == 0;
}

/* Reads [scheme://][host:]port into a URL.  Returns NULL, or the name of what is wrong. */
static const char *parse_origin(const char *text, char url[ORIGIN_SIZE]) {
	char host[HOST_SIZE] = "localhost";
	bool tls = starts(text, "https://");
	text += tls ? 8 : starts(text, "http://") ? 7 : 0;
	const char *colon = strrchr(text, ':'), *port = colon != NULL ? colon + 1 : text;
	if (colon != NULL && snprintf(host, HOST_SIZE, "%.*s", (int)(colon - text), text) >= HOST_SIZE)
		return "invalid origin";
	char *end = host + strcspn(host, "]");
	bool ip6 = host[0] == '[' && strcmp(end, "]") == 0;
	if (ip6) *end = '\0';
	if (ip6 ? inet_pton(AF_INET6, host + 1, &(struct in6_addr){ { { 0 } } }) != 1 :
	    host[0] == '\0' || host[strspn(host, NAME_CHARS ".")] != '\0') return "invalid origin";
	if (ip6) *end = ']';
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
	long long ms = atoi(text) * 1000LL, unit = 100;
	for (size_t i = 0; i < digits; i++, unit /= 10) ms += (part[i] - '0') * unit;
	ms += digits > 3 && strspn(part + 3, "0") < digits - 3;
	return ms <= 86400 * 1000 ? ms : -1;
}

static void take_origin(struct tunnel *t, const char *operand) {
	const char *wrong = parse_origin(operand, t->origin);
	if (wrong != NULL) refuse(t, wrong, operand);
	t->name = strchr(t->origin, '/') + 2;
}

static void take_options(struct tunnel *t, int argc, char **argv) {
	opterr = 0;
	for (int letter; (letter = getopt(argc, argv, "+:bc:g:hjklrt:vVw")) != -1; ) {
		char option[] = { '-', (char)optopt, '\0' };
		const char *word = letter == '?' && optopt == '-' && optind < argc ? argv[optind] : option;
		if (letter == 'h' || strcmp(word, "--help") == 0) print(t, help), quit(t, 0);
		if (letter == 'V' || strcmp(word, "--version") == 0)
			print(t, "tunnel " VERSION "\n"), quit(t, 0);
		if (letter == ':') refuse(t, "an argument is missing after", word);
		if (letter == '?' || letter == '+') refuse(t, "unknown option", word);
		if (letter == 'c') t->program = optarg;
		if (letter == 'g') t->grace_ms = parse_seconds(optarg);
		if (letter == 't') t->start_ms = parse_seconds(t->start = optarg);
		if (t->grace_ms == -1 || t->start_ms == -1)
			refuse(t, "not a number of seconds from 0 to 86400", optarg);
		t->has[letter] = true;
	}
}

static void check_operands(struct tunnel *t, int count, char **operands) {
	bool several = t->has['l'] || t->has['k'];
	const char *fitting = t->has['l'] ? "lj" : t->has['k'] ? "k" : count > 1 ? "cgtvw" : "bcgjrtvw";
	for (int i = 1; i < count && (several || i < 2); i++)
		if (operands[i][0] == '-') refuse(t, "options go before the origin", operands[i]);
	for (char option[] = "-a"; option[1] <= 'z'; option[1]++)
		if (t->has[(int)option[1]] && strchr(fitting, option[1]) == NULL)
			refuse(t, "not possible with the rest", option);
	if (count < 1 && !t->has['l']) refuse(t, "an origin is missing, such as", "8080");
	for (int i = several ? count : count > 0; i > 0; i--) take_origin(t, operands[i - 1]);
	t->command = !several && count > 1 ? operands + 1 : NULL;
}

/* ---- URL: what the log says ---- */
/* Returns the length of the URL at text, or 0; at the end of text only if it is complete. */
static size_t match_url(const char *text, bool complete) {
	static const char domain[] = ".trycloudflare.com";
	if (strncasecmp(text, "https://", 8) != 0) return 0;
	const char *label = text + 8;
	size_t length = strspn(label, NAME_CHARS);
	if (length < 1 || length > 63 || label[0] == '-' || label[length - 1] == '-' ||
	    memchr(label, '_', length) != NULL ||
	    strncasecmp(label + length, domain, strlen(domain)) != 0 ||
	    (length == 3 && strncasecmp(label, "api", 3) == 0)) return 0;	/* errors name it */
	const char *end = label + length + strlen(domain), *next = end + (*end == '.');
	if (*next == '\0' ? !complete : strchr(NAME_CHARS, *next) != NULL) return 0;
	return (size_t)(end - text);
}

static const char *find_url(const char *text, size_t *length) {
	for (; (text = strpbrk(text, "hH")) != NULL; text++)
		if ((*length = match_url(text, true)) > 0) return text;
	return NULL;
}

static bool find_registered(const char *text) {
	/* until 2022: Connection 0b3cd2b6-... registered */
	for (bool connection = false; *text != '\0'; text++)
		if (starts(text, "Registered tunnel connection") ||
		    (connection && starts(text, " registered"))) return true;
		else if (*text == '\n' || starts(text, "Connection ")) connection = *text != '\n';
	return false;
}

/* What went wrong, and its signs in the log, the surer ones first. */
enum { EDGE = 1, HINTS = 4 };
static const struct { const char *hint, *signs[4]; } hints[HINTS] = {
	{ "Cloudflare limits the rate of new tunnels: wait some minutes, then try again",
	    { "429", "1015" } },
	{ "Cloudflare's edge is out of reach: is port 7844 blocked by a firewall, WARP or another "
	    "Zero Trust egress policy?", { "7844", "dial to edge" } },
	{ "Cloudflare's answer makes no sense, which is often rate limiting: try again later",
	    { "failed to unmarshal", "failed to parse quick Tunnel ID" } },
	{ "no network or no DNS: check the connection and the resolver, then try again",
	    { "no such host", "network is unreachable", "dial tcp" } },
};

/* Returns what the end of a log tells about why cloudflared failed, or NULL. */
static const char *choose_hint(const char *text) {
	const char *at;
	/* what went wrong before a connection was there is not why it ended, nor is our origin */
	for (at = text; *at != '\0'; at++)
		if (starts(at, "Registered tunnel connection") || starts(at, " registered") ||
		    starts(at, "the origin service")) text = at + strcspn(at, "\n");
	for (int i = 0; i < HINTS; i++)
		for (const char *const *sign = hints[i].signs; *sign != NULL; sign++)
			for (at = text; *at != '\0'; at++)
				/* numbers: not a part of something longer, nor some port, but "code":429 */
				if (starts(at, *sign) && (strchr(DIGITS, *at) == NULL ||
				    (strspn(at + strlen(*sign), NAME_CHARS) == 0 &&
				    (at == text || (strchr(NAME_CHARS, at[-1]) == NULL && (at[-1] != ':' ||
				    i == EDGE || (at > text + 1 && at[-2] == '"'))))))) return hints[i].hint;
	return NULL;
}

/* ---- log ---- */
static void show_log(struct tunnel *t, bool all) {
	char note[64], *text = t->log + t->log_shown;
	while (*text != '\0') {
		size_t size = strcspn(text, "\n"), piece = size < LINE_SIZE ? size : LINE_SIZE;
		if (text[size] == '\0' && size <= LINE_SIZE && !all) break;
		t->lost_lines += t->lost_lines > 0 || !put_line(t, (int)piece, text);
		text += piece + (piece == size && text[size] == '\n');
	}
	t->log_shown = (size_t)(text - t->log);
	int size = snprintf(note, sizeof note, "[%zu lines lost]", t->lost_lines);
	if (t->lost_lines > 0 && put_line(t, size, note)) t->lost_lines = 0;
}

static void show_cause(struct tunnel *t, const char *hint) {
	size_t start = t->log_length, lines = 0;
	while (start > 0 && (t->log[start - 1] != '\n' || start == t->log_length ||
	    ++lines < LAST_LINES)) start--;
	if (!t->has['v']) t->log_shown = start;
	show_log(t, true);
	if (hint != NULL || (hint = choose_hint(t->log)) != NULL) say(t, "%s", hint);
}

static void search_log(struct tunnel *t, bool complete) {
	size_t length;
	const char *url = t->record.url[0] == '\0' ? find_url(t->log, &length) : NULL;
	t->registered = t->registered || (t->has['w'] && find_registered(t->log));
	t->deadline[PAUSE] = 0;
	if (url != NULL && (complete || match_url(url, false) > 0))
		snprintf(t->record.url, URL_SIZE, "%.*s", (int)length, url);
	else if (url != NULL) t->deadline[PAUSE] = now_ms() + PAUSE_MS;
}

/* Reads what the pipe holds, but for so long only that signals get their turn. */
static void read_log(struct tunnel *t) {
	for (int reads = 0; reads < READS && t->log_fd != -1; reads++) {
		char *fresh = t->log + t->log_length, *nul;
		ssize_t n = read(t->log_fd, fresh, LOG_READ);
		if (n == -1 && (errno == EAGAIN || errno == EINTR)) break;
		if (n == -1) fail(t, "read cloudflared's log");
		size_t size = n > 0 ? (size_t)n : 0;
		if (size == 0) close(t->log_fd), t->log_fd = -1;
		for (nul = fresh; (nul = memchr(nul, '\0', (size_t)(fresh + size - nul))) != NULL; ) *nul = '?';
		fresh[size] = '\0';
		t->log_length += size;
		if (t->state == STARTING) search_log(t, size == 0);
		if (t->has['v']) show_log(t, size == 0);
		size_t old = t->log_length > LOG_TAIL ? t->log_length - LOG_TAIL : 0;
		t->log_length -= old;
		memmove(t->log, t->log + old, t->log_length + 1);
		t->log_shown -= t->log_shown < old ? t->log_shown : old;
	}
}

/* ---- cloudflared ---- */
/* Where cloudflared may be, and its configuration, whose rules would win over us. */
static const char program_directories[] = "~/.local/bin:~/bin:/usr/local/bin:"
    "/opt/homebrew/bin:/home/linuxbrew/.linuxbrew/bin:/usr/bin:/snap/bin";
static const char config_directories[] = "~/.cloudflared:~/.cloudflare-warp:"
    "~/cloudflare-warp:/etc/cloudflared:/usr/local/etc/cloudflared";

/* Finds a file in directories as in PATH, but ~ is HOME.  Writes its path, or returns false. */
static bool search(char path[PATH_SIZE], const char *directories, const char *name, int mode) {
	struct stat file;
	for (; directories != NULL; directories = strchr(directories, ':')) {
		directories += *directories == ':';
		int length = (int)strcspn(directories, ":");
		bool in_home = starts(directories, "~/"), slash = length > 0 && directories[length - 1] == '/';
		const char *home = in_home ? getenv("HOME") : "";
		if (home != NULL && snprintf(path, PATH_SIZE, "%s%.*s%s%s", home, length - in_home,
		    directories + in_home, slash || length < 1 ? "" : "/", name) < PATH_SIZE &&
		    stat(path, &file) == 0 && S_ISREG(file.st_mode) && access(path, mode) == 0) return true;
	}
	return false;
}

static void find_cloudflared(struct tunnel *t, const char *self) {
	char found[PATH_SIZE], here[PATH_SIZE] = "";
	if (readlink("/proc/self/exe", here, sizeof here - 1) == -1)
		snprintf(here, sizeof here, "%s", self);
	here[strrchr(here, '/') != NULL ? strrchr(here, '/') - here + 1 : 0] = '\0';
	bool named = t->has['c'] || (t->program != NULL && t->program[0] != '\0');
	if (!named && !search(found, getenv("PATH"), "cloudflared", X_OK) &&
	    (here[0] == '\0' || !search(found, here, "cloudflared", X_OK)) &&
	    !search(found, program_directories, "cloudflared", X_OK))
		say(t, "cloudflared is not installed: get it from https://github.com/cloudflare/"
		    "cloudflared/releases, or name it with -c"), quit(t, EXIT_NOT_FOUND);
	if (!named) t->program = found;
	bool relative = t->program[0] != '/' && getcwd(here, sizeof here) != NULL;	/* for -b */
	errno = ENAMETOOLONG;
	if (snprintf(t->path, PATH_SIZE, "%s%s%s", relative ? here : "", relative ? "/" : "",
	    t->program) >= PATH_SIZE || access(t->path, X_OK) == -1)
		die(t, errno == ENOENT || errno == ENOTDIR ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN,
		    "run ", t->program);	/* the rest can be told only by trying */
}

/* Makes a pipe that no program we run inherits, and that is read without waiting. */
static bool make_pipe(int ends[2]) {
	return pipe(ends) == 0 && fcntl(ends[0], F_SETFD, FD_CLOEXEC) != -1 &&
	    fcntl(ends[1], F_SETFD, FD_CLOEXEC) != -1 && fcntl(ends[0], F_SETFL, O_NONBLOCK) != -1;
}

/* Sets NAME=VALUE in environ, where main made room: setenv would bring malloc along. */
static void set_variable(char *variable) {
	size_t i = 0, name = strcspn(variable, "=") + 1;
	while (environ[i] != NULL && strncmp(environ[i], variable, name) != 0) i++;
	if (environ[i] == NULL) environ[i + 1] = NULL;
	environ[i] = variable;
}

/* Becomes a program, in a child, or says why not; a file that is there lacks its interpreter. */
static void become(struct tunnel *t, char **arguments, bool keep_ignored) {
	handle_signals(SIG_DFL, keep_ignored);
	block_signals(false, false);
	if (arguments[0] == t->path) execv(t->path, arguments);
	else execvp(arguments[0], arguments);
	block_signals(false, true);
	t->error_fd = 2, t->progress = false;
	bool there = errno != ENOENT || (strchr(arguments[0], '/') && access(arguments[0], F_OK) == 0);
	say(t, "cannot run %s: %s", arguments[0], strerror(errno));
	_exit(there ? EXIT_CANNOT_RUN : EXIT_NOT_FOUND);
}

static void become_cloudflared(struct tunnel *t, int log, pid_t parent) {
	char grace[64], config[PATH_SIZE];
	bool configured = search(config, config_directories, "config.yml", F_OK) ||
	    search(config, config_directories, "config.yaml", F_OK);
	char *arguments[] = { t->path, "tunnel", "--url", t->origin,
	    configured ? "--config" : NULL, "/dev/null", NULL };
	/* it should end before we kill it; three minutes are the most it takes */
	int all = (int)t->grace_ms, ms = all < 1000 ? all / 2 : all < 180500 ? all - 500 : 180000;
	int end = snprintf(grace, sizeof grace, "TUNNEL_GRACE_PERIOD=%d.%03d", ms / 1000, ms % 1000);
	while (grace[end - 1] == '0') end--;
	memcpy(grace + end - (grace[end - 1] == '.'), "s", 2);
	if (getenv("TUNNEL_GRACE_PERIOD") == NULL) set_variable(grace);
	if (getenv("NO_AUTOUPDATE") == NULL) set_variable("NO_AUTOUPDATE=true");
	const char *level = getenv("TUNNEL_LOGLEVEL");
	static const char quiet[] = "warn\0 error\0fatal\0panic";	/* hide the URL */
	for (int i = 0; level != NULL && i < 24; i += 6)
		if (strncasecmp(level, quiet + i, 6) == 0) set_variable("TUNNEL_LOGLEVEL=info");
#if defined(__linux__)
	prctl(PR_SET_PDEATHSIG, (unsigned long)SIGTERM, 0, 0, 0);
	fcntl(log, 1031, 2 * LOG_READ);	/* F_SETPIPE_SZ: twice the usual, it waits for us less */
#elif defined(__FreeBSD__)
	procctl(P_PID, 0, PROC_PDEATHSIG_CTL, &(int){ SIGTERM });
#endif
	if (getppid() == parent && setpgid(0, 0) == 0 && dup2(log, 2) != -1 &&
	    dup2(log, 1) != -1 && dup2(t->null, 0) != -1) become(t, arguments, false);
	_exit(EXIT_CANNOT_RUN);
}

static void start_cloudflared(struct tunnel *t) {
	int log[2] = { -1, -1 };
	pid_t parent = getpid(), child = -1;
	block_signals(true, true);
	if (make_pipe(log) && (child = fork()) == 0) become_cloudflared(t, log[1], parent);
	if (child == -1) fail(t, "start cloudflared");
	block_signals(false, true);
	close(log[1]);
	t->log_fd = log[0];
	t->log_length = t->log_shown = 0;
	t->log[0] = '\0';
	if (child == -1) return;
	setpgid(child, child);	/* so does it: whoever is first, no signal misses the group */
	t->cloudflared = t->group = t->record.group = child;
	t->state = STARTING;
	t->registered = t->listening = false;
	if (t->start_ms > 0) t->deadline[START] = now_ms() + t->start_ms;
	if (t->has['w'] || (!t->delivered && t->failures == 0)) t->deadline[PROBE] = now_ms();
}

/* Says whether something listens on HOST:PORT, as a name that takes a resolver does.  No
 * answer, in PROBE_MS or until a signal, is no refusal; to be connected to oneself is. */
static bool is_listening(const char *name) {
	union { struct sockaddr any; struct sockaddr_in ip4; struct sockaddr_in6 ip6; } to;
	char host[HOST_SIZE];
	bool known = false, bracket = name[0] == '[';
	const char *colon = strrchr(name, ':');
	in_port_t port = htons((in_port_t)atoi(colon + 1));
	snprintf(host, HOST_SIZE, "%.*s", (int)(colon - name) - 2 * bracket, name + bracket);
	bool local = strncasecmp(host, "localhost", 10) == 0;
	for (int ip6 = 0; ip6 < 2; ip6++) {
		socklen_t size = ip6 ? sizeof to.ip6 : sizeof to.ip4;
		memset(&to, 0, sizeof to);
		to.any.sa_family = ip6 ? AF_INET6 : AF_INET;
		*(ip6 ? &to.ip6.sin6_port : &to.ip4.sin_port) = port;
		if (inet_pton(to.any.sa_family, !local ? host : ip6 ? "::1" : "127.0.0.1",
		    ip6 ? (void *)&to.ip6.sin6_addr : &to.ip4.sin_addr) != 1) continue;
		known = true;
		int fd = socket(to.any.sa_family, SOCK_STREAM, 0), error = 0;
		if (fd == -1 || fcntl(fd, F_SETFL, O_NONBLOCK) == -1 || connect(fd, &to.any, size) == -1)
			error = errno;
		struct pollfd wait[] = { { fd, POLLOUT, 0 }, { signal_pipe[0], POLLIN, 0 } };
		if (error == EINPROGRESS && (poll(wait, 2, PROBE_MS) <= 0 || wait[0].revents == 0 ||
		    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){ sizeof error }) == -1))
			error = 0;
		bool own = getsockname(fd, &to.any, &size) == 0 && to.ip4.sin_port == port;
		close(fd);
		if (error == 0 && !own) return true;
	}
	return !known;
}

/* ---- record ---- */
/* Opens the directory of the records, or says why not; -b, -k and -l quit without it. */
static void open_directory(struct tunnel *t) {
	const char *runtime = getenv("XDG_RUNTIME_DIR"), *temporary = getenv("TMPDIR");
	bool needed = t->has['b'] || t->has['k'] || t->has['l'];
	char path[PATH_SIZE];
	struct stat file;
	if (temporary == NULL || temporary[0] == '\0') temporary = "/tmp";
	snprintf(path, sizeof path, "%s/tunnel-%ld", temporary, (long)geteuid());
	if (runtime != NULL && runtime[0] != '\0') snprintf(path, sizeof path, "%s/tunnel", runtime);
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		t->directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool known = t->directory != -1 && fstat(t->directory, &file) == 0;
	if (known && file.st_uid == geteuid() && (file.st_mode & 0777) == 0700) return;
	say(t, "%scannot keep records in %s: %s", needed ? "" : "warning: ", path,
	    known ? "it must be yours, with mode 0700" : strerror(errno));
	if (needed) quit(t, 1);
	t->directory = -1;
}

/* Opens the record of t's origin.  Returns -1 with errno, EINVAL if it isn't our file. */
static int open_record(struct tunnel *t, int flags) {
	struct stat file;
	int fd = openat(t->directory, t->name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd == -1 || (fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && file.st_nlink == 1 &&
	    file.st_uid == geteuid())) return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

/* Locks bytes of a record, or asks for the process that has.  Returns -1 with errno. */
static pid_t lock_record(int fd, int command, short type, int start, int count) {
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = count };
	if (fcntl(fd, command, &lock) == -1) return -1;
	if (command != F_GETLK || lock.l_type == F_UNLCK) return 0;
	return lock.l_pid > 0 ? lock.l_pid : -1;
}

/* Reads a record into t.  Returns the process of the tunnel that holds it, 0 if none does,
 * -1 if it can't be named, as in another PID namespace.  Only what it wrote is taken. */
static pid_t read_record(struct tunnel *t, int fd) {
	struct record *record = &t->record;
	/* those who wait have read locks, which a question about a read lock leaves out */
	pid_t holder = fd == -1 ? 0 : lock_record(fd, F_GETLK, F_RDLCK, ALIVE, 1);
	bool whole = pread(fd, record, sizeof *record, 0) == sizeof *record;
	record->url[URL_SIZE - 1] = record->created[39] = record->error[MESSAGE_SIZE - 1] = '\0';
	if (!whole || (holder > 0 && holder != record->pid) || record->group < 0 ||
	    record->group == 1 || record->grace_ms < 0 || record->grace_ms > 86400 * 1000 ||
	    match_url(record->url, true) != strlen(record->url) ||
	    record->created[strspn(record->created, DIGITS "-:TZ")] != '\0')
		*record = (struct record){ .pid = holder };
	return holder;
}

/* Writes to our record what there is to know of us; at the end only what went wrong. */
static void write_record(struct tunnel *t) {
	bool over = t->state == WAITING && t->ending && t->record.error[0] == '\0';
	ssize_t size = over ? 0 : sizeof t->record;
	if (t->record_fd != -1 && (pwrite(t->record_fd, &t->record, (size_t)size, 0) != size ||
	    ftruncate(t->record_fd, size) == -1))
		say(t, "warning: cannot write the record of %s: %s", t->name, strerror(errno));
	lock_record(t->record_fd, F_SETLK, t->record.url[0] ? F_UNLCK : F_WRLCK, NO_URL, 1);
}

static const char *get_result(struct tunnel *t) {
	const char *url = t->record.url, *created = t->record.created;
	long pid = t->record.pid;
	unsigned long id = 2166136261;		/* FNV-1a */
	for (const char *c = url; *c != '\0'; c++)
		id = ((id ^ (unsigned char)*c) * 16777619) & 0xffffffff;
	if (t->has['j'])
		snprintf(t->result, sizeof t->result, "{\"id\":\"quick-%08lx\",\"origin\":\"http%s://%s\","
		    "\"port\":%s,\"url\":\"%s\",\"hostname\":\"%s\",\"createdAt\":\"%s\",\"pid\":%ld}\n",
		    id, t->record.tls ? "s" : "", t->name, strrchr(t->name, ':') + 1, url, url + 8, created, pid);
	else if (t->has['l'])
		snprintf(t->result, sizeof t->result, "%s\t%s\t%ld\t%s\n", t->name, url, pid, created);
	else snprintf(t->result, sizeof t->result, "%s\n", url);
	return t->result;
}

/* Waits until this byte of a record is not locked, for ms at most. */
static void wait_for_lock(int fd, int byte, long long ms) {
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	alarm((unsigned)(ms < INT_MAX ? ms / 1000 : INT_MAX));
	if (ms >= 1000) lock_record(fd, F_SETLKW, F_RDLCK, byte, 1);
	lock_record(fd, F_SETLK, F_UNLCK, byte, 1);
	alarm(0);
	poll(NULL, 0, 5);	/* less than a second; or who is between two locks gets to the next */
}

/* Locks the record of our origin; if a tunnel has, -b waits for its URL, and we quit. */
static void claim_record(struct tunnel *t) {
	long long until = t->start_ms > 0 ? now_ms() + t->start_ms : LLONG_MAX;
	open_directory(t);
	int fd = open_record(t, O_RDWR | O_CREAT), locked = -1;
	while (fd != -1 && (locked = lock_record(fd, F_SETLK, F_WRLCK, ALIVE, 2)) == -1 &&
	    (errno == EAGAIN || errno == EACCES)) {
		pid_t holder = read_record(t, fd);
		bool up = t->record.url[0] != '\0';
		if (t->has['b'] && holder != 0 && up) print(t, get_result(t)), quit(t, 0);
		if ((holder != 0 && !t->has['b']) || now_ms() >= until)
			say(t, "a tunnel of %s runs already: process %ld, %s (tunnel -k %s stops it)",
			    t->name, (long)t->record.pid, up ? t->record.url : "no URL yet", t->name),
			    quit(t, t->has['b'] ? EXIT_DEADLINE : 1);
		wait_for_lock(fd, NO_URL, until - now_ms());
	}
	if (locked == 0) t->record_fd = fd;
	else if (t->has['b']) die(t, 1, "lock the record of ", t->name);
	else if (t->directory != -1)
		say(t, "warning: cannot lock the record of %s: %s", t->name, strerror(errno));
}

/* ---- the tunnel: what happens, and what is done about it ---- */
/* Points a descriptor at the null device, so that nobody waits for us to close it. */
static void let_go(struct tunnel *t, int fd) {
	if (dup2(t->null, fd) == -1 || (fd > 2 && fcntl(fd, F_SETFD, FD_CLOEXEC) == -1))
		fail(t, "point a descriptor at /dev/null");
}

/* Writes a time as 2026-11-21T01:58:36Z; strftime is larger than all of us. */
static void format_time(char text[40], time_t time) {
	int day = (int)(time / 86400), second = (int)(time % 86400), year = 1970, month = 1;
	for (int length; ; day -= length, year += month == 12, month = month % 12 + 1) {
		bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
		length = month == 2 ? 28 + leap : 30 + (month + month / 8) % 2;
		if (day < length) break;
	}
	snprintf(text, 40, "%04d-%02d-%02dT%02d:%02d:%02dZ", year, month, day + 1,
	    second / 3600, second / 60 % 60, second % 60);
}

static void start_command(struct tunnel *t) {
	char variable[URL_SIZE + 32];
	block_signals(true, true);
	pid_t child = fork();
	if (child == 0) {
		snprintf(variable, sizeof variable, "TUNNEL_PUBLIC_URL=%s", t->record.url);
		set_variable(variable);
		become(t, t->command, true);
	}
	t->command_pid = child > 0 ? child : 0;
	if (child == -1) fail(t, "start the command");
	block_signals(false, true);
}

static bool is_ready(const struct tunnel *t) {
	return t->state == STARTING && !t->ending && t->record.url[0] != '\0' &&
	    (!t->has['w'] || (t->registered && t->listening));
}

/* Makes the URL known and lets go of who waits for it, or starts the command.  If standard
 * output is full, the tunnel stays ready for that. */
static void announce(struct tunnel *t) {
	if (!is_ready(t)) return;
	show_progress(t, false);
	format_time(t->record.created, time(NULL));
	write_record(t);
	bool first = !t->delivered, printed = t->command != NULL || put(1, 0, get_result(t));
	if (!printed && (errno == EAGAIN || errno == EINTR)) return;
	if (!printed && first) fail(t, "print the URL to standard output");
	if (t->ending) return;
	t->state = UP;
	t->failures = 0;
	t->restart_ms = RESTART_MS;
	t->deadline[START] = 0;
	t->delivered = true;
	if (t->command != NULL) start_command(t);
	else if (!printed || !t->has['r']) let_go(t, 1);
	if (t->waiter != -1) {
		for (int fd = 0; fd <= 2; fd++) let_go(t, fd);
		t->terminal = false;
		if (!t->ending && write(t->waiter, "", 1) == 1) kill(getppid(), SIGCHLD);
		let_go(t, t->waiter);
	} else if (t->terminal && first && t->command == NULL) say(t, "Ctrl-C to stop");
}

static void take_death(struct tunnel *t, int status) {
	bool was_up = t->state == UP, starting = t->state == STARTING, killed = WIFSIGNALED(status);
	int code = killed ? WTERMSIG(status) : WEXITSTATUS(status);
	bool unusable = code >= EXIT_CANNOT_RUN && starts(t->log, "tunnel: cannot run ");
	close(t->log_fd), t->log_fd = -1;
	t->state = WAITING;
	if (t->ending) return;
	memset(t->deadline, 0, sizeof t->deadline);
	if (unusable) say(t, "%.*s", (int)strcspn(t->log + 8, "\n"), t->log + 8);
	else if (was_up || starting)
		say(t, "cloudflared ended (%s %d) %s%s", killed ? "signal" : "exit status", code,
		    was_up ? "and with it the tunnel " : "before the tunnel was there",
		    was_up ? t->record.url : ""), show_cause(t, NULL);
	t->record.url[0] = '\0';
	write_record(t);
	t->failures += !was_up;
	if (!t->has['r'] || unusable || t->failures == FAILURES) end(t, unusable ? code : 1, 0);
	if (t->ending) return;
	say(t, "starting cloudflared again in %lld s", t->restart_ms / 1000);
	t->deadline[RESTART] = now_ms() + t->restart_ms;
	t->restart_ms = t->restart_ms * 2 < RESTART_MAX_MS ? t->restart_ms * 2 : RESTART_MAX_MS;
}

/* Reaps whoever has ended; as process 1 that is every orphan.  What is left of the group
 * of cloudflared is killed while its zombie keeps the group's id from being reused. */
static void reap(struct tunnel *t) {
	for (siginfo_t info = { 0 }; waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	    info.si_pid != 0; info.si_pid = 0) {
		pid_t pid = info.si_pid;
		int status;
		if (pid == t->cloudflared) {
			kill(-pid, SIGKILL);
			for (int i = 0; i < READS; i++) read_log(t);	/* what it wrote before */
			if (t->command == NULL && t->waiter == -1) announce(t);
			t->cloudflared = t->record.group = 0;
			if (t->state != UP) t->record.url[0] = '\0';
			write_record(t);
			if (waitpid(pid, &status, 0) == pid) take_death(t, status);
		} else if (waitpid(pid, &status, 0) == pid && pid == t->command_pid) {
			t->command_pid = 0;
			t->said[0] = '\0';	/* no fault of ours */
			end(t, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), 0);
		}
	}
}

static void take_signal(struct tunnel *t, int number) {
	if (number == SIGTSTP) {
		show_progress(t, false);
		if (t->cloudflared > 0) kill(-t->cloudflared, SIGSTOP);
		sigaction(SIGTSTP, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
		kill(getpid(), t->terminal ? SIGTSTP : SIGSTOP);	/* unless nobody could resume us */
		handle_signals(on_signal, true);
	}
	if (number == SIGTSTP || number == SIGCONT) {
		if (t->cloudflared > 0) kill(-t->cloudflared, SIGCONT);
		if (t->command_pid > 0) kill(t->command_pid, SIGCONT);
	} else if (number == SIGCHLD) {
		reap(t);
	} else if (t->command_pid > 0 && !t->ending) {	/* its terminal sends it the others */
		if (number != SIGINT && number != SIGQUIT) kill(t->command_pid, number);
	} else if (t->signals++ == 0) {
		end(t, 128 + number, number);
	} else {
		stop_cloudflared(t, SIGKILL);
	}
}

static void take_deadline(struct tunnel *t, int which) {
	t->deadline[which] = 0;
	if (which == PAUSE) search_log(t, true);
	if (which == RESTART) start_cloudflared(t), write_record(t);
	if (which == STOP) stop_cloudflared(t, SIGKILL);
	if (which == PROBE && !(t->listening = is_listening(t->name)) && !t->has['w'])
		say(t, "warning: nothing is listening on %s yet", t->name);
	if (which == PROBE && !t->listening && t->has['w']) t->deadline[PROBE] = now_ms() + PROBE_AGAIN_MS;
	if (which != START || (t->delivered && is_ready(t))) return;
	bool no_url = t->record.url[0] == '\0', no_reader = is_ready(t);
	bool no_port = t->has['w'] && !t->listening;
	say(t, "no tunnel within %s s: %s%s%s", t->start, no_url ? "cloudflared gave no URL" :
	    no_reader ? "nobody reads standard output" :
	    !t->registered ? "Cloudflare's edge has no connection" : "the edge is connected",
	    no_port ? "; nothing is listening on " : "", no_port ? t->name : "");
	if (no_url || !(no_reader || t->registered)) show_cause(t, no_url ? NULL : hints[EDGE].hint);
	if (t->has['r'] && t->delivered) stop_cloudflared(t, SIGTERM);
	else end(t, EXIT_DEADLINE, 0);
}

static void wait_for_events(struct tunnel *t) {
	bool ready = is_ready(t);
	struct pollfd polled[] = { { t->log_fd, POLLIN, 0 }, { signal_pipe[0], POLLIN, 0 },
	    { ready || (t->has['r'] && t->delivered) ? 1 : -1, ready ? POLLOUT : 0, 0 },
	    { t->waiter, 0, 0 } };
	unsigned char signals[64];
	long long next = LLONG_MAX, now = now_ms();
	for (int i = 0; i < DEADLINES; i++)
		if (t->deadline[i] > 0 && t->deadline[i] < next) next = t->deadline[i];
	int left = next == LLONG_MAX ? -1 : next > now ? (int)(next - now) : 0;
	if (poll(polled, 4, left) == -1 && errno != EINTR) fail(t, "wait for events");
	read_log(t);	/* neither this nor what follows waits */
	ssize_t count = read(signal_pipe[0], signals, sizeof signals);
	for (ssize_t i = 0; i < count; i++) take_signal(t, signals[i]);
	if (polled[2].revents != 0 && !ready) let_go(t, 1);	/* its reader is gone */
	if (polled[3].revents != 0) let_go(t, t->waiter), end(t, 1, SIGHUP);	/* it was killed */
	announce(t);	/* what is known counts before a deadline does */
	for (int i = 0; i < DEADLINES; i++)
		if (t->deadline[i] > 0 && t->deadline[i] <= now_ms()) take_deadline(t, i);
	announce(t);
	show_progress(t, t->terminal && !t->has['v'] && !t->ending && t->state < UP);
}

/* ---- modes ---- */
static void run_tunnel(struct tunnel *t, const char *self) {
	claim_record(t);
	find_cloudflared(t, self);
	block_signals(true, true);
	handle_signals(on_signal, true);
	if (!make_pipe(signal_pipe) || fcntl(signal_pipe[1], F_SETFL, O_NONBLOCK) == -1 ||
	    (t->waiter != -1 && chdir("/") == -1)) die(t, 1, "start", "");
	block_signals(false, true);
#ifdef PR_SET_CHILD_SUBREAPER
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);	/* so that stragglers become ours */
#endif
	/* a terminal that is held up can't block us through a description of our own */
	if (t->terminal && t->has['v'] && t->waiter == -1)
		t->error_fd = open("/dev/fd/2", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (t->error_fd == -1) t->error_fd = 2;
	t->record = (struct record){ t->grace_ms, .pid = getpid(), .tls = t->origin[4] == 's' };
	start_cloudflared(t);
	write_record(t);
	while (!t->ending || t->cloudflared != 0 || t->command_pid != 0 || (t->group != 0 &&
	    waitid(P_PGID, (id_t)t->group, &(siginfo_t){ 0 }, WEXITED | WNOHANG | WNOWAIT) == 0))
		wait_for_events(t);
	t->state = WAITING;
	t->record.url[0] = '\0';
	write_record(t);
	quit(t, t->status);
}

/* Runs the tunnel in a child, and waits until that has the URL out, passing signals on. */
static void run_in_background(struct tunnel *t, const char *self) {
	int ready[2], number, status = 0, size = -1;
	sigset_t all;
	sigfillset(&all);
	block_signals(true, true);
	handle_signals(on_signal, true);
	pid_t child = make_pipe(ready) ? fork() : -1;
	if (child == -1) die(t, 1, "go to the background", "");
	if (child == 0) {
		/* the caller's locks and pipes are none of a long life's business */
		for (int fd = 3; fd < 1024; fd++) if (fd != t->null && fd != ready[1]) close(fd);
		t->waiter = ready[1];
		setsid();
		handle_signals(SIG_DFL, true);
		block_signals(false, true);
		run_tunnel(t, self);
	}
	close(ready[1]);
	while (size != 1 && waitpid(child, &status, WNOHANG) == 0 && sigwait(&all, &number) == 0) {
		if (number == SIGCHLD) size = (int)read(ready[0], &(char){ 0 }, 1);
		else if (number != SIGTSTP) kill(child, number);
	}
	if (WIFSIGNALED(status)) t->signal = WTERMSIG(status);
	quit(t, t->signal != 0 ? 128 + t->signal : WEXITSTATUS(status));
}

static void list_tunnels(struct tunnel *t, int count, char **operands) {
	struct dirent *entry = NULL;
	static DIR *all;	/* until we exit */
	if (count == 0) all = fdopendir(t->directory);
	int status = 0;
	for (int i = 0; all ? (errno = 0, entry = readdir(all)) != NULL : i < count; i++) {
		const char *operand = all != NULL ? entry->d_name : operands[i];
		if (parse_origin(operand, t->origin) != NULL) continue;
		t->name = strchr(t->origin, '/') + 2;
		if (all != NULL && strcmp(t->name, operand) != 0) continue;
		int fd = open_record(t, O_RDONLY);
		pid_t holder = read_record(t, fd);
		bool up = holder != 0 && t->record.url[0] != '\0';
		close(fd);
		if (up) print(t, get_result(t));
		else if (all == NULL)
			say(t, "no tunnel of %s %s%s", t->name, holder != 0 ? "has a URL yet" :
			    t->record.error[0] == '\0' ? "runs" : "runs; the last one failed: ",
			    t->record.error);
		status |= all == NULL && !up;
	}
	if (count == 0 && errno != 0) die(t, 1, "read the directory of the records", "");
	quit(t, status);
}

/* Waits until a tunnel that was asked to stop is gone, or kills it.  Returns whether it is. */
static bool await_end(struct tunnel *t, pid_t tunnel, long long asked_ms) {
	int fd = open_record(t, O_RDONLY);
	pid_t holder = read_record(t, fd);
	for (long long left; holder == tunnel && (left = asked_ms + t->record.grace_ms +
	    STOP_EXTRA_MS - now_ms()) > 0; holder = read_record(t, fd))
		wait_for_lock(fd, ALIVE, left);
	if (holder == tunnel && tunnel > 0) {
		/* while it lives, stopped so that it can't reap, the group is its own */
		kill(tunnel, SIGSTOP);
		holder = read_record(t, fd);
		if (holder == tunnel && t->record.group > 0) kill(-t->record.group, SIGKILL);
		kill(tunnel, holder == tunnel ? SIGKILL : SIGCONT);	/* if it just went: not it */
		wait_for_lock(fd, ALIVE, STOP_EXTRA_MS);
		holder = read_record(t, fd);
	}
	close(fd);
	/* the lock goes before it does; it is none of our children, and may stay a zombie for long */
	for (int i = 0; holder != tunnel && ((i < 20 && tunnel > 0 && kill(tunnel, 0) == 0) || (i < 400 &&
	    t->record.group > 0 && kill(-t->record.group, 0) == 0)); i++) poll(NULL, 0, 5);
	if (holder == tunnel)
		say(t, "cannot stop the tunnel of %s, process %ld", t->name, (long)t->record.pid);
	return holder != tunnel;
}

static void stop_tunnels(struct tunnel *t, int count, char **operands) {
	pid_t tunnels[count];
	int status = 0;
	for (int i = 0; i < count; i++) {
		take_origin(t, operands[i]);
		int fd = open_record(t, O_RDONLY);
		tunnels[i] = read_record(t, fd);
		if (tunnels[i] > 0 && kill(tunnels[i], SIGTERM) == 0) kill(tunnels[i], SIGCONT);
		close(fd);
	}
	long long now = now_ms();
	for (int i = 0; i < count; i++) {
		take_origin(t, operands[i]);
		status |= tunnels[i] != 0 && !await_end(t, tunnels[i], now);
	}
	quit(t, status);
}

int main(int argc, char **argv) {
	static char log[LOG_TAIL + LOG_READ + 1];
	struct tunnel t = { .start = "30", .start_ms = 30000, .grace_ms = 3000, .log = log,
	    .restart_ms = RESTART_MS, .program = getenv("CLOUDFLARED"), .terminal = isatty(2),
	    .log_fd = -1, .directory = -1, .record_fd = -1, .waiter = -1, .error_fd = 2 };
	size_t count = 0;
	while (environ[count] != NULL) count++;
	char *variables[count + 5];	/* room for set_variable */
	environ = memcpy(variables, environ, (count + 1) * sizeof environ[0]);
	block_signals(false, true);
	/* if we lack some of 0 to 2, fill them; writing to them still fails */
	while ((t.null = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0 && t.null <= 2) continue;
	take_options(&t, argc, argv);
	check_operands(&t, argc - optind, argv + optind);
	if (t.null == -1) die(&t, 1, "open /dev/null", "");
	if (t.has['k'] || t.has['l']) open_directory(&t);
	if (t.has['l']) list_tunnels(&t, argc - optind, argv + optind);
	if (t.has['k']) stop_tunnels(&t, argc - optind, argv + optind);
	if (t.has['b']) run_in_background(&t, argv[0]);
	run_tunnel(&t, argv[0]);
}
