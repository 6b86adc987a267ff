/*
 * fuzz: the functions of tunnel.c that read what others wrote, under libFuzzer.
 *
 * The first byte of an input chooses the target (the letter in the table at the end).
 * What a target demands follows from the manual, not from the program: what is found or
 * parsed is so a second time here, slowly and obviously.
 *
 * usage: test/proof/fuzzer FILE...   runs these inputs; see test/proof/fuzz for the rest
 *
 * In the inputs that play a log, byte 1 makes runs: "\1" c n stands for n times c, and
 * for (n - 127) * 512 times c where n is over 127. So a label of 64 letters and a line
 * longer than any buffer are a mutation away.
 */
#define main tunnel_main
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wreturn-type"	/* only main may do without a return */
#include "../../tunnel.c"
#pragma GCC diagnostic pop
#undef main

#include <stdint.h>

enum { LOG_MAX = 200000, CUT_MAX = 60000, SHOWN_CUT_MAX = 3000 };

static struct tunnel searching, showing, keeping;
static int record_file;

static void
demand(bool kept, const char *promise)
{
	if (!kept) {
		fprintf(stderr, "fuzz: NOT KEPT: %s\n", promise);
		abort();
	}
}

/* ---- slow and obvious ------------------------------------------------------------- */

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

/* Does text, which ends at size, have this at i, in any case of letters? */
static bool
has_at(const char *text, size_t size, size_t i, const char *this)
{
	for (; *this != '\0'; this++, i++) {
		if (i >= size)
			return false;
		char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
		if (c != *this)
			return false;
	}
	return true;
}

/* Is there a URL of a tunnel from i to end? */
static bool
is_url(const char *text, size_t size, size_t i, size_t end)
{
	const size_t scheme = 8, domain = 18;	/* https:// and .trycloudflare.com */

	if (!has_at(text, size, i, "https://") || end < i + scheme + domain + 1 || end > size)
		return false;
	size_t label = i + scheme, dot = end - domain;
	if (dot - label > 63 || !has_at(text, size, dot, ".trycloudflare.com"))
		return false;
	for (size_t j = label; j < dot; j++) {
		if (!is_label(text[j]))
			return false;
	}
	if (text[label] == '-' || text[dot - 1] == '-')
		return false;
	if (dot - label == 3 && has_at(text, size, label, "api"))
		return false;
	if (end < size && goes_on(text[end]))
		return false;
	return end + 1 >= size || text[end] != '.' || !goes_on(text[end + 1]);
}

/* Finds the first URL in the whole of a text; returns its length, or 0. */
static size_t
slow_url(const char *text, size_t size, size_t *start)
{
	for (size_t i = 0; i < size; i++) {
		if (text[i] != 'h' && text[i] != 'H')
			continue;
		for (size_t end = i + 1; end <= size && end < i + 100; end++) {
			if (is_url(text, size, i, end)) {
				*start = i;
				return end - i;
			}
		}
	}
	return 0;
}

/* Is there, at this place of the output, something that could drive a terminal? A byte of
 * C1 is harmless in the middle of a character only. */
static bool
drives(const char *text, size_t at)
{
	unsigned char c = (unsigned char)text[at];

	if (c < 0x80 || c > 0x9f)
		return c < 0x20 || c == 0x7f;
	for (size_t back = 1; back <= 3 && back <= at; back++) {
		unsigned char lead = (unsigned char)text[at - back];
		size_t more = lead < 0xc2 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3, i = 1;

		while (i <= more && (text[at - back + i] & 0xc0) == 0x80)
			i++;
		if (back <= more && i > more)
			return lead == 0xc2;
	}
	return true;
}

/* Returns the length of the valid UTF-8 character at text, and the character, or 0. */
static size_t
decode(const unsigned char *text, size_t size, uint32_t *character)
{
	unsigned char c = text[0];
	size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 :
	    c >= 0xf0 && c < 0xf5 ? 4 : 0;

	if (length == 0 || length > size)
		return 0;
	*character = length == 1 ? c : c & (0xffu >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		*character = *character << 6 | (text[i] & 0x3f);
	}
	if ((length == 3 && *character < 0x800) || (length == 4 && *character < 0x10000) ||
	    *character > 0x10ffff || (*character >= 0xd800 && *character <= 0xdfff))
		return 0;
	return length;
}

