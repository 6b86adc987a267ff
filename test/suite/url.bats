#!/usr/bin/env bats
# Finding the URL in whatever is logged, and waiting until the tunnel works.
# shellcheck disable=SC2016 # the scripts' variables are theirs
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=slow.bash
source "$BATS_TEST_DIRNAME/slow.bash"

letters63=$(printf '%063d' 0 | tr 0 a)
registered='2026-11-21T02:25:21Z INF Registered tunnel connection connIndex=0'

# The next free number for the port of a tunnel nobody listens for.
next_port=20001

# logs URL LOG: starts a tunnel whose cloudflared logs LOG, as printf %b takes it, and
# then nothing. check_logs awaits what each of them prints, which should be URL.
logs() {
	[ -e "$TMPDIR/logs" ] || scripted 'cat "$LOG" >&2'
	printf %b "$2" >"$TMPDIR/log$next_port"
	LOG=$TMPDIR/log$next_port start_tunnel -n "$next_port"
	echo "$1 $out $2" >>"$TMPDIR/logs"
	next_port=$((next_port + 1))
}

check_logs() {
	local wanted log
	while read -r wanted out log; do
		await_url || fail "in the log: $log"
		assert_equal "$(<"$out") in the log: $log" "$wanted in the log: $log"
	done <"$TMPDIR/logs"
}

# finds_url FAKE_MODE [OPTION]: in what the stand-in logs.
finds_url() {
	# shellcheck disable=SC2086 # perhaps none
	FAKE_MODE=$1 start_tunnel ${2-} "$next_port"
	await_url
	await_cloudflared $((next_port - 20000))
	assert_equal "$(<"$out")" "$(cloudflared_url "$cloudflared")"
	next_port=$((next_port + 1))
}

# Prints the most memory, in KiB, that a process has had.
peak() {
	sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$1/status"
}

serve_on_ipv6() {
	serve -6 2>/dev/null || skip 'no IPv6 here'
}

# timeout_names REGEX [PID]: it ended out of time, with a message in $err about that.
timeout_names() {
	assert_exit 124 "${2:-$pid}"
	[ ! -s "${err%.err}.out" ]
	grep -qE "^tunnel: .*($1)" "$err" || fail "nothing about $1 in: $(<"$err")"
}

# --- what is the URL ------------------------------------------------------------------

@test "the URL is found as JSON, on standard output, in single bytes, among escapes" {
	local mode
	for mode in connect json stdout bytes escape; do
		finds_url "$mode"
	done
}

@test "hosts that look like the tunnel's are passed over" {
	finds_url look-alikes
}

@test "none of these is the URL" {
	local it log=
	for it in 'https://www.trycloudflare.com' 'HTTPS://WWW.trycloudflare.com/' \
		'https://api.trycloudflare.com' 'https://API.trycloudflare.com/tunnel' \
		'https://aPi.TryCloudflare.Com' 'https://api.trycloudflare.com.' \
		"https://${letters63}a.trycloudflare.com" 'https://.trycloudflare.com' \
		"https://$letters63$letters63.trycloudflare.com" 'https://trycloudflare.com' \
		'https://-.trycloudflare.com' 'https://-a.trycloudflare.com' \
		'https://a-.trycloudflare.com' 'https://a_b.trycloudflare.com' \
		'https://a b.trycloudflare.com' 'https://a\0000b.trycloudflare.com' \
		'https://a\nb.trycloudflare.com' 'https://a.trycloudflare\n.com' \
		'https://\na.trycloudflare.com' 'https://\303\251.trycloudflare.com' \
		'https://a.b.trycloudflare.com' 'https://a:b.trycloudflare.com' \
		'https://a/b.trycloudflare.com' 'https://a@b.trycloudflare.com' \
		'http://a.trycloudflare.com' 'ttps://a.trycloudflare.com' '//a.trycloudflare.com' \
		'https:/a.trycloudflare.com' 'https:///a.trycloudflare.com' \
		'https//a.trycloudflare.com' 'https: //a.trycloudflare.com' \
		'a.trycloudflare.com' 'https://atrycloudflare.com' 'https://a-trycloudflare.com' \
		'https://a.trycloudflare.co' 'https://a.trycloudflare.net' \
		'https://a.trycloudflarecom' 'https://a.trycloudflare,com' \
		'https://a.trycloudflare.coma' 'https://a.trycloudflare.com0' \
		'https://a.trycloudflare.com-' 'https://a.trycloudflare.com_' \
		'https://a.trycloudflare.com.a' 'https://a.trycloudflare.com.0' \
		'https://a.trycloudflare.com.-' 'https://a.trycloudflare.com._' \
		'https://a.trycloudflare.com.evil.example' 'https://a.trycloudflare.comA' \
		'https://a.trycloudflare.com.Z' 'https://a.xtrycloudflare.com' \
		'https://a.try-cloudflare.com' 'https://a..trycloudflare.com'; do
		log="$log|  $it  |\n$it\n\"$it\" "
	done
	logs https://the-real-one.trycloudflare.com "$log https://the-real-one.trycloudflare.com\n"
	check_logs
}

