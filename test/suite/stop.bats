#!/usr/bin/env bats
# Stopping: the time that a stop grants is kept, however it is asked for, and has an end.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	use_terminals
}

# Starts a tunnel, waits for its URL; sets $cloudflared.
open_tunnel() {
	start_tunnel "$@"
	await_url
	cloudflared=$(tail -n 1 "$FAKE_DIR/starts")
}

# Microseconds; a fork would take longer than what is measured here.
clock() {
	now=${EPOCHREALTIME/[!0-9]/}
}

# ask_again SIGNAL: sends it to $pid many times, well within the half second in which that
# is no more than asking once.
ask_again() {
	local begin
	clock
	begin=$now
	while [ $((now - begin)) -lt 150000 ]; do
		kill -s "$1" "$pid"
		read -r -t 0.02 <>"$TMPDIR/nothing" || :
		clock
	done
}

# Once the stop began, until a repeat counts.
await_half_second() {
	await_text "$FAKE_DIR/$cloudflared.signals" TERM
	# It is the time itself that matters.
	sleep 0.6
}

# --- the grace ------------------------------------------------------------------------

@test "who asks many times at once gets the same stop as who asks once" {
	local signal
	mkfifo "$TMPDIR/nothing"
	export FAKE_MODE=slow-stop FAKE_DELAY=1
	for signal in TERM INT HUP; do
		open_tunnel -v -g 600 8080
		ask_again "$signal"
		assert_signal "$signal"
		assert ended_itself "$err"
		assert_equal "$(stop_signals "$cloudflared")" TERM
	done
}

@test "timeout(1) grants the grace" {
	local i pids=() errors=()
	export FAKE_MODE=slow-stop FAKE_DELAY=0.5
	for ((i = 0; i < 8; i++)); do
		start_program timeout 5 "$TUNNEL" -v -g 600 $((8080 + i))
		pids+=("$pid")
		errors+=("$err")
	done
	for ((i = 0; i < 8; i++)); do
		assert_exit 124 "${pids[i]}"
		await ended_itself "${errors[i]}"
	done
}

@test "a terminal that closes, and so says it twice, grants the grace" {
	local i id
	export FAKE_MODE=slow-stop FAKE_DELAY=0.5
	for i in 1 2 3 4; do
		open_terminal 80
		enter "tunnel -v -g 600 808$i 2>'$TMPDIR/log.$i'"
		await_text "$TMPDIR/log.$i" Registered
	done
	for i in 1 2 3 4; do
		socket=tunnel-$$-$i
		terminal kill-session
	done
	for i in 1 2 3 4; do
		await ended_itself "$TMPDIR/log.$i"
	done
	for id in $(cloudflared_starts); do
		await gone "$id"
		assert_equal "$(stop_signals "$id")" TERM
	done
}

@test "several -k at once, and one that comes late, grant the grace" {
	local i tunnel log stops=()
	export FAKE_MODE=slow-stop FAKE_DELAY=2
	open_tunnel -v -g 600 8080
	tunnel=$pid log=$err
	for i in 1 2 3; do
		start_tunnel -k 8080
		stops+=("$pid")
	done
	await_half_second
	start_tunnel -k 8080
	stops+=("$pid")
	for pid in "${stops[@]}"; do
		assert_exit 0
		gone "$tunnel"
	done
	assert_signal TERM "$tunnel"
	assert ended_itself "$log"
	assert_equal "$(stop_signals "$cloudflared")" TERM
}

@test "-k that names a tunnel twice, in other words, grants the grace" {
	local port log tunnels=() logs=() once=() again=()
	export FAKE_MODE=slow-stop FAKE_DELAY=0.5
	for port in 8080 8081 8082 8083 8084 8085; do
		open_tunnel -v -g 600 "$port"
		tunnels+=("$pid")
		logs+=("$err")
		once+=("$port")
		again+=("https://localhost:$port")
	done
	run_tunnel -k "${once[@]}" "${again[@]}"
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" ''
	assert_quiet
	for pid in "${tunnels[@]}"; do
		assert_signal TERM
	done
	for log in "${logs[@]}"; do
		assert ended_itself "$log"
	done
}

# --- insisting ------------------------------------------------------------------------

