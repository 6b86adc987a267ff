/*
 * fuzz: the functions of tunnel.c that read what others wrote, under libFuzzer.
 *
 * The first byte of an input chooses the target: the letter in the table at
 * the end.  What a target demands follows from the manual, not from the
 * program: what is found or parsed is so a second time here, slowly and
 * obviously.  What is read lies in memory that is exactly as long as it must
 * be, so that AddressSanitizer sees a step beyond.
 *
 * usage: test/proof/fuzzer FILE...   runs these inputs; see test/proof/fuzz
 *
 * In the inputs that play a log, byte 1 makes runs: "\1" c n stands for n
 * times c, and for (n - 127) * 512 times c where n is over 127.  So a label
 * of 64 letters and a line longer than any buffer are a mutation away.
 */
#define main tunnel_main
#pragma GCC diagnostic push
/* only main may do without a return */
#pragma GCC diagnostic ignored "-Wreturn-type"
#include "../../tunnel.c"
#pragma GCC diagnostic pop
#undef main

#include <stdint.h>

enum {
	LOG_MAX = 200000,
	SHOWN_MAX = 40000,
	CUT_MAX = 60000,	/* less than a pipe takes */
	SHOWN_CUT_MAX = 3000
};

static struct options plain, verbose;
static struct tunnel searching, showing;

static void
demand(bool kept, const char *promise)
{
	if (kept)
		return;
	fprintf(stderr, "fuzz: NOT KEPT: %s\n", promise);
	abort();
}

/* ======================================================================
 * Inputs
 * ====================================================================== */

static void *
allocate(size_t size)
{
	void *memory = malloc(size);

	if (memory == NULL)
		abort();
	return memory;
}

static unsigned char *
copy_bytes(const void *data, size_t size)
{
	unsigned char *bytes = allocate(size);

	memset(bytes, 0, size);
	if (size > 0)
		memcpy(bytes, data, size);
	return bytes;
}

