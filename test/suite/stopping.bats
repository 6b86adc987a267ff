#!/usr/bin/env bats
# A tunnel that is stopping is no tunnel: nobody is given its URL, and the next one waits for its end.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# begin_to_stop [SECONDS]: starts a tunnel of port 8080, which takes that long (2) to stop, and
# asks it to; sets $first, $old and $cloudflared.
begin_to_stop() {
	export FAKE_MODE=slow-stop FAKE_DELAY=${1:-2}
	start_tunnel -v -g 600 8080
	FAKE_DELAY=2
	first=$pid first_err=$err
	await_url
	old=$url
	await_cloudflared 1
	kill -s TERM "$first"
	await_text "$FAKE_DIR/$cloudflared.signals" TERM
}

# That it was given its time, and has ended.
assert_stopped_by_itself() {
	assert_signal TERM "$first"
	assert ended_itself "$first_err"
	assert_equal "$(stop_signals "$cloudflared")" TERM
}

@test "-l leaves a tunnel out that is stopping" {
	local arguments
	begin_to_stop 6
	for arguments in -l -lj; do
		run_tunnel $arguments
		assert_equal "$arguments: $ended: $output$errors" "$arguments: exit 0: "
	done
	for arguments in '-l 8080' '-lj 8080'; do
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$arguments: $ended: $output" "$arguments: exit 1: "
		assert_match "$errors" '^tunnel: [^
]*localhost:8080'
	done
	alive "$first" || fail 'it was too quick for this test'
	assert_stopped_by_itself
}

@test "-l leaves a tunnel out whose command or cloudflared has ended" {
	export FAKE_MODE=slow-stop FAKE_DELAY=2
	start_tunnel -g 600 8080 true
	await_cloudflared 1
	await_text "$FAKE_DIR/$cloudflared.signals" TERM
	run_tunnel -l
	assert_equal "$ended: $output$errors" 'exit 0: '
	start_tunnel -g 600 8081 sh -c 'trap "echo caught; sleep 2; exit" TERM; echo ready; while :; do sleep 0.05; done'
	await_text "$out" ready
	await_cloudflared 2
	kill -s KILL "$cloudflared"
	await_text "$out" caught
	run_tunnel -l
	assert_equal "$ended: $output$errors" 'exit 0: '
}

# assert_names_only LIVES ORIGIN ENDED: what the record says of the tunnel that has got ready, once
# it is sent TERM.
assert_names_only() {
	local record=$XDG_RUNTIME_DIR/tunnel/$2
	await_text "$out" ready
	kill -s TERM "$pid"
	await contains "$record" "$3 0"
	refute_contains "$(<"$record")" "$1 0"
	assert contains "$record" 'state stopping'
}

@test "the record of a tunnel that is stopping names neither a command nor a cloudflared that has ended" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'trap "until [ -e \"\$FAKE_DIR/end\" ]; do sleep 0.05; done; exit" TERM
		echo https://amber-apple.trycloudflare.com >&2
		registered
		next'
	start_tunnel -g 600 8080 sh -c 'echo ready; exec sleep 600'
	assert_names_only group localhost:8080 command
	scripted 'echo https://amber-apple.trycloudflare.com >&2; registered'
	# shellcheck disable=SC2016 # it is for the command
	start_tunnel -g 600 8081 sh -c 'trap "until [ -e \"\$FAKE_DIR/end\" ]; do sleep 0.05; done; exit" TERM
		echo ready; while :; do sleep 0.05; done'
	assert_names_only command localhost:8081 group
	touch "$FAKE_DIR/end"
}

@test "-b waits for the end of a tunnel that is stopping, then prints the URL of a new one" {
	begin_to_stop
	run_tunnel -b 8080
	assert_equal "$ended" 'exit 0'
	assert_match "$output" '^https://[a-z-]+\.trycloudflare\.com$'
	[ "$output" != "$old" ] || fail 'it hands out the URL of one that is being stopped'
	gone "$first" || fail 'two at a time'
	gone "$cloudflared"
	assert_stopped_by_itself
	assert_equal "$("$TUNNEL" -l | cut -f 2)" "$output"
	run_tunnel -k 8080
}

@test "-b that waits for the end of another holds no more descriptors the longer it waits" {
	begin_to_stop 3
	# It looks more often.
	start_options=(-n 32)
	run_tunnel -b 8080
	start_options=()
	assert_equal "$ended: $(grep -v 'nothing is listening' "$err")" 'exit 0: '
	assert_stopped_by_itself
	run_tunnel -k 8080
}

@test "a foreground tunnel, with and without a command, waits for the end of one that is stopping" {
	local second second_out
	begin_to_stop
	start_tunnel 8080
	second=$pid second_out=$out
	await_url
	[ "$url" != "$old" ]
	gone "$first" || fail 'two at a time'
	assert_stopped_by_itself
	assert_quiet_but_for_the_warning
	assert_equal "$("$TUNNEL" -l | cut -f 2,3)" "$url	$second"
	await_cloudflared 2
	kill -s TERM "$second"
	await_text "$FAKE_DIR/$cloudflared.signals" TERM
	# shellcheck disable=SC2016 # it is for the command
	run_tunnel -r 8080 sh -c 'echo "$TUNNEL_PUBLIC_URL"'
	assert_equal "$ended" 'exit 0'
	assert_match "$output" '^https://'
	[ "$output" != "$(<"$second_out")" ]
	assert_signal TERM "$second"
}