@test "who asks again after half a second doesn't want to wait any longer" {
	local signal
	export FAKE_MODE=ignore-term
	for signal in INT TERM HUP; do
		open_tunnel -g 600 8080
		kill -s "$signal" "$pid"
		await_half_second
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		gone "$cloudflared"
	done
}

@test "a first Ctrl-C ends the wait for a tunnel that ends by itself" {
	export FAKE_MODE=ignore-term
	start_tunnel -g 600 8080 true
	await_cloudflared 1
	await_half_second
	kill -s INT "$pid"
	await_exit
	gone "$cloudflared"
	cloudflared_script <<-'END'
		echo $$ >>"$FAKE_DIR/starts"
		trap 'echo TERM >>"$FAKE_DIR/$$.signals"' TERM
		while :; do sleep 0.05; done
	END
	start_tunnel -g 600 -t 5 8080
	await_cloudflared 2
	await_half_second
	kill -s INT "$pid"
	await_exit
	gone "$cloudflared"
}

@test "a Ctrl-C ends the wait for a tunnel that -k asked to end" {
	export FAKE_MODE=ignore-term
	local tunnel stop
	open_tunnel -g 600 8080
	tunnel=$pid
	start_tunnel -k 8080
	stop=$pid
	await_half_second
	kill -s INT "$tunnel"
	await_exit "$tunnel"
	gone "$cloudflared"
	assert_exit 0 "$stop"
}

@test "a signal that comes as a tunnel begins to end by itself doesn't cut its grace" {
	# Nobody else would be quick enough on a machine that is busy.
	cloudflared_script <<-'END'
		trap 'kill -s INT "$PPID"; sleep 1; echo Metrics server stopped >&2; exit 0' TERM
		echo https://a-b-c-d.trycloudflare.com INF Registered tunnel connection >&2
		while :; do sleep 0.05; done
	END
	start_tunnel -v -g 600 8080 true
	await_exit
	assert ended_itself "$err"
}

# --- its end --------------------------------------------------------------------------

@test "-k leaves no command behind that takes longer than the grace" {
	local tunnel command since
	start_tunnel -g 0.5 8080 sh -c 'echo $$; trap "" TERM; exec sleep 600'
	tunnel=$pid
	await test -s "$out"
	command=$(<"$out")
	adopt "$command"
	await_cloudflared 1
	await_text "$XDG_RUNTIME_DIR/tunnel/localhost:8080" "$url"
	since=$SECONDS
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	# The grace, 2 s, and what a busy machine adds.
	[ $((SECONDS - since)) -le $((10 * ${TEST_SLOWNESS:-1})) ] || fail "took $((SECONDS - since)) s"
	gone "$command" || fail 'the command lives'
	gone "$tunnel" || fail 'tunnel lives'
	gone "$cloudflared" || fail 'cloudflared lives'
}

@test "-k waits for a command that ends within the grace" {
	local command
	start_tunnel -g 600 8080 sh -c 'trap "sleep 0.5; echo bye; exit" TERM; echo $$; while :; do sleep 0.05; done'
	await test -s "$out"
	command=$(head -n 1 "$out")
	local tunnel_out=$out tunnel=$pid
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	gone "$command"
	gone "$tunnel"
	assert_equal "$(tail -n 1 "$tunnel_out")" bye
}

@test "a command that ignores TERM ends with its tunnel after the grace" {
	start_tunnel -g 0.5 8080 sh -c 'echo $$; trap "" TERM; exec sleep 600'
	await test -s "$out"
	local command
	command=$(<"$out")
	adopt "$command"
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	assert_exit 1
	gone "$command" || fail 'the command lives'
}

# A cloudflared that runs as somebody else: what is set-user-ID, or sudo, makes it so.
cloudflared_of_second() {
	use_others
	cp "$(command -v setpriv)" "$others/setpriv"
	chmod 4755 "$others/setpriv"
	STAND_IN=$CLOUDFLARED
	CLOUDFLARED=$others/wrapper
	printf '#!/bin/sh\nexec "%s" --reuid=%s --regid=%s --clear-groups "%s" "$@"\n' \
		"$others/setpriv" "$second" "$second" "$STAND_IN" >"$CLOUDFLARED"
	chmod 755 "$CLOUDFLARED"
	"${as_first[@]}" "$others/setpriv" --reuid="$second" true 2>/dev/null ||
		skip 'set-user-ID has no effect here'
}

