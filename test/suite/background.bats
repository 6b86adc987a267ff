#!/usr/bin/env bats
# tunnel -b: what it leaves in the background, what it lets go of, how it fails.

# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

stop() {
	run_tunnel -k "$@"
	assert_equal "$ended: $output$errors" 'exit 0: '
}

# Nothing of the tunnel of port 8080 is left, now and not only soon. Looks at the last COUNT
# cloudflareds, or all: the process id of one that is long gone may be somebody else's.
# assert_nothing_left [COUNT]
assert_nothing_left() {
	local id
	for id in $(cloudflared_starts | tail -n "${1:-100}"); do
		gone "$id" || fail "cloudflared $id is still there"
	done
	if holder localhost:8080; then
		fail 'a tunnel is still there'
	fi
}

# start_many N: -b N times; their files go to outs, their ids to pids.
start_many() {
	local i
	outs=()
	pids=()
	for ((i = 0; i < $1; i++)); do
		start_tunnel -b 8080
		outs+=("$out")
		pids+=("$pid")
	done
}

# --- in the background ----------------------------------------------------------------

@test "-b prints the URL, exits 0, and the tunnel stays up" {
	serve
	run_tunnel -b "$port"
	assert_equal "$ended" 'exit 0'
	assert_quiet
	await_cloudflared 1
	assert_equal "$output" "$(cloudflared_url "$cloudflared")"
	local background
	background=$(tunnel_of "$cloudflared")
	assert_equal "$("$TUNNEL" -l "$port" | cut -f 1-3)" \
		"$(printf 'localhost:%s\t%s\t%s' "$port" "$output" "$background")"
	assert_equal "$(holder "localhost:$port")" "$background"
	alive "$cloudflared"
	stop "$port"
	gone "$background"
}

