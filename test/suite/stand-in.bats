#!/usr/bin/env bats
# The stand-in for cloudflared and the helper, without the program they serve.

# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

stand_in() {
	start_program "$CLOUDFLARED" tunnel --url http://localhost:8080
}

# Starts the stand-in in the given mode and waits for the text (default: connected).
play() {
	export FAKE_MODE=$1
	stand_in
	await_text "$err" "${2:-Registered tunnel connection}"
}

# The first tunnel URL, as a strict reader of the log finds it.
logged_url() {
	grep -aoE 'https://[a-z]+(-[a-z]+){3}\.trycloudflare\.com' "$1" | head -n 1
}

stop() {
	kill -s TERM "$pid"
	assert_exit 0
}

@test "connect: the log of the real one, a fresh host, a graceful end" {
	play connect
	assert_equal "$(logged_url "$err")" "$(cloudflared_url "$pid")"
	stop
	assert_equal "$(cat "$out")" ''
	local real
	for real in 'INF Thank you for trying Cloudflare Tunnel.' 'INF Version 2023.7.3' \
		'Settings: map[ha-connections:1 url:http://localhost:8080]' \
		'error="Get \"https://update.argotunnel.com?arch=amd64' 'event=0' \
		'Initiating graceful shutdown due to signal terminated ...' \
		'Unregistered tunnel connection' 'INF Metrics server stopped'; do
		assert_contains "$(cat "$err")" "$real"
	done
	assert_match "$(tail -n 1 "$err")" '^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z INF '
	# The box around the URL is as wide in every line.
	assert_equal "$(grep -E '[|+]$' "$err" | awk '{ print length }' | uniq | wc -l)" 1
	local first=$err
	stand_in
	await_text "$err" 'Registered'
	[ "$(logged_url "$first")" != "$(logged_url "$err")" ]
}

@test "it runs in every shell" {
	local shell
	for shell in dash 'busybox sh' bash mksh yash ksh; do
		command -v "${shell%% *}" >/dev/null || continue
		# shellcheck disable=SC2086 # a command and its argument
		start_program $shell "$CLOUDFLARED" tunnel --url http://localhost:8080
		await_text "$err" 'Registered'
		assert_equal "$(logged_url "$err")" "$(cloudflared_url "$pid")"
		stop
		assert_contains "$(cat "$err")" 'Metrics server stopped'
		assert_equal "$(grep -cv '^20' "$err")" 0
		assert_equal "$(cloudflared_signals "$pid")" TERM
	done
}

@test "it records how it was started" {
	cd "$TMPDIR"
	export NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s
	play connect
	await_cloudflared 1
	assert_equal "$cloudflared" "$pid"
	assert_equal "$(cloudflared_arguments "$pid")" $'tunnel\n--url\nhttp://localhost:8080'
	assert_contains "$(cloudflared_environment "$pid")" NO_AUTOUPDATE=true
	assert_equal "$(cat "$FAKE_DIR/$pid.cwd")" "$(pwd -P)"
	assert_contains "$(cat "$err")" 'map[grace-period:2.5s ha-connections:1 no-autoupdate:true'
	[ -d /proc/self ] || skip 'no /proc here'
	assert_equal "$(cloudflared_masks "$pid")" $'blocked 0000000\nignored 0000000'
	assert_equal "$(cloudflared_descriptors "$pid")" "0 /dev/null
1 $out
2 $err"
	kill -s 0 "$(tunnel_of "$pid")"
}

@test "slow: the URL is late" {
	FAKE_DELAY=0.3 play slow
	assert_contains "$(cat "$err")" trycloudflare.com
}

@test "late-edge: the URL first, the connection later" {
	FAKE_DELAY=86400 play late-edge 'Starting metrics server'
	logged_url "$err"
	refute_contains "$(cat "$err")" 'Registered'
	stop
	refute_contains "$(cat "$err")" 'Unregistered'
	FAKE_DELAY=0.1 play late-edge
}