assert_quiet_but_for_the_warning() {
	assert_equal "$(grep -v 'nothing is listening' "$err")" ''
}

@test "several that wait for the end of one: exactly one cloudflared follows" {
	local _ outs=() pids=() all
	begin_to_stop
	for _ in 1 2 3 4; do
		start_tunnel -b 8080
		outs+=("$out")
		pids+=("$pid")
	done
	for pid in "${pids[@]}"; do
		assert_exit 0
	done
	all=$(sort -u "${outs[@]}")
	assert_match "$all" '^https://[a-z-]+\.trycloudflare\.com$'
	[ "$all" != "$old" ]
	assert_equal "$(cloudflared_starts | wc -l)" 2
	assert_stopped_by_itself
	run_tunnel -k 8080
}

@test "-k waits for a tunnel that is stopping, and sends it no second signal" {
	begin_to_stop
	# Past the half second after which it would count as insisting.
	sleep 0.6
	run_tunnel -k 8080
	assert_equal "$ended: $output$errors" 'exit 0: '
	gone "$first" || fail 'it lives'
	gone "$cloudflared"
	assert_stopped_by_itself
}

@test "-k stops the tunnel that is there, not the one that waits for its end" {
	local second
	begin_to_stop
	start_tunnel 8080
	second=$pid
	# So seldom does it look that the other one is there by then.
	start_traced '/^p?poll$:delay_exit=1000000' -k 8080
	assert_exit 0
	assert_equal "$(<"$out")$(<"$err")" ''
	gone "$first" || fail 'it lives'
	assert_stopped_by_itself
	await_cloudflared 2
	await test -s "$FAKE_DIR/$cloudflared.url"
	await listed_as "$second"
	assert_equal "$(stop_signals "$cloudflared")" ''
	kill -s TERM "$second"
	assert_signal TERM "$second"
}

listed_as() {
	[ "$("$TUNNEL" -l | cut -f 3)" = "$1" ]
}

@test "-k that waits takes no processor time worth the name" {
	[ -r /proc/self/stat ] || skip 'no /proc here'
	begin_to_stop 9
	start_tunnel -k 8080
	assert_idle "$pid" 2
	assert_exit 0
	gone "$first" || fail 'it lives'
}

@test "a start that waits for the end of another heeds signals and its deadline" {
	begin_to_stop 9
	start_tunnel 8080
	local second=$pid
	kill -s INT "$second"
	assert_signal INT "$second"
	start_tunnel -b 8080
	second=$pid
	kill -s TERM "$second"
	assert_signal TERM "$second"
	run_tunnel -t 0.3 8080
	assert_equal "$ended" 'exit 124'
	assert_match "$errors" '^tunnel: .*it is still stopping$'
	run_tunnel -b -t 0.3 8080
	assert_equal "$ended" 'exit 124'
	assert_match "$errors" '^tunnel: .*it is still stopping$'
	alive "$first" || fail 'it was too quick for this test'
	assert_equal "$(cloudflared_starts)" "$cloudflared"
	assert_stopped_by_itself
}

@test "a start that waits for the end of another ends with who waits for it, or with its input" {
	local second starter
	# Until it is killed.
	begin_to_stop 600
	mkfifo "$TMPDIR/input"
	exec 6<>"$TMPDIR/input"
	# shellcheck disable=SC2016 # it is for the shell
	start_program sh -c 'exec <"$0"; echo >"$TMPDIR/open"; exec "$@"' "$TMPDIR/input" \
		"$TUNNEL" -i 8080
	second=$pid
	# Without a writer it would wait to open it.
	await test -s "$TMPDIR/open"
	exec 6>&-
	assert_exit 0 "$second"
	start_tunnel -b 8080
	starter=$pid
	await has_child "$starter"
	second=$(children_of "$starter")
	adopt "$second"
	kill -s KILL "$starter"
	await gone "$second"
	assert alive "$first"
	assert_equal "$(cloudflared_starts)" "$cloudflared"
	kill -s KILL "$cloudflared"
	assert_signal TERM "$first"
}

has_child() {
	[ -n "$(children_of "$1")" ]
}

@test "a record that is removed while its tunnel stops: the next tunnel is known all the same" {
	begin_to_stop
	start_tunnel -b 8080
	local early=$pid early_out=$out
	rm "$XDG_RUNTIME_DIR/tunnel/localhost:8080"
	start_tunnel -b 8080
	assert_exit 0
	assert_exit 0 "$early"
	await_url
	[ "$url" != "$old" ]
	assert_equal "$(<"$early_out")" "$url"
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 0'
	assert_contains "$output" "$url"
	assert_stopped_by_itself
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	none_left_behind
}
