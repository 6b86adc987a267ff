#!/usr/bin/env bats
# -r: which failures are counted. It takes as long as their waits do.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=lives.bash
source "$BATS_TEST_DIRNAME/lives.bash"

@test "-r: a tunnel that worked takes the failures before it back, whenever that was" {
	local number pids=() errs=()
	# Six in all, but no six in a row.
	# shellcheck disable=SC2016 # it is for the script
	scripts '[ "$life" = 3 ] || exit 1
		echo https://a-b-c.trycloudflare.com >&2
		[ "$KIND" = early ] || until [ -e "$FAKE_DIR/work" ]; do sleep 0.05; done
		registered
		until [ -e "$FAKE_DIR/end" ]; do sleep 0.05; done
		exit 1'
	KIND=early start_tunnel -r -t 0 8080
	pids+=("$pid") errs+=("$err")
	await_url
	KIND=late start_tunnel -rn -t 0 8081
	pids+=("$pid") errs+=("$err")
	await_url
	touch "$FAKE_DIR/work" "$FAKE_DIR/end"
	for number in 0 1; do
		err=${errs[number]}
		await has_said_again 7
		# Nor does the wait grow beyond half a minute.
		assert_equal "$(grep -o 'again in .*' "$err" | tr -dc '0-9\n' | xargs)" '1 2 4 8 16 30 30'
		kill -s TERM "${pids[number]}"
		assert_signal TERM "${pids[number]}"
	done
}

has_said_again() {
	[ "$(grep -c 'starting cloudflared again' "$err")" -ge "$1" ]
}
