/*
 * page: serve one page of its own, for `make demo`.
 *
 * usage: page [port]
 *
 * Takes the port of 127.0.0.1, by default a free one, prints it when it is
 * ready, and answers every request with a page that says whence it came. Ends
 * when its standard input does, so that it can't outlive who started it, or on
 * a signal.
 */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 32

/* What of a request is kept: all that matters is how it begins and ends. */
struct client {
	char method[5];
	char end[4];
	size_t seen;
};

/* The first two are standard input and the server. */
static struct pollfd polled[2 + CLIENTS];
static struct client clients[CLIENTS];
static unsigned long visits;

static void
die(const char *what)
{
	fprintf(stderr, "page: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int
open_server(int port)
{
	struct sockaddr_in address;
	socklen_t length = sizeof address;
	int yes = 1;
	int server = socket(AF_INET, SOCK_STREAM, 0);

	if (server == -1)
		die("socket");
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	memset(&address, 0, sizeof address);
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((in_port_t)port);
	if (bind(server, (struct sockaddr *)&address, length) == -1)
		die("bind");
	if (listen(server, CLIENTS) == -1)
		die("listen");
	if (getsockname(server, (struct sockaddr *)&address, &length) == -1)
		die("getsockname");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return server;
}

/* A new client waits in the first free place; without one it is sent away. */
static void
take_client(int server)
{
	int fd = accept(server, NULL, NULL);

	if (fd == -1)
		return;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (size_t i = 0; i < CLIENTS; i++) {
		if (polled[2 + i].fd != -1)
			continue;
		polled[2 + i].fd = fd;
		memset(&clients[i], 0, sizeof clients[i]);
		return;
	}
	close(fd);
}

/* The answer is small enough for any socket to take it at once. */
static void
answer(int fd, const struct client *client)
{
	char body[1024];
	char head[256];
	char date[32];
	time_t now = time(NULL);

	visits++;
	strftime(date, sizeof date, "%H:%M:%S", localtime(&now));
	snprintf(body, sizeof body,
	    "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
	    "<meta name=\"viewport\" content=\"width=device-width\">\n"
	    "<title>It works</title>\n"
	    "<style>body { font: 1.2em sans-serif; margin: 4em auto; "
	    "max-width: 30em; padding: 0 1em }</style>\n"
	    "<h1>It works</h1>\n"
	    "<p>This page comes through the tunnel from the computer on which "
	    "<code>make demo</code> runs. There it is %s; you are visit %lu.\n"
	    "<p>Whoever has the address can open it, until Ctrl-C is pressed "
	    "there.\n</html>\n", date, visits);
	snprintf(head, sizeof head,
	    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
	    "Content-Length: %zu\r\nCache-Control: no-store\r\n"
	    "Connection: close\r\n\r\n", strlen(body));
	if (write(fd, head, strlen(head)) == -1)
		return;
	if (strcmp(client->method, "HEAD") == 0)
		return;
	if (write(fd, body, strlen(body)) == -1)
		return;
}

/* Reads on in a request. Returns 0 when nothing is to come of it any more. */
static int
serve_client(int fd, struct client *client)
{
	char buffer[2048];
	ssize_t count = read(fd, buffer, sizeof buffer);

	if (count == -1)
		return errno == EAGAIN || errno == EINTR;
	if (count == 0)
		return 0;
	for (ssize_t i = 0; i < count; i++) {
		if (client->seen < 4)
			client->method[client->seen] = buffer[i];
		client->seen++;
		memmove(client->end, client->end + 1, 3);
		client->end[3] = buffer[i];
		if (memcmp(client->end, "\r\n\r\n", 4) == 0) {
			answer(fd, client);
			return 0;
		}
	}
	return 1;
}

/* Bytes that came and weren't read would turn the close into a reset. */
static void
drop_client(size_t i)
{
	char rest[2048];
	int fd = polled[2 + i].fd;

	shutdown(fd, SHUT_WR);
	while (read(fd, rest, sizeof rest) > 0)
		;
	close(fd);
	polled[2 + i].fd = -1;
}

int
main(int argc, char *argv[])
{
	char input[256];

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < 2 + CLIENTS; i++) {
		polled[i].fd = -1;
		polled[i].events = POLLIN;
	}
	polled[0].fd = STDIN_FILENO;
	polled[1].fd = open_server(argc > 1 ? atoi(argv[1]) : 0);
	for (;;) {
		if (poll(polled, 2 + CLIENTS, -1) == -1) {
			if (errno == EINTR)
				continue;
			die("poll");
		}
		if (polled[0].revents != 0 &&
		    read(STDIN_FILENO, input, sizeof input) <= 0)
			return 0;
		if (polled[1].revents != 0)
			take_client(polled[1].fd);
		for (size_t i = 0; i < CLIENTS; i++) {
			int fd = polled[2 + i].fd;

			if (fd == -1 || polled[2 + i].revents == 0)
				continue;
			if (!serve_client(fd, &clients[i]))
				drop_client(i);
		}
	}
}