# stop_as_first GRACE: a tunnel of the first's that works is sent TERM.
stop_as_first() {
	start_program "${as_first[@]}" "$TUNNEL" -g "$1" 8080
	await_url
	await_cloudflared 1
	adopt "$cloudflared"
	kill -s TERM "$pid"
}

@test "a cloudflared that can't be signalled: said, and no wait without an end" {
	cloudflared_of_second
	stop_as_first 0.5
	await_exit
	assert_match "$(<"$err")" "tunnel: [^
]*$cloudflared"
	alive "$cloudflared" || fail 'it could be signalled, and this tests nothing'
	kill -s KILL -- "-$cloudflared"
}

@test "a cloudflared that can't be sent SIGTERM has its grace all the same" {
	cloudflared_of_second
	stop_as_first 600
	await_text "$err" "cannot send SIGTERM to cloudflared, process ${cloudflared},"
	pause 0.5
	alive "$pid" || fail 'it does not wait for cloudflared'
	kill -s TERM -- "-$cloudflared"
	assert_signal TERM
	refute_contains "$(<"$err")" SIGKILL
}

@test "a cloudflared that can't be signalled, though one of its group can: said, and no wait without an end" {
	cloudflared_of_second
	printf '#!/bin/sh\nsleep 600 &\nexec "%s" --reuid=%s "%s" "$@"\n' \
		"$others/setpriv" "$second" "$STAND_IN" >"$CLOUDFLARED"
	stop_as_first 0.5
	await_exit
	assert_contains "$(<"$err")" "cannot send SIGTERM to cloudflared, process $cloudflared"
	alive "$cloudflared" || fail 'it could be signalled, and this tests nothing'
	kill -s KILL -- "-$cloudflared"
}

@test "a cloudflared of another user that ends before the signal is sent isn't called out of reach" {
	local traced
	cloudflared_of_second
	trace_with kill:delay_enter=6000000:when=1
	start_program "${as_first[@]}" "${traced[@]}" "$TUNNEL" 8080 \
		sh -c 'trap "sleep 0.5; exit" TERM; echo ready; while :; do sleep 0.05; done'
	await_text "$out" ready
	await_cloudflared 1
	kill -s TERM "$pid"
	await held "$pid"
	kill -s KILL -- "-$cloudflared"
	await in_state Z "$cloudflared"
	await_exit
	# Nor the command, which takes its time.
	refute_contains "$(<"$err")" 'cannot send'
}

@test "a cloudflared that can't be signalled is followed by no other" {
	cloudflared_of_second
	export FAKE_MODE=udp-blocked FAKE_DELAY=0.3
	start_program "${as_first[@]}" "$TUNNEL" -g 0.5 8080
	await_cloudflared 1
	adopt "$cloudflared"
	assert_exit 1
	assert_match "$(<"$err")" "tunnel: cannot send SIGKILL to cloudflared, process ${cloudflared},[^
]*another user"
	assert_equal "$(cloudflared_starts)" "$cloudflared"
	kill -s KILL -- "-$cloudflared" 2>/dev/null || :
}

@test "-k of a tunnel whose cloudflared can't be signalled: said, and no wait without an end" {
	local tunnel
	cloudflared_of_second
	start_program "${as_first[@]}" "$TUNNEL" -g 0.5 8080
	await_url
	tunnel=$pid
	await_cloudflared 1
	adopt "$cloudflared"
	start_program "${as_first[@]}" "$TUNNEL" -k 8080
	# The port is still public.
	assert_exit 1
	assert_match "$(<"$err")" "^tunnel: [^
]*$cloudflared"
	await_exit "$tunnel"
	alive "$cloudflared" || fail 'it could be signalled, and this tests nothing'
	assert_equal "$(stop_signals "$cloudflared")" ''
	kill -s KILL -- "-$cloudflared"
}

