#!/usr/bin/env bats
# The stand-in for cloudflared and the helper, without the program they serve.
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

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

# What differs between two runs of the same made neutral.
neutral() {
	sed -E -e 's/20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z/TIME/g' \
		-e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/ID/g' \
		-e 's/[a-z]+(-[a-z]+){3}\.trycloudflare\.com *\|/HOST |/' \
		-e 's|127\.0\.0\.1:[0-9]+/metrics|METRICS|' "$1"
}

# The checksum is cksum's of what the real one wrote to standard error (2023.7.3 and
# 2026.8.2, with NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s in its environment), made
# neutral in the same way, up to where an optional script for sed cuts both.
assert_real_log() {
	local log
	log=$(neutral "$err" | sed "${2-}")
	[ "$(cksum <<<"$log")" = "$1" ] || fail "not what the real one logs, which has the checksum $1:
$log
$(cksum <<<"$log")"
}

# The same as a page: neutral, without the time, cut to a width that fits in here.
assert_log() {
	assert_equal "$(neutral "$err" | sed -E 's/^TIME //' | cut -c 1-60 | sed 's/ *$//')" "$(cat)"
}

# Starts it in the mode, which ends by itself, with the status.
ends() {
	FAKE_MODE=$1 stand_in
	assert_exit "$2"
}

# Says what a driven one is to do, an event an argument, and waits until it has.
drive() {
	local event played
	# The stand-in makes it as well, perhaps just now.
	mkfifo "$FAKE_DIR/control" 2>/dev/null || [ -p "$FAKE_DIR/control" ]
	exec 8<>"$FAKE_DIR/control"
	for event; do
		played=$(times_played)
		echo "$event" >&8
		await played_more_than "$played"
	done
}

times_played() {
	if [ -e "$FAKE_DIR/$pid.played" ]; then
		wc -l <"$FAKE_DIR/$pid.played"
	else
		echo 0
	fi
}

played_more_than() {
	[ "$(times_played)" -gt "$1" ]
}

@test "connect: the log of the real one, a fresh host, a graceful end" {
	export NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s
	play connect
	assert_equal "$(logged_url "$err")" "$(cloudflared_url "$pid")"
	assert_equal "$(cat "$FAKE_DIR/$pid.service")" http://localhost:8080
	stop
	assert_equal "$(cat "$out")" ''
	assert_real_log '3089909038 5793'
	assert_match "$(tail -n 1 "$err")" '^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z INF '
	# The box around the URL is as wide in every line.
	assert_equal "$(sed 15q "$err" | grep -E '[|+]$' | awk '{ print length }' | uniq | wc -l)" 1
	local first=$err
	stand_in
	await_text "$err" 'Registered'
	[ "$(logged_url "$first")" != "$(logged_url "$err")" ]
}

