# tunnel: POSIX make; no configuration. Variables can be given on the command line.

CC ?= cc
CFLAGS ?= -O2
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/site-functions
FISHCOMPDIR ?= $(PREFIX)/share/fish/vendor_completions.d
PORT ?=

HELPERS = test/helpers/start test/helpers/listen test/helpers/flood \
	test/helpers/lock test/helpers/authority test/helpers/page

.PHONY: all helpers demo test lint live fuzz faults sanitize portable coverage mutants \
	soak bench install uninstall dist clean

all: tunnel

tunnel: tunnel.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ tunnel.c

# What the tests call, each from the C file of its name.
helpers: $(HELPERS)

.c:
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $<

test/proof/fuzzer: test/proof/fuzz.c tunnel.c
	clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	-o $@ test/proof/fuzz.c

# A page of its own; with PORT=3000 what listens there.
demo: all test/helpers/page test/helpers/start
	@test/helpers/demo $(PORT)

test:
	@MAKE='$(MAKE)' test/run

lint:
	@test/run -l

fuzz:
	@MAKE='$(MAKE)' test/proof/fuzz

# FAULTS=short makes it a sample.
faults:
	@test/proof/faults

sanitize:
	@CC='$(CC)' MAKE='$(MAKE)' test/proof/sanitize

# PORTABLE=short for the gist of it.
portable:
	@MAKE='$(MAKE)' test/proof/portable

coverage:
	@MAKE='$(MAKE)' test/proof/coverage

# MUTANTS says how many mistakes are made for the tests to notice.
mutants:
	@test/proof/mutants

# SOAK_SECONDS, BENCH_ROUNDS and so on: see the heads of the scripts.
soak:
	@MAKE='$(MAKE)' test/proof/soak

bench:
	@CC='$(CC)' test/proof/bench

# With a real cloudflared and a network; CLOUDFLARED=path says which.
live: all
	@test/proof/live

install: all
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(MANDIR)/man1" \
	"$(DESTDIR)$(BASHCOMPDIR)" "$(DESTDIR)$(ZSHCOMPDIR)" "$(DESTDIR)$(FISHCOMPDIR)"
	install -m 755 tunnel "$(DESTDIR)$(BINDIR)/tunnel"
	install -m 644 tunnel.1 "$(DESTDIR)$(MANDIR)/man1/tunnel.1"
	install -m 644 completions/tunnel.bash "$(DESTDIR)$(BASHCOMPDIR)/tunnel"
	install -m 644 completions/_tunnel "$(DESTDIR)$(ZSHCOMPDIR)/_tunnel"
	install -m 644 completions/tunnel.fish "$(DESTDIR)$(FISHCOMPDIR)/tunnel.fish"

uninstall:
	rm -f "$(DESTDIR)$(BINDIR)/tunnel" "$(DESTDIR)$(MANDIR)/man1/tunnel.1" \
	"$(DESTDIR)$(BASHCOMPDIR)/tunnel" "$(DESTDIR)$(ZSHCOMPDIR)/_tunnel" \
	"$(DESTDIR)$(FISHCOMPDIR)/tunnel.fish"

# What is committed, and the same bytes each time: git gives every file the time of the
# commit and no owner, gzip -n adds no time of its own.
dist:
	@version=$$(git show HEAD:./tunnel.c | sed -n 's/^#define VERSION "\(.*\)"$$/\1/p') && \
	[ "$$version" ] || { echo 'dist: this is no checkout of tunnel' >&2; exit 1; }; \
	git diff --quiet HEAD || echo 'dist: what is not committed is left out' >&2; \
	git -c tar.umask=022 archive --format=tar --prefix="tunnel-$$version/" \
	-o "tunnel-$$version.tar" HEAD && \
	gzip -9nf "tunnel-$$version.tar" && echo "tunnel-$$version.tar.gz"

clean:
	rm -f tunnel $(HELPERS) test/proof/fuzzer