@test "-k that may not signal a tunnel says so, and does not call it stopped" {
	use_others
	"${as_first[@]}" mkdir -m 700 "$XDG_RUNTIME_DIR/tunnel"
	# A record of first's whose tunnel second runs.
	"${as_first[@]}" touch "$XDG_RUNTIME_DIR/tunnel/localhost:8080"
	cp "$ROOT/test/helpers/lock" "$others/lock"
	start_program "$others/lock" -w "$XDG_RUNTIME_DIR/tunnel/localhost:8080"
	await test -s "$out"
	local stranger=$pid
	start_program "${as_first[@]}" "$TUNNEL" -k 8080
	assert_exit 1
	assert_match "$(<"$err")" "^tunnel: [^
]*$stranger"
	alive "$stranger"
}

# stop_in_the_nick_of_time CALL:WHAT: -k, held up there, of a tunnel that ends meanwhile and whose
# process id goes to somebody else, who lives on.
stop_in_the_nick_of_time() {
	local traced
	trace_with "$1"
	export TUNNEL
	cat >"$TMPDIR/script" <<-'END'
		# As the test's own.
		held() {
			before= after=
			IFS= read -r -d '' before <"/proc/$stop/status"
			[[ $before = *State:?t* ]] || return
			sleep 0.5
			IFS= read -r -d '' after <"/proc/$stop/status"
			[ "${after#*ctxt_switches}" = "${before#*ctxt_switches}" ]
		} 2>/dev/null
		"$TUNNEL" 8080 >"$TMPDIR/url" 2>/dev/null &
		tunnel=$!
		until [ -s "$TMPDIR/url" ]; do sleep 0.05; done
		"$@" "$TUNNEL" -k 8080 &
		stop=$!
		until held; do sleep 0.05; done
		kill -s KILL "$tunnel"
		wait "$tunnel" 2>/dev/null
		for i in {1..50}; do
			echo $((tunnel - 1)) >/proc/sys/kernel/ns_last_pid || exit 77
			sleep 600 &
			victim=$!
			[ $victim != "$tunnel" ] || break
			kill -s KILL $victim
		done
		[ $victim = "$tunnel" ] || exit 77
		held || exit 78
		wait "$stop"
		kill -s 0 "$victim" && echo lives
	END
	start_program unshare --pid --fork --mount-proc bash "$TMPDIR/script" "${traced[@]}"
	await_exit
	case $ended in
	'exit 77') skip 'process ids cannot be chosen here' ;;
	'exit 78') fail 'it was too slow for this test' ;;
	esac
	assert_equal "$1: $(tail -n 1 "$out")" "$1: lives"
	rm "$TMPDIR/url"
}

@test "-k signals nobody who has just got the process id of its tunnel" {
	need unshare
	[ "$(id -u)" = 0 ] || skip 'only root may choose process ids'
	stop_in_the_nick_of_time fcntl:delay_exit=8000000:when=1
	stop_in_the_nick_of_time kill,pidfd_open,pidfd_send_signal:delay_enter=8000000:when=1
	# After the last look whose it is.
	stop_in_the_nick_of_time kill,pidfd_send_signal:delay_enter=8000000:when=1
}

@test "-k stops a tunnel where no process can be held on to, as by Linux before 5.3" {
	open_tunnel 8080
	local tunnel=$pid
	start_traced pidfd_open:error=ENOSYS -k 8080
	assert_exit 0
	assert_quiet
	assert_signal TERM "$tunnel"
	gone "$cloudflared"
}

@test "a cloudflared that joins another process group is ended all the same" {
	local action
	need perl
	# shellcheck disable=SC2030 # as meant
	start_options=(-g)
	for action in DEFAULT IGNORE; do
		rm -f "$FAKE_DIR/starts"
		scripted "exec perl -e '
			setpgrp(0, getpgrp(getppid())) or die;
			\$SIG{TERM} = \"$action\";
			print STDERR \"https://a-b.trycloudflare.com\nINF Registered tunnel connection\n\";
			sleep 600'"
		start_tunnel -g 0.5 8080
		await_url
		await_cloudflared 1
		kill -s TERM "$pid"
		assert_signal TERM
		gone "$cloudflared"
	done
}

# --- no signal is lost ----------------------------------------------------------------

@test "a Ctrl-C that comes just before the command starts is not lost" {
	local signal
	ulimit -c 0
	start_options=(-g)
	for signal in INT QUIT; do
		rm -f "$FAKE_DIR/starts"
		# The second is the command.
		start_traced fork:delay_enter=6000000:when=2 8080 sleep 600
		await_cloudflared 1
		await held "$pid"
		kill -s "$signal" -- "-$pid"
		assert_exit $((128 + $(kill -l "$signal")))
		gone "$cloudflared"
	done
}

