#!/usr/bin/env bats
# make install, uninstall, dist, live: what comes, what goes, what it says.

# shellcheck disable=SC2016 # what is quoted is for other shells
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	local file
	common_setup
	unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR PREFIX BINDIR MANDIR BASHCOMPDIR ZSHCOMPDIR FISHCOMPDIR
	mkdir "$TMPDIR/checkout"
	cd "$TMPDIR/checkout" || return
	for file in "$ROOT"/* "$ROOT"/.[!.]*; do
		# What the proofs keep is large.
		[ "${file##*/}" = .cache ] || cp -Rp "$file" .
	done
	[ -x tunnel ] || fail 'tunnel is not built'
	touch tunnel
	root=$TMPDIR/root
}

# make_ok ARGUMENT...: sets $output.
make_ok() {
	start_program "${make:-make}" "$@"
	# Compilers take their time where much else goes on.
	await -t 300 test -s "${out%.out}.result"
	await_exit
	output=$(<"$out")
	errors=$(<"$err")
	assert_equal "$ended: $errors" 'exit 0: '
}

# Prints what is below a directory: mode, path.
tree() {
	(cd "$1" && find . ! -type d -exec ls -l {} + | awk '{ print $1, $NF }' | LC_ALL=C sort -k 2)
}

# An install that takes only what every BSD's has always taken.
bsd_install() {
	mkdir -p "$BATS_TEST_TMPDIR/bin"
	cat >"$BATS_TEST_TMPDIR/bin/install" <<-END
		#!/bin/sh
		case "\$*" in
		"-d "*) ;;
		"-m "[0-7][0-7][0-7]" "*) [ \$# = 4 ] || exit 64 ;;
		*) echo "install: usage" >&2; exit 64 ;;
		esac
		exec $(command -v install) "\$@"
	END
	chmod +x "$BATS_TEST_TMPDIR/bin/install"
	PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

usual='-rwxr-xr-x ./usr/local/bin/tunnel
-rw-r--r-- ./usr/local/share/bash-completion/completions/tunnel
-rw-r--r-- ./usr/local/share/fish/vendor_completions.d/tunnel.fish
-rw-r--r-- ./usr/local/share/man/man1/tunnel.1
-rw-r--r-- ./usr/local/share/zsh/site-functions/_tunnel'

@test "make install puts program, page and completions where each is looked for" {
	umask 077
	make_ok DESTDIR="$root" install
	assert_equal "$(tree "$root")" "$usual"
	cmp tunnel "$root/usr/local/bin/tunnel"
	cmp tunnel.1 "$root/usr/local/share/man/man1/tunnel.1"
}

@test "make install honours PREFIX, BINDIR, MANDIR and the directories of the completions" {
	make_ok DESTDIR="$root" PREFIX=/usr install
	assert_equal "$(tree "$root")" "${usual//local\//}"
	make_ok DESTDIR="$root" BINDIR=/1 MANDIR=/2 BASHCOMPDIR=/3 ZSHCOMPDIR=/4 FISHCOMPDIR=/5 install
	make_ok DESTDIR="$root" PREFIX=/usr uninstall
	assert_equal "$(tree "$root" | cut -d ' ' -f 2 | tr '\n' ' ')" \
		'./1/tunnel ./2/man1/tunnel.1 ./3/tunnel ./4/_tunnel ./5/tunnel.fish '
}

@test "make install with an install that knows neither -D nor -t, into a directory with a blank" {
	bsd_install
	make_ok DESTDIR="$root/my root" install
	assert_equal "$(tree "$root/my root")" "$usual"
	"$root/my root/usr/local/bin/tunnel" -V
	make_ok DESTDIR="$root/my root" uninstall
	assert_equal "$(tree "$root/my root")" ''
}

@test "BSD make installs and uninstalls the same" {
	need bmake
	make=bmake make_ok DESTDIR="$root" install
	assert_equal "$(tree "$root")" "$usual"
	make=bmake make_ok DESTDIR="$root" uninstall
	assert_equal "$(tree "$root")" ''
}

@test "make uninstall takes back exactly what came" {
	mkdir -p "$root/usr/local/bin" "$root/usr/local/share/man/man1"
	touch "$root/usr/local/bin/tunnel2" "$root/usr/local/share/man/man1/tunnel.1x"
	local before
	before=$(tree "$root")
	make_ok DESTDIR="$root" install
	[ "$(tree "$root")" != "$before" ]
	make_ok DESTDIR="$root" uninstall
	assert_equal "$(tree "$root")" "$before"
	# Once more is no error.
	make_ok DESTDIR="$root" uninstall
}

@test "make install strips nothing and builds what is missing" {
	need nm
	rm -f tunnel
	make_ok CC=cc DESTDIR="$root" install
	nm "$root/usr/local/bin/tunnel" | grep -q ' main$'
}

@test "man finds the page that was installed" {
	need man
	make_ok DESTDIR="$root" install
	start_program env MANPATH="$root/usr/local/share/man" MANPAGER=cat man tunnel
	await_exit
	[ -s "$out" ] || skip 'no man pages here'
	assert_contains "$(cat "$out")" 'give a local port a public URL'
}

# --- dist -----------------------------------------------------------------------------