/* ---- inputs ------------------------------------------------------------------------- */

/* Returns a copy that is exactly as long as it must be, so that a step beyond shows. */
static char *
copy(const void *data, size_t size)
{
	char *text = malloc(size + 1);

	if (text == NULL)
		abort();
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* A string is what comes before the first NUL. */
static char *
copy_string(const uint8_t *data, size_t size)
{
	const uint8_t *end = size > 0 ? memchr(data, '\0', size) : NULL;

	return copy(data, end != NULL ? (size_t)(end - data) : size);
}

/* Writes out the runs of a log. A NUL is something else by then: the log is a string. */
static char *
expand(const uint8_t *data, size_t size, size_t *length)
{
	char *log = malloc(LOG_MAX + 1);
	size_t n = 0;

	if (log == NULL)
		abort();
	for (size_t i = 0; i < size && n < LOG_MAX; i++) {
		size_t count = 1;
		uint8_t c = data[i];

		if (c == 1 && i + 2 < size) {
			count = data[i + 2] < 128 ? data[i + 2] : (data[i + 2] - 127u) * 512;
			c = data[i + 1];
			i += 2;
		}
		while (count-- > 0 && n < LOG_MAX)
			log[n++] = (char)c;
	}
	*length = n;
	return log;
}

/* What decides where a log is cut: numbers that a seed from the input leads to. */
static uint32_t
next_number(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Mostly short pieces, some long, the shape of which the seed chooses. */
static size_t
next_cut(uint32_t *seed, size_t left, size_t most)
{
	static const uint32_t sizes[] = { 1, 3, 20, 100, 140, 1000, 5000, CUT_MAX };
	size_t size = 1 + next_number(seed) % sizes[next_number(seed) % 8];

	size = size < most ? size : most;
	return size < left ? size : left;
}

static uint32_t
take_seed(const uint8_t **data, size_t *size)
{
	uint32_t seed = 2463534242u;

	for (int i = 0; i < 2 && *size > 0; i++, (*data)++, (*size)--)
		seed = (seed ^ **data) * 16777619u;
	return seed != 0 ? seed : 1;
}

static void
feed(int fd, const char *text, size_t size)
{
	if (write(fd, text, size) != (ssize_t)size)
		abort();
}

static void
open_log(struct tunnel *t, int *writer)
{
	int ends[2];

	if (!make_pipe(ends))
		abort();
	t->log_fd = ends[0];
	*writer = ends[1];
	t->log_length = t->log_shown = 0;
	t->lost_lines = 0;
	t->registered = false;
	t->deadline[PAUSE] = 0;
	t->record.url[0] = '\0';
}

/* ---- targets -------------------------------------------------------------------------- */

/* A log in pieces gives what the whole of it gives, and a URL at its end is seen at once
 * to be one unless more follows. */
static void
fuzz_log(const uint8_t *data, size_t size)
{
	struct tunnel *t = &searching;
	uint32_t seed = take_seed(&data, &size);
	size_t length, start = 0, before = 0, expected;
	char *log = expand(data, size, &length), url[URL_SIZE] = "";
	int writer;

	open_log(t, &writer);
	t->state = STARTING;
	for (size_t done = 0; done < length; ) {
		size_t piece = next_cut(&seed, length - done, CUT_MAX);

		feed(writer, log + done, piece);
		done += piece;
		read_log(t);
		demand(t->log_fd != -1 && t->log_length <= LOG_TAIL, "memory is bounded");
		demand(t->lost_lines == 0, "the log stays in its buffer");
		demand(t->state == STARTING && !t->ending, "a log ends nothing");
		/* quadratic: for short logs only */
		if (length > 1000)
			continue;
		expected = slow_url(log, done, &start);
		demand((expected > 0) == (t->record.url[0] != '\0' || t->deadline[PAUSE] != 0),
		    "a URL is known when it is there, or is waited for");
		if (t->record.url[0] != '\0')
			before = done;
	}
	close(writer);
	read_log(t);
	demand(t->log_fd == -1, "the end of the log is seen");
	expected = slow_url(log, length, &start);
	if (expected > 0)
		snprintf(url, sizeof url, "%.*s", (int)expected, log + start);
	demand(strcmp(t->record.url, url) == 0, "pieces of a log give the URL of the whole");
	demand(before == 0 || before > start + expected || before == length,
	    "no URL before what follows it is known");

	/* and so does the whole as a string, if it is one */
	size_t found = 0;
	char *text = copy_string((const uint8_t *)log, length);
	expected = slow_url(text, strlen(text), &start);
	const char *at = find_url(text, &found);
	demand(expected == 0 ? at == NULL : at == text + start && found == expected,
	    "the first URL is found");
	free(text);
	free(log);
}

/* Is there a word between these two, and if so in a line and short as a UUID? */
static bool
slow_registered(const char *text, bool exact)
{
	static const char from[] = "Connection ", to[] = "registered";

	if (strstr(text, "Registered tunnel connection") != NULL)
		return true;
	for (; (text = strstr(text, from)) != NULL; text++) {
		const char *word = text + strlen(from);
		size_t length = strcspn(word, " \t\n\v\f\r");

		if (!exact && strstr(word, to) != NULL)
			return true;
		if (exact && length > 0 && length <= 64 && word[length] == ' ' &&
		    strncmp(word + length + 1, to, strlen(to)) == 0)
			return true;
	}
	return false;
}

/* A connection is seen however the log is cut, and nothing else is taken for one. */
static void
fuzz_connection(const uint8_t *data, size_t size)
{
	struct tunnel *t = &searching;
	uint32_t seed = take_seed(&data, &size);
	size_t length;
	char *log = expand(data, size, &length);
	int writer;

	for (size_t i = 0; i < length; i++)
		log[i] = log[i] != '\0' ? log[i] : '?';
	log[length] = '\0';
	open_log(t, &writer);
	t->state = STARTING;
	for (size_t done = 0, piece; done < length; done += piece) {
		piece = next_cut(&seed, length - done, CUT_MAX);
		feed(writer, log + done, piece);
		read_log(t);
	}
	close(writer);
	read_log(t);
	bool must = slow_registered(log, true), may = slow_registered(log, false);
	demand(!must || find_registered(log), "a connection is seen");
	demand(!must || t->registered, "pieces of a log tell of a connection");
	demand(may || !(t->registered || find_registered(log)), "no connection is made up");
	free(log);
}

/* Copied log lines have no control characters, each has its prefix, none is lost without
 * being counted, and what can be read of a line is what cloudflared wrote. */
static void
fuzz_copy(const uint8_t *data, size_t size)
{
	static char shown[1 << 20];
	static const char prefix[] = "cloudflared: ";
	struct tunnel *t = &showing;
	uint32_t seed = take_seed(&data, &size);
	size_t length, got = 0;
	char *log = expand(data, size, &length);
	int writer, errors[2];
	ssize_t n;

	length = length < 40000 ? length : 40000;
	if (!make_pipe(errors))
		abort();
	t->error_fd = errors[1];
	open_log(t, &writer);
	t->state = UP;
	for (size_t done = 0, piece; done < length; done += piece) {
		piece = next_cut(&seed, length - done, SHOWN_CUT_MAX);
		feed(writer, log + done, piece);
		read_log(t);
		if (next_number(&seed) % 64 == 0)	/* seldom enough to lose some */
			continue;
		while ((n = read(errors[0], shown + got, sizeof shown - got)) > 0)
			got += (size_t)n;
	}
	close(writer);
	read_log(t);
	close(errors[1]);
	while ((n = read(errors[0], shown + got, sizeof shown - got)) > 0)
		got += (size_t)n;
	close(errors[0]);

	unsigned long pieces = 0, lost = t->lost_lines, n_lost;
	size_t bytes = 0;
	for (size_t i = 0; i < got; ) {
		const char *line = shown + i, *end = memchr(line, '\n', got - i);

		demand(end != NULL, "copied lines end");
		size_t line_length = (size_t)(end - line);
		demand(line_length < PIPE_BUF, "copied lines are short enough to be whole");
		demand(line_length >= strlen(prefix) &&
		    memcmp(line, prefix, strlen(prefix)) == 0, "copied lines have a prefix");
		for (size_t j = 0; j < line_length; j++)
			demand(!drives(line, j), "no control character is copied");
		pieces++;
		bytes += line_length - strlen(prefix);
		int end_of_lost = 0;
		sscanf(line + strlen(prefix), "[%lu lines lost]%n", &n_lost, &end_of_lost);
		if (end_of_lost > 0) {
			pieces--;
			bytes -= line_length - strlen(prefix);
			lost += n_lost;
		}
		i += line_length + 1;
	}
	size_t newlines = 0, returns = 0;
	for (size_t i = 0; i < length; i++) {
		newlines += log[i] == '\n';
		returns += log[i] == '\r';
	}
	/* unless the log itself plays such a line */
	char *text = copy_string((const uint8_t *)log, length);
	if (strlen(text) == length && strstr(text, "lines lost]") == NULL) {
		demand(pieces + lost >= newlines, "lines that are not shown are counted");
		/* but for the \r of a \r\n */
		demand(lost > 0 || (bytes <= length - newlines &&
		    bytes + returns >= length - newlines), "all of the log is shown");
	}
	free(text);
	free(log);
}

/* No control character survives; what is valid and printable is not touched. */
static void
fuzz_printable(const uint8_t *data, size_t size)
{
	char *text = copy_string(data, size);
	uint32_t character;

	size = strlen(text);
	make_printable(text);
	demand(strlen(text) == size, "printing changes no length");
	for (size_t i = 0; i < size; i++)
		demand(!drives(text, i), "no control character");
	for (size_t i = 0, length; i < size; i += length > 0 ? length : 1) {
		length = decode(data + i, size - i, &character);
		demand(length == 0 || character < 0x20 || (character >= 0x7f &&
		    character < 0xa0) || memcmp(text + i, data + i, length) == 0,
		    "valid UTF-8 is printed as it is");
	}
	char *again = copy(text, size);
	make_printable(again);
	demand(memcmp(again, text, size) == 0, "what is printable stays");
	free(again);
	free(text);
}

/* Does text have this, which if it is a number is no part of a longer word or number, nor
 * (unless it may be one, or is JSON) a port? */
static bool
has_sign(const char *text, const char *sign, bool port)
{
	size_t length = strlen(sign);

	for (size_t i = 0; text[i] != '\0'; i++) {
		if (strncmp(text + i, sign, length) != 0)
			continue;
		if (sign[0] > '9')
			return true;
		if (!goes_on(text[i + length]) && (i == 0 || (!goes_on(text[i - 1]) && (port ||
		    text[i - 1] != ':' || (i > 1 && text[i - 2] == '"')))))
			return true;
	}
	return false;
}

/* A hint is given where the log tells a cause, and nowhere else; the surest one, unless
 * what the log says of a connection or the origin makes it void. */
static void
fuzz_hint(const uint8_t *data, size_t size)
{
	static const struct { const char *sign, *word; } causes[] = {
		{ "429", "limits the rate" }, { "1015", "limits the rate" },
		{ "7844", "7844" }, { "dial to edge", "7844" },
		{ "failed to unmarshal", "no sense" },
		{ "failed to parse quick Tunnel ID", "no sense" },
		{ "no such host", "no DNS" }, { "network is unreachable", "no DNS" },
		{ "dial tcp", "no DNS" },
	};
	char *text = copy_string(data, size);
	const char *hint = choose_hint(text), *surest = NULL;
	bool known = false, changes = strstr(text, "egistered") != NULL ||
	    strstr(text, "origin") != NULL;

	for (size_t i = 0; i < sizeof causes / sizeof causes[0]; i++) {
		bool port = strcmp(causes[i].word, "7844") == 0;

		if (!has_sign(text, causes[i].sign, port))
			continue;
		surest = surest == NULL ? causes[i].word : surest;
		known = known || (hint != NULL && strstr(hint, causes[i].word) != NULL);
	}
	demand(hint == NULL || known, "a hint only where there is a cause");
	demand(changes || surest == NULL || (hint != NULL && strstr(hint, surest) != NULL),
	    "a hint where there is a cause, the surest");
	free(text);
}

/* [scheme://][host:]port, and what is taken is safe to be a file's name and an argument. */
static bool
slow_origin(const char *text, char url[ORIGIN_SIZE])
{
	char scheme[9] = "http://", host[HOST_SIZE] = "localhost";
	size_t start = 0, length = strlen(text), colon = SIZE_MAX, port;
	unsigned long number = 0;

	if (strncmp(text, "http://", 7) == 0)
		start = 7;
	if (strncmp(text, "https://", 8) == 0) {
		start = 8;
		strcpy(scheme, "https://");
	}
	for (size_t i = start; i < length; i++)
		colon = text[i] == ':' ? i : colon;
	port = colon == SIZE_MAX ? start : colon + 1;
	if (length - port < 1 || length - port > 5 || text[port] == '0')
		return false;
	for (size_t i = port; i < length; i++) {
		if (!is_digit(text[i]))
			return false;
		number = number * 10 + (unsigned long)(text[i] - '0');
	}
	if (number > 65535)
		return false;
	if (colon != SIZE_MAX) {
		size_t size = colon - start;

		if (size < 1 || size >= HOST_SIZE)
			return false;
		memcpy(host, text + start, size);
		host[size] = '\0';
		bool bracket = host[0] == '[';
		if (bracket && (size < 4 || host[size - 1] != ']'))
			return false;
		for (size_t i = bracket; i < size - bracket; i++) {
			if (bracket ? !is_digit(host[i]) && host[i] != ':' && host[i] != '.' &&
			    (!is_letter(host[i]) || (host[i] | 32) > 'f') :
			    !goes_on(host[i]) && host[i] != '.')
				return false;
		}
		struct in6_addr address;
		char *inner = copy(host + 1, bracket ? size - 2 : 0);
		bool valid = !bracket || inet_pton(AF_INET6, inner, &address) == 1;
		free(inner);
		if (!valid)
			return false;
	}
	snprintf(url, ORIGIN_SIZE, "%s%s:%lu", scheme, host, number);
	return true;
}

static void
fuzz_origin(const uint8_t *data, size_t size)
{
	char *text = copy_string(data, size);
	char url[ORIGIN_SIZE] = "", expected[ORIGIN_SIZE] = "", again[ORIGIN_SIZE] = "";
	const char *wrong = parse_origin(text, url);

	demand((wrong == NULL) == slow_origin(text, expected), "origins are of that grammar");
	if (wrong == NULL) {
		demand(strcmp(url, expected) == 0, "an origin is understood");
		demand(parse_origin(url, again) == NULL && strcmp(url, again) == 0,
		    "an origin that was printed is an origin");
		for (const char *c = strchr(url, '/') + 2; *c != '\0'; c++)
			demand(goes_on(*c) || strchr(".:[]", *c) != NULL,
			    "an origin has no character that means anything to anyone");
	} else {
		demand(strstr(wrong, "origin") != NULL || strstr(wrong, "port number") != NULL,
		    "what is wrong has a name");
	}
	free(text);
}

/* Decimal seconds from 0 to 86400, to the next millisecond. */
static void
fuzz_seconds(const uint8_t *data, size_t size)
{
	char *text = copy_string(data, size), *c = text;
	long long ms = parse_seconds(text), whole = 0, unit = 1000, part = 0;
	bool valid = is_digit(*c), more = false;

	for (; is_digit(*c); c++)
		whole = whole > 1000000 ? whole : whole * 10 + (*c - '0');
	if (valid && *c == '.') {
		valid = is_digit(*++c);
		for (; is_digit(*c); c++) {
			unit /= 10;
			part += (*c - '0') * unit;
			more = more || (unit == 0 && *c != '0');
		}
	}
	valid = valid && *c == '\0';
	demand(valid || ms == -1, "seconds are decimal");
	demand(ms >= -1 && ms <= 86400000, "seconds are no more than 86400");
	whole = whole * 1000 + part + more;
	/* numbers longer than anyone writes may be refused; floating point has its ways */
	if (valid && strlen(text) < 10) {
		demand((ms != -1) == (whole <= 86400000), "seconds are taken");
		demand(ms == -1 || (ms >= whole - 1 && ms <= whole + 1), "seconds are read");
	} else if (valid && ms != -1) {
		demand(ms >= whole - 1 && ms <= whole + 1, "seconds are read");
	}
	free(text);
}

static bool
is_printable(const char *text)
{
	for (size_t i = 0; text[i] != '\0'; i++) {
		if (drives(text, i))
			return false;
	}
	return true;
}

/* Whatever the bytes of a record are, what is read of them is of use. */
static void
fuzz_record(const uint8_t *data, size_t size)
{
	struct tunnel *t = &keeping;
	struct record *record = &t->record;
	char bytes[sizeof *record];

	/* noise seldom has the size of a record, so the rest of one surrounds it */
	memset(bytes, 0, sizeof bytes);
	*record = (struct record){ .pid = 1 };
	memcpy(bytes, record, sizeof bytes);
	if (size > 2) {
		size_t at = (size_t)(data[0] * 256 + data[1]) % sizeof bytes;
		size_t most = sizeof bytes - at < size - 2 ? sizeof bytes - at : size - 2;
		memcpy(bytes + at, data + 2, most);
	}
	if (ftruncate(record_file, 0) == -1 ||
	    pwrite(record_file, bytes, sizeof bytes - (size % 7 == 0), 0) == -1)
		abort();
	demand(read_record(t, record_file) == 0, "nobody holds it");
	demand(strlen(record->url) < URL_SIZE && strlen(record->error) < MESSAGE_SIZE &&
	    strlen(record->created) < sizeof record->created, "a record's texts end");
	demand(is_printable(record->url) && is_printable(record->created),
	    "a record is printable");
	demand(strcmp(record->url, "") == 0 || strncasecmp(record->url, "https://", 8) == 0,
	    "a record has a URL, or none");
	demand(record->group == 0 || record->group > 1, "its group may be killed");
	demand(record->grace_ms >= 0 && record->grace_ms <= 86400000, "its grace is one");
}

/* What one tunnel writes, another reads. */
static void
fuzz_round_trip(const uint8_t *data, size_t size)
{
	struct tunnel *t = &keeping;
	uint32_t seed = take_seed(&data, &size);
	char *text = copy_string(data, size);
	size_t found;
	const char *url = find_url(text, &found), *rest = url != NULL ? url + found : text;
	struct record wrote = { .pid = 0 };

	if (next_number(&seed) % 2)
		strcpy(wrote.created, "2026-11-21T01:58:36Z");
	snprintf(wrote.url, URL_SIZE, "%.*s", url != NULL ? (int)found : 0, url != NULL ? url : "");
	snprintf(wrote.error, MESSAGE_SIZE, "%s", rest);
	wrote.pid = 1 + (pid_t)(next_number(&seed) % 4194304);
	wrote.group = (pid_t)(next_number(&seed) % 4194304);
	wrote.group += wrote.group == 1;
	wrote.grace_ms = next_number(&seed) % 86400001;
	t->record = wrote;
	t->record_fd = record_file;
	t->state = UP;
	t->said[0] = '\0';
	write_record(t);
	demand(strstr(t->said, "warning") == NULL, "a record can be written");
	demand(read_record(t, record_file) == 0, "nobody holds it");
	demand(memcmp(&t->record, &wrote, sizeof wrote) == 0, "a record is read as it was written");
	free(text);
}

/* ------------------------------------------------------------------------------------- */

static const struct {
	char letter;
	void (*run)(const uint8_t *, size_t);
} targets[] = {
	{ 'l', fuzz_log }, { 'c', fuzz_connection }, { 'v', fuzz_copy },
	{ 'p', fuzz_printable }, { 'h', fuzz_hint }, { 'o', fuzz_origin },
	{ 's', fuzz_seconds }, { 'r', fuzz_record }, { 'w', fuzz_round_trip },
};

static void
prepare(struct tunnel *t, const char *options)
{
	/* getopt(3) looks at the last one once more when it begins anew */
	static char letters[3], program[] = "tunnel", origin[] = "http://localhost:8080";
	char *arguments[] = { program, letters, origin, NULL };

	strcpy(letters, options);
	optind = 1;
	t->log_fd = t->directory = t->record_fd = t->waiter = -1;
	t->error_fd = 2;
	take_options(t, 3, arguments);
	take_origin(t, origin);
	t->log = calloc(1, LOG_TAIL + LOG_READ + 1);
}

int
LLVMFuzzerInitialize(int *count, char ***arguments)
{
	FILE *file = tmpfile();

	(void)count;
	(void)arguments;
	if (file == NULL)
		abort();
	record_file = fileno(file);
	prepare(&searching, "-w");
	prepare(&showing, "-v");
	prepare(&keeping, "-r");
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
	for (size_t i = 0; size > 0 && i < sizeof targets / sizeof targets[0]; i++) {
		if (targets[i].letter == (char)data[0])
			targets[i].run(data + 1, size - 1);
	}
	return 0;
}
