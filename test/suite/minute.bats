#!/usr/bin/env bats
# -r: what a minute of work is worth. It takes as long.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

@test "-r: the wait begins anew once a tunnel has worked for a minute, not one that has only lived" {
	local kind pids=() errs=()
	# Two ends, then a tunnel, which one of the two loses as soon as it is there.
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo "$KIND" >>"$FAKE_DIR/$KIND.starts"
		[ "$(wc -l <"$FAKE_DIR/$KIND.starts")" -gt 2 ] || exit 1
		echo "https://$KIND.trycloudflare.com" >&2
		registered
		echo $$ >"$FAKE_DIR/$KIND.pid"
		[ "$KIND" != works ] || exec sleep 600
		until [ -e "$FAKE_DIR/lose" ]; do sleep 0.05; done
		echo "ERR Lost connection with the edge" >&2'
	for kind in works lives; do
		KIND=$kind start_tunnel -r -t 0 $((8000 + ${#kind} + ${#pids[@]}))
		pids+=("$pid")
		errs+=("$err")
	done
	for kind in works lives; do
		await test -s "$FAKE_DIR/$kind.pid"
	done
	await has_lines "${errs[0]%.err}.out" 1
	await has_lines "${errs[1]%.err}.out" 1
	touch "$FAKE_DIR/lose"
	# It is the time itself that matters.
	sleep 61
	for kind in works lives; do
		kill -s KILL "$(cat "$FAKE_DIR/$kind.pid")"
	done
	await contains "${errs[0]}" 'ended (signal 9'
	await contains "${errs[1]}" 'ended (signal 9'
	await said_again_thrice "${errs[@]}"
	assert_equal "$(grep -o 'again in .*' "${errs[0]}" | xargs)" 'again in 1 s again in 2 s again in 1 s'
	assert_equal "$(grep -o 'again in .*' "${errs[1]}" | xargs)" 'again in 1 s again in 2 s again in 4 s'
}

@test "-r: where Cloudflare limits the rate it waits a minute, then two" {
	FAKE_MODE=rate-limited start_tunnel -r -t 0 8080
	await -t 180 contains "$err" 'again in 120 s'
	assert_equal "$(grep -o 'again in .*' "$err" | xargs)" 'again in 60 s again in 120 s'
	kill -s TERM "$pid"
	assert_signal TERM
}

said_again_thrice() {
	local file
	for file; do
		[ "$(grep -c 'again in' "$file")" = 3 ] || return 1
	done
}
