#!/usr/bin/env bats
# make demo: what it shows, and that nothing is left of it.

# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	[ -x "$ROOT/test/helpers/page" ] || fail 'test/helpers/page is not built'
	unset MAKEFLAGS MFLAGS MAKELEVEL PORT
	mkdir -p "$TMPDIR/checkout/test/helpers" "$BATS_TEST_TMPDIR/bin"
	cd "$TMPDIR/checkout" || return
	cp -p "$ROOT/Makefile" "$ROOT/tunnel.c" "$ROOT/fake-cloudflared.sh" .
	cp -p "$ROOT"/test/helpers/{demo,page,page.c,start,start.c} test/helpers
	printf '#!/bin/sh\nexec "%s" "$@"\n' "$TUNNEL" >tunnel
	chmod +x tunnel
	touch test/helpers/page test/helpers/start
	# The way over the network isn't there: this curl asks the server itself.
	cat >"$BATS_TEST_TMPDIR/bin/curl" <<-END
		#!/bin/sh
		for last; do :; done
		origin=\$(./tunnel -l | awk -F '\t' -v url="\$last" '\$2 == url { print \$1 }')
		[ "\$origin" ] || { echo "curl: \$last is no tunnel" >&2; exit 6; }
		$(command -v curl) --noproxy '*' -sS -m 10 "http://127.0.0.1:\${origin#*:}/" >"\$FAKE_DIR/fetched"
		printf 'demo: fetched it through Cloudflare: status 200, 0.1 s\n'
	END
	# One that isn't the stand-in, as far as one can see.
	printf '#!/bin/sh\nexec "%s" "$@"\n' "$CLOUDFLARED" >"$BATS_TEST_TMPDIR/bin/real"
	export CLOUDFLARED=$BATS_TEST_TMPDIR/bin/real
	chmod +x "$BATS_TEST_TMPDIR/bin/curl" "$CLOUDFLARED"
	PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

begin() {
	use_terminals
	open_terminal 80
	before=$(left_behind)
}

screen() {
	terminal capture-pane -p -J | sed -e 's/ *$//' -e '/^$/d'
}

# No more runs than before, and the shell has said its prompt again.
all_is_over() {
	only_left_behind "$before" && [ "$(screen | tail -n 1)" = '$' ]
}

# Skips where there is a cloudflared that this machine's owner has installed.
without_cloudflared() {
	local directory
	unset CLOUDFLARED
	! command -v cloudflared || skip 'there is a cloudflared here'
	for directory in /usr/local/bin /opt/homebrew/bin /home/linuxbrew/.linuxbrew/bin /usr/bin /snap/bin; do
		[ ! -e "$directory/cloudflared" ] || skip 'there is a cloudflared here'
	done
}

@test "make demo: shows a URL, fetches its own page through it, leaves nothing after Ctrl-C" {
	need curl
	begin
	enter 'make demo'
	await_cloudflared 1
	await_screen "$(cloudflared_url "$cloudflared")"
	await_screen 'Ctrl-C to stop'
	await_screen 'demo: fetched it through Cloudflare: status 200'
	assert_contains "$(cat "$FAKE_DIR/fetched")" '<h1>It works</h1>'
	alive "$cloudflared"
	terminal send-keys C-c
	await all_is_over
	gone "$cloudflared"
	# Not a word more than that.
	assert_equal "$(screen | grep -vE '^([$]( make demo)?|\^C|(tunnel|demo): .*)$')" ''
	assert_equal "$(echo "$TMPDIR"/tmp.*)" "$TMPDIR/tmp.*"
}

@test "make demo: without cloudflared the stand-in plays it, which is said in one line" {
	without_cloudflared
	begin
	enter 'make demo'
	await_screen 'Ctrl-C to stop'
	await_cloudflared 1
	await_screen "$(cloudflared_url "$cloudflared")"
	terminal send-keys C-c
	await all_is_over
	assert_equal "$(screen | grep -c '^demo: ')" 1
	assert_contains "$(screen)" 'demo: no cloudflared here: a stand-in plays it, and the URL leads nowhere'
	[ ! -e "$FAKE_DIR/fetched" ] || fail 'a URL that leads nowhere was asked for'
}

@test "make demo: a stand-in that CLOUDFLARED names isn't taken for cloudflared" {
	export CLOUDFLARED=$ROOT/fake-cloudflared.sh
	unset TRYCLOUDFLARE_NS
	begin
	enter 'make demo'
	await_screen 'Ctrl-C to stop'
	terminal send-keys C-c
	await all_is_over
	assert_contains "$(screen)" "demo: $CLOUDFLARED is the stand-in, and the URL leads nowhere"
	[ ! -e "$FAKE_DIR/fetched" ] || fail 'a URL that leads nowhere was asked for'
}

@test "make demo: Ctrl-C at any moment, and make has nothing to complain of" {
	local delay
	begin
	# What comes before its trap is between make and the terminal.
	# shellcheck disable=SC2016 # it is for the demonstration
	sed 's!^trap .*!&; : >"$FAKE_DIR/begun"!' "$ROOT/test/helpers/demo" >test/helpers/demo
	for delay in 0 0.01 0.02 0.03 0.05 0.08 0.12 0.2; do
		rm -f "$FAKE_DIR/begun"
		enter 'make demo'
		await test -e "$FAKE_DIR/begun"
		sleep "$delay"
		terminal send-keys C-c
		await all_is_over
	done
	refute_contains "$(screen)" '***'
}

@test "make demo: Ctrl-C before there is a URL" {
	export FAKE_MODE=silent
	begin
	enter 'make demo'
	await_cloudflared 1
	terminal send-keys C-c
	await all_is_over
	gone "$cloudflared"
}

@test "make demo PORT=3000: tunnels what listens there" {
	need curl
	serve
	start_program make -s demo "PORT=$port"
	await_url
	await_cloudflared 1
	assert_equal "$url" "$(cloudflared_url "$cloudflared")"
	assert_contains "$(cloudflared_arguments "$cloudflared")" "http://localhost:$port"
	await test -e "$FAKE_DIR/fetched"
	kill -s TERM "$pid"
	await_exit
	await gone "$cloudflared"
	alive "$server"
}

# only_started: nothing runs but what the test has to end.
only_started() {
	[ -z "$(left_behind)" ]
}

@test "make demo: killed in whatever way, nothing is left" {
	need curl
	local name number=0
	for name in TERM HUP KILL; do
		start_program make -s demo
		await_url
		await_cloudflared $((number += 1))
		# The demonstration itself, not make.
		kill -s "$name" "$(children_of "$pid")"
		await_exit
		await only_started
	done
}

@test "make demo: a cloudflared is found where tunnel finds it" {
	need curl
	without_cloudflared
	local directory number=0
	for directory in "$HOME/.local/bin" "$HOME/bin" "$BATS_TEST_TMPDIR/bin"; do
		mkdir -p "$directory"
		cp "$BATS_TEST_TMPDIR/bin/real" "$directory/cloudflared"
		start_program make -s demo
		await_url
		await_cloudflared $((number += 1))
		refute_contains "$(cat "$err")" 'stand-in'
		kill -s TERM "$pid"
		await_exit
		await only_started
		rm "$directory/cloudflared"
	done
}

@test "make demo: says why there is no tunnel, and fails" {
	FAKE_MODE=rate-limited-2026 start_program make -s demo
	await_exit
	[ "$status" != 0 ] || fail 'it succeeded'
	assert_contains "$(cat "$err")" 'tunnel: Cloudflare limits'
	none_left_behind
}