@test "a pause doesn't make a URL of what is none" {
	# The sleep is what is tested: a log that pauses.
	scripted 'for it in https://api.trycloudflare.com https://a.trycloudflare.co \
			https://a.trycloudflare.com.evil https://a.trycloudflare.com- \
			"https://${letters63}a.trycloudflare.com" https://a-.trycloudflare.com; do
			printf %s "$it" >&2
			sleep 0.15
			echo >&2
		done
		printf "https://the-" >&2
		sleep 0.15
		printf "real-one.trycloudfl" >&2
		sleep 0.15
		echo "are.com" >&2'
	export letters63
	start_tunnel -n 8080
	await_url
	assert_equal "$(<"$out")" https://the-real-one.trycloudflare.com
}

@test "a URL is printed as written, in any case of letters, with 1 to 63 of them" {
	local it
	for it in https://a.trycloudflare.com https://0.trycloudflare.com \
		HTTPS://AMBER-Apple.TRYCLOUDFLARE.COM hTTpS://z9.tRyClOuDfLaRe.cOm \
		"https://$letters63.trycloudflare.com" "https://A${letters63#??}9.trycloudflare.com" \
		https://a--b.trycloudflare.com https://apis.trycloudflare.com \
		https://xapi.trycloudflare.com https://ww.trycloudflare.com https://www1.trycloudflare.com https://api-a.trycloudflare.com \
		https://a-api.trycloudflare.com https://ap.trycloudflare.com https://apx.trycloudflare.com \
		https://https.trycloudflare.com https://trycloudflare.trycloudflare.com; do
		logs "$it" "2026-11-21T02:25:21Z INF |  $it  |\n"
	done
	check_logs
}

@test "a URL ends where its host ends, whatever follows" {
	local it url=https://amber-apple.trycloudflare.com
	for it in '' / /path :443 '?' '#' . '. ' './' '.\n' '..' '.\na' '.,a' '..a' '.\0000' \
		',' ';' '"' "'" ')' ']' '>' '|' '\r\n' '\na' '\nhttps://a.trycloudflare.com' \
		'\0000' '\033[0m' '\302\240' =; do
		logs "$url" "see $url$it"
	done
	check_logs
}

@test "a URL is found right behind one that breaks off" {
	local it url=https://amber-apple.trycloudflare.com
	for it in h ht http https https: https:/ https:// https://- https://a https://a. \
		https://a.t https://a.trycloudflare. https://a.trycloudflare.com \
		https://api.trycloudflare.com https://api.trycloudflare.com. \
		https://a.trycloudflare.c https://api.trycloudflare.c "https://${letters63}a" \
		"https://${letters63}.trycloudflare.com." 'https://a_' hthttps hhhh tps:// \
		'https://https' '\0000' '"url":"' 'url=' '\377'; do
		logs "$url" "$it$url\n"
	done
	check_logs
}

@test "a URL needs no newline, not even the end of the log" {
	finds_url no-newline -n
	scripted 'printf %s "https://at-the-end.trycloudflare.com" >&2
		exec >/dev/null 2>&1'
	start_tunnel -n "$next_port"
	await_url
	assert_equal "$(<"$out")" https://at-the-end.trycloudflare.com
}

@test "a URL in cloudflared's last words is still printed" {
	scripted 'printf %s "https://last-words.trycloudflare.com" >&2
		exit 3'
	run_tunnel -n 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$output" https://last-words.trycloudflare.com
	serve
	scripted 'echo "https://last-words.trycloudflare.com" >&2
		registered
		exit 3'
	run_tunnel -w "$port"
	assert_equal "$ended" 'exit 1'
	assert_equal "$output" https://last-words.trycloudflare.com
}

@test "the first match wins" {
	serve
	scripted 'echo "https://first.trycloudflare.com https://second.trycloudflare.com" >&2
		echo "https://third.trycloudflare.com" >&2
		next
		echo "https://fourth.trycloudflare.com" >&2
		echo "the end" >&2'
	start_tunnel -nv "$port"
	await_url
	next
	await_text "$err" 'the end'
	kill -s TERM "$pid"
	assert_signal TERM
	assert_equal "$(<"$out")" https://first.trycloudflare.com
}