@test "no-edge: a URL, never a connection" {
	play no-edge 'Starting metrics server'
	logged_url "$err"
	stop
	refute_contains "$(cat "$err")" 'egistered'
}

@test "old-edge: the words before 2022" {
	play old-edge registered
	assert_match "$(cat "$err")" 'INF Connection [0-9a-f-]{36} registered connIndex=0'
}

@test "silent: no URL, and a signal kills it" {
	play silent Requesting
	kill -s TERM "$pid"
	assert_signal TERM
	assert_equal "$(logged_url "$err")" ''
	assert_equal "$(cloudflared_signals "$pid")" TERM
}

@test "refused: what the real one says last, status 1" {
	local mode last
	while read -r mode last; do
		FAKE_MODE=$mode stand_in
		assert_exit 1
		assert_contains "$(tail -n 1 "$err")" "$last"
		assert_equal "$(logged_url "$err")" ''
	done <<-'END'
		rate-limited failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning
		rate-limited-2026 failed to unmarshal quick Tunnel: invalid character 'e' looking for
		no-network connect: network is unreachable
		no-tunnel-id failed to parse quick Tunnel ID: invalid UUID length: 0
		die-before failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel"
	END
	assert_equal "$(grep -l 'status_code="429 Too Many Requests"' "$BATS_TEST_TMPDIR"/*.err)" \
		"$BATS_TEST_TMPDIR/2.err"
}

@test "die-after, die-by-signal: the end comes by itself" {
	FAKE_STATUS=11 FAKE_MODE=die-after stand_in
	assert_exit 11
	assert_contains "$(cat "$err")" 'Registered'
	FAKE_MODE=die-by-signal stand_in
	assert_signal KILL
	FAKE_SIGNAL=QUIT FAKE_MODE=die-by-signal stand_in
	assert_signal QUIT
	assert_contains "$(cat "$err")" 'Registered'
}

@test "dies-n-times: it connects in the end" {
	export FAKE_MODE=dies-n-times FAKE_COUNT=2
	stand_in
	assert_exit 1
	stand_in
	assert_exit 1
	play dies-n-times
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 3
}

@test "ignore-term: only KILL helps" {
	start_options=(-g)
	play ignore-term
	kill -s TERM "$pid"
	await contains "$FAKE_DIR/$pid.signals" TERM
	kill -s INT "$pid"
	await contains "$FAKE_DIR/$pid.signals" INT
	assert_equal "$(cloudflared_signals "$pid")" $'TERM\nINT'
	alive "$pid"
	kill -s KILL -- "-$pid"
	assert_signal KILL
}

@test "stopped and continued it goes on" {
	play connect
	kill -s STOP "$pid"
	await stopped "$pid"
	kill -s CONT "$pid"
	await contains "$FAKE_DIR/$pid.signals" CONT
	alive "$pid"
	stop
}

@test "slow-stop: it takes its time; a second TERM doesn't" {
	FAKE_DELAY=0.2 play slow-stop
	stop
	FAKE_DELAY=86400 play slow-stop
	kill -s TERM "$pid"
	await_text "$err" Unregistered
	kill -s TERM "$pid"
	assert_signal TERM
	assert_equal "$(cloudflared_signals "$pid")" $'TERM\nTERM'
}

@test "grandchild: it outlives its parent and TERM" {
	start_options=(-g)
	play grandchild
	local grandchild
	grandchild=$(cat "$FAKE_DIR/grandchild")
	kill -s TERM -- "-$pid"
	assert_exit 0
	alive "$grandchild"
	kill -s KILL -- "-$pid"
	await gone "$grandchild"
}

@test "close-log: the pipe ends, the process stays" {
	mkfifo "$TMPDIR/log"
	start_options=(-o "$TMPDIR/log" -e "$TMPDIR/log")
	FAKE_MODE=close-log stand_in
	cat "$TMPDIR/log" >"$TMPDIR/copy" # until the end of the pipe
	logged_url "$TMPDIR/copy"
	alive "$pid"
	stop
}