static char *
duplicate(const void *data, size_t size)
{
	char *text = allocate(size + 1);

	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* A string is what comes before the first NUL. */
static char *
copy_string(const uint8_t *data, size_t size)
{
	const uint8_t *end = NULL;

	if (size > 0)
		end = memchr(data, '\0', size);
	if (end != NULL)
		size = (size_t)(end - data);
	return duplicate(data, size);
}

/* Writes out the runs of a log.  A NUL is '?': a log has none by then. */
static char *
expand(const uint8_t *data, size_t size, size_t *length)
{
	char *log = allocate(LOG_MAX + 1);
	size_t n = 0;

	for (size_t i = 0; i < size && n < LOG_MAX; i++) {
		size_t count = 1;
		uint8_t c = data[i];

		if (c == 1 && i + 2 < size) {
			count = data[i + 2];
			if (count > 127)
				count = (count - 127) * 512;
			c = data[i + 1];
			i += 2;
		}
		while (count-- > 0 && n < LOG_MAX)
			log[n++] = (char)c;
	}
	log[n] = '\0';
	*length = n;
	return log;
}

/* The same as a string that is as long as it must be, without NULs. */
static char *
expand_string(const uint8_t *data, size_t size)
{
	size_t length;
	char *log = expand(data, size, &length);
	char *text = duplicate(log, length);

	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0')
			text[i] = '?';
	free(log);
	return text;
}

/* Numbers that a seed from the input leads to. */
static uint32_t
next_number(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static uint32_t
take_seed(const uint8_t **data, size_t *size)
{
	uint32_t seed = 2463534242u;

	for (int i = 0; i < 2 && *size > 0; i++) {
		seed = (seed ^ **data) * 16777619u;
		(*data)++;
		(*size)--;
	}
	return seed != 0 ? seed : 1;
}

/* How long a piece of a log is: mostly short, some long. */
static size_t
next_cut(uint32_t *seed, size_t left, size_t most)
{
	static const uint32_t sizes[] = {
		1, 3, 20, 100, 140, 1000, 5000, CUT_MAX,
	};
	uint32_t range = sizes[next_number(seed) % COUNT(sizes)];
	size_t size = 1 + next_number(seed) % range;

	if (size > most)
		size = most;
	return size < left ? size : left;
}

/* Bytes of an input that are taken one after the other; zeros at its end. */
struct source {
	const uint8_t *data;
	size_t size;
};

static unsigned
take_byte(struct source *source)
{
	if (source->size == 0)
		return 0;
	source->size--;
	return *source->data++;
}

/* ======================================================================
 * Slow and obvious
 * ====================================================================== */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_label(char c)
{
	return is_letter(c) || is_digit(c) || c == '-';
}

static bool
goes_on(char c)
{
	return is_label(c) || c == '_';
}

/* Does a terminal take this byte for a command, whatever it reads? */
static bool
drives(char c)
{
	unsigned char byte = (unsigned char)c;

	return byte < 0x20 || byte == 0x7f || (byte >= 0x80 && byte < 0xa0);
}

static bool
is_harmless(const char *text)
{
	for (; *text != '\0'; text++)
		if (drives(*text))
			return false;
	return true;
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Does text, which ends at size, have this at i, in any case of letters? */
static bool
has_at(const char *text, size_t size, size_t i, const char *this)
{
	for (; *this != '\0'; this++) {
		if (i >= size || lower(text[i]) != *this)
			return false;
		i++;
	}
	return true;
}

/* The same to the letter. */
static bool
stands_at(const char *text, size_t size, size_t i, const char *this)
{
	size_t length = strlen(this);

	return i <= size && size - i >= length &&
	    memcmp(text + i, this, length) == 0;
}

static bool
stands_in(const char *text, size_t size, const char *this)
{
	for (size_t i = 0; i < size; i++)
		if (stands_at(text, size, i, this))
			return true;
	return false;
}

/* Is there a URL of a tunnel from i to end? */
static bool
is_url(const char *text, size_t size, size_t i, size_t end)
{
	const size_t scheme = 8;	/* https:// */
	const size_t domain = 18;	/* .trycloudflare.com */
	size_t label = i + scheme;
	size_t dot;

	if (!has_at(text, size, i, "https://"))
		return false;
	if (end > size || end < label + 1 + domain)
		return false;
	dot = end - domain;
	if (dot - label > 63)
		return false;
	if (!has_at(text, size, dot, ".trycloudflare.com"))
		return false;
	for (size_t j = label; j < dot; j++)
		if (!is_label(text[j]))
			return false;
	if (text[label] == '-' || text[dot - 1] == '-')
		return false;
	if (has_at(text, size, label, "api.") ||
	    has_at(text, size, label, "www."))
		return false;
	if (end < size && goes_on(text[end]))
		return false;
	if (end + 1 < size && text[end] == '.' && goes_on(text[end + 1]))
		return false;
	return true;
}

/* Finds the first URL in the whole of a text; returns its length, or 0. */
static size_t
slow_url(const char *text, size_t size, size_t *start)
{
	for (size_t i = 0; i < size; i++) {
		if (lower(text[i]) != 'h')
			continue;
		for (size_t end = i + 1; end <= size && end < i + 100; end++)
			if (is_url(text, size, i, end)) {
				*start = i;
				return end - i;
			}
	}
	return 0;
}

/* Returns the length of the valid UTF-8 character at text, or 0. */
static size_t
decode(const char *from, size_t size)
{
	const unsigned char *text = (const unsigned char *)from;
	uint32_t character = text[0];
	size_t length = 0;

	if (text[0] < 0x80)
		return 1;
	if (text[0] >= 0xc2 && text[0] < 0xe0)
		length = 2;
	if (text[0] >= 0xe0 && text[0] < 0xf0)
		length = 3;
	if (text[0] >= 0xf0 && text[0] < 0xf5)
		length = 4;
	if (length == 0 || length > size)
		return 0;
	character &= 0xffu >> (length + 1);
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		character = character << 6 | (text[i] & 0x3f);
	}
	if (length == 3 && character < 0x800)
		return 0;
	if (length == 4 && (character < 0x10000 || character > 0x10ffff))
		return 0;
	if (character >= 0xd800 && character < 0xe000)
		return 0;
	return length;
}

/* --- lines of a log --- */

struct line {
	const char *text;
	size_t size;
	enum level level;
	size_t message;		/* where it begins */
	bool orderly;		/* of JSON: the level before the message */
};

/* Where a member's value begins in a JSON object; size + 1 if nowhere. */
static size_t
slow_member(const char *text, size_t size, const char *name)
{
	char key[32];

	snprintf(key, sizeof key, "\"%s\":\"", name);
	for (size_t i = 1; i < size; i++)
		if (stands_at(text, size, i, key) && text[i - 1] != '\\')
			return i + strlen(key);
	return size + 1;
}

static enum level
slow_level(const char *text, size_t size, size_t at)
{
	static const struct {
		const char *name;
		enum level level;
	} names[] = {
		{ "DBG", LEVEL_DEBUG }, { "debug", LEVEL_DEBUG },
		{ "TRC", LEVEL_DEBUG }, { "trace", LEVEL_DEBUG },
		{ "INF", LEVEL_INFO }, { "info", LEVEL_INFO },
	};

	for (size_t i = 0; i < COUNT(names); i++)
		if (stands_at(text, size, at, names[i].name))
			return names[i].level;
	return LEVEL_ERROR;
}

static bool
is_capital(char c)
{
	return c >= 'A' && c <= 'Z';
}

static struct line
slow_line(const char *text, size_t size)
{
	struct line line = { text, size, LEVEL_NONE, 0, true };
	size_t at = 0;

	if (size > 0 && text[0] == '{') {
		size_t level = slow_member(text, size, "level");

		line.message = slow_member(text, size, "message");
		line.orderly = level <= line.message && level <= size;
		if (level <= size)
			line.level = slow_level(text, size, level);
		if (line.message > size)
			line.message = size;
		return line;
	}
	if (size > 0 && is_digit(text[0])) {
		while (at < size && text[at] != ' ')
			at++;
		at = at < size ? at + 1 : 0;
	}
	line.message = at;
	if (size - at >= 4 && is_capital(text[at]) &&
	    is_capital(text[at + 1]) && is_capital(text[at + 2]) &&
	    text[at + 3] == ' ') {
		line.level = slow_level(text, size, at);
		line.message = at + 4;
	}
	return line;
}

/* Takes the next line of a text; returns false at the end. */
static bool
take_slow_line(const char **text, struct line *line)
{
	size_t size = 0;

	if (**text == '\0')
		return false;
	while ((*text)[size] != '\n' && (*text)[size] != '\0')
		size++;
	*line = slow_line(*text, size);
	*text += size;
	if (**text == '\n')
		(*text)++;
	return true;
}

/* Does its message begin so? */
static bool
says(const struct line *line, const char *message)
{
	return stands_at(line->text, line->size, line->message, message);
}

static enum edge_event
slow_edge(const struct line *line)
{
	if (line->level == LEVEL_DEBUG)
		return EVENT_NONE;
	/* it may stand anywhere, but in what a visitor has asked for */
	for (size_t i = 0; i < line->size; i++) {
		if (stands_at(line->text, line->size, i, "dest"))
			break;
		if (stands_at(line->text, line->size, i,
		    "Registered tunnel connection"))
			return EVENT_REGISTERED;
	}
	if (says(line, "Connection ")) {
		size_t i = line->message + strlen("Connection ");

		while (i < line->size && line->text[i] != ' ')
			i++;
		if (stands_at(line->text, line->size, i, " registered"))
			return EVENT_REGISTERED;
	}
	if (says(line, "Lost connection with the edge") ||
	    says(line, "Unregistered tunnel connection") ||
	    says(line, "Connection terminated"))
		return EVENT_LOST;
	if (says(line, "Retrying connection"))
		return EVENT_RETRYING;
	if (says(line, "Register tunnel error"))
		return EVENT_REFUSED;
	if (says(line, "Serve tunnel error") &&
	    stands_in(line->text, line->size, "control stream"))
		return EVENT_UNSERVED;
	if (says(line, "Unable to establish connection with Cloudflare"))
		return EVENT_UNREACHABLE;
	if (says(line, "Failed to dial a quic connection") ||
	    says(line, "Failed to create new quic connection"))
		return EVENT_QUIC_FAILED;
	return EVENT_NONE;
}

/* ======================================================================
 * A log that comes in pieces
 * ====================================================================== */

static void
feed(int fd, const char *text, size_t size)
{
	if (write(fd, text, size) != (ssize_t)size)
		abort();
}

/* Begins a life of a tunnel whose log is written to what is returned. */
static int
open_life(struct tunnel *t, const struct options *options)
{
	int ends[2];

	if (!make_pipe(ends))
		abort();
	t->options = options;
	t->state = STARTING;
	t->in_dns = true;
	t->record_fd = t->waiter = t->output.fd = -1;
	t->url[0] = '\0';
	memset(&t->edge, 0, sizeof t->edge);
	memset(t->deadline, 0, sizeof t->deadline);
	log_open(&t->log, ends[0]);
	return ends[1];
}

/* A log in pieces gives the URL that the whole of it gives. */
static void
fuzz_log(const uint8_t *data, size_t size)
{
	struct tunnel *t = &searching;
	uint32_t seed = take_seed(&data, &size);
	size_t length, start = 0, before = 0, expected;
	char *log = expand(data, size, &length);
	char url[URL_SIZE] = "";
	int writer = open_life(t, &plain);

	for (size_t done = 0; done < length; ) {
		size_t piece = next_cut(&seed, length - done, CUT_MAX);

		feed(writer, log + done, piece);
		done += piece;
		take_log(t);
		demand(t->log.fd != -1 && t->log.length <= LOG_TAIL,
		    "memory is bounded");
		demand(t->state == STARTING, "a log ends nothing");
		/* quadratic: for short logs only */
		if (length > 1000)
			continue;
		expected = slow_url(log, done, &start);
		demand((expected > 0) == (t->url[0] != '\0' ||
		    t->deadline[TIMER_PAUSE] != 0),
		    "a URL is known when it is there, or is waited for");
		if (t->url[0] != '\0')
			before = done;
	}
	close(writer);
	take_log(t);
	demand(t->log.fd == -1, "the end of the log is seen");
	expected = slow_url(log, length, &start);
	if (expected > 0)
		snprintf(url, sizeof url, "%.*s", (int)expected, log + start);
	demand(strcmp(t->url, url) == 0,
	    "pieces of a log give the URL of the whole");
	demand(before == 0 || before > start + expected || before == length,
	    "no URL before what follows it is known");
	free(log);
}

/* The first URL of a text is found, and what is none isn't. */
static void
fuzz_url(const uint8_t *data, size_t size)
{
	char *text = expand_string(data, size);
	size_t length = strlen(text);
	size_t start = 0, found = 0;
	size_t expected = slow_url(text, length, &start);
	const char *at = find_url(text, &found);

	if (expected == 0)
		demand(at == NULL, "what is no URL isn't found");
	else
		demand(at == text + start && found == expected,
		    "the first URL is found");
	for (size_t i = 0; i < length; i++) {
		size_t whole = match_url(text + i, TEXT_ENDS);
		size_t part = match_url(text + i, TEXT_GOES_ON);

		if (whole == 0 && part == 0)
			continue;
		demand(part == 0 || part == whole,
		    "more text takes no URL away");
		demand(is_url(text, length, i, i + whole), "a URL is one");
	}
	free(text);
}

/* What the lines of a whole log make of the edge's state. */
struct slow_edge {
	enum edge_state state;
	bool retrying, refused;
	bool certain;	/* however the log is cut */
	bool orderly;	/* each level is read before its message */
	bool ever_lost;
};

static void
slow_step(struct slow_edge *edge, enum edge_event event)
{
	bool refused = event == EVENT_REFUSED ||
	    (event == EVENT_UNSERVED && edge->retrying);

	switch (event) {
	case EVENT_NONE:
		return;
	case EVENT_REGISTERED:
		edge->state = EDGE_UP;
		edge->retrying = false;
		edge->refused = false;
		return;
	case EVENT_UNREACHABLE:
	case EVENT_QUIC_FAILED:
		edge->refused = false;
		return;
	default:
		break;
	}
	edge->ever_lost = true;
	if (edge->state == EDGE_UP)
		edge->state = EDGE_DOWN;
	if (event == EVENT_RETRYING)
		edge->retrying = true;
	if (refused)
		edge->refused = true;
}

static struct slow_edge
slow_state(const char *text)
{
	struct slow_edge edge = { EDGE_NEVER, false, false, true, true, false };
	struct line line;

	while (take_slow_line(&text, &line)) {
		/* one whose level isn't read first, or that is forgotten */
		if (!line.orderly)
			edge.orderly = false;
		if (!line.orderly || line.size > LOG_TAIL / 2)
			edge.certain = false;
		/* an object is read when it is whole */
		if (line.text[0] == '{' && line.text[line.size] != '\n')
			continue;
		slow_step(&edge, slow_edge(&line));
	}
	return edge;
}

/* Pieces of a log tell the state of the edge that the whole of it tells. */
static void
fuzz_edge(const uint8_t *data, size_t size)
{
	struct tunnel *t = &searching;
	uint32_t seed = take_seed(&data, &size);
	char *log = expand_string(data, size);
	size_t length = strlen(log);
	int writer = open_life(t, &plain);
	const char *rest = log;
	struct slow_edge edge = slow_state(log);
	struct line line;

	while (take_slow_line(&rest, &line)) {
		char *copy = duplicate(line.text, line.size);
		const char *message;
		enum level level;

		message = read_level(copy, &level);
		demand(level == line.level, "a level is read");
		demand((size_t)(message - copy) == line.message,
		    "a message is found");
		demand(read_edge(copy) == slow_edge(&line),
		    "a line tells of the edge what it says");
		free(copy);
	}
	for (size_t done = 0, piece; done < length; done += piece) {
		piece = next_cut(&seed, length - done, CUT_MAX);
		feed(writer, log + done, piece);
		take_log(t);
	}
	close(writer);
	take_log(t);
	if (edge.certain) {
		demand(t->edge.state == edge.state,
		    "pieces of a log tell the state of the edge");
		demand(t->edge.refused == edge.refused,
		    "pieces of a log tell that the edge refuses");
	}
	demand(!edge.orderly || edge.ever_lost || t->edge.state != EDGE_DOWN,
	    "a connection is lost only where the log says so");
	demand(edge.state == EDGE_NEVER || t->edge.state != EDGE_NEVER,
	    "a connection is seen however long its line is");
	free(log);
}

/* Reads what has been shown on what plays standard error. */
static size_t
read_shown(int fd, char *shown, size_t got, size_t room)
{
	ssize_t n;

	while ((n = read(fd, shown + got, room - got)) > 0)
		got += (size_t)n;
	return got;
}

struct shown {
	unsigned long pieces;	/* of lines */
	unsigned long lost;	/* those that are counted only */
	char *text;		/* all pieces, one after the other */
	size_t length;
};

/* Takes what was shown apart, which has to be as the manual says. */
static struct shown
take_apart(const char *text, size_t size)
{
	static const char prefix[] = "cloudflared: ";
	struct shown shown = { 0, 0, allocate(size + 1), 0 };

	for (size_t i = 0; i < size; ) {
		const char *line = text + i;
		const char *end = memchr(line, '\n', size - i);
		unsigned long lost;
		int noted = 0;
		size_t length;

		demand(end != NULL, "copied lines end");
		length = (size_t)(end - line);
		demand(length < PIPE_BUF, "copied lines are written whole");
		demand(stands_at(line, length, 0, prefix),
		    "copied lines have a prefix");
		for (size_t j = 0; j < length; j++)
			demand(!drives(line[j]),
			    "no control character is copied");
		sscanf(line + strlen(prefix), "[%lu lines lost]%n", &lost,
		    &noted);
		i += length + 1;
		if (noted > 0) {
			shown.lost += lost;
			continue;
		}
		shown.pieces++;
		length -= strlen(prefix);
		memcpy(shown.text + shown.length, line + strlen(prefix),
		    length);
		shown.length += length;
	}
	return shown;
}

static bool
is_blank_free(const char *log, size_t length)
{
	return strstr(log, "lines lost]") == NULL && strlen(log) == length;
}

/* All of the log is shown, byte by byte, but for what could do harm. */
static void
compare_shown(const char *log, const struct shown *shown)
{
	size_t at = 0;

	for (; *log != '\0'; log++) {
		if (*log == '\n')
			continue;
		demand(at < shown->length, "all of the log is shown");
		if (*log >= ' ' && *log <= '~')
			demand(shown->text[at] == *log,
			    "what can be read is what cloudflared wrote");
		at++;
	}
	demand(at == shown->length, "nothing else is shown");
}

/* The last line of the log is kept, for those who ask why it ended. */
static void
check_last_line(const struct log *log, const char *whole, size_t length)
{
	enum { ROOM = 200 };
	char *text = allocate(ROOM);
	size_t start;
	size_t kept;

	log_copy_last(log, text, ROOM);
	while (length > 0 && strchr("\r\n", whole[length - 1]) != NULL)
		length--;
	start = length;
	while (start > 0 && whole[start - 1] != '\n')
		start--;
	kept = strlen(text);
	demand(kept < ROOM && is_harmless(text), "the last line is harmless");
	if (length - start < LOG_TAIL / 2 && log->length < LOG_TAIL) {
		size_t expected = length - start;

		if (expected > ROOM - 1)
			expected = ROOM - 1;
		demand(kept == expected, "the last line is kept");
		for (size_t i = 0; i < kept; i++)
			if (!drives(whole[start + i]) &&
			    (whole[start + i] & 0x80) == 0)
				demand(text[i] == whole[start + i],
				    "the last line is what it was");
	}
	free(text);
}

/* -v: copied lines are harmless, and none is lost without being counted. */
static void
fuzz_copy(const uint8_t *data, size_t size)
{
	static char shown_text[1 << 20];
	struct tunnel *t = &showing;
	struct outlet saved = errors;
	struct shown shown;
	uint32_t seed = take_seed(&data, &size);
	size_t length, newlines = 0, got = 0;
	char *log = expand(data, size, &length);
	int ends[2];
	int writer;

	if (length > SHOWN_MAX)
		length = SHOWN_MAX;
	for (size_t i = 0; i < length; i++) {
		if (log[i] == '\0')
			log[i] = '?';
		newlines += log[i] == '\n';
	}
	log[length] = '\0';
	if (!make_pipe(ends) || fcntl(ends[1], F_SETFL, O_NONBLOCK) == -1)
		abort();
	errors = (struct outlet){ ends[1], false, false, false, false };
	writer = open_life(t, &verbose);
	for (size_t done = 0, piece; done < length; done += piece) {
		piece = next_cut(&seed, length - done, SHOWN_CUT_MAX);
		feed(writer, log + done, piece);
		take_log(t);
		/* a slow reader, so that some are lost */
		if (next_number(&seed) % 64 != 0)
			got = read_shown(ends[0], shown_text, got,
			    sizeof shown_text);
	}
	close(writer);
	take_log(t);
	check_last_line(&t->log, log, length);
	errors = saved;
	close(ends[1]);
	got = read_shown(ends[0], shown_text, got, sizeof shown_text);
	close(ends[0]);
	shown = take_apart(shown_text, got);
	shown.lost += t->log.lost;
	/* unless the log itself plays such a line */
	if (is_blank_free(log, length)) {
		demand(shown.pieces + shown.lost >= newlines,
		    "lines that are not shown are counted");
		if (shown.lost == 0)
			compare_shown(log, &shown);
	}
	free(shown.text);
	free(log);
}

/* The last lines are ten at most, in order, and harmless. */
static void
fuzz_last_lines(const uint8_t *data, size_t size)
{
	static char shown_text[1 << 18];
	static struct log log;
	struct outlet saved = errors;
	char *text = expand_string(data, size);
	size_t length = strlen(text);
	size_t kept = length < LOG_TAIL ? length : LOG_TAIL;
	struct shown shown;
	size_t got;
	int ends[2];

	if (!make_pipe(ends) || fcntl(ends[1], F_SETFL, O_NONBLOCK) == -1)
		abort();
	fcntl(ends[0], 1031, 1 << 17);	/* F_SETPIPE_SZ */
	log_open(&log, -1);
	memcpy(log.text, text + length - kept, kept + 1);
	log.length = kept;
	errors = (struct outlet){ ends[1], false, false, false, false };
	log_show_last(&log);
	errors = saved;
	close(ends[1]);
	got = read_shown(ends[0], shown_text, 0, sizeof shown_text);
	close(ends[0]);
	shown = take_apart(shown_text, got);
	demand(shown.pieces + shown.lost <= LAST_LINES,
	    "the last lines are ten at most");
	demand(log.shown == log.length, "they are shown once");
	free(shown.text);
	free(text);
}

/* ======================================================================
 * Texts
 * ====================================================================== */

/* Characters that could drive a terminal are replaced, and no others. */
static void
fuzz_printable(const uint8_t *data, size_t size)
{
	char *text = copy_string(data, size);
	char *old, *again;
	size_t length;

	size = strlen(text);
	old = duplicate(text, size);
	make_printable(text);
	demand(strlen(text) == size, "printing changes no length");
	demand(is_harmless(text), "no control character is left");
	for (size_t i = 0; i < size; i += length) {
		bool whole = true;

		length = decode(old + i, size - i);
		if (length == 0) {
			demand(text[i] == old[i] || text[i] == '?',
			    "what is no character stays or is replaced");
			length = 1;
			continue;
		}
		for (size_t j = 0; j < length; j++)
			if (drives(old[i + j]))
				whole = false;
		for (size_t j = 0; j < length; j++)
			demand(text[i + j] == (whole ? old[i + j] : '?'),
			    "a character is kept or replaced as a whole");
	}
	again = duplicate(text, size);
	make_printable(again);
	demand(memcmp(again, text, size) == 0, "what is printable stays");
	free(again);
	free(old);
	free(text);
}

/* Does a sign, in which a star stands for anything, fit from here on? */
static bool
fits(const char *text, size_t size, const char *sign)
{
	size_t i = 0;

	for (; *sign != '\0' && *sign != '*'; sign++) {
		if (i >= size || text[i] != *sign)
			return false;
		i++;
	}
	if (*sign == '\0')
		return true;
	for (; i <= size; i++)
		if (fits(text + i, size - i, sign + 1))
			return true;
	return false;
}

static bool
has_slow_sign(const char *text, size_t size, const char *sign)
{
	for (size_t i = 0; i < size; i++)
		if (fits(text + i, size - i, sign))
			return true;
	return false;
}

static bool
has_any_sign(const char *text, size_t size, const char *signs)
{
	char list[512];
	bool found = false;

	snprintf(list, sizeof list, "%s", signs);
	for (char *sign = strtok(list, "|"); sign != NULL;
	    sign = strtok(NULL, "|"))
		found = found || has_slow_sign(text, size, sign);
	return found;
}

static const struct hint *
slow_hint(const struct line *line)
{
	if (line->level == LEVEL_DEBUG || line->level == LEVEL_INFO)
		return NULL;
	if (has_any_sign(line->text, line->size, harmless_signs))
		return NULL;
	for (size_t i = 0; i < COUNT(hints); i++)
		if (has_any_sign(line->text, line->size, hints[i].signs))
			return &hints[i];
	return NULL;
}

/*
 * The last sure sign after the last success, or the first that tells most; but
 * not in the lines of a message of several, of which one has its error.
 */
static void
fuzz_hint(const uint8_t *data, size_t size)
{
	char *log = copy_string(data, size);
	const char *rest = log;
	const struct hint *found[WEIGHT_SURE + 1] = { NULL };
	const struct hint *stamped[WEIGHT_SURE + 1] = { NULL };
	const struct hint *best;
	bool all_bare = true;
	bool help = *log == '\0';
	bool told = false;	/* to end: what follows is no cause */
	struct line line;

	while (take_slow_line(&rest, &line)) {
		const struct hint *hint = slow_hint(&line);

		if (says(&line, "Initiating graceful shutdown"))
			told = true;
		all_bare = all_bare && line.level == LEVEL_NONE;
		help = help ||
		    has_any_sign(line.text, line.size, "Usage|USAGE|  --");
		if (told)
			continue;
		if (line.level == LEVEL_NONE &&
		    stands_in(line.text, line.size, " error=\""))
			memcpy(found, stamped, sizeof found);
		if (slow_edge(&line) == EVENT_REGISTERED)
			memset(found, 0, sizeof found);
		else if (hint != NULL && (hint->weight == WEIGHT_SURE ||
		    found[hint->weight] == NULL))
			found[hint->weight] = hint;
		if (line.level != LEVEL_NONE)
			memcpy(stamped, found, sizeof found);
	}
	best = found[WEIGHT_SURE];
	if (best == NULL)
		best = found[WEIGHT_LIKELY];
	if (best == NULL)
		best = found[WEIGHT_VAGUE];
	demand(choose_hint(log) == best,
	    "a hint is given where the log tells a cause");
	demand(is_no_log(log) == (all_bare && help),
	    "a log is none if it is empty or a page of help");
	free(log);
}

/* JSON as cloudflared's logger writes it is read, whatever it quotes. */
static void
fuzz_json(const uint8_t *data, size_t size)
{
	static const struct {
		const char *name;
		enum level level;
	} levels[] = {
		{ "debug", LEVEL_DEBUG }, { "info", LEVEL_INFO },
		{ "warn", LEVEL_ERROR }, { "error", LEVEL_ERROR },
		{ "fatal", LEVEL_ERROR },
	};
	struct source source = { data, size };
	size_t chosen = take_byte(&source) % COUNT(levels);
	bool before = take_byte(&source) % 2 != 0;
	char *quoted = allocate(source.size * 6 + 1);
	char *line = allocate(source.size * 12 + 200);
	size_t at = 0;
	char *copy, *expected;
	const char *message;
	enum level level;

	while (source.size > 0) {
		unsigned c = take_byte(&source);

		if (c == '"' || c == '\\')
			at += (size_t)sprintf(quoted + at, "\\%c", c);
		else if (c < 0x20)
			at += (size_t)sprintf(quoted + at, "\\u%04x", c);
		else
			quoted[at++] = (char)c;
	}
	quoted[at] = '\0';
	sprintf(line, "{\"level\":\"%s\",%s%s%s\"time\":\"now\","
	    "\"message\":\"%s\"}", levels[chosen].name,
	    before ? "\"error\":\"" : "", before ? quoted : "",
	    before ? "\"," : "", quoted);
	copy = duplicate(line, strlen(line));
	message = read_level(copy, &level);
	demand(level == levels[chosen].level, "the level of JSON is read");
	expected = strstr(line, "\"time\":\"now\",\"message\":\"");
	/* which what is quoted can't hold: its quotes are escaped */
	demand(message - copy == expected - line +
	    (ptrdiff_t)strlen("\"time\":\"now\",\"message\":\""),
	    "the message of JSON is found");
	free(copy);
	free(line);
	free(quoted);
}

/* Decimal seconds from 0 to 86400, rounded up to the next millisecond. */
static void
fuzz_seconds(const uint8_t *data, size_t size)
{
	char *text = copy_string(data, size);
	char *c = text;
	long long ms = parse_seconds(text);
	long long whole = 0;
	long long expected;
	long long unit = 1000;
	long long part = 0;
	bool valid = is_digit(*c);
	bool more = false;

	for (; is_digit(*c); c++)
		if (whole <= 1000000)
			whole = whole * 10 + (*c - '0');
	if (valid && *c == '.') {
		c++;
		valid = is_digit(*c);
		for (; is_digit(*c); c++) {
			unit /= 10;
			part += (*c - '0') * unit;
			more = more || (unit == 0 && *c != '0');
		}
	}
	valid = valid && *c == '\0';
	expected = whole * 1000 + part + more;
	demand(valid || ms == -1, "seconds are decimal");
	demand(ms >= -1 && ms <= 86400000, "seconds are at most 86400");
	/* numbers longer than anyone writes may be refused */
	if (valid && strlen(text) < 10)
		demand((ms != -1) == (expected <= 86400000),
		    "seconds are taken");
	if (valid && ms != -1)
		demand(ms == expected, "seconds are read");
	free(text);
}

/* ======================================================================
 * Origins and addresses
 * ====================================================================== */

static int
slow_port(const char *text)
{
	long number = 0;

	if (*text == '0' || *text == '\0' || strlen(text) > 5)
		return 0;
	for (; *text != '\0'; text++) {
		if (!is_digit(*text))
			return 0;
		number = number * 10 + (*text - '0');
	}
	return number > 65535 ? 0 : (int)number;
}

static bool
is_slow_host(const char *host)
{
	size_t length = strlen(host);
	bool other = false;
	bool meaning = false;

	if (host[0] == '[') {
		struct in6_addr address;
		char *inner;
		bool valid;

		if (length < 3 || host[length - 1] != ']')
			return false;
		inner = duplicate(host + 1, length - 2);
		valid = inet_pton(AF_INET6, inner, &address) == 1;
		free(inner);
		return valid;
	}
	for (size_t i = 0; i < length; i++) {
		if (!goes_on(host[i]) && host[i] != '.')
			return false;
		other = other || !is_digit(host[i]);
		meaning = meaning || (host[i] != '.' && host[i] != '-');
	}
	return other && meaning;
}

/*
 * [scheme://][host:]port[/].  Cuts the text at the last colon that isn't
 * within an address, and looks at what is left and right of it.
 */
static bool
slow_origin(const char *given, char url[ORIGIN_SIZE])
{
	char *all = duplicate(given, strlen(given));
	char *text = all;
	const char *scheme = "http";
	const char *host = "localhost";
	char *colon = NULL;
	int port = 0;
	bool valid = false;

	if (has_at(text, strlen(text), 0, "http://")) {
		text += 7;
		port = 80;
	} else if (has_at(text, strlen(text), 0, "https://")) {
		text += 8;
		scheme = "https";
		port = 443;
	}
	if (text[0] != '\0' && text[strlen(text) - 1] == '/')
		text[strlen(text) - 1] = '\0';
	if (text[0] == '\0' || text[strcspn(text, "/?#@")] != '\0')
		goto out;
	for (char *c = text; *c != '\0'; c++) {
		if (*c == ':')
			colon = c;
		if (*c == ']')
			colon = NULL;
	}
	if (colon == NULL && text[strspn(text, "0123456789")] == '\0') {
		port = slow_port(text);
	} else {
		if (colon != NULL) {
			*colon = '\0';
			port = slow_port(colon + 1);
		}
		if (text[0] != '\0')
			host = text;
	}
	if (port > 0 && strlen(host) < HOST_SIZE && is_slow_host(host)) {
		snprintf(url, ORIGIN_SIZE, "%s://%s:%d", scheme, host, port);
		valid = true;
	}
out:
	free(all);
	return valid;
}

static void
fuzz_origin(const uint8_t *data, size_t size)
{
	char *text = expand_string(data, size);
	char expected[ORIGIN_SIZE] = "";
	char name[ORIGIN_SIZE];
	struct origin origin, again;
	enum origin_fault fault = parse_origin(text, &origin);
	bool right = slow_origin(text, expected);

	demand((fault == ORIGIN_RIGHT) == right,
	    "origins are of that grammar");
	if (right) {
		demand(strcmp(origin.url, expected) == 0,
		    "an origin is understood");
		demand(parse_origin(origin.url, &again) == ORIGIN_RIGHT &&
		    strcmp(origin.url, again.url) == 0,
		    "an origin that was printed is an origin");
		demand(strcmp(origin.name, strstr(expected, "://") + 3) == 0,
		    "its name is its host and port");
		for (const char *c = origin.name; *c != '\0'; c++)
			demand(goes_on(*c) || strchr(".:[]", *c) != NULL,
			    "a name is safe as a file's");
		snprintf(name, sizeof name, "%s:%d", origin.host,
		    origin.port);
		demand(strcmp(origin.name, name) == 0,
		    "host and port are those of the name");
		demand(parse_origin(short_name(&origin), &again) ==
		    ORIGIN_RIGHT && strcmp(again.name, origin.name) == 0,
		    "what -k is to be given leads to the same");
	} else {
		demand((size_t)fault < COUNT(origin_faults) &&
		    origin_faults[fault][0] != '\0',
		    "what is wrong has a name");
	}
	if (fault == ORIGIN_PATH)
		demand(parse_origin(origin.url, &again) == ORIGIN_RIGHT,
		    "what to type instead of a path is an origin");
	free(text);
}

/* Where an origin leads to, without asking anybody. */
static void
fuzz_address(const uint8_t *data, size_t size)
{
	static const int families[] = { AF_INET, AF_INET6 };
	char *text = copy_string(data, size);
	struct origin origin;
	enum origin_fault fault = parse_authority(text, DNS_PORT, &origin);
	size_t length;

	free(text);
	if (fault != ORIGIN_RIGHT)
		return;
	length = strlen(origin.host);
	for (size_t i = 0; i < COUNT(families); i++) {
		int family = families[i];
		const char *host = origin.host;
		unsigned char bytes[16];
		struct address address;
		bool right;
		char *inner = duplicate(host, length);

		if (host[0] == '[') {
			inner[length - 1] = '\0';
			host = inner + 1;
		}
		if (has_at(host, strlen(host), 0, "localhost") &&
		    strlen(host) == 9)
			host = family == AF_INET ? "127.0.0.1" : "::1";
		right = inet_pton(family, host, bytes) == 1;
		demand(find_address(&origin, family, &address) == right,
		    "an address is one");
		if (right && family == AF_INET)
			demand(memcmp(&address.to.ip4.sin_addr, bytes, 4) ==
			    0 && ntohs(address.to.ip4.sin_port) ==
			    origin.port && address.size ==
			    sizeof(struct sockaddr_in),
			    "an IPv4 address is read");
		if (right && family == AF_INET6)
			demand(memcmp(&address.to.ip6.sin6_addr, bytes, 16) ==
			    0 && ntohs(address.to.ip6.sin6_port) ==
			    origin.port && address.size ==
			    sizeof(struct sockaddr_in6),
			    "an IPv6 address is read");
		free(inner);
	}
}

/* ======================================================================
 * Records
 * ====================================================================== */

/* A JSON object of strings and numbers, to the newline that ends it. */
static bool
is_json_line(const char *text)
{
	if (*text++ != '{')
		return false;
	for (;;) {
		for (int part = 0; part < 2; part++) {
			if (*text == '"') {
				text++;
				while (*text != '"') {
					if (*text == '\\' || drives(*text))
						return false;
					text++;
				}
				text++;
			} else if (part == 1 && is_digit(*text)) {
				while (is_digit(*text))
					text++;
			} else {
				return false;
			}
			if (part == 0 && *text++ != ':')
				return false;
		}
		if (*text == '}')
			return strcmp(text, "}\n") == 0;
		if (*text++ != ',')
			return false;
	}
}

static bool
are_same(const struct record *a, const struct record *b)
{
	for (size_t i = 0; i < COUNT(fields); i++) {
		const char *one = (const char *)a + fields[i].offset;
		const char *other = (const char *)b + fields[i].offset;

		if (fields[i].size > 0 && strcmp(one, other) != 0)
			return false;
		if (fields[i].size == 0 &&
		    memcmp(one, other, sizeof(long long)) != 0)
			return false;
	}
	return a->state == b->state;
}

/* What is read of a record is of use, whoever wrote it. */
static void
check_record(const struct record *record)
{
	char slow[ORIGIN_SIZE] = "";
	char text[1024];
	size_t start = 1;
	size_t length = strlen(record->url);
	struct origin origin;
	struct options options = plain;

	demand(record->pid > 0 && record->pid <= INT_MAX,
	    "it has a process");
	demand(record->group == 0 ||
	    (record->group > 1 && record->group <= INT_MAX),
	    "its group may be killed");
	demand(record->command == 0 ||
	    (record->command > 1 && record->command <= INT_MAX),
	    "its command may be killed");
	demand(record->grace_ms >= 0 && record->grace_ms <= 86400000,
	    "its grace is one");
	demand(length == 0 || (slow_url(record->url, length, &start) ==
	    length && start == 0), "it has a URL, or none");
	demand(slow_origin(record->origin, slow) &&
	    strcmp(slow, record->origin) == 0, "it has an origin");
	demand(is_harmless(record->created) &&
	    strlen(record->created) < TIME_SIZE, "its time is harmless");
	demand(strlen(record->error) < REASON_SIZE &&
	    strchr(record->error, '\n') == NULL &&
	    strlen(record->log) < REASON_SIZE &&
	    strchr(record->log, '\n') == NULL, "its texts are lines");
	demand((size_t)record->state < COUNT(record_states),
	    "it has a state");
	parse_origin(record->origin, &origin);
	if (length == 0)
		return;
	options.json = true;
	format_result(&options, record, &origin, text, sizeof text);
	demand(is_json_line(text), "its JSON is a line of JSON");
	options.json = false;
	options.list = true;
	format_result(&options, record, &origin, text, sizeof text);
	for (char *c = text; *c != '\0'; c++)
		demand(!drives(*c) || *c == '\t' || *c == '\n',
		    "its line in the list is harmless");
	demand(strchr(text, '\n') == text + strlen(text) - 1,
	    "its line in the list is one");
}

/* Any text is read as a record of use, or as none. */
static void
fuzz_record(const uint8_t *data, size_t size)
{
	static const struct record none;
	char *text = copy_string(data, size);
	char *copy = duplicate(text, strlen(text));
	struct record record, again;
	char formatted[RECORD_SIZE];
	size_t length;

	memset(&record, 0x55, sizeof record);
	if (!parse_record(copy, &record)) {
		demand(memcmp(&record, &none, sizeof none) == 0,
		    "what is no record is empty");
	} else {
		demand(stands_at(text, strlen(text), 0, "tunnel 2\n"),
		    "a record has a version");
		demand(stands_in(text, strlen(text), "\nend\n"),
		    "a record has an end");
		check_record(&record);
		length = format_record(&record, formatted);
		demand(length < RECORD_SIZE, "a record has room");
		if (length > 0)
			demand(parse_record(formatted, &again) &&
			    are_same(&record, &again),
			    "what is read can be written and read again");
	}
	free(copy);
	free(text);
}

/* Makes a record that a tunnel could write. */
static void
make_record(uint32_t *seed, const char *text, struct record *record)
{
	size_t length = 0;
	const char *url = find_url(text, &length);
	const char *rest = url != NULL ? url + length : text;
	struct origin origin;

	memset(record, 0, sizeof *record);
	record->state = (enum record_state)(next_number(seed) %
	    COUNT(record_states));
	record->pid = 1 + next_number(seed) % 4194304;
	record->group = 2 + next_number(seed) % 4194304;
	record->command = next_number(seed) % 2 == 0 ? 0 :
	    2 + next_number(seed) % 4194304;
	record->grace_ms = next_number(seed) % 86400001;
	record->waited = next_number(seed) % 2;
	if (parse_origin(text, &origin) != ORIGIN_RIGHT)
		parse_origin("8080", &origin);
	snprintf(record->origin, ORIGIN_SIZE, "%s", origin.url);
	if (url != NULL)
		snprintf(record->url, URL_SIZE, "%.*s", (int)length, url);
	if (next_number(seed) % 2 != 0)
		format_time(record->created, next_number(seed));
	snprintf(record->error, REASON_SIZE, "%s", rest);
	make_printable(record->error);
	snprintf(record->log, REASON_SIZE, "%s", rest);
	make_printable(record->log);
}

/* What one tunnel writes, another reads; but not half of it. */
static void
fuzz_round_trip(const uint8_t *data, size_t size)
{
	uint32_t seed = take_seed(&data, &size);
	char *rest = expand_string(data, size);
	struct record wrote, read;
	char text[RECORD_SIZE];
	size_t length;
	char *copy;

	make_record(&seed, rest, &wrote);
	length = format_record(&wrote, text);
	free(rest);
	if (length == 0) {
		demand(wrote.state == RECORD_OVER && wrote.error[0] == '\0',
		    "only what is over leaves nothing");
		return;
	}
	demand(length < RECORD_SIZE && strlen(text) == length,
	    "a record has room");
	copy = duplicate(text, length);
	demand(parse_record(copy, &read), "a record is one");
	demand(are_same(&wrote, &read), "it is read as it was written");
	free(copy);
	for (int i = 0; i < 4; i++) {
		size_t half = next_number(&seed) % length;

		copy = duplicate(text, half);
		demand(!parse_record(copy, &read), "half a record is none");
		free(copy);
		/* shorter than what was there before */
		copy = allocate(2 * length + 1 - half);
		memcpy(copy, text, length);
		memcpy(copy + length, text + half, length - half + 1);
		demand(parse_record(copy, &read) && are_same(&wrote, &read),
		    "what is left of a longer record is passed over");
		free(copy);
	}
}

/* ======================================================================
 * DNS packets
 * ====================================================================== */

static const char *const dns_names[] = {
	"trycloudflare.com", "one.trycloudflare.com", "ns.example.net", "a",
};

static const unsigned dns_types[] = {
	DNS_NS, DNS_A, DNS_AAAA, DNS_SOA, DNS_CNAME,
};

/*
 * Reads the name at `at` in what comes before `limit`.  A pointer leads to a
 * name that ends before the pointer.  Returns what follows, or 0.
 */
static size_t
slow_name(const unsigned char *bytes, size_t limit, size_t at, char *name)
{
	size_t length = strlen(name);
	size_t label;

	if (at >= limit)
		return 0;
	label = bytes[at];
	if (label == 0) {
		if (length > 0)
			name[length - 1] = '\0';
		return at + 1;
	}
	if (label >= 0xc0) {
		if (at + 1 >= limit)
			return 0;
		if (slow_name(bytes, at, (label - 0xc0) * 256 + bytes[at + 1],
		    name) == 0)
			return 0;
		return at + 2;
	}
	if (label > 63 || at + 1 + label > limit)
		return 0;
	if (length + label + 1 > 255)
		return 0;
	for (size_t i = 0; i < label; i++) {
		char c = (char)bytes[at + 1 + i];

		if (!goes_on(c))
			return 0;
		name[length + i] = c;
	}
	name[length + label] = '.';
	name[length + label + 1] = '\0';
	return slow_name(bytes, limit, at + 1 + label, name);
}

static unsigned
slow_16(const unsigned char *bytes, size_t at)
{
	return bytes[at] * 256u + bytes[at + 1];
}

static bool
are_same_names(const char *a, const char *b)
{
	for (; *a != '\0' && lower(*a) == lower(*b); a++)
		b++;
	return *a == '\0' && *b == '\0';
}

/* A record that answers the question; fills the answer.  */
static bool
slow_data(const unsigned char *bytes, size_t at, size_t end, unsigned type,
    unsigned wanted, struct dns_answer *answer, bool *broken)
{
	if (type == DNS_CNAME && (wanted == DNS_A || wanted == DNS_AAAA))
		return true;
	if (type != wanted)
		return false;
	if (type == DNS_A || type == DNS_AAAA) {
		if (end - at != (type == DNS_A ? 4 : 16)) {
			*broken = true;
			return false;
		}
		if (answer->count == 0)
			memcpy(answer->address, bytes + at, end - at);
		answer->count++;
	}
	if (type == DNS_NS && answer->count < 2) {
		char name[600] = "";

		if (slow_name(bytes, end, at, name) == 0) {
			*broken = true;
			return false;
		}
		snprintf(answer->names[answer->count], DNS_NAME_SIZE, "%s",
		    name);
		answer->count++;
	}
	return true;
}

/* broken: it holds a record that answers, but wrongly. */
static enum answer_kind
slow_answer(const unsigned char *bytes, size_t size,
    const struct dns_question *question, struct dns_answer *answer,
    bool *broken)
{
	char name[600] = "";
	bool found = false;
	size_t at;
	unsigned records;

	memset(answer, 0, sizeof *answer);
	if (size < 12 || slow_16(bytes, 0) != question->id)
		return ANSWER_NONE;
	if ((bytes[2] & 0x80) == 0 || (bytes[2] & 0x78) != 0)
		return ANSWER_NONE;
	if (slow_16(bytes, 4) != 1)
		return ANSWER_NONE;
	at = slow_name(bytes, size, 12, name);
	if (at == 0 || at + 4 > size || !are_same_names(name, question->name))
		return ANSWER_NONE;
	if (slow_16(bytes, at) != question->type ||
	    slow_16(bytes, at + 2) != 1)
		return ANSWER_NONE;
	at += 4;
	answer->authoritative = (bytes[2] & 4) != 0;
	if ((bytes[2] & 2) != 0)
		return ANSWER_USELESS;
	if ((bytes[3] & 15) == 3)
		return ANSWER_NO;
	if ((bytes[3] & 15) != 0)
		return ANSWER_USELESS;
	answer->exists = true;
	for (records = slow_16(bytes, 6); records > 0; records--) {
		char owner[600] = "";
		size_t data;

		at = slow_name(bytes, size, at, owner);
		if (at == 0 || at + 10 > size)
			return ANSWER_NONE;
		data = at + 10;
		if (data + slow_16(bytes, at + 8) > size)
			return ANSWER_NONE;
		if (slow_16(bytes, at + 2) == 1 &&
		    are_same_names(owner, question->name) &&
		    slow_data(bytes, data, data + slow_16(bytes, at + 8),
		    slow_16(bytes, at), question->type, answer, broken))
			found = true;
		at = data + slow_16(bytes, at + 8);
	}
	return found ? ANSWER_YES : ANSWER_NO;
}

/* Reads a packet in both ways, which must come to the same. */
static void
compare_answers(const unsigned char *packet, size_t size,
    const struct dns_question *question)
{
	unsigned char *bytes = copy_bytes(packet, size);
	struct dns_answer answer, slow;
	enum answer_kind kind, slow_kind;
	bool broken = false;

	memset(&answer, 0x55, sizeof answer);
	kind = read_answer(bytes, size, question, &answer);
	slow_kind = slow_answer(bytes, size, question, &slow, &broken);
	if (broken)
		demand(kind != ANSWER_YES || slow_kind == ANSWER_YES,
		    "a broken record is no yes");
	else
		demand(kind == slow_kind, "an answer is what it is");
	if (kind == ANSWER_YES || kind == ANSWER_NO) {
		demand(answer.authoritative == slow.authoritative,
		    "authority is seen");
		demand(answer.exists == slow.exists,
		    "whether the name is there is seen");
	}
	if (kind == ANSWER_YES && !broken) {
		demand(answer.count == slow.count, "records are counted");
		demand(memcmp(answer.address, slow.address, 16) == 0,
		    "an address is read");
		for (int i = 0; i < 2; i++)
			demand(strcmp(answer.names[i], slow.names[i]) == 0,
			    "names are read");
	}
	free(bytes);
}

/* A question that the first bytes choose. */
static struct dns_question
choose_question(struct source *source)
{
	unsigned choice = take_byte(source);
	struct dns_question question = { 0x1234, 0, false, NULL };

	question.type = dns_types[choice % COUNT(dns_types)];
	question.name = dns_names[choice / 8 % COUNT(dns_names)];
	return question;
}

/* Packets as they come, behind a question that may be ours. */
static void
fuzz_packet(const uint8_t *data, size_t size)
{
	struct source source = { data, size };
	struct dns_question question = choose_question(&source);
	unsigned char packet[2000];
	size_t at = 0;

	if (take_byte(&source) % 4 != 0) {
		at = build_question(packet, &question);
		packet[2] = 0x84;
		packet[7] = (unsigned char)take_byte(&source);
	}
	while (source.size > 0 && at < sizeof packet)
		packet[at++] = (unsigned char)take_byte(&source);
	compare_answers(packet, at, &question);
}

static size_t
put_slow_name(unsigned char *packet, size_t at, const char *name)
{
	while (*name != '\0') {
		size_t length = strcspn(name, ".");

		packet[at] = (unsigned char)length;
		memcpy(packet + at + 1, name, length);
		at += length + 1;
		name += length;
		if (*name == '.')
			name++;
	}
	packet[at] = 0;
	return at + 1;
}

/* A name written out, or a pointer: to the question, or to anywhere. */
static size_t
put_owner(struct source *source, unsigned char *packet, size_t at,
    const struct dns_question *question)
{
	unsigned how = take_byte(source) % 8;

	switch (how) {
	case 0:
		return put_slow_name(packet, at, question->name);
	case 1:
		return put_slow_name(packet, at,
		    dns_names[take_byte(source) % COUNT(dns_names)]);
	case 2:		/* a label and a pointer */
		packet[at] = 1;
		packet[at + 1] = (unsigned char)take_byte(source);
		at += 2;
		/* FALLTHROUGH */
	case 3:
		packet[at] = (unsigned char)(0xc0 | take_byte(source) % 4);
		packet[at + 1] = (unsigned char)take_byte(source);
		return at + 2;
	case 4:		/* at itself */
		packet[at] = (unsigned char)(0xc0 | at >> 8);
		packet[at + 1] = (unsigned char)at;
		return at + 2;
	default:
		packet[at] = 0xc0;
		packet[at + 1] = DNS_HEADER;
		return at + 2;
	}
}

static size_t
put_slow_record(struct source *source, unsigned char *packet, size_t at,
    const struct dns_question *question)
{
	unsigned what = take_byte(source);
	unsigned type = question->type;
	size_t length;
	size_t start;

	at = put_owner(source, packet, at, question);
	if (what % 4 == 1)
		type = DNS_CNAME;
	if (what % 4 == 2)
		type = dns_types[what / 4 % COUNT(dns_types)];
	packet[at] = (unsigned char)(type >> 8);
	packet[at + 1] = (unsigned char)type;
	packet[at + 2] = 0;
	packet[at + 3] = what % 32 == 31 ? 3 : 1;
	memset(packet + at + 4, 0, 4);
	start = at + 10;
	if (type == DNS_A || type == DNS_AAAA) {
		length = type == DNS_A ? 4 : 16;
		for (size_t i = 0; i < length; i++)
			packet[start + i] = (unsigned char)take_byte(source);
	} else {
		length = put_owner(source, packet, start, question) - start;
	}
	if (what >= 240)
		length = take_byte(source);
	packet[at + 8] = 0;
	packet[at + 9] = (unsigned char)length;
	return start + length;
}

/* Answers with a fault, or none, that the input chooses. */
static void
fuzz_answer(const uint8_t *data, size_t size)
{
	struct source source = { data, size };
	struct dns_question question = choose_question(&source);
	unsigned char packet[8192];
	unsigned fault = take_byte(&source) % 32;
	unsigned count = take_byte(&source) % 16;
	size_t at;

	memset(packet, 0, sizeof packet);
	at = build_question(packet, &question);
	packet[2] = (unsigned char)(0x80 | (take_byte(&source) % 8 != 0 ? 4 :
	    0));
	packet[7] = (unsigned char)count;
	for (unsigned i = 0; i < count; i++)
		at = put_slow_record(&source, packet, at, &question);
	switch (fault) {
	case 0:
		packet[take_byte(&source) % 12] ^=
		    (unsigned char)take_byte(&source);
		break;
	case 1:
		packet[3] |= take_byte(&source) & 15;
		break;
	case 2:
		packet[2] |= 2;
		break;
	case 3:
		at = (take_byte(&source) * 256u + take_byte(&source)) % at;
		break;
	case 4:
		packet[13 + take_byte(&source) % 20] ^=
		    (unsigned char)take_byte(&source);
		break;
	case 5:
		packet[7]++;		/* one that isn't there */
		break;
	case 6:
		packet[(take_byte(&source) * 256u + take_byte(&source)) %
		    at] = (unsigned char)take_byte(&source);
		break;
	case 7:
		packet[6] = 0xff;
		break;
	}
	compare_answers(packet, at, &question);
}

/* What is asked can be read, and its echo is an answer without data. */
static void
fuzz_question(const uint8_t *data, size_t size)
{
	struct source source = { data, size };
	struct dns_question question = { 0, 0, false, NULL };
	unsigned char *packet = allocate(DNS_PACKET);
	char text[600] = "";
	char plain_name[600];
	char *name;
	size_t built, end;
	bool valid = true;
	size_t label = 0;

	question.id = take_byte(&source) * 256 + take_byte(&source);
	question.type = take_byte(&source);
	question.recursion = question.id % 2 != 0;
	name = copy_string(source.data, source.size);
	question.name = name;
	for (const char *c = name; *c != '\0'; c++) {
		label = *c == '.' ? 0 : label + 1;
		if (label > 63 || (*c == '.' && (c == name || c[-1] == '.')))
			valid = false;
	}
	if (strlen(name) >= DNS_NAME_SIZE)
		goto out;
	built = build_question(packet, &question);
	demand(built <= DNS_PACKET, "a question has room");
	if (strlen(name) > 250 || !valid)
		goto out;
	demand(built >= 17, "a question has all its parts");
	demand(slow_16(packet, 0) == question.id, "it has our id");
	demand(packet[2] == (question.recursion ? 1 : 0) && packet[3] == 0,
	    "recursion is as desired");
	demand(slow_16(packet, 4) == 1 && slow_16(packet, 6) == 0 &&
	    slow_16(packet, 8) == 0 && slow_16(packet, 10) == 0,
	    "it is one question");
	for (const char *c = name; *c != '\0'; c++)
		valid = valid && (goes_on(*c) || *c == '.');
	if (!valid)
		goto out;
	end = slow_name(packet, built, DNS_HEADER, text);
	snprintf(plain_name, sizeof plain_name, "%s", name);
	if (plain_name[0] != '\0' && name[strlen(name) - 1] == '.')
		plain_name[strlen(name) - 1] = '\0';
	demand(end + 4 == built && strcmp(text, plain_name) == 0,
	    "it is that name");
	demand(slow_16(packet, end) == question.type &&
	    slow_16(packet, end + 2) == 1, "it is that type");
	question.name = plain_name;
	packet[2] |= 0x80;
	compare_answers(packet, built, &question);
out:
	free(name);
	free(packet);
}

/* ======================================================================
 * Files that are no programs
 * ====================================================================== */

static void
fuzz_file(const uint8_t *data, size_t size)
{
	static const int codes[] = { ENOEXEC, ENOENT, EACCES, EIO };
	struct source source = { data, size };
	int error = codes[take_byte(&source) % COUNT(codes)];
	size_t room = 1 + take_byte(&source) * 4;
	char *text = allocate(room);
	unsigned char *head = copy_bytes(source.data, source.size);
	char template[] = "/tmp/fuzz-file-XXXXXX";
	const char *what = describe_file(head, source.size);
	char path[64];
	int fd = mkstemp(template);

	if (fd == -1)
		abort();
	unlink(template);
	demand(what != NULL && what[0] != '\0' && strlen(what) < 200,
	    "what a file is has a name");
	if (source.size >= 4 && memcmp(head, "\x7f" "ELF", 4) == 0)
		demand(strstr(what, "another machine") != NULL,
		    "a program of another machine is one");
	if (source.size >= 2 && memcmp(head, "\x1f\x8b", 2) == 0)
		demand(strstr(what, "archive") != NULL, "an archive is one");
	if (source.size == 0)
		demand(strstr(what, "empty") != NULL, "an empty file is one");
	feed(fd, (const char *)head, source.size);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	copy_text(text, room, strerror(error));
	explain_program(path, error, text, room);
	demand(memchr(text, '\0', room) != NULL, "why ends");
	demand(room < 8 || text[0] != '\0', "why it can't be run is said");
	close(fd);
	free(head);
	free(text);
}

/* ======================================================================
 * The table
 * ====================================================================== */

static const struct {
	char letter;
	void (*run)(const uint8_t *, size_t);
} targets[] = {
	{ 'l', fuzz_log },		/* the URL, however the log is cut */
	{ 'u', fuzz_url },
	{ 'e', fuzz_edge },
	{ 'v', fuzz_copy },
	{ 't', fuzz_last_lines },
	{ 'p', fuzz_printable },
	{ 'h', fuzz_hint },
	{ 'j', fuzz_json },
	{ 's', fuzz_seconds },
	{ 'o', fuzz_origin },
	{ 'a', fuzz_address },
	{ 'r', fuzz_record },
	{ 'w', fuzz_round_trip },
	{ 'd', fuzz_packet },
	{ 'n', fuzz_answer },
	{ 'q', fuzz_question },
	{ 'x', fuzz_file },
};

int
LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	/* or a log could have cloudflared started with HTTP/2 */
	setenv("TUNNEL_TRANSPORT_PROTOCOL", "quic", 1);
	verbose.verbose = true;
	return 0;
}

/* An input stays its target's. */
size_t LLVMFuzzerMutate(uint8_t *, size_t, size_t);

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
	(void)seed;
	if (size < 1 || most < 2)
		return LLVMFuzzerMutate(data, size, most);
	return 1 + LLVMFuzzerMutate(data + 1, size - 1, most - 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (size_t i = 0; size > 0 && i < COUNT(targets); i++)
		if (targets[i].letter == (char)data[0])
			targets[i].run(data + 1, size - 1);
	return 0;
}