@test "the background is a session of its own, in /, on the null device" {
	[ -d /proc/self/fd ] || skip 'no /proc here'
	local fields ours file id
	cd "$TMPDIR"
	start_background 8080
	await_cloudflared 1
	read -r ours </proc/$$/stat
	read -r fields <"/proc/$background/stat"
	# shellcheck disable=SC2086 # one field each
	set -- ${fields##*) }
	local session=$4 terminal=$5
	# shellcheck disable=SC2086 # one field each
	set -- ${ours##*) }
	[ "$session" != "$4" ] || fail 'it is in the session of its caller'
	assert_equal "$terminal" 0
	alive "$background"
	for id in "$background" "$cloudflared"; do
		assert_equal "$(readlink "/proc/$id/cwd")" /
	done
	for file in 0 1 2; do
		assert_equal "$(readlink "/proc/$background/fd/$file")" /dev/null
	done
	refute_contains "$(readlink "/proc/$background/fd"/*)" "$CLOUDFLARED"
	assert_equal "$(cat "$FAKE_DIR/$cloudflared.cwd")" /
	assert_equal "$(cloudflared_descriptors "$cloudflared" | head -n 1)" '0 /dev/null'
	assert_match "$(cloudflared_descriptors "$cloudflared" | tail -n +2)" \
		'^1 (pipe:\[[0-9]*\])
2 pipe:\[[0-9]*\]$'
	assert_equal "$(cloudflared_masks "$cloudflared")" $'blocked 0000000\nignored 0000000'
	kill -s TERM "$background"
	await gone "$background"
	assert_nothing_left
}

@test "tunnel -b 8080 2>&1 | cat ends, with -v, too" {
	local options
	for options in -b -bv -bj -br; do
		# shellcheck disable=SC2016 # the inner shell's
		start_program bash -c '"$@" 2>&1 | cat' - "$TUNNEL" "$options" 8080
		assert_exit 0
		url=$(grep -o 'https://[a-z-]*\.trycloudflare\.com' "$out" | tail -n 1)
		run_tunnel -l 8080
		assert_equal "$options: $ended" "$options: exit 0"
		assert_contains "$output" "$url"
		stop 8080
	done
	assert_nothing_left
}

@test "-b lets go of inherited descriptors: a lock, a pipe" {
	local fd
	need flock
	cd "$TMPDIR"
	# shellcheck disable=SC2016 # the inner shell's
	start_program bash -c 'exec 9>lock 630>other; flock 9; flock 630; "$1" -b 8080 7>&1 >url | cat' \
		- "$TUNNEL"
	assert_exit 0
	assert_match "$(cat url)" '^https://[a-z-]*\.trycloudflare\.com$'
	flock -n lock true || fail 'the lock is still held'
	flock -n other true || fail 'the other lock is still held'
	stop 8080
	# These numbers it would have taken itself.
	# shellcheck disable=SC2016 # the inner shell's
	start_program bash -c 'exec 3>lock3 4>lock4 5>lock5; flock 3; flock 4; flock 5; exec "$1" -b 8080' \
		- "$TUNNEL"
	assert_exit 0
	await_url
	for fd in 3 4 5; do
		flock -n "lock$fd" true || fail "the lock of descriptor $fd is still held"
	done
	if [ -d /proc/self/fd ]; then
		background=$(holder localhost:8080)
		for fd in 0 1 2; do
			assert_equal "$(readlink "/proc/$background/fd/$fd")" /dev/null
		done
	fi
	stop 8080
}

@test "-b with its standard descriptors closed" {
	local fd
	for fd in 0 2; do
		start_options=(-c "$fd")
		start_background 8080
		assert_match "$url" '^https://[a-z-]*\.trycloudflare\.com$'
		start_options=()
		stop 8080
	done
	start_options=(-c 0 -c 1 -c 2)
	run_tunnel -b 8080
	assert_equal "$ended" 'exit 1'
	assert_nothing_left
}

@test "-b started with signals ignored and blocked" {
	start_options=(-i CHLD -b TERM -b CHLD)
	start_background 8080
	start_options=()
	stop 8080
	assert_nothing_left
}

# --- failing --------------------------------------------------------------------------

@test "-b fails with the same messages and status as the foreground" {
	printf '#!/bin/sh\n' >"$TMPDIR/file" # nobody may execute it
	free_port
	local mode arguments expected foreground
	while read -r mode expected arguments; do
		export FAKE_MODE=$mode
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$arguments: $ended" "$arguments: exit $expected"
		foreground=$(grep ^tunnel: "$err")
		# shellcheck disable=SC2086 # one word each
		run_tunnel -b $arguments
		assert_equal "$arguments: $ended" "$arguments: exit $expected"
		assert_equal "$output" ''
		# How far the log is, of which it prints the last lines, is chance; and what is to
		# be typed instead has the -b.
		assert_equal "$(grep ^tunnel: "$err" | sed 's/type tunnel -b /type tunnel /')" \
			"$foreground"
		if holder "localhost:$port"; then
			fail "$arguments: a tunnel is still there"
		fi
	done <<-END
		silent 124 -t 3 $port
		connect 127 -c $TMPDIR/missing $port
		connect 126 -c $TMPDIR/file $port
		rate-limited-2026 1 $port
		no-network 1 -j $port
		connect 2 -t x $port
		connect 2 65536
		connect 2 $port -v
	END
}

@test "-b that fails, and nobody is left to be told, exits all the same" {
	mkfifo "$TMPDIR/left"
	mkdir -m 755 "$XDG_RUNTIME_DIR/tunnel"
	# shellcheck disable=SC2016 # it is for the shell
	start_program bash -c 'exec 7<>"$0" 9>"$0" 7<&-; exec "$@" 2>&9 9>&-' \
		"$TMPDIR/left" "$TUNNEL" -b 8080
	assert_exit 1
}

@test "interrupting the waiting -b stops the start" {
	export FAKE_MODE=silent
	local signal starts=0
	for signal in INT TERM HUP QUIT; do
		start_tunnel -b 8080
		await_cloudflared $((starts += 1))
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		assert_equal "$(cat "$out")" ''
		gone "$cloudflared" || fail "$signal: cloudflared is still there"
		await ! holder localhost:8080
	done
}

@test "interrupting -b just before it waits stops the start, too" {
	FAKE_MODE=silent start_traced fork:delay_exit=10000000:when=1 -b -t 0 8080
	await_cloudflared 1
	await held "$pid"
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "interrupting -b when the URL is just out stops the tunnel, too" {
	start_traced fork:delay_exit=8000000:when=1 -b 8080
	await test -s "$out"
	await_cloudflared 1
	await held "$pid"
	kill -s INT "$pid"
	assert_signal INT
	gone "$cloudflared"
}

@test "interrupting -b twice when the URL is just out kills a stubborn cloudflared" {
	FAKE_MODE=ignore-term start_traced fork:delay_exit=8000000:when=1 -b -g 600 8080
	await test -s "$out"
	await_cloudflared 1
	await held "$pid"
	kill -s INT "$pid"
	await_text "$FAKE_DIR/$cloudflared.signals" TERM
	pause 0.6
	kill -s INT "$pid"
	assert_signal INT
	gone "$cloudflared"
}

@test "interrupting the waiting -b stops a tunnel that was stopped by itself" {
	local tunnel
	FAKE_MODE=silent start_tunnel -b -t 0 8080
	await_cloudflared 1
	tunnel=$(tunnel_of "$cloudflared")
	kill -s STOP "$tunnel"
	await stopped "$tunnel"
	kill -s INT "$pid"
	assert_signal INT
	gone "$cloudflared"
}

@test "interrupting the waiting -b stops a cloudflared that ignores TERM" {
	free_port
	FAKE_MODE=grandchild start_tunnel -bw -g 0.2 -t 0 "$port"
	await_cloudflared 1
	await test -s "$FAKE_DIR/grandchild"
	kill -s INT "$pid"
	assert_signal INT
	gone "$(cat "$FAKE_DIR/grandchild")" || fail 'a straggler is still there'
	gone "$cloudflared" || fail 'cloudflared is still there'
}

@test "Ctrl-Z doesn't stop the waiting -b" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'next; echo "$word" >&2; registered'
	start_tunnel -b 8080
	await_cloudflared 1
	# Nor does another one, once the first has had its effect.
	kill -s TSTP "$pid"
	pause 0.5
	kill -s TSTP "$pid"
	pause 0.5
	next https://amber-apple.trycloudflare.com
	assert_exit 0
	stop 8080
}

@test "killing the waiting -b stops the start" {
	FAKE_MODE=silent start_tunnel -b 8080
	await_cloudflared 1
	kill -s KILL "$pid"
	assert_signal KILL
	await gone "$cloudflared"
	await ! holder localhost:8080
	start_background 8080
	stop 8080
}

@test "killing the waiting -b while the server is looked for stops the start" {
	local traced
	serve
	scripted 'next; echo "INF https://one.trycloudflare.com" >&2; registered'
	trace_with connect:delay_enter=5000000
	start_program "${traced[@]}" -f "$TUNNEL" -bvw -t 0 "$port"
	await_cloudflared 1
	next
	await_text "$err" Registered
	kill -s KILL "$pid"
	assert_signal KILL
	await gone "$cloudflared"
	await ! holder "localhost:$port"
}

@test "-b that can't print the URL exits 1 and leaves nothing" {
	local options
	for options in '-o /dev/full' '-c 1'; do
		# shellcheck disable=SC2206 # one word each
		start_options=($options)
		run_tunnel -b 8080
		assert_equal "$options: $ended" "$options: exit 1"
		assert_match "$errors" 'tunnel: .*standard output'
		start_options=()
		assert_nothing_left
	done
}

@test "-b that can't print the URL of a running tunnel exits 1; that one lives on" {
	start_background 8080
	start_options=(-o /dev/full)
	run_tunnel -b 8080
	start_options=()
	assert_equal "$ended" 'exit 1'
	assert_match "$errors" 'tunnel: .*standard output'
	alive "$background"
	assert_equal "$("$TUNNEL" -l | cut -f 2)" "$url"
	stop 8080
}

# --- one tunnel -----------------------------------------------------------------------

@test "-b while a tunnel runs prints its URL and exits 0" {
	start_tunnel 8080
	await_url
	local foreground=$pid origin
	for origin in 8080 https://localhost:8080; do
		run_tunnel -b "$origin"
		assert_equal "$ended: $output" "exit 0: $url"
		assert_quiet
	done
	assert_equal "$(cloudflared_starts | wc -l)" 1
	stop 8080
	assert_signal TERM "$foreground"
	serve
	start_background "$port"
	run_tunnel -bw "$port"
	assert_equal "$ended: $output" "exit 0: $url"
	stop "$port"
	assert_equal "$(cloudflared_starts | wc -l)" 2
}

@test "-bw while a tunnel runs waits for its server, which it names if it is missing" {
	free_port
	start_background "$port"
	run_tunnel -bw -t 0.3 "$port"
	assert_equal "$ended: $output" 'exit 124: '
	assert_contains "$errors" listening
	start_tunnel -bw "$port"
	local waiting=$pid waiting_out=$out
	serve -p "$port"
	assert_exit 0 "$waiting"
	assert_equal "$(<"$waiting_out")" "$url"
	assert_equal "$(cloudflared_starts | wc -l)" 1
	stop "$port"
}

@test "-b while a tunnel has a URL but no edge waits for that, or takes it with -n" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo https://amber-apple.trycloudflare.com >&2; next; registered'
	start_tunnel -n 8080
	await_url
	run_tunnel -b -t 0.3 8080
	assert_equal "$ended: $output" 'exit 124: '
	assert_contains "$errors" edge
	run_tunnel -bn 8080
	assert_equal "$ended: $output" 'exit 0: https://amber-apple.trycloudflare.com'
	start_tunnel -b 8080
	alive "$pid"
	next
	assert_exit 0
	assert_equal "$(<"$out")" https://amber-apple.trycloudflare.com
	assert_equal "$(cloudflared_starts | wc -l)" 1
	stop 8080
}

@test "-b while a tunnel starts waits for it" {
	FAKE_MODE=slow start_tunnel 8080
	await_cloudflared 1
	local first=$out foreground=$pid
	run_tunnel -b 8080
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" "$(cat "$first")"
	assert_match "$output" '^https://[a-z-]*\.trycloudflare\.com$'
	stop 8080
	assert_signal TERM "$foreground"
	export FAKE_MODE=slow
	start_many 2
	await_exit "${pids[0]}"
	await_exit "${pids[1]}"
	assert_match "$(cat "${outs[0]}")" '^https://[a-z-]*\.trycloudflare\.com$'
	assert_equal "$(cat "${outs[0]}")" "$(cat "${outs[1]}")"
	assert_equal "$(cloudflared_starts | wc -l)" 2
	stop 8080
}

@test "-b that waits for another's start takes no URL from a tunnel that dies before it works" {
	local other
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo https://dead-apple.trycloudflare.com >&2; next; exit 3'
	start_tunnel -v -t 0 8080
	other=$pid
	await_text "$err" dead-apple
	CLOUDFLARED=$ROOT/fake-cloudflared.sh start_tunnel -b 8080
	await has_a_child "$pid"
	next
	assert_exit 1 "$other"
	assert_exit 0
	await_cloudflared 2
	assert_equal "$(<"$out")" "$(cloudflared_url "$cloudflared")"
	stop 8080
}

# The one that waits for -b's URL.
has_a_child() {
	[ -n "$(children_of "$1")" ]
}

@test "-b that waits for another's start: deadline and signals are its own" {
	FAKE_MODE=silent start_tunnel -t 0 8080
	await_cloudflared 1
	local foreground=$pid
	run_tunnel -b -t 0.2 8080
	assert_equal "$ended" 'exit 124'
	assert_match "$errors" '^tunnel: '
	start_tunnel -b -t 0 8080
	kill -s TERM "$pid"
	assert_signal TERM
	alive "$foreground"
	alive "$cloudflared"
	assert_equal "$(cloudflared_starts | wc -l)" 1
	assert_equal "$(holder localhost:8080)" "$foreground"
}

@test "-b whose tunnel in the making fails takes over, or fails as cleanly" {
	local signal
	for signal in TERM KILL; do
		FAKE_MODE=silent start_tunnel -t 0 8080
		local first=$pid
		await_cloudflared 1
		start_tunnel -b 8080
		await in_state S "$pid"
		kill -s "$signal" "$first"
		await_exit
		if [ "$status" = 0 ]; then
			assert_equal "$("$TUNNEL" -l | cut -f 2)" "$(cat "$out")"
			stop 8080
		else
			assert_match "$(cat "$err")" 'tunnel: '
		fi
		assert_nothing_left
		rm "$FAKE_DIR/starts"
	done
}

@test "twenty -b at once: one cloudflared, twenty equal URLs, twenty zeros" {
	start_many 20
	for pid in "${pids[@]}"; do
		assert_exit 0
	done
	assert_equal "$(cloudflared_starts | wc -l)" 1
	assert_equal "$(cat "${outs[@]}" | wc -l)" 20
	assert_equal "$(sort -u "${outs[@]}")" "$(cloudflared_url "$(cloudflared_starts)")"
	stop 8080
	assert_nothing_left
}

@test "twenty starts and stops in a row leave nothing" {
	local i urls
	for i in {1..20}; do
		run_tunnel -b 8080
		assert_equal "$i: $ended" "$i: exit 0"
		urls+=$output$'\n'
		stop 8080
		assert_nothing_left 1
	done
	assert_equal "$(printf %s "$urls" | sort -u | wc -l)" 20
	assert_equal "$(cloudflared_starts | sort -u | wc -l)" 20
}

# --- with -w and -r -------------------------------------------------------------------

@test "-bw prints the URL only once the server listens" {
	free_port
	FAKE_MODE=connect start_tunnel -bw "$port"
	local waiting=$pid
	await_cloudflared 1
	serve -p "$port"
	assert_exit 0 "$waiting"
	assert_equal "$(cat "$out")" "$(cloudflared_url "$cloudflared")"
	stop "$port"
}

@test "-bw names what was missing: the server, the edge" {
	free_port
	start_tunnel -bw -t 5 "$port"
	local first=$pid serverless=$err
	serve
	FAKE_MODE=no-edge run_tunnel -bw -t 5 "$port"
	assert_equal "$ended: $output" 'exit 124: '
	assert_contains "$errors" edge
	refute_contains "$errors" 'nothing is listening'
	assert_exit 124 "$first"
	assert_contains "$(cat "$serverless")" 'nothing is listening'
	refute_contains "$(cat "$serverless")" edge
	assert_nothing_left
}

@test "-br with a relative -c restarts, and -l and -b have the new URL" {
	mkdir "$TMPDIR/bin"
	# The second start is silent for as long as there is a file that says so.
	cat >"$TMPDIR/bin/cloudflared" <<-END
		#!/bin/sh
		if [ -e '$TMPDIR/be-silent' ]; then
			export FAKE_MODE=silent
		fi
		exec '$CLOUDFLARED' "\$@"
	END
	chmod +x "$TMPDIR/bin/cloudflared"
	cd "$TMPDIR"
	start_background -r -c bin/cloudflared 8080
	local first=$url
	touch be-silent
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	# Between two lives it has no URL, and it isn't somebody else's turn.
	assert_equal "$(holder localhost:8080)" "$background"
	run_tunnel -l
	assert_equal "$output" ''
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	start_tunnel -b 8080
	rm be-silent
	kill -s KILL "$cloudflared"
	assert_exit 0
	await_cloudflared 3
	url=$(cloudflared_url "$cloudflared")
	assert_equal "$(cat "$out")" "$url"
	[ "$url" != "$first" ]
	assert_equal "$("$TUNNEL" -l | cut -f 2,3)" "$(printf '%s\t%s' "$url" "$background")"
	stop 8080
	gone "$background"
	assert_nothing_left
}

@test "-br whose first start fails prints the URL of the second" {
	FAKE_MODE=dies-n-times start_background -r 8080
	await_cloudflared 2
	assert_equal "$url" "$(cloudflared_url "$cloudflared")"
	stop 8080
	assert_nothing_left
}

@test "-k while -br waits to restart" {
	FAKE_MODE=die-before start_tunnel -br 8080
	local waiting=$pid
	await_text "$err" 'status 1'
	stop 8080
	await_exit "$waiting"
	[ "$status" -ne 0 ] || fail '-b succeeded'
	assert_nothing_left
}