@test "a TERM that comes just before the command starts is not lost" {
	# The fourth is the command's, where no keeper has one.
	scripted 'echo "INF https://one.trycloudflare.com" >&2; registered'
	start_traced '/^pipe2?$:delay_enter=4000000:when=4' -t 0 8080 sleep 600
	await held "$pid"
	kill -s TERM "$pid"
	await_exit
	assert_equal "$status" 143
	none_left_behind
}

@test "-k kills a tunnel that ignores TERM, and its command with it" {
	local command
	start_options=(-i TERM)
	# shellcheck disable=SC2016 # it is for the shell
	start_tunnel -g 0 8080 sh -c 'echo $$; exec sleep 600'
	start_options=()
	await test -s "$out"
	command=$(<"$out")
	adopt "$command"
	await_cloudflared 1
	await_text "$XDG_RUNTIME_DIR/tunnel/localhost:8080" "command $command"
	local deaf=$pid
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	assert_signal KILL "$deaf"
	gone "$cloudflared" || fail 'cloudflared is still there'
	await gone "$command"
}

@test "-k stops a tunnel that it has to kill before it kills cloudflared, whose id is free once reaped" {
	start_options=(-i TERM)
	start_tunnel -g 0 8080
	start_options=()
	await_url
	await_cloudflared 1
	local deaf=$pid
	start_traced kill:delay_enter=5000000 -k 8080
	await stopped "$deaf"
	await held "$pid"
	kill -s KILL "$cloudflared"
	await in_state Z "$cloudflared"
	await stopped "$deaf"
	assert_exit 0
	assert_signal KILL "$deaf"
	gone "$cloudflared"
}

@test "what cloudflared has started as somebody else, and left: said" {
	local stranger
	need setsid
	cloudflared_of_second
	# In a session of its own.
	printf '#!/bin/sh\nsetsid "%s" --reuid=%s sleep 600 &\nexec "%s" "$@"\n' \
		"$others/setpriv" "$second" "$STAND_IN" >"$CLOUDFLARED"
	start_program "${as_first[@]}" "$TUNNEL" 8080
	await_url
	await_cloudflared 1
	await find_stranger
	adopt "$stranger"
	kill -s TERM "$pid"
	assert_signal TERM
	assert_match "$(<"$err")" "tunnel: cannot send SIGKILL to process $stranger, which [^
]*another user"
	# Once, and then it isn't waited for.
	refute_contains "$(<"$err")" 'left behind'
	alive "$stranger" || fail 'it could be signalled, and this tests nothing'
	kill -s KILL "$stranger"
}

@test "what cloudflared has started as somebody else, and left in its group: said, 2 s later" {
	local stranger victim
	cloudflared_of_second
	printf '#!/bin/sh\n"%s" --reuid=%s sleep 600 &\nexec "%s" "$@"\n' \
		"$others/setpriv" "$second" "$STAND_IN" >"$CLOUDFLARED"
	for victim in tunnel cloudflared; do
		rm -f "$FAKE_DIR/starts"
		# With a command nobody looks for more than the group.
		start_program "${as_first[@]}" "$TUNNEL" -g 600 8080 \
			sh -c 'trap "sleep 3; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
		await_text "$out" ready
		await_cloudflared 1
		await find_stranger
		adopt "$stranger"
		# Not while the command has its grace, either.
		if [ $victim = tunnel ]; then
			kill -s TERM "$pid"
			assert_exit 9
		else
			kill -s KILL "$cloudflared"
			assert_exit 1
		fi
		assert_contains "$(<"$err")" \
			"cannot end all that cloudflared has left behind (process group $cloudflared)"
		alive "$stranger" || fail 'it could be signalled, and this tests nothing'
		kill -s KILL "$stranger"
	done
}

# Sets $stranger to the child of cloudflared that second runs.
find_stranger() {
	for stranger in $(children_of "$cloudflared"); do
		! grep -q "^Uid:[[:space:]]*$second" "/proc/$stranger/status" || return 0
	done
	return 1
}