@test "flood: lines without end, and still it stops" {
	play flood 'Cf-Ray":["100-'
	stop
	assert_contains "$(tail -n 1 "$err")" 'Metrics server stopped'
}

@test "endless-line: the URL after so many bytes" {
	FAKE_BYTES=300000 play endless-line
	logged_url "$err"
	[ "$(awk 'length > max { max = length } END { print max }' "$err")" -gt 300000 ]
}

@test "json: every line is an object" {
	play json
	stop
	need jq
	jq -e .message "$err" >/dev/null
	assert_contains "$(jq -r 'select(.level == "error") | .error' "$err")" 'Get "https://update'
	assert_contains "$(jq -r .message "$err")" "$(cloudflared_url "$pid")"
}

@test "bytes: one write each" {
	need strace
	start_options=(-o /dev/null)
	FAKE_MODE=bytes start_program strace -qq -e trace=write -o "$TMPDIR/trace" \
		"$CLOUDFLARED" tunnel --url http://localhost:8080
	await_text "$err" 'Registered'
	# strace lets TERM through only to itself; what it traces is the one to end.
	await_cloudflared 1
	kill -s TERM "$cloudflared"
	assert_exit 0
	assert_match "$(grep -c '^write([0-9]*, ".*", 1) *= 1' "$TMPDIR/trace")" '^[0-9]{4}$'
	assert_equal "$(grep -v 'fake\|SIG' "$TMPDIR/trace" | grep -c '^write(2, ".*", [0-9]*) *= [0-9][0-9]')" 0
}

@test "one write a line otherwise" {
	need strace
	FAKE_MODE=die-after start_program strace -qq -s 1000 -e trace=write -o "$TMPDIR/trace" \
		"$CLOUDFLARED" tunnel --url http://localhost:8080
	assert_exit 1
	assert_equal "$(grep -c '^write([0-9]*, "20[0-9]*-.*\\n", [0-9]*) = ' "$TMPDIR/trace")" "$(grep -c ^20 "$err")"
}

@test "no-newline: the URL is the very last byte" {
	play no-newline "|  https://"
	assert_match "$(tail -n 1 "$err")" "$(cloudflared_url "$pid")\$"
	assert_equal "$(tail -c 4 "$err" | od -An -c | tr -d ' \n')" .com
	stop
}

@test "look-alikes: the real one is the last" {
	play look-alikes
	assert_contains "$(cat "$err")" https://api.trycloudflare.com
	assert_contains "$(cat "$err")" https://x.trycloudflare.com.evil.example
	assert_equal "$(grep -o 'https://[^ ]*' "$err" | grep trycl | tail -n 1)" \
		"$(cloudflared_url "$pid")"
}

@test "stdout: the URL is there" {
	play stdout
	assert_equal "$(logged_url "$out")" "$(cloudflared_url "$pid")"
	assert_equal "$(logged_url "$err")" ''
}

@test "escape: it drives the terminal" {
	play escape
	LC_ALL=C grep -aq $'\033\\[31m' "$err"
	LC_ALL=C grep -aq $'\23331m' "$err"
	FAKE_STATUS=3 FAKE_MODE=escape stand_in
	assert_exit 3
}

@test "a log level hides the URL, a configuration file is loaded" {
	TUNNEL_LOGLEVEL=error play connect 'edge discovery'
	assert_equal "$(logged_url "$err")" ''
	mkdir "$HOME/.cloudflared"
	echo 'loglevel: warn' >"$HOME/.cloudflared/config.yml"
	play connect 'Unable to lookup protocol'
	assert_equal "$(logged_url "$err")" ''
	assert_equal "$(cat "$FAKE_DIR/$pid.config")" "$HOME/.cloudflared/config.yml"
	start_program "$CLOUDFLARED" tunnel --url http://localhost:8080 --config /dev/null
	await_text "$err" 'Registered'
	assert_contains "$(cat "$err")" 'ERR Configuration file /dev/null was empty'
	[ ! -e "$FAKE_DIR/$pid.config" ]
}