@test "without the pre-checks the log is short, and this is all of it" {
	export NO_AUTOUPDATE=true TUNNEL_NO_PRECHECKS=true
	play connect
	stop
	assert_log <<-'END'
		INF Thank you for trying Cloudflare Tunnel. Doing so, withou
		INF Requesting new quick Tunnel on trycloudflare.com...
		INF +-------------------------------------------------------
		INF |  Your quick Tunnel has been created! Visit it at (it m
		INF |  https://HOST |
		INF +-------------------------------------------------------
		INF Cannot determine default configuration path. No file [co
		INF Version 2026.8.2 (Checksum 9bb7b05eef6b065cd424fb6141906
		INF GOOS: linux, GOVersion: go1.26.10, GoArch: amd64
		INF Settings: map[ha-connections:1 protocol:quic url:http://
		INF Environmental variables map[TUNNEL_NO_PRECHECKS:true]
		INF Generated Connector ID: ID
		INF Initial protocol quic
		INF ICMP proxy will use 0.0.0.0 as source for IPv4
		INF ICMP proxy will use ::1 in zone lo as source for IPv6
		WRN The user running cloudflared process has a GID (group ID
		WRN ICMP proxy feature is disabled error="cannot create ICMP
		INF ICMP proxy will use 0.0.0.0 as source for IPv4
		INF ICMP proxy will use ::1 in zone lo as source for IPv6
		INF Starting metrics server on METRICS
		INF Tunnel connection curve preferences: [X25519MLKEM768 Cur
		INF Registered tunnel connection connIndex=0 connection=ID e
		INF Initiating graceful shutdown due to signal terminated ..
		INF Unregistered tunnel connection connIndex=0 event=0 ip=19
		ERR failed to run the datagram handler error="context cancel
		ERR failed to serve tunnel connection error="accept stream l
		ERR Serve tunnel error error="accept stream listener encount
		INF Retrying connection in up to 1s connIndex=0 event=0 ip=1
		ERR Connection terminated connIndex=0
		ERR no more connections active and exiting
		INF Tunnel server stopped
		INF Metrics server stopped
	END
}

@test "connect over HTTP/2: the log of the real one" {
	export NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s TUNNEL_TRANSPORT_PROTOCOL=http2
	play connect
	stop
	assert_real_log '3475900762 5440'
}

@test "connect in 2023: the log of the real one" {
	export NO_AUTOUPDATE=true FAKE_VERSION=2023
	play connect
	stop
	assert_real_log '487252563 2798'
	FAKE_VERSION=2020 ends connect 2
	assert_contains "$(cat "$err")" 'no such FAKE_VERSION: 2020'
}

@test "it runs in every shell" {
	local shell
	export FAKE_MODE=driven NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s
	for shell in dash 'busybox sh' bash mksh yash ksh zsh; do
		command -v "${shell%% *}" >/dev/null || continue
		# shellcheck disable=SC2086 # a command and its argument
		start_program $shell "$CLOUDFLARED" tunnel --url http://localhost:8080
		drive url register
		assert_equal "$(logged_url "$err")" "$(cloudflared_url "$pid")"
		stop
		assert_real_log '3089909038 5793'
		assert_equal "$(cloudflared_signals "$pid")" TERM
		# shellcheck disable=SC2086 # a command and its argument
		FAKE_MODE=captive-portal TUNNEL_LOG_OUTPUT=json \
			start_program $shell "$CLOUDFLARED" tunnel --url http://localhost:8080
		assert_exit 1
		assert_contains "$(tail -n 2 "$err" | head -n 1)" \
			'response: \u003c!DOCTYPE html\u003e\n\u003chtml\u003e\n'
		# shellcheck disable=SC2086 # a command and its argument
		TUNNEL_GRACE_PERIOD=1m2.5 \
			start_program $shell "$CLOUDFLARED" tunnel --url http://localhost:8080
		assert_exit 0
		assert_quiet
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
	refute_contains "$(cat "$err")" 'Autoupdate frequency'
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

@test "no-edge: a URL, never a connection, the log of the real one" {
	export NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s FAKE_DELAY=0.1
	play no-edge 'in up to 4s'
	logged_url "$err"
	stop
	refute_contains "$(cat "$err")" 'egistered'
	assert_equal "$(tail -n 3 "$err" | cut -d ' ' -f 3-)" \
		$'Initiating graceful shutdown due to signal terminated ...\nTunnel server stopped\nMetrics server stopped'
	assert_real_log '1909930792 6289' '/up to 4s/{n;q;}'
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

@test "refused: the log of the real one, status 1" {
	local version mode checksum
	export NO_AUTOUPDATE=true FAKE_DELAY=0.1
	while read -r version mode checksum; do
		FAKE_VERSION=$version ends "$mode" 1
		assert_real_log "$checksum"
		assert_equal "$(logged_url "$err")" ''
	done <<-'END'
		2023 rate-limited 4001663350 531
		2023 rate-limited-2026 1686059368 899
		2026 rate-limited 1686059368 899
		2026 rate-limited-2026 1686059368 899
		2023 no-network 1749720996 634
		2026 no-network 353322185 837
		2023 no-tunnel-id 4249428495 500
		2026 no-tunnel-id 4143187715 703
		2026 no-dns 271269338 793
		2026 api-refused 83229208 781
		2026 api-hang 3910658219 799
		2026 die-before 3910658219 799
		2026 api-500 414985525 902
	END
}

@test "refused: what no log was at hand for, status 1" {
	local version mode last
	while read -r version mode last; do
		FAKE_VERSION=$version ends "$mode" 1
		assert_contains "$(tail -n 1 "$err")" "$last"
		assert_equal "$(logged_url "$err")" ''
	done <<-'END'
		2026 dns-timeout 192.0.2.53:53: i/o timeout
		2026 certificate tunnel": tls: failed to verify certificate: x509: certificate signed by unknown authority
		2023 certificate tunnel": x509: certificate signed by unknown authority
		2026 clock tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time
		2026 api-fails Post "https://api.trycloudflare.com/tunnel": EOF
		2023 captive-portal failed to unmarshal quick Tunnel: invalid character '<' looking for beginning of value
		2026 captive-portal failed to unmarshal quick Tunnel: invalid character '<' looking for beginning of value
	END
	assert_contains "$(cat "$err")" 'ERR Error unmarshaling QuickTunnel response: <!DOCTYPE html>
<html>'
	assert_contains "$(cat "$err")" "</html>
 error=\"invalid character '<' looking for beginning of value\" status_code=\"200 OK\""
	FAKE_REASON='net/http: TLS handshake timeout' ends api-fails 1
	assert_match "$(cat "$err")" 'tunnel": net/http: TLS handshake timeout$'
}

@test "api-hang: it waits until it gives up, or a signal kills it" {
	FAKE_DELAY=86400 play api-hang Requesting
	alive "$pid"
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "udp-blocked: QUIC fails again and again, HTTP/2 connects" {
	export NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s FAKE_DELAY=0.1
	play udp-blocked 'in up to 16s'
	stop
	refute_contains "$(cat "$err")" 'egistered'
	assert_real_log '1134807336 5981' '/up to 4s/{n;q;}'
	assert_equal "$(grep -o 'in up to .*s ' "$err" | head -n 4 | tr -d '\n')" \
		'in up to 2s in up to 4s in up to 8s in up to 16s '
	FAKE_VERSION=2023 play udp-blocked 'Failed to create new quic connection'
	stop
	TUNNEL_TRANSPORT_PROTOCOL=http2 play udp-blocked
	assert_contains "$(tail -n 1 "$err")" protocol=http2
	TUNNEL_TRANSPORT_PROTOCOL=http2 play no-edge 'Unable to establish connection with Cloudflare edge'
}

@test "no-edge in 2023: the log of the real one" {
	FAKE_DELAY=0.1 FAKE_VERSION=2023 play no-edge 'Failed to create'
	assert_real_log '2018200064 2579' /Failed/q
}

@test "edge-refuses: never registered, the log of the real one" {
	export NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s
	play edge-refuses 'in up to 8s'
	assert_real_log '777257328 6513' '/up to 8s/q'
	TUNNEL_TRANSPORT_PROTOCOL=http2 play edge-refuses 'in up to 4s'
	assert_contains "$(cat "$err")" 'ERR Register tunnel error from server side error="Unauthorized: '
}

# The words of what comes after the connection.
after_registration() {
	neutral "$err" | sed -e '1,/ Registered /d' -e 's/^TIME //' -e 's/ connIndex.*//'
}

@test "edge-lost: connected, then lost for good" {
	export FAKE_DELAY=0.1
	play edge-lost 'curve preferences: [X25519MLKEM768 CurveID(65074) CurveP256] connIndex=0'
	await_text "$err" 'Retrying connection in up to 1s'
	stop
	assert_equal "$(after_registration | head -n 6)" 'INF Unregistered tunnel connection
ERR failed to accept incoming stream requests error="failed to accept QUIC stream: timeout: no recent network activity"
ERR failed to run the datagram handler error="timeout: no recent network activity"
ERR failed to serve tunnel connection error="accept stream listener encountered a failure while serving"
ERR Serve tunnel error error="accept stream listener encountered a failure while serving"
INF Retrying connection in up to 1s'
	# It has nothing to unregister any more.
	assert_equal "$(grep -c Unregistered "$err")" 1
	TUNNEL_TRANSPORT_PROTOCOL=http2 play edge-lost 'Connection terminated'
	assert_equal "$(after_registration | head -n 5)" 'INF Unregistered tunnel connection
INF Lost connection with the edge
ERR Serve tunnel error error="connection with edge closed"
INF Retrying connection in up to 1s
ERR Connection terminated error="connection with edge closed"'
	FAKE_VERSION=2023 TUNNEL_TRANSPORT_PROTOCOL=quic play edge-lost 'Connection terminated'
	assert_contains "$(after_registration)" 'ERR Failed to serve quic connection error="timeout: no recent network activity"'
}

@test "edge-back: connected, lost, connected" {
	FAKE_DELAY=0.1 play edge-back 'Retrying'
	await registered_twice
	stop
	assert_equal "$(grep -c ' Registered' "$err")" 2
	assert_equal "$(grep -o 'https://[a-z-]*.trycloudflare.com ' "$err" | wc -l | tr -d ' ')" 1
}

registered_twice() {
	[ "$(grep -c ' Registered' "$err")" = 2 ]
}

@test "edge-gone, edge-forgets: lost, and the edge knows the tunnel no more" {
	export FAKE_DELAY=0.1
	play edge-gone 'in up to 8s'
	assert_equal "$(after_registration | grep -c '^ERR Register tunnel error from server side error="Unauthorized: Tunnel not found"$')" 2
	stop
	play edge-forgets 'in up to 8s'
	refute_contains "$(cat "$err")" 'Register tunnel error'
	assert_contains "$(after_registration)" 'ERR Serve tunnel error error="control stream encountered a failure while serving"'
}

@test "silent-exit, help-page: status 0, and nothing to be read from it" {
	ends silent-exit 0
	assert_quiet
	assert_equal "$(cat "$out")" ''
	ends help-page 0
	assert_quiet
	assert_match "$(wc -c <"$out")" '^ *1[4-6][0-9]{3}$'
	assert_contains "$(head -n 1 "$out")" 'Incorrect Usage: '
}

@test "a variable that it can't parse: status 0 and not a word" {
	local variable
	for variable in NO_TLS_VERIFY=yes NO_TLS_VERIFY=tRue NO_AUTOUPDATE=on TUNNEL_GRACE_PERIOD=10 \
		TUNNEL_GRACE_PERIOD=s TUNNEL_GRACE_PERIOD=1..5s TUNNEL_GRACE_PERIOD='5 s' TUNNEL_GRACE_PERIOD=- \
		TUNNEL_RETRIES=x TUNNEL_RETRIES=5s TUNNEL_BASTION=2 TUNNEL_NO_PRECHECKS=y; do
		start_program env "$variable" "$CLOUDFLARED" tunnel --url http://localhost:8080
		assert_exit 0
		assert_quiet
		assert_equal "$(cat "$out")" ''
	done
	for variable in NO_TLS_VERIFY=T NO_TLS_VERIFY= NO_AUTOUPDATE=0 TUNNEL_GRACE_PERIOD=10s \
		TUNNEL_GRACE_PERIOD=0 TUNNEL_GRACE_PERIOD= TUNNEL_GRACE_PERIOD=1m1.5s2ms4µs \
		TUNNEL_GRACE_PERIOD=.5s TUNNEL_RETRIES=-5 TUNNEL_RETRIES=0x1f TUNNEL_RETRIES=; do
		start_program env "$variable" "$CLOUDFLARED" tunnel --url http://localhost:8080
		await_text "$err" Registered
		stop
	done
}

@test "variables that make something else of the quick tunnel" {
	TUNNEL_NAME=mine ends connect 1
	assert_equal "$(logged_url "$err")" ''
	assert_equal "$(grep -c 'ERR Cannot determine default origin certificate path' "$err")" 2
	assert_contains "$(tail -n 1 "$err")" 'failed to create tunnel: '
	mkdir "$HOME/.cloudflared"
	: >"$HOME/.cloudflared/cert.pem"
	TUNNEL_NAME=mine play connect
	assert_equal "$(logged_url "$err")" ''
	assert_contains "$(cat "$out")" 'Created tunnel mine with id '
	TUNNEL_NAME='' TUNNEL_BASTION='' play connect
	assert_equal "$(cat "$FAKE_DIR/$pid.service")" http://localhost:8080
	TUNNEL_HELLO_WORLD=false play connect
	assert_contains "$(cat "$err")" 'Starting Hello World server'
	assert_equal "$(cat "$FAKE_DIR/$pid.service")" hello_world
	TUNNEL_BASTION=false play connect
	assert_contains "$(cat "$err")" 'map[TUNNEL_BASTION:false]'
	assert_equal "$(cat "$FAKE_DIR/$pid.service")" bastion
}

@test "variables that break the start, and say so" {
	TUNNEL_TRANSPORT_PROTOCOL=tcp ends connect 1
	assert_match "$(tail -n 2 "$err")" "ERR Couldn't start tunnel error=\"unknown protocol tcp, Available protocols: .*
unknown protocol tcp, Available"
	TUNNEL_TRANSPORT_PROTOCOL='' ends connect 1
	local period
	for period in 3m 180s 179.5s 2m59s1000ms 0180s; do
		TUNNEL_GRACE_PERIOD=$period play connect
	done
	for period in 181s 180.001s 3m1s 1h; do
		TUNNEL_GRACE_PERIOD=$period ends connect 1
		assert_equal "$(tail -n 1 "$err")" 'grace-period must be equal or less than 3m0s'
	done
	TUNNEL_EDGE_IP_VERSION=5 ends connect 1
	assert_equal "$(tail -n 1 "$err")" 'invalid value for edge-ip-version: 5'
	TUNNEL_EDGE_IP_VERSION=4 TUNNEL_TRANSPORT_PROTOCOL=auto play connect
	assert_contains "$(tail -n 1 "$err")" protocol=quic
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

@test "json: every line is an object, the log of the real one" {
	export NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s TUNNEL_LOG_OUTPUT=json
	play connect
	stop
	# There the end came before the server could log that it had stopped.
	assert_real_log '2330107005 7794' '/Tunnel server stopped/d'
	need jq
	jq -e .message "$err" >/dev/null
	assert_contains "$(jq -r 'select(.level == "error") | .error' "$err")" 'context canceled'
	assert_contains "$(jq -r .message "$err")" "$(cloudflared_url "$pid")"
	unset TUNNEL_LOG_OUTPUT
	ends rate-limited 1
	assert_contains "$(cat "$err")" 'response: error code: 1015
 error='
	TUNNEL_MANAGEMENT_OUTPUT=json ends rate-limited 1
	assert_equal "$(sed '$d' "$err" | jq -s '.[2].message')" \
		'"Error unmarshaling QuickTunnel response: error code: 1015\n"'
	TUNNEL_MANAGEMENT_OUTPUT=default TUNNEL_LOG_OUTPUT=json play connect
	assert_contains "$(tail -n 1 "$err")" ' INF Registered'
	# It comes a field at a time.
	play json '"protocol":"quic","time":"'
	assert_match "$(tail -n 1 "$err")" '^\{"connIndex":0,"connection":"[0-9a-f-]{36}","event":0,"ip":"198.41.200.193","level":"info","location":"tst01","message":"Registered tunnel connection","protocol":"quic","time":"'
	FAKE_VERSION=2023 play json
	assert_contains "$(jq -r 'select(.level == "error") | .error' "$err")" 'Get "https://update'
}

# Leaves the writes of a stand-in in mode $1 in the file writes; without FAKE_DIR they are
# all to its log.
trace_writes() {
	need strace
	start_options=(-o /dev/null)
	FAKE_DIR='' FAKE_MODE=$1 start_program strace -qq -s 1000 -e trace=write \
		-o "$TMPDIR/trace" "$CLOUDFLARED" tunnel --url http://localhost:8080
	await_text "$err" 'Registered'
	# strace lets TERM through only to itself; what it traces is the one to end.
	kill -s TERM "$(children_of "$pid")"
	assert_exit 0
	# Not a shell's word about its child.
	grep '^write' "$TMPDIR/trace" | grep -v Killed >"$TMPDIR/writes"
}

@test "json: one write a field" {
	export TUNNEL_LOG_OUTPUT=json TUNNEL_GRACE_PERIOD=2.5s
	trace_writes connect
	assert_contains "$(cat "$TMPDIR/writes")" ', "{\"level\":\"info\"", 15)'
	assert_match "$(cat "$TMPDIR/writes")" ', ",.\"time.\":.\"20[^,]*Z.\"", 30\)'
	# As many as the real one: one for each field and one for the end.
	assert_equal "$(grep -c ', "}\\n", 2)' "$TMPDIR/writes")" "$(wc -l <"$err" | tr -d ' ')"
	assert_equal "$(wc -l <"$err") $(wc -l <"$TMPDIR/writes")" '55 289'
}

@test "json-split: writes that cut everything" {
	trace_writes json-split
	assert_equal "$(grep -cv ', [1-7]) *= [1-7]$' "$TMPDIR/writes")" 0
	refute_contains "$(cat "$TMPDIR/writes")" trycloudflare
	need jq
	assert_match "$(jq -r .message "$err")" 'https://[a-z-]+.trycloudflare.com '
}

@test "bytes: one write each" {
	trace_writes bytes
	assert_equal "$(grep -cv ', 1) *= 1$' "$TMPDIR/writes")" 0
	assert_equal "$(wc -l <"$TMPDIR/writes")" "$(wc -c <"$err")"
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
	TUNNEL_LOGLEVEL=error play edge-refuses 'Serve tunnel error'
	assert_equal "$(logged_url "$err")" ''
	# An empty one hides even the errors; one that it doesn't know is info.
	TUNNEL_LOGLEVEL='' ends rate-limited 1
	assert_equal "$(wc -l <"$err")" 1
	TUNNEL_LOGLEVEL=ERROR play connect
	assert_contains "$(head -n 1 "$err")" 'ERR Failed to parse log level "ERROR", using "info" instead'
	logged_url "$err"
	mkdir "$HOME/.cloudflared"
	echo 'loglevel: warn' >"$HOME/.cloudflared/config.yml"
	play connect 'ICMP proxy feature is disabled'
	assert_equal "$(logged_url "$err")" ''
	assert_equal "$(cat "$FAKE_DIR/$pid.config")" "$HOME/.cloudflared/config.yml"
	start_program "$CLOUDFLARED" tunnel --url http://localhost:8080 --config /dev/null
	await_text "$err" 'Registered'
	assert_contains "$(cat "$err")" 'ERR Configuration file /dev/null was empty'
	assert_contains "$(cat "$err")" 'map[config:/dev/null ha-connections:1 '
	[ ! -e "$FAKE_DIR/$pid.config" ]
}

@test "a configuration file is loaded whatever kind of file it is" {
	local configuration=$HOME/.cloudflared/config.yaml
	mkdir "$HOME/.cloudflared"
	printf '%s\n' '# mine' 'ingress:' '  - service: http_status:404' >"$configuration"
	play connect
	assert_equal "$(cat "$FAKE_DIR/$pid.service")" "the ingress rules in $configuration"
	echo 'half a line' >>"$configuration"
	ends connect 1
	assert_match "$(cat "$err")" "^error parsing YAML in config file at $configuration: yaml: line 4:"
	rm "$configuration"
	mkdir "$configuration"
	ends connect 1
	assert_equal "$(cat "$err")" \
		"error parsing YAML in config file at $configuration: yaml: input error: read $configuration: is a directory"
	rmdir "$configuration"
	mkfifo "$configuration"
	stand_in
	await_cloudflared 4
	alive "$pid"
	assert_equal "$(cat "$FAKE_DIR/$pid.config")" "$configuration"
	kill -s TERM "$pid"
	assert_signal TERM
	rm "$configuration"
	ln -s nowhere "$configuration"
	play connect
	[ ! -e "$FAKE_DIR/$pid.config" ]
}

@test "without HOME it asks the user database for a home" {
	mkdir -p "$TMPDIR/bin" "$TMPDIR/listed/.cloudflared"
	printf '%s\n' '#!/bin/sh' "echo \"me:x:\$2:0:A. User:$TMPDIR/listed:/bin/sh\"" >"$TMPDIR/bin/getent"
	chmod 755 "$TMPDIR/bin/getent"
	echo 'loglevel: info' >"$TMPDIR/listed/.cloudflared/config.yml"
	PATH=$TMPDIR/bin:$PATH
	play connect
	[ ! -e "$FAKE_DIR/$pid.config" ]
	HOME='' play connect
	assert_equal "$(cat "$FAKE_DIR/$pid.config")" "$TMPDIR/listed/.cloudflared/config.yml"
	start_program env -u HOME "$CLOUDFLARED" tunnel --url http://localhost:8080
	await_text "$err" Registered
	assert_equal "$(cat "$FAKE_DIR/$pid.config")" "$TMPDIR/listed/.cloudflared/config.yml"
}

@test "driven: a test says what happens, event by event" {
	export FAKE_MODE=driven NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s
	stand_in
	await_text "$err" Requesting
	drive 'log INF nothing yet'
	assert_equal "$(logged_url "$err")" ''
	drive url
	assert_equal "$(logged_url "$err")" "$(cloudflared_url "$pid")"
	refute_contains "$(cat "$err")" Registered
	drive fail register lose fail refuse reject register 'line  as  it is' 'checks FAIL PASS'
	assert_contains "$(cat "$FAKE_DIR/$pid.played")" $'lose\nfail\nrefuse\nreject\nregister'
	assert_equal "$(neutral "$err" | grep -o 'Failed to dial\|Registered\|Unregistered\|Register tunnel error\|control stream .* serving\|Retrying .*s \|^ as  it is\|degraded' | uniq)" \
'Failed to dial
Retrying connection in up to 2s 
Registered
Unregistered
Retrying connection in up to 1s 
Failed to dial
Retrying connection in up to 4s 
Register tunnel error
Retrying connection in up to 8s 
control stream encountered a failure while serving
Retrying connection in up to 16s 
Registered
 as  it is
degraded'
	stop
	assert_contains "$(tail -n 1 "$err")" 'Metrics server stopped'
}

@test "driven: it ends as it is told" {
	local event end
	export FAKE_MODE=driven
	mkfifo "$FAKE_DIR/control"
	exec 8<>"$FAKE_DIR/control"
	while read -r end event; do
		# What is written before it starts is kept.
		printf '%s\n' url register "$event" >&8
		stand_in
		await_exit
		assert_equal "$ended" "${end//:/ }"
		assert_contains "$(cat "$err")" Registered
	done <<-END
		exit:1 die
		exit:11 die 11
		exit:0 exit
		exit:7 exit 7
		signal:9 kill
		signal:15 kill TERM
		exit:2 no-such-event
	END
	echo rate-limited >&8
	stand_in
	assert_exit 1
	assert_contains "$(cat "$err")" 'error code: 1015'
	echo 'die 3' >&8
	stand_in
	assert_exit 3
	assert_contains "$(tail -n 1 "$err")" 'failed to request quick Tunnel'
}

@test "driven: a signal ends it while it waits, and nothing stays behind" {
	export FAKE_MODE=driven FAKE_CONTROL=$TMPDIR/other
	stand_in
	await test -p "$FAKE_CONTROL"
	kill -s TERM "$pid"
	assert_signal TERM
	stand_in
	echo url >"$FAKE_CONTROL"
	await_text "$err" 'Starting metrics server'
	kill -s STOP "$pid"
	await stopped "$pid"
	kill -s CONT "$pid"
	await contains "$FAKE_DIR/$pid.signals" CONT
	echo register >"$FAKE_CONTROL"
	await_text "$err" Registered
	stop
	# Its reader is not its group's: it sees the end of the FIFO.
	stand_in
	await test -e "$FAKE_DIR/$pid.event"
	kill -s KILL "$pid"
	assert_signal KILL
	await none_left_behind
}

@test "it refuses what the real one wouldn't understand" {
	start_program "$CLOUDFLARED" tunnel --uri http://localhost:8080
	assert_exit 0
	assert_contains "$(cat "$out")" 'Incorrect Usage: flag provided but not defined: tunnel --uri'
	assert_quiet
	FAKE_MODE=nonsense stand_in
	assert_exit 2
	start_program "$CLOUDFLARED" -h
	assert_exit 0
	assert_contains "$(cat "$out")" look-alikes
	# Every mode it plays is one it lists, and the other way round.
	# shellcheck disable=SC2016 # the pattern is not to be expanded
	assert_equal "$(sed -n '/^case \$mode in/,/^esac/s/^\([a-z].*\))\( ;;\)*$/\1/p' "$CLOUDFLARED" | tr '|' '\n' | tr -d ' );' | sort)" \
		"$(sed -n '/^It works/,/^Honoured/s/^  \([a-z][a-z0-9-]*\)  .*/\1/p' "$out" | sort)"
}

@test "flood, the compiled one" {
	FLOOD_BYTES=2M start_program "$ROOT/test/helpers/flood" tunnel --url http://localhost:8080
	await_text "$err" 'Registered'
	[ "$(wc -c <"$err")" -gt 2097152 ]
	assert_match "$(cat "$FAKE_DIR/$pid.flooded")" '^[0-9]+$'
	stop
	# It logs what the stand-in does.
	local flood=$err
	TUNNEL_NO_PRECHECKS=1 play flood 'Cf-Ray":["9-'
	assert_equal "$(sed -n '1,5{s/^[^ ]* //;s/[a-z-]*\.try.* //;p;}' "$flood")" \
		"$(sed -n '2,6{s/^[^ ]* //;s/[a-z-]*\.try.* //;p;}' "$err")"
	assert_match "$(tail -n 1 "$flood")" '^[^ ]* INF Registered tunnel connection connIndex=0 connection=[0-9a-f-]{36} event=0 ip=[0-9.]+ location=tst01 protocol=quic$'
	assert_equal "$(grep -m 1 DBG "$flood" | grep -o ' [a-zA-Z-]*=')" \
		"$(grep -m 1 DBG "$err" | grep -o ' [a-zA-Z-]*=')"
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
			# Until then nobody sees whose it is.
			await grep -qa FAKE_DIR "/proc/\$!/environ"
		}
		TEST "leaves nothing behind" {
			start_program sleep 600
		}
		TEST "waits in vain" {
			await -t 0 false
		}
	END
	TEST_PATIENCE=6 run bats --tap "$TMPDIR/inner/leak.bats"
	assert_equal "$status" 1
	assert_contains "$output" 'not ok 1 leaves a process behind'
	assert_contains "$output" 'left behind: '
	assert_contains "$output" 'sleep 600'
	assert_contains "$output" 'ok 2 leaves nothing behind'
	assert_contains "$output" 'not ok 3 waits in vain'
	assert_contains "$output" 'waited in vain for: false'
}
