#!/usr/bin/env bats
# The connection to Cloudflare's edge: HTTP/2 where UDP is blocked, what is lost and back,
# what is dead; and what is said about why it failed.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck disable=SC2016,SC2119 # the scripts' variables are theirs; next may be without a word
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# start_driven ARGUMENT...: a tunnel whose cloudflared does what `drive` tells it.
start_driven() {
	local starts
	starts=$(cloudflared_starts | wc -l)
	[ -p "$FAKE_DIR/control" ] || mkfifo "$FAKE_DIR/control"
	exec 7<>"$FAKE_DIR/control"
	FAKE_MODE=driven start_tunnel "$@"
	await_cloudflared $((starts + 1))
}

drive() {
	printf '%s\n' "$@" >&7
}

# state_is STATE [PORT]: in the list.
state_is() {
	[ "$("$TUNNEL" -l "${2:-8080}" 2>/dev/null | cut -f 5)" = "$1" ]
}

times_said() {
	grep -c "^tunnel: .*$1" "$err" || :
}

# --- HTTP/2 ---------------------------------------------------------------------------

@test "where UDP is blocked the tunnel comes by HTTP/2, and nobody sees a URL that never worked" {
	local options
	for options in '' -b -j; do
		rm -f "$FAKE_DIR/starts"
		# shellcheck disable=SC2086 # an option or none
		FAKE_MODE=udp-blocked FAKE_DELAY=0.3 start_tunnel $options 8080
		await_cloudflared 2
		await test -s "$out"
		assert_contains "$(<"$out")" "$(cloudflared_url "$cloudflared")"
		assert_equal "$(wc -l <"$out" | tr -d ' ')" 1
		assert_contains "$(cloudflared_environment "$cloudflared")" \
			TUNNEL_TRANSPORT_PROTOCOL=http2
		gone "$(head -n 1 "$FAKE_DIR/starts")" || fail 'two at a time'
		run_tunnel -k 8080
	done
}

@test "later starts of a tunnel keep to HTTP/2" {
	FAKE_MODE=udp-blocked FAKE_DELAY=0.3 start_tunnel -r 8080
	await_cloudflared 2
	await_url
	kill -s KILL "$cloudflared"
	await_cloudflared 3
	assert_contains "$(cloudflared_environment "$cloudflared")" TUNNEL_TRANSPORT_PROTOCOL=http2
}

@test "a protocol that the user has chosen stays, and the message tells of HTTP/2" {
	export TUNNEL_TRANSPORT_PROTOCOL=quic
	FAKE_MODE=udp-blocked FAKE_DELAY=0.3 run_tunnel -t 5 8080
	assert_equal "$ended: $output" 'exit 124: '
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 1
	assert_contains "$errors" TUNNEL_TRANSPORT_PROTOCOL=http2
}

# --- alive isn't working --------------------------------------------------------------

@test "an edge that is lost is in the list at once, said once after the deadline, and said to be back" {
	start_driven -t 5 8080
	drive url register
	await_url
	await state_is up
	drive lose
	await state_is lost
	assert_contains "$("$TUNNEL" -lj 8080)" '"state":"lost"'
	# Not only after the minute that it is without a deadline.
	await -t 40 contains "$err" 'no connection, for 5 s now'
	drive lose
	drive register
	await state_is up
	await contains "$err" 'again'
	assert_equal "$(times_said 'no connection')" 1
	assert_equal "$(times_said again)" 1
	# The next time, too.
	drive lose
	await -t 40 said_often 2 'no connection'
	drive register
	await -t 40 said_often 2 again
	assert_equal "$(wc -l <"$out" | tr -d ' ')" 1
}

said_often() {
	[ "$(times_said "$2")" = "$1" ]
}

@test "an edge that is tried again and again in vain is said to be lost all the same" {
	# shellcheck disable=SC2016
	scripted 'echo https://amber-apple.trycloudflare.com >&2
		registered
		next
		while echo "INF Retrying connection in up to 1s connIndex=0" >&2; do sleep 0.3; done'
	start_tunnel -t 5 8080
	await_url
	next
	await -t 40 contains "$err" 'no connection'
}

