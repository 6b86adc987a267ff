#!/usr/bin/env bats
# -r: which failures are counted. It takes as long as their waits do.

# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

@test "-r: a tunnel that worked takes the failures before it back" {
	# Six in all, but no six in a row.
	# shellcheck disable=SC2016 # it is for the script
	scripted '[ "$(wc -l <"$FAKE_DIR/starts")" = 3 ] || exit 1
		echo https://a-b-c.trycloudflare.com >&2
		registered
		until [ -e "$FAKE_DIR/end" ]; do sleep 0.05; done
		exit 1'
	start_tunnel -r -t 0 8080
	await_url
	touch "$FAKE_DIR/end"
	await has_said_again 7
	kill -s TERM "$pid"
	assert_signal TERM
}

has_said_again() {
	[ "$(grep -c 'starting cloudflared again' "$err")" -ge "$1" ]
}
