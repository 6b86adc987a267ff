/*
 * authority: play the name servers of trycloudflare.com, or ask a name server.
 *
 * usage: authority [-l log] [-n name=address[,address]]... -z zone
 *                  address[:port] ...
 *        authority -q name type address[:port]
 *
 * The first form answers DNS questions over UDP at the addresses (IPv4, or IPv6
 * in brackets, perhaps with %interface; port 53 if there is none, 0 for a free
 * one), prints each as address:port when all of them are held, and ends on a
 * signal. Every -n is a name server of the zone and has these addresses.
 *
 * What is answered stands in the files of the directory zone, which are read
 * anew for each question: LABEL for LABEL.trycloudflare.com, `@` for the zone's
 * SOA, `servers` for its NS and their addresses. Without a file (or with an
 * empty one) a label is unknown and the others are answered as they should be.
 * A file is to be moved into place: half of it would be believed.
 *
 * Many machines answer at one address, and they don't learn of a name at once:
 * each line of a file is one of them. The first source port that asks for a
 * name gets the first line, the next new one the second, after the last the
 * first again; a port that asks again gets what it got before. A line is a list
 * of these words:
 *
 *   yes             the records there are: an address of a label (the default)
 *   no              NXDOMAIN
 *   nodata          NOERROR, but no records
 *   cname, alias    an alias and its address; an alias alone
 *   many            thirteen addresses
 *   text            a record of another type than that asked for
 *   six             there is an address by IPv6 only: nodata for others
 *   other           an address, but of another name
 *   size=N          an address of N bytes
 *   refused, servfail, formerr   this code and no records
 *   no-aa           without authority
 *   ra              from a server that offers recursion, as forwarders say
 *   tc              marked as truncated
 *   query           not marked as a response
 *   wrong-id        another id
 *   wrong-name, wrong-type, no-question   another question, or none
 *   short=N         only its first N bytes
 *   empty           no bytes
 *   garbage         no DNS at all
 *   loop, ahead     a record whose name points at itself, or beyond the end
 *   blank, reserved, long
 *                   a record whose name has a blank, a label of a kind that
 *                   there isn't, or more than 255 bytes
 *   false-count     a count of records that aren't there
 *   elsewhere       sent from another port
 *   late=N          sent after N milliseconds
 *   silent          not sent
 *   +               and a further answer to the same question, of the words
 *                   that follow
 *
 * To the log goes a line for each question,
 *
 *   seconds server client port id RD name type words
 *
 * such as
 *
 *   1795651200.250 127.0.0.1:53 127.0.0.1 40001 4711 0 a.trycloudflare.com A no
 *
 * With -q it asks for a name as programs do that look one up, with RD set,
 * three times for a second each, and prints the code (`NOERROR`, `NXDOMAIN`,
 * `REFUSED`, ...) and the first address of the answer, or `nothing`.
 */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>
#include <sys/socket.h>
#include <net/if.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define ZONE "trycloudflare.com"
#define ADDRESS_OF_NAMES "192.0.2.80"
#define ADDRESS_OF_NAMES6 "2001:db8::80"
#define NEGATIVE_TTL 1800

enum { HEADER = 12, NAME_SIZE = 256, LINE_SIZE = 256 };
enum { MAX_SERVERS = 8, MAX_SOCKETS = 8, MAX_LATE = 256 };
enum type { A = 1, NS = 2, CNAME = 5, SOA = 6, TXT = 16, AAAA = 28 };
enum { NOERROR = 0, FORMERR = 1, SERVFAIL = 2, NXDOMAIN = 3, REFUSED = 5 };

struct packet {
	unsigned char bytes[1500];
	size_t length;
	/* Where a name was written, for later ones to point at. */
	struct {
		char name[NAME_SIZE];
		size_t offset;
	} seen[32];
	int names;
};

struct question {
	unsigned id;
	bool recursion_desired;
	char name[NAME_SIZE];
	unsigned type;
};

/* A name server of the zone. */
struct server {
	char name[NAME_SIZE];
	char addresses[4][INET6_ADDRSTRLEN];
	int count;
};

struct address {
	struct sockaddr_storage storage;
	socklen_t length;
};