# Until it is up, or not in the list.
up_or_unlisted() {
	list=$("$TUNNEL" -l 8080 2>&1) || :
	[[ $list != *"$url"* || $list == *up ]]
}

@test "a tunnel is in the list while its record is replaced by a shorter one" {
	local list
	scripted 'echo https://amber-apple.trycloudflare.com >&2; registered
		next; echo "WRN Lost connection with the edge connIndex=0" >&2; next; registered'
	start_traced ftruncate:delay_enter=1000000 8080
	await_url
	next
	await state_is lost
	next
	await up_or_unlisted
	assert_contains "$list" "$url"
}

# long LEVEL TEXT MARK: a line of 200000 bytes without its end, of which the text and what
# follows are the last 8192.
long='long() {
		awk -v level="$1" -v text="$2" -v mark="$3" "BEGIN {
			printf \"%s \", level
			for (i = length(level) + 1; i < 200000 - 8192; i++) printf \"x\"
			printf \"%s \", text
			for (i = length(text mark) + 1; i < 8192; i++) printf \"y\"
			printf \"%s\", mark
		}"
	}'

@test "a line of any length: a registration counts wherever it stands, other words only where a message begins" {
	serve
	scripted "$long"'
		{
			echo https://amber-apple.trycloudflare.com
			long INF "Lost connection with the edge" first-mark
			next
			echo
			echo second-mark
			next
			echo another-mark
			next
			long INF "Registered tunnel connection" third-mark
			next
			echo
			next
			echo "and Lost connection with the edge"
			long DBG "Lost connection with the edge" fourth-mark
			next
			echo
			echo fifth-mark
			next
			echo "ERR Lost connection with the edge"
			next
			long INF "Registered tunnel connection" sixth-mark
			echo
		} >&2'
	start_tunnel -v "$port"
	await_text "$err" first-mark
	next
	await_text "$err" second-mark
	next
	await_text "$err" another-mark
	assert_equal "$(<"$out")" ''
	next
	await_text "$err" third-mark
	next
	await_url
	await state_is up "$port"
	next
	await_text "$err" fourth-mark
	next
	await_text "$err" fifth-mark
	assert state_is up "$port"
	next
	await state_is lost "$port"
	next
	await_text "$err" sixth-mark
	await state_is up "$port"
}

