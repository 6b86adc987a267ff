#!/usr/bin/env bats
# -r: which failures are counted. It takes as long as their waits do.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# scripts COMMANDS: one for several tunnels, each of which has its $KIND, $starts of it and $life,
# their number.
scripts() {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'starts=$FAKE_DIR/$KIND.starts; echo $$ >>"$starts"; life=$(($(wc -l <"$starts")))
		'"$1"
}

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

@test "-r: a cloudflared that there is never a process for ends it after six failures, too" {
	start_traced fork:error=EAGAIN -r -t 0 8080
	# 1 + 2 + 4 + 8 + 16 s.
	await -t 90 gone "$pid"
	assert_exit 1
	assert_equal "$(grep -c 'cannot start cloudflared' "$err")" 6
	assert_equal "$(grep -c 'again in' "$err")" 5
}

has_said_again() {
	[ "$(grep -c 'starting cloudflared again' "$err")" -ge "$1" ]
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