@test "it refuses what the real one wouldn't understand" {
	start_program "$CLOUDFLARED" tunnel --uri http://localhost:8080
	assert_exit 1
	assert_contains "$(cat "$err")" 'Incorrect Usage'
	FAKE_MODE=nonsense stand_in
	assert_exit 2
	start_program "$CLOUDFLARED" -h
	assert_exit 0
	assert_contains "$(cat "$out")" look-alikes
	# Every mode it plays is one it lists.
	local mode
	# shellcheck disable=SC2016 # the pattern is not to be expanded
	for mode in $(sed -n '/^case \$mode in/,/^esac/s/^\([a-z].*\))$/\1/p' "$CLOUDFLARED" | tr -d '|'); do
		assert_match "$(cat "$out")" " $mode  "
	done
}

@test "flood, the compiled one" {
	FLOOD_BYTES=2M start_program "$ROOT/test/helpers/flood" tunnel --url http://localhost:8080
	await_text "$err" 'Registered'
	[ "$(wc -c <"$err")" -gt 2097152 ]
	assert_match "$(cat "$FAKE_DIR/$pid.flooded")" '^[0-9]+$'
	stop
	FLOOD_LINE=1 FLOOD_BYTES=100K start_program "$ROOT/test/helpers/flood" tunnel --url http://localhost:8080
	await_text "$err" 'Registered'
	[ "$(head -n 1 "$err" | wc -c)" -gt 102400 ]
}

@test "ports: free ones refuse, served ones answer, full ones hang" {
	free_port
	local free=$port
	! (: <"/dev/tcp/127.0.0.1/$free") 2>/dev/null || fail "port $free answers"
	serve
	: <"/dev/tcp/127.0.0.1/$port"
	serve -p "$free"
	assert_equal "$port" "$free"
	: <"/dev/tcp/127.0.0.1/$free"
	serve -b
	start_program bash -c ": <'/dev/tcp/127.0.0.1/$port'"
	[ -r /proc/net/tcp ] || skip 'no /proc/net/tcp here'
	# State 02 is SYN_SENT: it waits for an answer.
	await grep -q "0100007F:$(printf %04X "$port") 02 " /proc/net/tcp
	alive "$pid"
}

@test "start: closed descriptors, ignored and blocked signals, few files" {
	[ -r /proc/self/status ] || skip 'no /proc here'
	start_options=(-i INT -b TERM -n 4)
	start_program grep -E '^Sig(Blk|Ign)' /proc/self/status
	assert_exit 0
	# Above 31 the real-time signals begin, which are the C library's.
	assert_equal "$(sed 's/\t.*\(.......\)$/ \1/' "$out")" "SigBlk: 0004000
SigIgn: 0000002"
	start_options=(-c 0 -n 10)
	start_program sh -c 'ulimit -n; [ ! -e /proc/self/fd/0 ]'
	assert_exit 0
	assert_equal "$(cat "$out")" 10
	start_options=()
	start_program sh -c 'ls /proc/$$/fd | tr "\n" " "'
	assert_exit 0
	assert_match "$(cat "$out")" '^0 1 (10 )?2 '
}

@test "what a test leaves behind makes it fail" {
	mkdir "$TMPDIR/inner"
	# bats would take @test at the start of a line here for one of this file's.
	sed "s/^TEST/@test/" >"$TMPDIR/inner/leak.bats" <<-END
		source '$ROOT/test/suite/helper.bash'
		TEST "leaves a process behind" {
			sleep 600 >/dev/null 2>&1 3>&- &
		}
		TEST "leaves nothing behind" {
			start_program sleep 600
		}
		TEST "waits in vain" {
			await -t 0 false
		}
	END
	run bats --tap "$TMPDIR/inner/leak.bats"
	assert_equal "$status" 1
	assert_contains "$output" 'not ok 1 leaves a process behind'
	assert_contains "$output" 'left behind: '
	assert_contains "$output" 'sleep 600'
	assert_contains "$output" 'ok 2 leaves nothing behind'
	assert_contains "$output" 'not ok 3 waits in vain'
	assert_contains "$output" 'waited in vain for: false'
}