@test "a log in colours, as at a terminal, tells the same" {
	local words
	scripted '
		say() {
			printf "\033[90m2026-11-25T23:10:56Z\033[0m \033[%sm%s\033[0m %s \033[36mconnIndex=\033[0m0\r\n" \
				"$1" "$2" "$3" >&2
		}
		say 32 INF "|  https://one.trycloudflare.com  |"
		say 32 INF "Registered tunnel connection"
		while next; do
			colour=${word%% *} words=${word#* }
			say "$colour" "${words%% *}" "${words#* }"
		done'
	start_tunnel -v 8080
	await_url
	for words in 'Lost connection with the edge' 'Unregistered tunnel connection' \
		'Retrying connection in up to 1s' 'Register tunnel error from server side'; do
		await state_is up
		next "31 ERR $words"
		await state_is lost
		next "1;35 DBG Registered tunnel connection after $words"
		await_text "$err" "after $words"
		assert state_is lost
		next '32 INF Registered tunnel connection'
	done
	await state_is up
}

@test "the loss of the edge, and its return, are understood as JSON" {
	TUNNEL_LOG_OUTPUT=json start_driven 8080
	drive url register
	await_url
	await state_is up
	drive lose
	await state_is lost
	drive register
	await state_is up
}

@test "a loss is seen in the burst of requests that it breaks off" {
	{
		echo 'INF Lost connection with the edge connIndex=0'
		echo 'INF Retrying connection in up to 1s connIndex=0'
		yes 'ERR  error="Incoming request ended abruptly: context canceled" connIndex=0' | head -n 900
	} >"$TMPDIR/burst"
	# shellcheck disable=SC2016 # the script's to expand
	scripted 'echo "INF https://one.trycloudflare.com" >&2; registered; next; cat "$TMPDIR/burst" >&2'
	start_tunnel 8080
	await_url
	await state_is up
	next
	await state_is lost
}

@test "-n: an edge that doesn't have the tunnel by the deadline is said, one that has it isn't" {
	# It has nothing to lose yet.
	start_driven -n -t 600 8080
	drive url
	await_url
	assert state_is up
	kill -s TERM "$pid"
	assert_signal TERM
	start_driven -n -t 4 8080
	drive url
	await_url
	await contains "$err" 'no connection'
	await state_is lost
	drive register
	await contains "$err" again
	await state_is up
	kill -s TERM "$pid"
	assert_signal TERM
	start_driven -t 4 8080
	drive url register
	await_url
	drive lose register
	await has_lines "$FAKE_DIR/$cloudflared.played" 4
	# It is the time itself that matters.
	sleep 4.5
	assert state_is up
	assert_equal "$(times_said 'no connection')" 0
}

@test "-b beside a tunnel without an edge waits until it is back" {
	start_driven -t 0 8080
	drive url register
	await_url
	local first=$url
	drive lose
	await state_is lost
	FAKE_MODE=connect start_tunnel -b 8080
	drive register
	assert_exit 0
	assert_equal "$(<"$out")" "$first"
}

@test "-r: a tunnel that the edge refuses is renewed, in the words of each version" {
	local mode
	for mode in edge-gone edge-forgets; do
		rm -f "$FAKE_DIR/starts"
		FAKE_MODE=$mode FAKE_DELAY=0.2 start_tunnel -r -t 2 8080
		await_cloudflared 2
		kill -s TERM "$pid"
		assert_signal TERM
	done
}

@test "-r: an edge that refuses after it was lost for long is a reason to renew the tunnel" {
	start_driven -r -t 5 8080
	drive url register
	await_url
	drive lose
	await contains "$err" 'no connection'
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 1
	drive refuse
	await contains "$err" "$url is dead: Cloudflare's edge refuses it"
	await_cloudflared 2
}

@test "-r: a stream that fails with a lost connection is no refusal" {
	scripted 'echo "INF https://a-b-c.trycloudflare.com" >&2
		registered
		next
		echo "INF Retrying connection in up to 1s connIndex=0" >&2
		echo "ERR Serve tunnel error error=\"accept stream listener encountered a failure while serving\"" >&2
		next
		echo settled >&2'
	start_tunnel -v -r -t 5 8080
	await_url
	next
	await contains "$err" 'no connection'
	next
	await_text "$err" settled
	refute_contains "$(<"$err")" 'refuses it'
}

@test "-r: an edge that is out of reach after it refused, or has had the tunnel since, isn't refusing" {
	local events times=0
	start_driven -r -t 5 8080
	drive url register
	await_url
	while IFS=, read -ra events; do
		drive "${events[@]}"
		await -t 40 said_often $((times += 1)) 'no connection'
		drive register
		await -t 40 said_often "$times" again
	done <<-'END'
		refuse,fail
		refuse,line ERR Unable to establish connection with Cloudflare edge error="timeout"
		refuse,register,lose
		log INF Retrying connection in up to 1s,register,line ERR Serve tunnel error error="control stream encountered a failure"
	END
	assert_equal "$(times_said 'is dead')" 0
	# One word of it is enough.
	drive 'line ERR Register tunnel error error="Unauthorized"'
	await -t 40 contains "$err" "$url is dead: Cloudflare's edge refuses it"
	await_cloudflared 2
}

@test "QUIC that fails once there was a connection, or a URL was given out, is no reason for HTTP/2" {
	start_driven 8080
	drive url register
	await_url
	drive lose fail
	await_text "$FAKE_DIR/$cloudflared.played" fail
	await state_is lost
	drive register
	await state_is up
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 1
	kill -s TERM "$pid"
	assert_signal TERM
	start_driven -n 8080
	drive url
	await_url
	drive fail register
	await state_is up
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 2
	kill -s TERM "$pid"
	assert_signal TERM
	# It is the server that the URL waits for.
	free_port
	start_driven -t 0 -w "$port"
	drive url register fail register
	await has_lines "$FAKE_DIR/$cloudflared.played" 4
	serve -p "$port"
	await_url
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 3
}

@test "-r: a later start whose QUIC doesn't get through is followed by one with HTTP/2" {
	scripted 'echo "https://amber-apple-$$.trycloudflare.com" >&2
		if [ "$(wc -l <"$FAKE_DIR/starts")" = 2 ]; then
			echo "ERR Failed to dial a quic connection error=\"timeout\"" >&2
		else
			echo "by $TUNNEL_TRANSPORT_PROTOCOL" >>"$FAKE_DIR/protocols"
			registered
		fi'
	start_tunnel -r 8080
	await_url
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_cloudflared 3
	await has_lines "$out" 2
	assert_equal "$(tail -n 1 "$FAKE_DIR/protocols")" 'by http2'
}

@test "a stop while cloudflared makes room for HTTP/2 asks it no second time" {
	scripted 'trap "echo TERM >>\"\$FAKE_DIR/asked\"" TERM
		echo "ERR Failed to dial a quic connection error=\"timeout\"" >&2
		while [ ! -e "$FAKE_DIR/end" ]; do sleep 0.05; done
		exit 0'
	start_tunnel -g 600 8080
	await_cloudflared 1
	await_text "$FAKE_DIR/asked" TERM
	kill -s TERM "$pid"
	await contains "$XDG_RUNTIME_DIR/tunnel/localhost:8080" 'state stopping'
	touch "$FAKE_DIR/end"
	assert_signal TERM
	assert_equal "$(<"$FAKE_DIR/asked")" TERM
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 1
}

@test "-r: a tunnel whose edge is lost with the network is left alone" {
	start_driven -r -t 5 8080
	drive url register
	await_url
	drive lose
	await contains "$err" 'no connection'
	drive register
	await contains "$err" again
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 1
}

# --- its surroundings -----------------------------------------------------------------

@test "what would make something else of the tunnel doesn't reach cloudflared, whatever its value" {
	TUNNEL_NAME=mine TUNNEL_HELLO_WORLD=false TUNNEL_BASTION='' start_tunnel 8080
	await_url
	await_cloudflared 1
	assert_equal "$(cloudflared_environment "$cloudflared" |
		grep -E '^TUNNEL_(NAME|HELLO_WORLD|BASTION)=')" ''
}

