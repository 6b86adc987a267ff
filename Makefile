# tunnel: POSIX make; no configuration. Variables can be given on the command line.

CC ?= cc
CFLAGS ?= -O2
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
PORT ?= 8080

HELPERS = test/start test/listen test/flood test/lock

.PHONY: all demo test lint install uninstall clean

all: tunnel

tunnel: tunnel.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ tunnel.c

test/start: test/start.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ test/start.c

test/listen: test/listen.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ test/listen.c

test/flood: test/flood.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ test/flood.c

test/lock: test/lock.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ test/lock.c

# 127: tunnel found no cloudflared, and has said so.
demo: all
	@./tunnel $(PORT) || { \
	status=$$?; [ $$status -eq 127 ] || exit $$status; \
	echo 'demo: a stand-in plays cloudflared: the URL is MADE UP and leads nowhere.' >&2; \
	echo 'demo: for a real one install cloudflared, from your package manager or' >&2; \
	echo 'demo: https://github.com/cloudflare/cloudflared/releases' >&2; \
	exec ./tunnel -c ./fake-cloudflared.sh $(PORT); }

test:
	@MAKE='$(MAKE)' test/run

lint:
	@test/run -l

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1
	install -m 755 tunnel $(DESTDIR)$(BINDIR)/tunnel
	install -m 644 tunnel.1 $(DESTDIR)$(MANDIR)/man1/tunnel.1

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/tunnel $(DESTDIR)$(MANDIR)/man1/tunnel.1

clean:
	rm -f tunnel $(HELPERS)