/* An answer that is sent later. */
struct late {
	bool used;
	long long due;
	int socket;
	struct address client;
	struct packet packet;
};

/* Which source port asked for which name, and how many had before it. */
struct turn {
	char name[NAME_SIZE];
	unsigned type;
	unsigned port;
	unsigned number;
};

static const char *zone;
static int log_file = -1;
static struct server servers[MAX_SERVERS];
static int server_count;
static struct late late_answers[MAX_LATE];
static struct turn *turns;
static size_t turn_count;

static void
die(const char *what)
{
	fprintf(stderr, "authority: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void
die_of(const char *what, const char *why)
{
	fprintf(stderr, "authority: %s: %s\n", what, why);
	exit(2);
}

static long long
milliseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- addresses ------------------------------------------------------------ */

/* Takes address, address:port, [address], [address]:port and bare IPv6. */
static bool
parse_address(const char *text, struct address *address)
{
	struct sockaddr_in *four = (void *)&address->storage;
	struct sockaddr_in6 *six = (void *)&address->storage;
	char host[INET6_ADDRSTRLEN], *scope;
	const char *start = text, *end, *port = NULL;
	in_port_t number;

	if (*text == '[') {
		start = text + 1;
		end = strchr(start, ']');
		if (end == NULL)
			return false;
		if (end[1] == ':')
			port = end + 2;
	} else {
		end = strchr(start, ':');
		if (end == NULL || strchr(end + 1, ':') != NULL)
			end = start + strlen(start);
		else
			port = end + 1;
	}
	if ((size_t)(end - start) >= sizeof host)
		return false;
	memcpy(host, start, (size_t)(end - start));
	host[end - start] = '\0';
	number = htons((in_port_t)(port == NULL ? 53 : atoi(port)));

	memset(&address->storage, 0, sizeof address->storage);
	scope = strchr(host, '%');
	if (scope != NULL) {
		*scope = '\0';
		six->sin6_scope_id = if_nametoindex(scope + 1);
	}
	if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = number;
		address->length = sizeof *four;
		return true;
	}
	if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		six->sin6_port = number;
		address->length = sizeof *six;
		return true;
	}
	return false;
}

static unsigned
port_of(const struct address *address)
{
	const struct sockaddr_in *four = (const void *)&address->storage;
	const struct sockaddr_in6 *six = (const void *)&address->storage;

	if (address->storage.ss_family == AF_INET6)
		return ntohs(six->sin6_port);
	return ntohs(four->sin_port);
}

static void
host_of(const struct address *address, char host[INET6_ADDRSTRLEN])
{
	const struct sockaddr_in *four = (const void *)&address->storage;
	const struct sockaddr_in6 *six = (const void *)&address->storage;

	if (address->storage.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &six->sin6_addr, host, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET, &four->sin_addr, host, INET6_ADDRSTRLEN);
}

static void
show_address(const struct address *address, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN];
	const char *form = "%s:%u";

	host_of(address, host);
	if (address->storage.ss_family == AF_INET6)
		form = "[%s]:%u";
	snprintf(text, size, form, host, port_of(address));
}