@test "a value that cloudflared can't read, seen by exit 0 and no word or a page of help, is told" {
	local mode
	for mode in silent-exit help-page; do
		FAKE_MODE=$mode run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		assert_match "$errors" 'tunnel: a variable has a value that it cannot read'
		refute_contains "$errors" 'cloudflared: '
	done
	NO_TLS_VERIFY=yes run_tunnel 8080
	assert_match "$errors" 'tunnel: a variable has a value that it cannot read'
	# Not where there is a log, another status or a URL.
	local script
	for script in 'echo "2026-11-25T10:00:00Z INF Starting" >&2' 'exit 1' \
		'echo https://a-b.trycloudflare.com'; do
		cloudflared_script <<<"$script"
		run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		refute_contains "$errors" variable
	done
}

@test "the last words before an exit 0 are shown, and blamed on no variable" {
	cloudflared_script <<<'echo "Please log in first: launcher login" >&2'
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_contains "$errors" 'cloudflared: Please log in first: launcher login'
	refute_contains "$errors" variable
	# However few they are.
	cloudflared_script <<<'printf x >&2'
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_contains "$errors" 'cloudflared: x'
	refute_contains "$errors" variable
	# Nor is what a log ends with a page of help.
	cloudflared_script <<-'END'
		echo '2026-11-25T23:10:59Z ERR it went wrong' >&2
		echo '   --flag value   what it is for' >&2
	END
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_contains "$errors" 'ERR it went wrong'
	refute_contains "$errors" variable
}