@test "the first match wins, too, if it is no longer kept by the time the edge has the tunnel" {
	serve
	scripted 'echo https://first.trycloudflare.com >&2
		head -c 100000 /dev/zero | tr "\\000" "\\n" >&2
		echo https://second.trycloudflare.com >&2
		echo "the end" >&2
		next
		registered'
	start_tunnel -v -t 0 "$port"
	await_text "$err" 'the end'
	next
	await_url
	assert_equal "$url" https://first.trycloudflare.com
}

@test "in one write or many: wherever a read ends, the same is found" {
	# 45 bytes each: every way to cut them by a buffer of any size is among these.
	awk 'BEGIN {
		for (i = 0; i < 8000; i++)
			printf "https://ab%d.trycloudflare.com.evil.example ", i % 10 + 10
		print "https://the-real-one.trycloudflare.com"
	}' >"$TMPDIR/log"
	scripted 'cat "$LOG" >&2'
	LOG=$TMPDIR/log start_tunnel -n 8080
	await_url
	assert_equal "$(<"$out")" https://the-real-one.trycloudflare.com
	# And the URL itself lies across what may be the end of a buffer.
	local size shift
	for size in 1024 4096 65536; do
		for shift in 1 8 20 36; do
			logs https://amber-apple.trycloudflare.com \
				"$(printf "%0$((size - shift))d" 0)https://amber-apple.trycloudflare.com\n"
		done
	done
	check_logs
}

@test "a URL behind 256 MiB of one endless line is found, in less than 4 MiB" {
	[ -r /proc/self/status ] || skip 'no /proc here'
	export CLOUDFLARED=$ROOT/test/helpers/flood FLOOD_LINE=1 FLOOD_BYTES=256M
	start_tunnel -t 0 8080
	await_url
	assert_equal "$url" https://flood-of-log-lines.trycloudflare.com
	[ "$(peak "$pid")" -lt 4096 ] || fail "it took $(peak "$pid") KiB"
}

@test "an endless line behind the URL, and endless lines with -v, take no memory either" {
	[ -r /proc/self/status ] || skip 'no /proc here'
	export CLOUDFLARED=$ROOT/test/helpers/flood FLOOD_BYTES=64M
	local line options
	for options in 8080 '-v 8081'; do
		for line in '' 1; do
			start_options=(-e /dev/null)
			[ -z "$line" ] || export FLOOD_LINE=1
			# shellcheck disable=SC2086 # an option and a port
			start_tunnel $options
			await_url
			await_cloudflared $((next_port++ - 20000))
			await test -s "$FAKE_DIR/$cloudflared.flooded"
			[ "$(peak "$pid")" -lt 4096 ] || fail "$options: $(peak "$pid") KiB"
			kill -s TERM "$pid"
			assert_signal TERM
			unset FLOOD_LINE
		done
	done
}

# --- when the tunnel works ------------------------------------------------------------

@test "-n prints the URL as soon as it is named; neither the edge nor a server is waited for" {
	free_port
	scripted 'echo "https://amber-apple.trycloudflare.com" >&2'
	start_tunnel -n "$port"
	await_url
	assert_equal "$(<"$out")" https://amber-apple.trycloudflare.com
}

@test "the URL is held back until the edge has the tunnel" {
	local option
	serve
	for option in -v -vw; do
		holds_back $option
	done
}

