#!/usr/bin/env bats
# -r: which failures are too many. It takes as long as their waits do.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=lives.bash
source "$BATS_TEST_DIRNAME/lives.bash"

@test "-r: a cloudflared that there is never a process for ends it after six failures, too" {
	start_traced fork:error=EAGAIN -r -t 0 8080
	# 1 + 2 + 4 + 8 + 16 s.
	await -t 90 gone "$pid"
	assert_exit 1
	assert_equal "$(grep -c 'cannot start cloudflared' "$err")" 6
	assert_equal "$(grep -c 'again in' "$err")" 5
}

@test "-r: six failures in a row end it, of whatever kind, and a new start with HTTP/2 is none" {
	local kind options pids=() kinds=() starts=()
	free_port
	# shellcheck disable=SC2016 # it is for the script
	scripts 'case $KIND-$life in
		*-1 | unheard-* | unserved-* | refused-*) echo https://a-b-c.trycloudflare.com >&2 ;;
		esac
		case $KIND-$life in
		unheard-*) exit 1 ;;
		unserved-*) registered; exit 1 ;;
		refused-*) echo "ERR Register tunnel error" >&2 ;;
		blocked-1) echo "ERR Failed to dial a quic connection" >&2 ;;
		blocked-*) exit 1 ;;
		silent-1) registered; until [ -e "$FAKE_DIR/end" ]; do sleep 0.05; done; exit 1 ;;
		esac'
	while read -r kind options; do
		# shellcheck disable=SC2086 # a word each
		KIND=$kind start_tunnel $options
		pids+=("$pid") kinds+=("$kind")
	done <<-END
		unheard -rn 8080
		unserved -rw -t 0 $port
		refused -rn -t 3 8081
		blocked -r -t 0 8082
		silent -r -t 3 8083
	END
	await_url
	touch "$FAKE_DIR/end"
	for pid in "${pids[@]}"; do
		assert_exit 1
	done
	for kind in "${kinds[@]}"; do
		starts+=("$kind $(($(wc -l <"$FAKE_DIR/$kind.starts")))")
	done
	# The one that was silent in the end, and the one that got no connection, had a start before.
	assert_equal "${starts[*]}" 'unheard 6 unserved 6 refused 6 blocked 7 silent 7'
}