@test "what a program for another processor does is told: it crashes" {
	local script
	for script in 'kill -s ILL $$' 'exit 132' 'kill -s SEGV $$' 'exit 139'; do
		cloudflared_script <<<"ulimit -c 0; $script"
		run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		assert_match "$errors" 'tunnel: [^
]*(another processor|uname -m)'
	done
	# A signal that somebody sent, or one after the URL, tells nothing of that.
	for script in 'kill -s TERM $$' 'exit 143' 'echo https://a-b.trycloudflare.com; exit 139'; do
		cloudflared_script <<<"ulimit -c 0; $script"
		run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		refute_contains "$errors" 'uname -m'
	done
}

# --- hints ----------------------------------------------------------------------------

@test "each cause has its cure, from text and from JSON, from 2026 and 2023" {
	local output_format version mode cure
	while read -r mode cure; do
		for version in 2026 2023; do
			for output_format in '' json; do
				TUNNEL_LOG_OUTPUT=$output_format FAKE_VERSION=$version FAKE_MODE=$mode \
					FAKE_DELAY=0 run_tunnel 8080
				assert_equal "$ended" 'exit 1'
				assert_match "$(grep '^tunnel: ' "$err")" "$cure"
				refute_contains "$errors" 'Thank you for trying'
			done
		done
	done <<-'END'
		rate-limited wait some minutes
		no-network network
		no-dns DNS
		dns-timeout DNS
		api-refused api.trycloudflare.com
		api-hang api.trycloudflare.com
		certificate ca-certificates
		clock clock
		captive-portal captive portal
		no-tunnel-id makes no sense
	END
}

@test "an edge that refuses the tunnel is no blocked port" {
	FAKE_MODE=edge-refuses run_tunnel -t 5 8080
	assert_equal "$ended" 'exit 124'
	assert_contains "$errors" "doesn't accept the tunnel"
	refute_contains "$(grep '^tunnel: ' "$err")" 7844
}

@test "what was overcome is no cause, nor is what comes of being told to end" {
	local before after
	serve
	while IFS='|' read -r before after; do
		scripted "echo '$before' >&2
			echo https://a-b-c.trycloudflare.com >&2
			registered
			echo '$after' >&2
			exit 1"
		run_tunnel -n "$port"
		assert_equal "$ended" 'exit 1'
		assert_equal "$(grep '^tunnel: ' "$err" | grep -v 'cloudflared ended')" ''
	done <<-'END'
		ERR lookup api.trycloudflare.com: no such host|INF nothing
		{"level":"error","message":"lookup api.trycloudflare.com: no such host"}|{"level":"info","message":"nothing"}
		INF nothing|INF Initiating graceful shutdown due to signal terminated ...\nERR no more connections active and exiting, lookup a.b: no such host
	END
}

@test "what a request quotes is no sign of anything, nor does it hide one" {
	local before
	serve
	# The cause is behind it.
	for before in 'DBG GET / headers="X: Initiating graceful shutdown"' \
		'INF request note="Initiating graceful shutdown"'; do
		scripted "echo https://a-b-c.trycloudflare.com >&2
			registered
			echo '$before' >&2
			echo 'ERR lookup a.b: no such host' >&2
			exit 1"
		run_tunnel "$port"
		assert_contains "$errors" 'the DNS'
	done
	# Of a long line only the end may be left.
	scripted "printf 'DBG GET / x=%09000d lookup a.b: no such host\\n' 0 >&2
		exit 1"
	run_tunnel "$port"
	assert_equal "$(grep -c '^tunnel: ' "$err")" 1
	# A visitor's request that failed, as JSON.
	scripted "echo https://a-b-c.trycloudflare.com >&2
		registered
		echo '{\"dest\":\"https://a-b-c.trycloudflare.com/ws\",\"error\":\"dial tcp 127.0.0.1:8080: connect: connection refused\",\"level\":\"error\",\"message\":\"Request failed\"}' >&2
		exit 1"
	run_tunnel "$port"
	refute_contains "$errors" 'Cloudflare'"'"'s service'
}