static int
open_socket(struct address *address)
{
	int fd = socket(address->storage.ss_family, SOCK_DGRAM, 0);
	int yes = 1;

	if (fd == -1)
		return -1;
	if (address->storage.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (bind(fd, (void *)&address->storage, address->length) == -1 ||
	    getsockname(fd, (void *)&address->storage,
	    &address->length) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

/* --- packets -------------------------------------------------------------- */

static void
put_byte(struct packet *packet, unsigned value)
{
	if (packet->length < sizeof packet->bytes)
		packet->bytes[packet->length++] = (unsigned char)value;
}

static void
put_16(struct packet *packet, unsigned value)
{
	put_byte(packet, value >> 8);
	put_byte(packet, value & 0xff);
}

static void
put_32(struct packet *packet, unsigned long value)
{
	put_16(packet, (unsigned)(value >> 16 & 0xffff));
	put_16(packet, (unsigned)(value & 0xffff));
}

static void
set_16(struct packet *packet, size_t offset, unsigned value)
{
	packet->bytes[offset] = (unsigned char)(value >> 8);
	packet->bytes[offset + 1] = (unsigned char)value;
}

static unsigned
get_16(const struct packet *packet, size_t offset)
{
	return (unsigned)packet->bytes[offset] << 8 | packet->bytes[offset + 1];
}

/* As real servers do, points at what was written before. */
static void
put_name(struct packet *packet, const char *name)
{
	while (*name != '\0') {
		size_t label = strcspn(name, ".");

		for (int i = 0; i < packet->names; i++) {
			if (strcasecmp(packet->seen[i].name, name) == 0) {
				put_16(packet, 0xc000 |
				    (unsigned)packet->seen[i].offset);
				return;
			}
		}
		if (packet->names < 32) {
			snprintf(packet->seen[packet->names].name, NAME_SIZE,
			    "%s", name);
			packet->seen[packet->names].offset = packet->length;
			packet->names++;
		}
		put_byte(packet, (unsigned)label);
		for (size_t i = 0; i < label; i++)
			put_byte(packet, (unsigned char)name[i]);
		name += label;
		if (*name == '.')
			name++;
	}
	put_byte(packet, 0);
}

static void
put_question(struct packet *packet, const char *name, unsigned type)
{
	put_name(packet, name);
	put_16(packet, type);
	put_16(packet, 1);
	set_16(packet, 4, get_16(packet, 4) + 1);
}

/* A record but for its data; returns where the length of that belongs. */
static size_t
put_record(struct packet *packet, int section, const char *name, unsigned type,
    unsigned long ttl)
{
	size_t count = 4 + 2 * (size_t)section;

	put_name(packet, name);
	put_16(packet, type);
	put_16(packet, 1);
	put_32(packet, ttl);
	put_16(packet, 0);
	set_16(packet, count, get_16(packet, count) + 1);
	return packet->length - 2;
}

static void
end_record(struct packet *packet, size_t at)
{
	set_16(packet, at, (unsigned)(packet->length - at - 2));
}

enum { ANSWER = 1, AUTHORITY = 2 };

static void
put_address(struct packet *packet, const char *name, const char *address)
{
	unsigned char bytes[16];
	unsigned type = strchr(address, ':') == NULL ? A : AAAA;
	size_t at, size = 4;

	if (type == AAAA)
		size = 16;
	inet_pton(type == A ? AF_INET : AF_INET6, address, bytes);
	at = put_record(packet, ANSWER, name, type, 300);
	for (size_t i = 0; i < size; i++)
		put_byte(packet, bytes[i]);
	end_record(packet, at);
}

static void
put_soa(struct packet *packet, int section)
{
	size_t at = put_record(packet, section, ZONE, SOA, NEGATIVE_TTL);

	put_name(packet, server_count > 0 ? servers[0].name : "ns." ZONE);
	put_name(packet, "dns.cloudflare.com");
	put_32(packet, 2400000000UL);
	put_32(packet, 10000);
	put_32(packet, 2400);
	put_32(packet, 604800);
	put_32(packet, NEGATIVE_TTL);
	end_record(packet, at);
}

/*
 * Reads a name from offset on and moves that behind it. Returns false if the
 * name is none; pointers lead backwards.
 */
static bool
get_name(const struct packet *packet, size_t *offset, char name[NAME_SIZE])
{
	size_t at = *offset, length = 0;
	bool jumped = false;

	for (;;) {
		size_t label;

		if (at >= packet->length)
			return false;
		label = packet->bytes[at];
		if (label >= 0xc0) {
			size_t target;

			if (at + 1 >= packet->length)
				return false;
			target = get_16(packet, at) & 0x3fff;
			if (!jumped)
				*offset = at + 2;
			if (target >= at)
				return false;
			jumped = true;
			at = target;
			continue;
		}
		at++;
		if (label == 0)
			break;
		if (label > 63 || at + label > packet->length ||
		    length + label + 1 >= NAME_SIZE)
			return false;
		if (length > 0)
			name[length++] = '.';
		memcpy(name + length, packet->bytes + at, label);
		length += label;
		at += label;
	}
	name[length] = '\0';
	if (!jumped)
		*offset = at;
	return true;
}

static bool
get_question(const struct packet *packet, struct question *question)
{
	size_t at = HEADER;

	if (packet->length < HEADER)
		return false;
	question->id = get_16(packet, 0);
	question->recursion_desired = (packet->bytes[2] & 1) != 0;
	if ((packet->bytes[2] & 0xf8) != 0 || get_16(packet, 4) != 1)
		return false;
	if (!get_name(packet, &at, question->name))
		return false;
	if (at + 4 > packet->length)
		return false;
	question->type = get_16(packet, at);
	for (char *c = question->name; *c != '\0'; c++)
		if (!isgraph((unsigned char)*c))
			*c = '?';
	return true;
}

/* --- the zone ------------------------------------------------------------- */

static const struct server *
server_named(const char *name)
{
	for (int i = 0; i < server_count; i++)
		if (strcasecmp(servers[i].name, name) == 0)
			return &servers[i];
	return NULL;
}

/* Sets label, in small letters, to the only one before the zone's name. */
static bool
label_of(const char *name, char label[64])
{
	size_t length = strcspn(name, ".");

	if (name[length] != '.' || strcasecmp(name + length + 1, ZONE) != 0)
		return false;
	for (size_t i = 0; i < length; i++) {
		int c = tolower((unsigned char)name[i]);

		if (!isalnum(c) && c != '-')
			return false;
		label[i] = (char)c;
	}
	label[length] = '\0';
	return true;
}

/* How many other source ports had asked for this when this one first did. */
static unsigned
turn_of(const struct question *question, unsigned port)
{
	unsigned number = 0;
	struct turn *turn;

	for (size_t i = 0; i < turn_count; i++) {
		if (strcasecmp(turns[i].name, question->name) != 0 ||
		    turns[i].type != question->type)
			continue;
		if (turns[i].port == port)
			return turns[i].number;
		number++;
	}
	turns = realloc(turns, (turn_count + 1) * sizeof *turns);
	if (turns == NULL)
		die("memory");
	turn = &turns[turn_count++];
	snprintf(turn->name, sizeof turn->name, "%s", question->name);
	turn->type = question->type;
	turn->port = port;
	turn->number = number;
	return number;
}

/* Sets line to what the machine says whose turn it is. */
static void
read_zone(const char *key, unsigned turn, char line[LINE_SIZE])
{
	char path[1024];
	unsigned lines = 0;
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", zone, key);
	file = fopen(path, "r");
	if (file == NULL)
		return;
	while (fgets(line, LINE_SIZE, file) != NULL)
		lines++;
	rewind(file);
	for (unsigned i = 0; lines > 0 && i <= turn % lines; i++)
		if (fgets(line, LINE_SIZE, file) == NULL)
			break;
	line[strcspn(line, "\n")] = '\0';
	fclose(file);
}

static void
look_up(const struct question *question, unsigned port, char line[LINE_SIZE])
{
	char label[64];

	if (strcasecmp(question->name, ZONE) == 0) {
		strcpy(line, "yes");
		read_zone(question->type == NS ? "servers" : "@",
		    turn_of(question, port), line);
	} else if (server_named(question->name) != NULL) {
		strcpy(line, "yes");
		read_zone("servers", turn_of(question, port), line);
	} else if (label_of(question->name, label)) {
		strcpy(line, "no");
		read_zone(label, turn_of(question, port), line);
	} else {
		strcpy(line, "refused no-aa");
	}
}

/* --- answers -------------------------------------------------------------- */

/* One answer, as the words of a line have it. */
struct answer {
	unsigned code;
	bool records, alias, address_of_alias, many, text, six, other;
	bool authoritative, recursive, truncated, wrong_id, query;
	bool wrong_name, wrong_type, no_question;
	bool garbage, empty, loop, ahead, blank, reserved, too_long;
	bool false_count, elsewhere, silent;
	size_t keep, size;
	int delay;
};

static const struct answer plain = {
	.code = NOERROR,
	.records = true,
	.authoritative = true,
	.keep = sizeof ((struct packet *)0)->bytes,
};

static void
take_code(struct answer *answer, unsigned code)
{
	answer->code = code;
	answer->records = false;
}

static void
take_alias(struct answer *answer, bool with_address)
{
	answer->alias = true;
	answer->address_of_alias = with_address;
}

static void
take_word(struct answer *answer, const char *word)
{
	const struct {
		const char *word;
		bool *flag;
	} flags[] = {
		{ "many", &answer->many },
		{ "text", &answer->text },
		{ "six", &answer->six },
		{ "other", &answer->other },
		{ "ra", &answer->recursive },
		{ "tc", &answer->truncated },
		{ "wrong-id", &answer->wrong_id },
		{ "query", &answer->query },
		{ "wrong-name", &answer->wrong_name },
		{ "wrong-type", &answer->wrong_type },
		{ "no-question", &answer->no_question },
		{ "garbage", &answer->garbage },
		{ "empty", &answer->empty },
		{ "loop", &answer->loop },
		{ "ahead", &answer->ahead },
		{ "blank", &answer->blank },
		{ "reserved", &answer->reserved },
		{ "long", &answer->too_long },
		{ "false-count", &answer->false_count },
		{ "elsewhere", &answer->elsewhere },
		{ "silent", &answer->silent },
	};

	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		if (strcmp(word, flags[i].word) == 0) {
			*flags[i].flag = true;
			return;
		}
	}
	if (strcmp(word, "yes") == 0)
		answer->records = true;
	else if (strcmp(word, "no") == 0)
		take_code(answer, NXDOMAIN);
	else if (strcmp(word, "nodata") == 0)
		take_code(answer, NOERROR);
	else if (strcmp(word, "refused") == 0)
		take_code(answer, REFUSED);
	else if (strcmp(word, "servfail") == 0)
		take_code(answer, SERVFAIL);
	else if (strcmp(word, "formerr") == 0)
		take_code(answer, FORMERR);
	else if (strcmp(word, "cname") == 0)
		take_alias(answer, true);
	else if (strcmp(word, "alias") == 0)
		take_alias(answer, false);
	else if (strcmp(word, "no-aa") == 0)
		answer->authoritative = false;
	else if (strncmp(word, "short=", 6) == 0)
		answer->keep = (size_t)atoi(word + 6);
	else if (strncmp(word, "size=", 5) == 0)
		answer->size = (size_t)atoi(word + 5);
	else if (strncmp(word, "late=", 5) == 0)
		answer->delay = atoi(word + 5);
	else
		fprintf(stderr, "authority: no such word: %s\n", word);
}

static void
put_addresses_of_label(struct packet *packet, const struct question *question,
    const struct answer *answer)
{
	const char *name = question->name;
	size_t at;

	if (answer->six && question->type != AAAA)
		return;
	if (answer->other)
		name = "other." ZONE;
	if (answer->size > 0) {
		at = put_record(packet, ANSWER, name, question->type, 300);
		for (size_t i = 0; i < answer->size; i++)
			put_byte(packet, 1);
		end_record(packet, at);
		return;
	}
	if (answer->text) {
		at = put_record(packet, ANSWER, name, TXT, 300);
		put_32(packet, 0x03616263);	/* "abc" */
		end_record(packet, at);
		return;
	}
	if (answer->alias) {
		at = put_record(packet, ANSWER, name, CNAME, 300);
		put_name(packet, "edge." ZONE);
		end_record(packet, at);
		name = "edge." ZONE;
		if (!answer->address_of_alias)
			return;
	}
	for (int i = 0; i < (answer->many ? 13 : 1); i++) {
		if (question->type == A)
			put_address(packet, name, ADDRESS_OF_NAMES);
		else if (question->type == AAAA)
			put_address(packet, name, ADDRESS_OF_NAMES6);
	}
}

static void
put_records(struct packet *packet, const struct question *question,
    const struct answer *answer)
{
	const struct server *server = server_named(question->name);
	size_t at;

	if (server != NULL) {
		for (int i = 0; i < server->count; i++) {
			bool six = strchr(server->addresses[i], ':') != NULL;

			if (question->type == (six ? AAAA : A))
				put_address(packet, server->name,
				    server->addresses[i]);
		}
	} else if (strcasecmp(question->name, ZONE) != 0) {
		put_addresses_of_label(packet, question, answer);
	} else if (question->type == SOA) {
		put_soa(packet, ANSWER);
	} else if (question->type == NS) {
		for (int i = 0; i < server_count; i++) {
			at = put_record(packet, ANSWER, ZONE, NS, 86400);
			put_name(packet, servers[i].name);
			end_record(packet, at);
		}
	}
}

/* What follows the name in a record of an address. */
static void
put_rest(struct packet *packet)
{
	put_16(packet, A);
	put_16(packet, 1);
	put_32(packet, 300);
	put_16(packet, 4);
	put_32(packet, 0xc0000250);
	set_16(packet, 6, get_16(packet, 6) + 1);
}

/* A record whose name is a pointer: to itself, or beyond the end. */
static void
put_lost_record(struct packet *packet, unsigned target)
{
	put_16(packet, 0xc000 | target);
	put_rest(packet);
}

/* A record whose name is so many labels of so many times the character. */
static void
put_odd_record(struct packet *packet, int labels, unsigned size, char c)
{
	for (int i = 0; i < labels; i++) {
		put_byte(packet, size);
		for (unsigned j = 0; j < size; j++)
			put_byte(packet, (unsigned char)c);
	}
	put_byte(packet, 0);
	put_rest(packet);
}

static void
build(struct packet *packet, const struct question *question,
    const struct answer *answer)
{
	unsigned flags = 0;

	memset(packet, 0, sizeof *packet);
	if (answer->empty)
		return;
	if (answer->garbage) {
		for (int i = 0; i < 99; i++)
			put_byte(packet, (unsigned)(i * 37 + 200));
		return;
	}
	if (!answer->query)
		flags |= 0x8000;
	if (answer->authoritative)
		flags |= 0x0400;
	if (answer->truncated)
		flags |= 0x0200;
	if (question->recursion_desired)
		flags |= 0x0100;
	if (answer->recursive)
		flags |= 0x0080;
	put_16(packet, question->id ^ (answer->wrong_id ? 0x5a5a : 0));
	put_16(packet, flags | answer->code);
	packet->length = HEADER;
	if (!answer->no_question)
		put_question(packet,
		    answer->wrong_name ? "other." ZONE : question->name,
		    answer->wrong_type ? 99 : question->type);
	if (answer->loop)
		put_lost_record(packet, (unsigned)packet->length);
	if (answer->ahead)
		put_lost_record(packet, 0x3fff);
	if (answer->blank)
		put_odd_record(packet, 1, 1, ' ');
	if (answer->reserved)
		put_odd_record(packet, 1, 80, 'a');
	if (answer->too_long)
		put_odd_record(packet, 4, 63, 'a');
	if (answer->records)
		put_records(packet, question, answer);
	if (get_16(packet, 6) == 0 &&
	    (answer->code == NOERROR || answer->code == NXDOMAIN))
		put_soa(packet, AUTHORITY);
	if (answer->false_count)
		set_16(packet, 6, 0xffff);
	if (packet->length > answer->keep)
		packet->length = answer->keep;
}

static void
send_packet(int from, const struct packet *packet, const struct address *client)
{
	sendto(from, packet->bytes, packet->length, 0,
	    (const void *)&client->storage, client->length);
}

static void
send_late(int from, const struct packet *packet, const struct address *client,
    int delay)
{
	for (int i = 0; i < MAX_LATE; i++) {
		struct late *late = &late_answers[i];

		if (late->used)
			continue;
		late->used = true;
		late->due = milliseconds(CLOCK_MONOTONIC) + delay;
		late->socket = from;
		late->client = *client;
		late->packet = *packet;
		return;
	}
	fprintf(stderr, "authority: too many late answers\n");
}

/* Sends what is due; returns how long poll may wait for the rest. */
static int
send_due(void)
{
	long long now = milliseconds(CLOCK_MONOTONIC), next = -1;

	for (int i = 0; i < MAX_LATE; i++) {
		struct late *late = &late_answers[i];

		if (!late->used)
			continue;
		if (late->due <= now) {
			send_packet(late->socket, &late->packet, &late->client);
			late->used = false;
		} else if (next == -1 || late->due - now < next) {
			next = late->due - now;
		}
	}
	return (int)next;
}

static void
send_answer(int from, const struct question *question,
    const struct answer *answer, const struct address *client)
{
	struct packet packet;
	struct address other = { .length = client->length };
	int fd;

	if (answer->silent)
		return;
	build(&packet, question, answer);
	if (answer->elsewhere) {
		other.storage.ss_family = client->storage.ss_family;
		fd = open_socket(&other);
		if (fd == -1)
			die("another port");
		send_packet(fd, &packet, client);
		close(fd);
	} else if (answer->delay > 0) {
		send_late(from, &packet, client, answer->delay);
	} else {
		send_packet(from, &packet, client);
	}
}

static void
send_answers(int from, const struct question *question, char *line,
    const struct address *client)
{
	struct answer answer = plain;

	for (char *word = strtok(line, " "); word != NULL;
	    word = strtok(NULL, " ")) {
		if (strcmp(word, "+") != 0) {
			take_word(&answer, word);
			continue;
		}
		send_answer(from, question, &answer, client);
		answer = plain;
	}
	send_answer(from, question, &answer, client);
}

/* --- serving -------------------------------------------------------------- */

static const char *
type_name(unsigned type, char number[16])
{
	switch (type) {
	case A:
		return "A";
	case NS:
		return "NS";
	case CNAME:
		return "CNAME";
	case SOA:
		return "SOA";
	case AAAA:
		return "AAAA";
	}
	snprintf(number, 16, "TYPE%u", type);
	return number;
}

static void
write_log(const struct address *server, const struct address *client,
    const struct question *question, const char *words)
{
	char line[1024], here[64], host[INET6_ADDRSTRLEN], number[16];
	long long now = milliseconds(CLOCK_REALTIME);
	int length;

	if (log_file == -1)
		return;
	show_address(server, here, sizeof here);
	host_of(client, host);
	length = snprintf(line, sizeof line,
	    "%lld.%03lld %s %s %u %u %d %s %s %s\n", now / 1000, now % 1000,
	    here, host, port_of(client), question->id,
	    question->recursion_desired,
	    question->name, type_name(question->type, number), words);
	if (write(log_file, line, (size_t)length) != length)
		die("log");
}

static void
serve(int fd, const struct address *server)
{
	struct packet packet;
	struct question question;
	struct address client;
	char line[LINE_SIZE];
	ssize_t length;

	client.length = sizeof client.storage;
	length = recvfrom(fd, packet.bytes, sizeof packet.bytes, 0,
	    (void *)&client.storage, &client.length);
	if (length == -1)
		return;
	packet.length = (size_t)length;
	if (!get_question(&packet, &question)) {
		memset(&question, 0, sizeof question);
		strcpy(question.name, "?");
		write_log(server, &client, &question, "malformed");
		return;
	}
	look_up(&question, port_of(&client), line);
	write_log(server, &client, &question, line);
	send_answers(fd, &question, line, &client);
}

static void
add_server(const char *argument)
{
	struct server *server = &servers[server_count];
	char copy[NAME_SIZE], *address;
	struct address parsed;

	snprintf(copy, sizeof copy, "%s", argument);
	address = strchr(copy, '=');
	if (server_count == MAX_SERVERS || address == NULL)
		die_of(argument, "not name=address");
	*address++ = '\0';
	strcpy(server->name, copy);
	for (char *it = strtok(address, ","); it != NULL;
	    it = strtok(NULL, ",")) {
		if (server->count == 4 || !parse_address(it, &parsed))
			die_of(it, "no address");
		host_of(&parsed, server->addresses[server->count++]);
	}
	server_count++;
}

static void
serve_all(char *texts[], int count)
{
	struct address addresses[MAX_SOCKETS];
	struct pollfd sockets[MAX_SOCKETS];
	char text[64];

	if (count < 1 || count > MAX_SOCKETS)
		die_of("usage", "1 to 8 addresses");
	for (int i = 0; i < count; i++) {
		if (!parse_address(texts[i], &addresses[i]))
			die_of(texts[i], "no address");
		sockets[i].fd = open_socket(&addresses[i]);
		if (sockets[i].fd == -1)
			die(texts[i]);
		sockets[i].events = POLLIN;
	}
	for (int i = 0; i < count; i++) {
		show_address(&addresses[i], text, sizeof text);
		puts(text);
	}
	fflush(stdout);
	for (;;) {
		if (poll(sockets, (nfds_t)count, send_due()) == -1)
			die("poll");
		for (int i = 0; i < count; i++)
			if (sockets[i].revents != 0)
				serve(sockets[i].fd, &addresses[i]);
	}
}

/* --- asking --------------------------------------------------------------- */

static void
show_code(unsigned code)
{
	static const char *const names[] = {
		"NOERROR", "FORMERR", "SERVFAIL",
		"NXDOMAIN", "NOTIMP", "REFUSED",
	};

	if (code < sizeof names / sizeof names[0])
		printf("%s", names[code]);
	else
		printf("code %u", code);
}

static void
show_answer(const struct packet *packet)
{
	char name[NAME_SIZE], text[INET6_ADDRSTRLEN];
	unsigned type, size, answers = get_16(packet, 6);
	size_t at = HEADER;

	show_code(packet->bytes[3] & 0xf);
	if (!get_name(packet, &at, name))
		answers = 0;
	at += 4;
	while (answers-- > 0 && get_name(packet, &at, name) &&
	    at + 10 <= packet->length) {
		type = get_16(packet, at);
		size = get_16(packet, at + 8);
		at += 10;
		if (at + size > packet->length)
			break;
		if ((type == A && size == 4) || (type == AAAA && size == 16)) {
			inet_ntop(type == A ? AF_INET : AF_INET6,
			    packet->bytes + at, text, sizeof text);
			printf(" %s", text);
			break;
		}
		at += size;
	}
	putchar('\n');
}

static unsigned
type_of(const char *text)
{
	static const unsigned types[] = { A, NS, CNAME, SOA, AAAA };
	char number[16];

	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		if (strcmp(type_name(types[i], number), text) == 0)
			return types[i];
	die_of(text, "no type");
	return 0;
}

/* Waits a second for the reply to the packet. */
static bool
receive_reply(int fd, const struct packet *packet, struct packet *reply)
{
	struct pollfd waiting = { .fd = fd, .events = POLLIN };
	long long end = milliseconds(CLOCK_MONOTONIC) + 1000, left;
	ssize_t length;

	while ((left = end - milliseconds(CLOCK_MONOTONIC)) > 0) {
		if (poll(&waiting, 1, (int)left) < 1)
			continue;
		length = recv(fd, reply->bytes, sizeof reply->bytes, 0);
		if (length < HEADER)
			continue;
		reply->length = (size_t)length;
		if (get_16(reply, 0) == get_16(packet, 0))
			return true;
	}
	return false;
}

static int
ask(const char *name, const char *type, const char *server)
{
	struct address address;
	struct packet packet, reply;
	int fd;

	if (!parse_address(server, &address))
		die_of(server, "no address");
	memset(&packet, 0, sizeof packet);
	put_16(&packet, (unsigned)(getpid() & 0xffff));
	put_16(&packet, 0x0100);
	packet.length = HEADER;
	put_question(&packet, name, type_of(type));
	fd = socket(address.storage.ss_family, SOCK_DGRAM, 0);
	if (fd == -1)
		die("socket");
	if (connect(fd, (void *)&address.storage, address.length) == -1)
		die(server);
	for (int i = 0; i < 3; i++) {
		if (send(fd, packet.bytes, packet.length, 0) == -1)
			continue;
		if (receive_reply(fd, &packet, &reply)) {
			show_answer(&reply);
			return 0;
		}
	}
	puts("nothing");
	return 1;
}

/* -------------------------------------------------------------------------- */

int
main(int argc, char *argv[])
{
	bool asking = false;
	int option;

	while ((option = getopt(argc, argv, "l:n:qz:")) != -1) {
		switch (option) {
		case 'l':
			log_file = open(optarg,
			    O_WRONLY | O_CREAT | O_APPEND, 0666);
			if (log_file == -1)
				die(optarg);
			break;
		case 'n':
			add_server(optarg);
			break;
		case 'q':
			asking = true;
			break;
		case 'z':
			zone = optarg;
			break;
		default:
			return 2;
		}
	}
	if (asking && argc - optind == 3)
		return ask(argv[optind], argv[optind + 1], argv[optind + 2]);
	if (asking || zone == NULL)
		die_of("usage", "see the head of authority.c");
	serve_all(argv + optind, argc - optind);
}