holds_back() {
	scripted 'echo "https://amber-apple.trycloudflare.com" >&2
		echo "INF Unregistered tunnel connection connIndex=0" >&2
		echo "INF Retrying connection in up to 1s" >&2
		next
		echo "$word" >&2'
	start_tunnel "$1" "$port"
	await_text "$err" 'Retrying connection'
	alive "$pid"
	assert_equal "$(<"$out")" ''
	next "$registered"
	await_url
	assert_equal "$(<"$out")" https://amber-apple.trycloudflare.com
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "a registration is understood before 2022, as JSON, in single bytes" {
	local mode
	serve
	for mode in old-edge json bytes; do
		FAKE_MODE=$mode start_tunnel "$port"
		await_url
		kill -s TERM "$pid"
		assert_signal TERM
	done
}

@test "-w holds the URL back until something listens" {
	free_port
	start_tunnel -vw "$port"
	await_text "$err" 'Registered tunnel connection'
	alive "$pid"
	assert_equal "$(<"$out")" ''
	serve -p "$port"
	await_url
	assert_equal "$(grep '^tunnel: ' "$err")" ''
}

@test "-w holds no more descriptors the longer it waits for the server" {
	free_port
	start_options=(-n 32)
	start_tunnel -vw -t 0 "$port"
	start_options=()
	await_text "$err" 'Registered tunnel connection'
	# It looks every 50 ms.
	sleep 4
	serve -p "$port"
	await_url
}

@test "-w: a server that has gone again by the time the tunnel works is waited for" {
	serve
	scripted 'echo https://a-b-c.trycloudflare.com >&2
		next
		registered
		next
		echo settled >&2'
	start_tunnel -vw "$port"
	await_text "$err" a-b-c
	kill -s TERM "$server"
	await gone "$server"
	next
	await_text "$err" 'Registered tunnel connection'
	next
	await_text "$err" settled
	assert_equal "$(<"$out")" ''
	serve -p "$port"
	await_url
}

@test "-w out of time: the message names what was missing" {
	local nobody somebody here
	free_port
	nobody=$port
	serve
	somebody=$port
	here="listen.*localhost:$nobody|localhost:$nobody.*listen"
	# Long enough for the URL to come on a busy machine.
	FAKE_MODE=connect start_tunnel -w -t 5 "$nobody"
	local server_missing=$pid server_errors=$err
	FAKE_MODE=no-edge start_tunnel -w -t 5 "$somebody"
	local edge_missing=$pid edge_errors=$err
	FAKE_MODE=no-edge start_tunnel -w -t 5 "127.0.0.1:$nobody"
	local both_missing=$pid both_errors=$err
	FAKE_MODE=silent run_tunnel -w -t 0.3 "127.0.0.1:$somebody"
	timeout_names URL
	refute_contains "$errors" edge
	err=$server_errors timeout_names "$here" "$server_missing"
	refute_contains "$(<"$server_errors")" edge
	err=$edge_errors timeout_names edge "$edge_missing"
	refute_contains "$(<"$edge_errors")" listen
	err=$both_errors timeout_names "${here//localhost/127.0.0.1}" "$both_missing"
	err=$both_errors timeout_names edge "$both_missing"
}

@test "-w out of time with a command: that it waits for the server, too, is said" {
	free_port
	start_tunnel -w -t 5 "$port" true
	timeout_names "nothing is listening on localhost:$port, which the command waits for"
}

@test "-w ends at once on a signal, whatever it waits for" {
	local mode
	free_port
	for mode in silent connect no-edge; do
		FAKE_MODE=$mode start_tunnel -vw -t 0 "$port"
		await_text "$err" 'Requesting new quick Tunnel'
		kill -s TERM "$pid"
		assert_signal TERM
		assert_equal "$(<"$out")" ''
	done
}

# --- is anything listening ------------------------------------------------------------

@test "nobody listens: a warning that names the origin, and on it goes" {
	local origin
	free_port
	for origin in "" localhost: http://localhost: https://localhost: 127.0.0.1: \
		http://127.0.0.1: '[::1]:'; do
		start_tunnel "$origin$port"
		await_url
		origin=${origin#http*://}
		assert_equal "$(cat "$err")" \
			"tunnel: warning: nothing is listening on ${origin:-localhost:}$port yet"
		kill -s TERM "$pid"
		assert_signal TERM
	done
	# A deadline is no reason to say it again.
	FAKE_MODE=silent run_tunnel -t 1 "$port"
	assert_equal "$ended" 'exit 124'
	[ "$(grep -c 'nothing is listening' "$err")" -le 1 ] || fail "$errors"
}

@test "somebody listens on 127.0.0.1: no warning" {
	serve
	for origin in "$port" "localhost:$port" "127.0.0.1:$port" "https://localhost:$port"; do
		start_tunnel "$origin"
		await_url
		kill -s TERM "$pid"
		assert_signal TERM
		assert_quiet
	done
}

@test "somebody listens on ::1: that is localhost, too, but not 127.0.0.1" {
	serve_on_ipv6
	for origin in "$port" "[::1]:$port"; do
		start_tunnel -w "$origin"
		await_url
		kill -s TERM "$pid"
		assert_signal TERM
		assert_quiet
	done
	free_port
	serve -6 -p "$port"
	start_tunnel "127.0.0.1:$port"
	await_url
	assert_contains "$(cat "$err")" "nothing is listening on 127.0.0.1:$port yet"
}

@test "the name of another host is not looked up, which -w says" {
	local origin
	free_port
	for origin in "no-such-host.invalid:$port" "1.2.3.4.5:$port" "localhost.invalid:$port" \
		"local:$port"; do
		start_tunnel "$origin"
		await_url
		kill -s TERM "$pid"
		assert_signal TERM
		assert_quiet
		start_tunnel -w "$origin"
		await_url
		kill -s TERM "$pid"
		assert_signal TERM
		assert_match "$(<"$err")" "^tunnel: warning: [^
]*${origin}[^
]*\$"
	done
	# Once, even if cloudflared is started twice; beside a tunnel that runs, too.
	FAKE_MODE=udp-blocked FAKE_DELAY=0.2 start_tunnel -w "$origin"
	await_url
	assert_equal "$(grep -c 'cannot be tested' "$err")" 1
	run_tunnel -bw "$origin"
	assert_equal "$ended $output" "exit 0 $url"
	assert_equal "$(grep -c 'cannot be tested' "$err")" 1
}

@test "signals while the server is looked for only put that off" {
	local i
	# It isn't accepting, so that each look takes a moment.
	serve -b
	scripted 'next; echo https://amber-apple.trycloudflare.com; registered'
	start_tunnel -w "$port"
	until started_often 1; do
		kill -s CONT "$pid"
	done
	for ((i = 0; i < 3000; i++)); do
		kill -s CONT "$pid"
	done
	next
	await_url
	assert_quiet
}

# A connection that takes its time, as never on the loopback: who doesn't wait hears nothing. The
# first two looks are disturbed by a signal, as poll() may tell in two ways.
make_connections_slow() {
	make_slow <<-'END'
		#include <sys/socket.h>

		static int late = -1;

		int
		connect(int fd, const struct sockaddr *to, socklen_t size)
		{
			int result = (int)syscall(SYS_connect, fd, to, size);

			late = result == -1 && errno == EINPROGRESS ? fd : -1;
			return result;
		}

		int
		poll(struct pollfd *wait, nfds_t count, int ms)
		{
			static int looks;
			struct timespec most = { ms / 1000, ms % 1000 * 1000000L };

			if (late != -1 && count == 2 && wait[0].fd == late) {
				wait[0].revents = wait[1].revents = 0;
				if (ms == 0)
					return 0;
				looks++;
				if (looks == 1) {
					errno = EINTR;
					return -1;
				}
				if (looks == 2) {
					wait[1].revents = POLLIN;
					return 1;
				}
			}
			return (int)syscall(SYS_ppoll, wait, count, ms < 0 ? NULL : &most, NULL, 0);
		}
	END
}

@test "a connection that is refused late is no server, one that is made late is" {
	local try
	make_connections_slow
	serve
	start_program env LD_PRELOAD="$TMPDIR/slow.so" "$TUNNEL" -w "127.0.0.1:$port"
	await_url
	kill -s TERM "$pid"
	assert_signal TERM
	assert_quiet
	free_port
	# On a machine that is busy the time for an answer may be over before there is one.
	for try in 1 2 3; do
		FAKE_MODE=silent start_program env LD_PRELOAD="$TMPDIR/slow.so" "$TUNNEL" "127.0.0.1:$port"
		within 10 contains "$err" listening || :
		kill -s TERM "$pid"
		assert_signal TERM
		[ ! -s "$err" ] || break
	done
	assert_equal "$try: $(<"$err")" "$try: tunnel: warning: nothing is listening on 127.0.0.1:$port yet"
}

@test "-w doesn't take itself for the server" {
	need unshare ip
	local new=(unshare --net)
	[ "$(id -u)" = 0 ] || new+=(--map-root-user)
	"${new[@]}" ip link set lo up 2>/dev/null || skip 'not allowed to unshare'
	# From one of two ports to that port, a connection is its own other end.
	# shellcheck disable=SC2016 # it is for the shell
	start_program "${new[@]}" sh -c 'ip link set lo up &&
		echo "40000 40001" >/proc/sys/net/ipv4/ip_local_port_range && exec "$@"' - \
		"$TUNNEL" -w -t 2 40000
	assert_exit 124
	assert_match "$(<"$err")" 'nothing is listening on localhost:40000'
}

@test "a server that isn't accepting counts as listening and delays nothing" {
	local option
	serve -b
	for option in -v -vw; do
		start_tunnel "$option" "$port"
		await_url
		kill -s TERM "$pid"
		assert_signal TERM
		assert_equal "$(grep '^tunnel: ' "$err")" ''
	done
	FAKE_MODE=silent start_tunnel -vw "$port"
	await_text "$err" 'Requesting new quick Tunnel'
	kill -s TERM "$pid"
	assert_signal TERM
}