@test "a registration that a visitor's request quotes is none, however long its line is" {
	local line lines=()
	serve
	lines=('ERR Request failed error="x" dest="https://a-b-c.trycloudflare.com/?q=Registered tunnel connection" event=0'
		'{"dest":"https://a-b-c.trycloudflare.com/?q=Registered tunnel connection","level":"error","message":"Request failed"}'
		"DBG GET / headers=\"$(printf '%020000d' 0) Registered tunnel connection\""
		'TRC GET / headers="Registered tunnel connection"'
		'ERR Connection terminated error="tunnel not registered" connIndex=0'
		'INF The tunnel is registered with nobody')
	for line in "${lines[@]}"; do
		scripted "echo '$line' >&2
			echo https://a-b-c.trycloudflare.com >&2
			echo '$line' >&2
			echo 'INF was that' >&2
			next
			echo settled >&2"
		start_tunnel -v -t 0 "$port"
		await_text "$err" 'was that'
		next
		await_text "$err" settled
		assert_equal "$(<"$out")" ''
		kill -s TERM "$pid"
		await_exit
	done
}

@test "an object of a log in JSON is read once it is whole: its level may come last" {
	serve
	scripted 'echo https://a-b-c.trycloudflare.com >&2
		printf %s "{\"message\":\"Registered tunnel connection\"," >&2
		next
		echo "\"level\":\"debug\"}" >&2
		echo settled >&2
		next
		registered'
	start_tunnel -v -t 0 "$port"
	await_text "$err" a-b-c
	# It is the time itself that matters: what was written is read by then.
	sleep 0.5
	next
	await_text "$err" settled
	assert_equal "$(<"$out")" ''
	next
	await_url
}

# assert_cause REGEX: what is said of the end of cloudflared tells that; none: it tells no cause.
assert_cause() {
	assert_equal "$ended" 'exit 1'
	if [ "$1" = none ]; then
		assert_equal "$(grep '^tunnel: ' "$err" | grep -vc warning)" 1
	else
		assert_match "$(grep '^tunnel: ' "$err")" "$1"
	fi
}

@test "an origin's 429, the table of pre-checks, DNS and IPv6 are not taken for something else" {
	local cause line
	while read -r cause line; do
		cloudflared_script <<<"echo '2026-11-25T10:00:00Z $line' >&2; exit 1"
		run_tunnel 8080
		assert_cause "$cause"
		refute_contains "$(grep '^tunnel: ' "$err")" 'port 7844'
	done <<-'END'
		none DBG 429 Too Many Requests connIndex=0 originService=http://localhost:8080
		none INF |  ERROR: Allow outbound QUIC traffic on port 7844 or use HTTP2.  |
		none ERR error="dial tcp 127.0.0.1:8080: connect: connection refused" originService=http://localhost:8080
		none WRN Failed to determine the IPv6 for this machine. It will use 2001:db8:: as source IP error="dial udp [2606:4700:4700::1111]:53: connect: network is unreachable" connIndex=0
		DNS ERR Failed to dial a quic connection error="failed to dial to edge with quic: lookup region1.v2.argotunnel.com: no such host"
		TUNNEL_EDGE_IP_VERSION=4 ERR Failed to dial a quic connection error="dial udp [2606:4700:a0::1]:7844: connect: network is unreachable"
	END
}