# A checkout with one commit of what is here.
commit_all() {
	need git gzip tar
	rm -rf .git
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=x \
		GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x
	git init -q
	git add .
	git commit -qm x
	version=$(./tunnel -V)
	version=${version#tunnel }
}

@test "make dist: what is committed, under the version of tunnel.c, the same bytes twice" {
	commit_all
	make_ok dist
	assert_equal "$output" "tunnel-$version.tar.gz"
	assert_equal "$(git status --porcelain)" ''
	mv "$output" "$TMPDIR/first.tar.gz"
	assert_equal "$(tar -tzf "$TMPDIR/first.tar.gz" | grep -v '/$' | LC_ALL=C sort)" \
		"$(git ls-files | sed "s,^,tunnel-$version/," | LC_ALL=C sort)"
	# Later, by somebody else, in a newer checkout of it.
	git clone -q . "$TMPDIR/clone"
	cd "$TMPDIR/clone"
	(umask 077 && TZ=Asia/Tokyo make -s dist)
	cmp "$TMPDIR/first.tar.gz" "tunnel-$version.tar.gz"
	[ ! -e "tunnel-$version.tar" ]
}

@test "make dist: BSD make makes the same" {
	need bmake
	commit_all
	make_ok dist
	mv "tunnel-$version.tar.gz" "$TMPDIR/first.tar.gz"
	make=bmake make_ok dist
	cmp "$TMPDIR/first.tar.gz" "tunnel-$version.tar.gz"
}

@test "make dist: what it made builds and installs elsewhere" {
	commit_all
	make_ok dist
	cd "$TMPDIR"
	tar -xzf "checkout/tunnel-$version.tar.gz"
	cd "tunnel-$version"
	make_ok CC=cc DESTDIR="$root" install
	assert_equal "$(tree "$root")" "$usual"
	assert_equal "$("$root/usr/local/bin/tunnel" -V)" "tunnel $version"
	# It is no checkout any more.
	start_program env GIT_CEILING_DIRECTORIES="$TMPDIR" make dist
	await_exit
	[ "$status" != 0 ] || fail 'make dist succeeded'
	assert_contains "$(cat "$err")" 'dist: this is no checkout of tunnel'
}

@test "make dist says so when something isn't committed" {
	commit_all
	echo >>tunnel.1
	start_program make dist
	assert_exit 0
	assert_equal "$(cat "$err")" 'dist: what is not committed is left out'
	assert_equal "$(tar -xzOf "tunnel-$version.tar.gz" "tunnel-$version/tunnel.1" | cksum)" \
		"$(git show HEAD:tunnel.1 | cksum)"
}

@test "the version is in tunnel.c only; the newest news are those of it" {
	local version
	version=$(./tunnel -V)
	version=${version#tunnel }
	assert_equal "$(grep -c "\"$version\"" tunnel.c)" 1
	refute_contains "$(cat tunnel.1)" "tunnel $version"
	assert_match "$(grep -m 1 '^## ' NEWS.md)" "^## ${version//./\\.}( |\$)"
}

# --- live -----------------------------------------------------------------------------

# The way over the network isn't there: this curl asks the local server instead.
short_cut() {
	need curl
	mkdir -p "$BATS_TEST_TMPDIR/bin"
	cat >"$BATS_TEST_TMPDIR/bin/curl" <<-END
		#!/bin/sh
		for last; do :; done
		origin=\$(./tunnel -l | cut -f 1)
		case \$last in
		"\$(./tunnel -l | cut -f 2)"/*) ;;
		*) echo "curl: \$last is not the tunnel" >&2; exit 6 ;;
		esac
		echo asked >>"\$FAKE_DIR/asked"
		[ "\${1-}" != -x ] || exit 1
		exec $(command -v curl) --noproxy '*' -fsS -o "\$5" "http://127.0.0.1:\${origin#*:}/\${last##*/}"
	END
	chmod +x "$BATS_TEST_TMPDIR/bin/curl"
	PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

live() {
	start_program make live
	await_exit
	output=$(<"$out")
	errors=$(<"$err")
}

@test "make live: opens, fetches, compares, stops" {
	short_cut
	LIVE_SECONDS=60 live
	assert_equal "$ended: $errors" 'exit 0: '
	assert_match "$output" 'opening.*fetching https://[a-z-]*\.trycloudflare\.com/file.*stopping.*all is well$'
	assert_equal "$(wc -l <"$FAKE_DIR/asked")" 1
	await_cloudflared 1
	gone "$cloudflared"
	assert_equal "$(echo "$TMPDIR"/*)" "$TMPDIR/checkout"
}

@test "make live: fails if something else comes through" {
	short_cut
	printf '#!/bin/sh\necho other >"$5"\n' >"$BATS_TEST_TMPDIR/bin/curl"
	live
	[ "$status" != 0 ] || fail 'it succeeded'
	assert_contains "$errors" 'live: what came through the tunnel differs'
	await_cloudflared 1
	gone "$cloudflared"
}

@test "make live: fails if nothing comes through, or something stays" {
	short_cut
	printf '#!/bin/sh\necho "curl: no way" >&2; exit 6\n' >"$BATS_TEST_TMPDIR/bin/curl"
	LIVE_SECONDS=8 live
	[ "$status" != 0 ] || fail 'it succeeded'
	assert_contains "$errors" 'live: curl: no way'
	FAKE_MODE=rate-limited live
	[ "$status" != 0 ] || fail 'it succeeded'
	assert_contains "$errors" 'live: tunnel -bw'
	await none_left_behind
}

@test "make live: skips with a clear word where cloudflared or the network is missing" {
	short_cut
	FAKE_MODE=no-network live
	assert_equal "$ended" 'exit 0'
	assert_match "$output" 'skipped: no network here$'
	unset CLOUDFLARED
	! command -v cloudflared || skip 'there is a cloudflared here'
	live
	assert_equal "$ended" 'exit 0'
	assert_match "$output" 'skipped: no cloudflared here$'
	# A python3 that is a script may be ended while a program of its own still runs.
	await none_left_behind
}
