/*
 * listen: be a server, or take care that there is none.
 *
 * usage: listen [-6] [-b | -n] [-p port]
 *
 * Takes a port of 127.0.0.1 (-6: of ::1), by default a free one, and prints it
 * when it is ready. Ends on a signal.
 *
 *   default   accepts connections and closes them
 *   -b        listens but never accepts, and its backlog is full: a connect
 *             hangs
 *   -n        only holds the port, of ::1 too, so that a connect is refused for
 *             as long as this runs; a listen -p may still take it
 */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
die(const char *what)
{
	fprintf(stderr, "listen: %s: %s\n", what, strerror(errno));
	exit(1);
}

static socklen_t
local_address(struct sockaddr_storage *address, int family, int port)
{
	memset(address, 0, sizeof *address);
	if (family == AF_INET6) {
		struct sockaddr_in6 *six = (void *)address;

		six->sin6_family = AF_INET6;
		six->sin6_addr = in6addr_loopback;
		six->sin6_port = htons((in_port_t)port);
		return sizeof *six;
	} else {
		struct sockaddr_in *four = (void *)address;

		four->sin_family = AF_INET;
		four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		four->sin_port = htons((in_port_t)port);
		return sizeof *four;
	}
}

static int
port_of(const struct sockaddr_storage *address)
{
	const struct sockaddr_in6 *six = (const void *)address;
	const struct sockaddr_in *four = (const void *)address;

	if (address->ss_family == AF_INET6)
		return ntohs(six->sin6_port);
	return ntohs(four->sin_port);
}

/* Returns -1 where there is no such address, as on systems without IPv6. */
static int
take_port(struct sockaddr_storage *address, int family, int port)
{
	socklen_t length = local_address(address, family, port);
	int server = socket(family, SOCK_STREAM, 0), yes = 1;

	if (server == -1)
		return -1;
#ifdef __linux__
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
#elif defined(SO_REUSEPORT)
	setsockopt(server, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
#endif
	if (bind(server, (struct sockaddr *)address, length) == -1 ||
	    getsockname(server, (struct sockaddr *)address, &length) == -1) {
		close(server);
		return -1;
	}
	return server;
}

/* Connects until the system lets no further connection in. */
static void
fill_backlog(int family, int port)
{
	struct sockaddr_storage address;
	socklen_t length = local_address(&address, family, port);

	for (;;) {
		struct pollfd client = {
			.fd = socket(family, SOCK_STREAM, 0),
			.events = POLLOUT,
		};

		if (client.fd == -1)
			die("socket");
		fcntl(client.fd, F_SETFL, O_NONBLOCK);
		if (connect(client.fd, (void *)&address, length) == -1 &&
		    errno != EINPROGRESS)
			die("connect");
		/* On the loopback a connection comes about at once or never. */
		if (poll(&client, 1, 100) == 0)
			return;
	}
}

int
main(int argc, char *argv[])
{
	struct sockaddr_storage address, other;
	int family = AF_INET, port = 0, full = 0, hold = 0, option, server;

	while ((option = getopt(argc, argv, "6bnp:")) != -1) {
		switch (option) {
		case '6':
			family = AF_INET6;
			break;
		case 'b':
			full = 1;
			break;
		case 'n':
			hold = 1;
			break;
		case 'p':
			port = atoi(optarg);
			break;
		default:
			return 2;
		}
	}

	server = take_port(&address, family, port);
	if (server == -1)
		die("no port");
	if (!hold && listen(server, full ? 0 : 16) == -1)
		die("listen");
	port = port_of(&address);
	if (hold)
		take_port(&other, family == AF_INET ? AF_INET6 : AF_INET, port);
	if (full)
		fill_backlog(family, port);
	printf("%d\n", port);
	fflush(stdout);
	for (;;) {
		if (full || hold) {
			pause();
		} else {
			int client = accept(server, NULL, NULL);

			if (client != -1)
				close(client);
		}
	}
}