@test "each cause that others have met has its cure: the resolver, the port, IPv6" {
	local cure lines
	export TUNNEL_TRANSPORT_PROTOCOL=http2
	while IFS='|' read -r cure lines; do
		cloudflared_script <<<"printf '%b\\n' '$lines' >&2; exit 1"
		run_tunnel 8080
		assert_cause "$cure"
	done <<-'END'
		/etc/resolv.conf|dial tcp: lookup api.trycloudflare.com on [::1]:53: dial udp [::1]:53: connect: cannot assign requested address
		/etc/resolv.conf|dial tcp: lookup api.trycloudflare.com on 10.0.0.1:53: write udp 10.0.0.2:4711->10.0.0.1:53: write: operation not permitted
		/etc/resolv.conf|dial tcp: lookup api.trycloudflare.com: Try again
		/etc/resolv.conf|dial tcp: lookup api.trycloudflare.com on 127.0.0.53:53: cannot unmarshal DNS message
		7844|ERR Initiating shutdown error="there are no free edge addresses left to resolve to"\nthere are no free edge addresses left to resolve to
		7844|ERR Failed to dial a quic connection error="failed to dial to edge with quic: timeout: no recent network activity"\nERR Failed to initialize DNS local resolver error="lookup region1.v2.argotunnel.com: i/o timeout"
		TUNNEL_EDGE_IP_VERSION=6|ERR Serve tunnel error error="DialContext error: dial tcp 198.41.200.63:7844: connect: network is unreachable"
		TUNNEL_EDGE_IP_VERSION=6|ERR Unable to establish connection with Cloudflare edge error="DialContext error: dial tcp 198.41.200.63:7844: connect: network is unreachable"
		TUNNEL_EDGE_IP_VERSION=6|ERR Failed to dial a quic connection error="failed to dial to edge with quic: INTERNAL_ERROR (local): write udp [::]:43085->198.41.192.57:7844: sendmsg: network is unreachable"
	END
}

# The last lines, as cloudflared has written them: each is followed by others that tell less.
@test "the edge out of reach by HTTP/2, answers of the API that are none, and harmless errors" {
	local cause lines
	while IFS='|' read -r cause lines; do
		cloudflared_script <<<"printf '%b\\n' '$lines' >&2; exit 1"
		run_tunnel 8080
		assert_cause "$cause"
	done <<-'END'
		port 7844|ERR Unable to establish connection with Cloudflare edge error="DialContext error: dial tcp 198.41.200.13:7844: connect: connection refused"\nERR Serve tunnel error error="DialContext error: dial tcp 198.41.200.13:7844: connect: connection refused"
		port 7844|ERR Serve tunnel error error="TLS handshake with edge error: read tcp 192.0.2.1:40000->198.41.200.13:7844: i/o timeout"
		doesn't accept|ERR Failed to serve quic connection error="already connected to this server, trying another address"
		wait some minutes|ERR Error unmarshaling QuickTunnel response: error="invalid character \0047<\0047 looking for beginning of value" status_code="429 Too Many Requests"\nfailed to unmarshal quick Tunnel: invalid character \0047<\0047 looking for beginning of value
		has a fault|ERR Error unmarshaling QuickTunnel response: error="invalid character \0047<\0047 looking for beginning of value" status_code="500 Internal Server Error"\nfailed to unmarshal quick Tunnel: invalid character \0047<\0047 looking for beginning of value
		captive portal|ERR Error unmarshaling QuickTunnel response: error="invalid character \0047<\0047 looking for beginning of value" status_code="511 Network Authentication Required"
		captive portal|ERR Error unmarshaling QuickTunnel response: <!DOCTYPE HTML>\n<html><head>\n<title>401 Unauthorized</title>\n</head></html>\n error="invalid character \0047<\0047 looking for beginning of value" status_code="401 Unauthorized"\nfailed to unmarshal quick Tunnel: invalid character \0047<\0047 looking for beginning of value
		captive portal|ERR Error unmarshaling QuickTunnel response: <html>\n<p>The DNS lookup was refused: no route to host</p>\n</html>\n error="invalid character \0047<\0047 looking for beginning of value" status_code="200 OK"\nfailed to unmarshal quick Tunnel: invalid character \0047<\0047 looking for beginning of value
		wait some minutes|ERR Error unmarshaling QuickTunnel response: <html>\n<p>no such host</p>\n</html>\n error="invalid character \0047<\0047 looking for beginning of value" status_code="429 Too Many Requests"\nfailed to unmarshal quick Tunnel: invalid character \0047<\0047 looking for beginning of value
		captive portal|ERR Error unmarshaling QuickTunnel response: <html>\n<p>no such host</p></html>\n error="invalid character \0047<\0047 looking for beginning of value" status_code="200 OK"
		/etc/resolv.conf|ERR lookup api.trycloudflare.com: no such host\nERR Error unmarshaling QuickTunnel response: <html>\n</html>\n error="invalid character \0047<\0047 looking for beginning of value" status_code="200 OK"
		/etc/resolv.conf|ERR error="network is unreachable"\nERR error="lookup a.b: no such host"
		/etc/resolv.conf|dial tcp: lookup api.trycloudflare.com: Try again\nsee the documentation
		cannot be reached|failed to read quick-tunnel response: context deadline exceeded (Client.Timeout or context cancellation while reading body)
		none|ERR update check failed error="Get \\"https://update.argotunnel.com\\": dial tcp: lookup update.argotunnel.com: no such host"
	END
}

@test "where HTTP/2 took QUIC's place and nothing answers, port 7844 is named, whatever the log says by then" {
	scripted 'echo https://a-b-c.trycloudflare.com >&2
		[ "$TUNNEL_TRANSPORT_PROTOCOL" ] || echo "ERR Failed to dial a quic connection error=\"timeout\"" >&2
		echo "INF Initial protocol" >&2
		next'
	run_tunnel -t 3 8080
	assert_equal "$ended" 'exit 124'
	assert_match "$(grep '^tunnel: ' "$err")" 'port 7844'
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 2
}

@test "a deadline while cloudflared makes room for HTTP/2 names the edge and port 7844" {
	scripted 'trap : TERM
		echo https://a-b-c.trycloudflare.com >&2
		echo "ERR Failed to dial a quic connection error=\"timeout\"" >&2
		while [ ! -e "$FAKE_DIR/end" ]; do sleep 0.05; done
		exit 0'
	start_tunnel -g 600 -t 2 8080
	await contains "$err" 'no tunnel within 2 s'
	touch "$FAKE_DIR/end"
	assert_exit 124
	assert_match "$(grep '^tunnel: ' "$err")" "Cloudflare's edge has no connection"
	assert_match "$(grep '^tunnel: ' "$err")" 'port 7844'
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 1
}

@test "a deadline before cloudflared has its URL by HTTP/2 names port 7844" {
	scripted '[ ! "$TUNNEL_TRANSPORT_PROTOCOL" ] || next
		echo https://a-b-c.trycloudflare.com >&2
		echo "ERR Failed to dial a quic connection error=\"timeout\"" >&2
		next'
	run_tunnel -t 3 8080
	assert_equal "$ended" 'exit 124'
	assert_match "$(grep '^tunnel: ' "$err")" 'port 7844'
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 2
}

@test "the level and the message of JSON are its own, not what one of its fields quotes" {
	local line
	for line in '{"a\"level":"debug","b\"message":"fine","level":"error","message":"lookup a.b: no such host"}' \
		'{"error":"{\"level\":\"debug\",\"message\":\"fine\"}","level":"error","message":"lookup a.b: no such host"}' \
		'{"message":"lookup a.b: no such host"}'; do
		cloudflared_script <<<"echo '$line' >&2; exit 1"
		run_tunnel 8080
		assert_match "$(grep '^tunnel: ' "$err")" DNS
	done
	for line in '{"error":"{\"level\":\"error\"}","level":"debug","message":"lookup a.b: no such host"}' \
		'{"level":"info","error":"lookup a.b: no such host"}'; do
		cloudflared_script <<<"echo '$line' >&2; exit 1"
		run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		refute_contains "$(grep '^tunnel: ' "$err")" DNS
	done
}

@test "the end of cloudflared by a signal is told by its name" {
	local name
	ulimit -c 0
	for name in HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM SYS XCPU XFSZ; do
		cloudflared_script <<<"kill -s $name \$\$"
		run_tunnel 8080
		assert_contains "$errors" "(signal $(kill -l "$name"), SIG$name)"
	done
}
