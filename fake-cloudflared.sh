#!/bin/sh
# fake-cloudflared.sh: plays cloudflared, so that tunnel can be tried without a network.
#
# usage: fake-cloudflared.sh tunnel --url ORIGIN [--config /dev/null]
#        fake-cloudflared.sh -h
#
# It logs what cloudflared 2026.8.2 logs, or 2023.7.3 if FAKE_VERSION is 2023, to standard
# error, one write a line, and names a new host on every start. FAKE_MODE chooses what
# happens. Numbers in brackets are what an unset variable means.
#
# It works:
#
#   connect            the URL and, at once, a registered connection (the default)
#   slow               the URL after FAKE_DELAY seconds (1), then as connect
#   late-edge          the URL at once, the connection after FAKE_DELAY seconds (1)
#   old-edge           the connection in the words used before 2022
#   driven             what a test says, event by event: see below
#
# There is no tunnel; it exits with status 1 if nothing else is said:
#
#   rate-limited       the API answers 429
#   rate-limited-2026  the same, in the words of 2026 whatever FAKE_VERSION is
#   api-500            the API answers 500
#   captive-portal     a page in HTML answers for the API
#   no-tunnel-id       the API answers without a tunnel
#   no-network         the API can't be reached: there is no network
#   no-dns             there is no such host
#   dns-timeout        the resolver doesn't answer
#   api-refused        the connection is refused
#   api-hang           the API doesn't answer within FAKE_DELAY seconds (15)
#   certificate        the API's certificate is signed by nobody known
#   clock              the API's certificate isn't valid yet, says the clock
#   api-fails          the request fails for FAKE_REASON (EOF), in Go's words
#   die-before         exits with FAKE_STATUS (1) instead of naming a URL
#   dies-n-times       die-before for the first FAKE_COUNT (1) starts, counted in
#                      FAKE_DIR, then connect
#   silent             no URL, ever, and no end
#   silent-exit        exits with status 0 and without one byte
#   help-page          15 KB of help on standard output, status 0
#
# There is a URL, and trouble with the edge:
#
#   no-edge            nothing answers on port 7844: every FAKE_DELAY seconds (5) an
#                      attempt fails
#   udp-blocked        the same, but with TUNNEL_TRANSPORT_PROTOCOL=http2 it connects
#   edge-refuses       the edge is there and refuses to register the tunnel
#   edge-lost          connects, loses the edge FAKE_DELAY seconds (1) later, for good
#   edge-back          the same, but has it back FAKE_DELAY seconds (1) after that
#   edge-gone          the same, but the edge is there and says that it doesn't know the
#                      tunnel: `Register tunnel error` (over QUIC 2026 doesn't log that)
#   edge-forgets       the same in the words of 2026 over QUIC: those of edge-refuses
#
# It ends by itself, or doesn't end:
#
#   die-after          exits with FAKE_STATUS (1) FAKE_DELAY seconds (0) after connecting
#   die-by-signal      kills itself with FAKE_SIGNAL (KILL) FAKE_DELAY seconds (0) after
#                      connecting
#   ignore-term        connects, then ignores TERM and INT
#   slow-stop          connects; takes FAKE_DELAY seconds (1) to stop
#   grandchild         connects and leaves a process in its group that outlives it,
#                      ignores TERM, INT and HUP, and holds the log open; its id is in
#                      FAKE_DIR/grandchild
#
# It connects, and its log is strange:
#
#   close-log          closes standard output and error, stays
#   flood              logs without end
#   endless-line       FAKE_BYTES bytes (1048576) without a newline, then the URL
#   json               each line is a JSON object (as with TUNNEL_LOG_OUTPUT=json), each
#                      of its fields a write
#   json-split         the same in writes of 7 bytes, which cut everything
#   bytes              every byte is a write of its own
#   no-newline         the URL is the last thing logged, and no newline follows it
#   look-alikes        hosts that are not the tunnel, then the one that is
#   stdout             the box with the URL goes to standard output
#   escape             control characters and terminal escapes around the URL; with
#                      FAKE_STATUS set it exits with that status before the URL
#
# Honoured as the real one does: TUNNEL_NO_PRECHECKS (without it 2026 logs a table of
# pre-checks), TUNNEL_TRANSPORT_PROTOCOL (but auto is quic), TUNNEL_EDGE_IP_VERSION,
# TUNNEL_METRICS, TUNNEL_LOGLEVEL, TUNNEL_LOG_OUTPUT, TUNNEL_MANAGEMENT_OUTPUT. A variable
# that it can't parse (NO_TLS_VERIFY=yes) makes it exit with status 0 and not a word; an
# argument that it doesn't know, with a page of help. With TUNNEL_NAME it makes no quick
# tunnel but one in the user's account, if there is a certificate. With
# TUNNEL_HELLO_WORLD or TUNNEL_BASTION it doesn't serve the origin. A configuration file
# is loaded unless --config is given, whatever kind of file it is: its loglevel counts,
# and its ingress rules go before the origin. Without HOME it asks the user database
# where to look. A signal before the URL kills it; after it the first TERM or INT stops it
# gracefully and a second one kills it.
#
# If FAKE_DIR names a directory, each start leaves there, before it logs anything:
# PID.args (an argument a line), PID.env (a variable a line), PID.cwd, PID.url, where
# there is a /proc PID.fds (ls -l of its descriptors), PID.stat, PID.status (its signal
# masks), PID.config (the path) if it loads a configuration file, and last its own
# process id as a line in starts. PID.service is written with the URL: what a visitor
# would get, the origin if all is well. A signal adds its name as a line to PID.signals.
#
# FAKE_MODE=driven needs FAKE_DIR and reads events from the FIFO FAKE_CONTROL
# (FAKE_DIR/control), which it makes if it isn't there, a line each. Events that were
# written before they were wanted are kept as long as somebody holds the FIFO open. An
# event that has been played is added as a line to PID.played.
#
#   url                the URL, and all that is logged up to the connection
#   register           the edge has the connection; again, too
#   fail               an attempt to reach the edge fails
#   refuse             the edge refuses: `Register tunnel error`
#   reject             the edge refuses in the words of edge-refuses
#   lose               the connection is lost
#   checks UDP TCP     the table of pre-checks; each of the two PASS or FAIL
#   die [STATUS]       ends with the status (1), before the URL as die-before, then as
#                      die-after
#   exit [STATUS]      exits with the status (0) and not a word
#   kill [SIGNAL]      kills itself (KILL)
#   log LEVEL TEXT     logs the text; the level is DBG, INF, WRN or ERR
#   line TEXT          writes the text as it is
#   rate-limited ...   any mode of the second list up to api-fails

# Not set -e: a log line nobody takes is no reason to end, and traps run anywhere. No
# globbing: the log is full of brackets.
[ -z "${ZSH_VERSION-}" ] || emulate sh
set -uf
export LC_ALL=C

mode=${FAKE_MODE:-connect}
phase=starting
stopping=
deadly=
child=
newline='
'

help() {
	sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# --- what a process is made of: time, chance, the log -------------------------------

# One fork for the time stamp and the seed of what follows.
read_clock() {
	clock=$(date -u '+%Y-%m-%dT%H:%M:%SZ %s')
	stamp=${clock% *}
}

# Sets $random to a number from 0 below $1. The arithmetic (Schrage's) fits 32 bits,
# which is all some shells have.
random() {
	seed=$((16807 * (seed % 127773) - 2836 * (seed / 127773)))
	[ "$seed" -gt 0 ] || seed=$((seed + 2147483647))
	random=$((seed / 32 % $1))
}

words='amber apple april arrow aspen autumn basket beacon berry birch blanket blossom
branch breeze bridge bronze butter button cactus candle canyon carbon castle cedar
cherry chorus cinema circle clover cobalt copper coral cotton crystal daisy dawn
delta desert diamond dolphin dragon ember engine fabric falcon feather fern fiddle
forest fossil garden ginger glacier granite guitar hammer harbor hazel helmet honey
horizon indigo island ivory jacket jasmine jungle kernel kettle lantern laurel lemon
linen lotus lunar magnet maple marble meadow mirror mosaic mountain nectar needle
nickel oasis olive onyx orbit orchid otter paddle paper pebble pepper piano pillow
planet pocket prairie purple quartz quiet rabbit raven ribbon river rocket saddle
saffron salmon sapphire shadow silver sparrow spiral spruce summer sunset thunder
timber topaz tulip tunnel turtle umber valley velvet violet walnut whisper willow
winter yellow zephyr'

name_host() {
	# shellcheck disable=SC2086 # one word each
	set -- $words
	host=
	part=0
	while [ $((part += 1)) -le 4 ]; do
		random $#
		eval "host=\${host:+\$host-}\${$((random + 1))}"
	done
	host=$host.trycloudflare.com
	url=https://$host
}

new_uuid() {
	if [ -r /proc/sys/kernel/random/uuid ]; then
		read -r uuid </proc/sys/kernel/random/uuid
		return
	fi
	random 65536; first=$random
	random 65536; second=$random
	uuid=$(printf '%04x%04x-93a1-4a49-9e8d-%04x%04x%04x' \
		"$first" "$second" "$second" "$$" "$first")
}

# Sets $fitted to $1 with spaces up to the width $2.
fit() {
	fitted=$1
	while [ $((${#fitted} + 8)) -le "$2" ]; do
		fitted="$fitted        "
	done
	while [ ${#fitted} -lt "$2" ]; do
		fitted="$fitted "
	done
}

# Writes text to the log: in one write, but for the modes that cut it to pieces.
put() {
	case $mode in
	bytes) cut='?' ;;
	json-split) cut='???????' ;;
	*)
		printf %s "$1" >&2
		return
		;;
	esac
	rest=$1
	while [ ${#rest} -gt ${#cut} ]; do
		# shellcheck disable=SC2295 # a pattern
		tail=${rest#$cut}
		printf %s "${rest%"$tail"}" >&2
		rest=$tail
	done
	printf %s "$rest" >&2
}

# Sets $quoted to $1 as it stands between quotes.
quote() {
	quoted=$1
	case $1 in
	*[\"\\\<\>\&$newline]*) ;;
	*) return ;;
	esac
	quoted=
	rest=$1
	while :; do
		case $rest in
		*[\"\\\<\>\&$newline]*) ;;
		*) break ;;
		esac
		head=${rest%%[\"\\<>&"$newline"]*}
		rest=${rest#"$head"}
		tail=${rest#?}
		sign=${rest%"$tail"}
		rest=$tail
		case $json:$sign in
		*:\" | *:\\) sign=\\$sign ;;
		*:"$newline") sign=\\n ;;
		yes:\<) sign=\\u003c ;;
		yes:\>) sign=\\u003e ;;
		yes:\&) sign=\\u0026 ;;
		esac
		quoted=$quoted$head$sign
	done
	quoted=$quoted$rest
}

# say LEVEL MESSAGE [FIELD VALUE ...]: logs it, if the level is one that is logged. The
# fields come as the text has them, error first, then by name.
say() {
	case $1 in
	DBG) rank=0 level=debug ;;
	INF) rank=1 level=info ;;
	WRN) rank=2 level=warn ;;
	*) rank=3 level=error ;;
	esac
	[ "$rank" -ge "$threshold" ] || return 0
	if [ "$json" ]; then
		say_json "$@"
		return
	fi
	line="$stamp $1 $2"
	shift 2
	while [ $# -ge 2 ]; do
		case $2 in
		*[\ \"\\$newline]*)
			quote "$2"
			line="$line $1=\"$quoted\""
			;;
		*) line="$line $1=$2" ;;
		esac
		shift 2
	done
	put "$line$newline"
}

# The same as an object whose members are in the order of their names, each a write.
say_json() {
	quote "$2"
	message=$quoted
	shift 2
	front='' error='' middle='' location='' back=''
	while [ $# -ge 2 ]; do
		quote "$2"
		case $1:$2 in
		connIndex:* | event:* | hard_fail:* | autoupdateFreq:*) member="\"$1\":$2$newline" ;;
		*) member="\"$1\":\"$quoted\"$newline" ;;
		esac
		case $1 in
		error) error=$member ;;
		event | hard_fail | ip) middle=$middle$member ;;
		location) location=$member ;;
		[a-d]*) front=$front$member ;;
		*) back=$back$member ;;
		esac
		shift 2
	done
	object="$front$error$middle\"level\":\"$level\"$newline$location\"message\":\"$message\"$newline$back\"time\":\"$stamp\"$newline"
	separator='{'
	while [ -n "$object" ]; do
		put "$separator${object%%"$newline"*}"
		object=${object#*"$newline"}
		separator=,
	done
	put "}$newline"
}

# --- life and death -------------------------------------------------------------------

# Waits for the background process $1, unless a signal ends this before it. Nothing runs
# in the foreground for long: a shell runs no trap until its foreground command is over.
hold() {
	child=$1
	[ -z "$stopping" ] || end_child
	# Other signals (CONT) end the wait, too.
	while [ "$child" ]; do
		wait "$child" 2>/dev/null
		[ $? -gt 128 ] && [ "$child" ] && kill -s 0 "$child" 2>/dev/null || child=
	done
	# Bash remarks on a killed job, which is no part of this log, when it sees its end:
	# let that be now.
	wait "$1" 2>/dev/null
	heed_signals
}

# KILL, for a TERM may come before the shell's traps are gone from its new process.
end_child() {
	[ -z "$child" ] || kill -s KILL "$child" 2>/dev/null
	child=
}

# exec, or some shells keep a process of theirs between us and the sleep.
pause() {
	[ "$1" != 0 ] || return 0
	heed_signals
	exec sleep "$1" >/dev/null 2>&1 &
	hold $!
}

# Short enough that a sleep left by a SIGKILL is soon gone.
stay() {
	while :; do
		pause 60
	done
}

# A signal only leaves word: between starting a process and learning its id is no time
# to die.
# shellcheck disable=SC2317 # the traps call it
on_signal() {
	[ -z "${FAKE_DIR-}" ] || echo "$1" >>"$FAKE_DIR/$$.signals"
	case $mode:$1 in
	*:CONT | ignore-term:TERM | ignore-term:INT) return ;;
	esac
	case $phase:$stopping:$1 in
	serving::TERM | serving::INT) ;;
	*) deadly=yes ;;
	esac
	stopping=$1
	end_child
}

heed_signals() {
	[ "$stopping" ] || return 0
	[ -z "$deadly" ] || die_by "$stopping"
	shut_down
}

die_by() {
	case $1 in
	KILL | STOP) ;;
	*) trap - "$1" ;;
	esac
	kill -s "$1" $$
}

# The last line of a cloudflared that could not start is bare.
fail() {
	put "$1$newline"
	exit "${2:-1}"
}

shut_down() {
	case $stopping in
	INT) signal=interrupt ;;
	*) signal=terminated ;;
	esac
	phase=stopping
	stopping=
	read_clock
	say INF "Initiating graceful shutdown due to signal $signal ..."
	[ -z "$registered" ] || say_connection INF 'Unregistered tunnel connection'
	if [ "$mode" = slow-stop ]; then
		pause "${FAKE_DELAY:-1}"
		read_clock
	fi
	if [ "$registered" ]; then
		[ "$version:$protocol" != 2026:quic ] ||
			stop_serving 'context canceled' 'accept stream listener encountered a failure while serving'
		say_connection INF 'Retrying connection in up to 1s'
		[ "$version" = 2023 ] || say ERR 'Connection terminated' connIndex 0
		say ERR 'no more connections active and exiting'
	fi
	say INF 'Tunnel server stopped'
	say INF 'Metrics server stopped'
	exit 0
}

# --- what tests learn -----------------------------------------------------------------

record() {
	printf '%s\n' "$@" >"$FAKE_DIR/$$.args"
	pwd -P >"$FAKE_DIR/$$.cwd"
	echo "$url" >"$FAKE_DIR/$$.url"
	[ -z "$configuration" ] || echo "$configuration" >"$FAKE_DIR/$$.config"
	# A shell adds variables of its own; the kernel knows what it was started with.
	if [ -r /proc/$$/environ ]; then
		tr '\0' '\n' </proc/$$/environ >"$FAKE_DIR/$$.env"
		# A redirection in this process would show up among its descriptors.
		# One that goes between the list and the look at it is no fault.
		(ls -l /proc/$$/fd/ 2>/dev/null >"$FAKE_DIR/$$.fds")
		# A child's own, which are ours: ours are in flux while we start it.
		grep ^Sig /proc/self/status >"$FAKE_DIR/$$.status"
		read -r line </proc/$$/stat
		echo "$line" >"$FAKE_DIR/$$.stat"
	else
		env >"$FAKE_DIR/$$.env"
	fi
}

# --- what it is given -----------------------------------------------------------------

# Sets $home, and $configuration to the first file that it could open there or in the
# system's places.
find_configuration() {
	configuration=
	home=${HOME-}
	if [ -z "$home" ]; then
		entry=$(getent passwd "$(id -u)" 2>/dev/null)
		if [ "$entry" ]; then
			entry=${entry%:*}
			home=${entry##*:}
		else
			eval "home=~$(id -un)"
		fi
	fi
	[ -z "$config_given" ] || return 0
	for directory in "$home/.cloudflared" "$home/.cloudflare-warp" \
		"$home/cloudflare-warp" /etc/cloudflared /usr/local/etc/cloudflared; do
		for file in config.yml config.yaml; do
			if [ -r "$directory/$file" ] && [ ! -S "$directory/$file" ]; then
				configuration=$directory/$file
				return
			fi
		done
	done
}

# Opening a FIFO takes as long as nobody writes to it; a directory can be opened, too.
load_configuration() {
	[ ! -p "$configuration" ] || stay
	say DBG "Loading configuration from $configuration"
	broken="error parsing YAML in config file at $configuration: yaml:"
	[ ! -d "$configuration" ] ||
		fail "$broken input error: read $configuration: is a directory"
	[ -s "$configuration" ] || say ERR "Configuration file $configuration was empty"
	count=0
	while read -r key value; do
		count=$((count + 1))
		case $key in
		'' | '#'* | -*) ;;
		loglevel:) [ "${TUNNEL_LOGLEVEL+set}" ] || set_threshold "$value" ;;
		ingress:) service="the ingress rules in $configuration" ;;
		*:) ;;
		*) fail "$broken line $count: could not find expected ':'" ;;
		esac
	done <"$configuration"
}

# An empty one hides everything, errors, too; one that it doesn't know is info.
set_threshold() {
	case $1 in
	trace | debug) threshold=0 ;;
	info) threshold=1 ;;
	warn) threshold=2 ;;
	error) threshold=3 ;;
	fatal | panic | '') threshold=4 ;;
	*)
		threshold=1
		say ERR "Failed to parse log level \"$1\", using \"info\" instead"
		;;
	esac
}

is_true() {
	case $1 in
	1 | t | T | true | TRUE | True) return 0 ;;
	*) return 1 ;;
	esac
}

is_boolean() {
	case $1 in
	'' | 0 | f | F | false | FALSE | False) return 0 ;;
	*) is_true "$1" ;;
	esac
}

is_number() {
	number=${1#[-+]}
	case $number in
	0[xX]*[!0-9a-fA-F]*) return 1 ;;
	0[xX]?*) ;;
	*[!0-9]*) return 1 ;;
	'') [ -z "$1" ] ;;
	esac
}

# Go's: numbers with units, 1m2.5s; only 0 needs none. Sets $seconds, each number rounded
# up.
is_duration() {
	seconds=0
	rest=${1#[-+]}
	case $rest in
	'')
		[ -z "$1" ]
		return
		;;
	0) return 0 ;;
	esac
	while [ "$rest" ]; do
		number=${rest%%[!0-9.]*}
		rest=${rest#"$number"}
		case $number in
		'' | . | *.*.*) return 1 ;;
		esac
		whole=${number%%.*}
		while [ "$whole" != "${whole#0}" ]; do
			whole=${whole#0}
		done
		case $number in
		*.*[1-9]*) whole=$((${whole:-0} + 1)) ;;
		*) whole=${whole:-0} ;;
		esac
		case $rest in
		ns* | us* | ms*) rest=${rest#??} ;;
		h*) seconds=$((seconds + whole * 3600)) rest=${rest#?} ;;
		m*) seconds=$((seconds + whole * 60)) rest=${rest#?} ;;
		s*) seconds=$((seconds + whole)) rest=${rest#?} ;;
		# The two Greek letters, which not every shell can read in a script.
		[!A-Za-z0-9.\ ]*s*) rest=${rest#*s} ;;
		*) return 1 ;;
		esac
	done
}

# Succeeds if each variable that isn't text can be parsed.
variables_parse() {
	for name in NO_AUTOUPDATE NO_TLS_VERIFY STDIN_CONTROL TUNNEL_BASTION \
		TUNNEL_DISABLE_QUIC_PMTU TUNNEL_HELLO_WORLD TUNNEL_MANAGEMENT_DIAGNOSTICS \
		TUNNEL_NO_CHUNKED_ENCODING TUNNEL_NO_PRECHECKS TUNNEL_ORIGIN_ENABLE_HTTP2 \
		TUNNEL_POST_QUANTUM TUNNEL_SOCKS TUNNEL_SSH_SERVER; do
		eval "is_boolean \"\${$name-}\"" || return 1
	done
	for name in TUNNEL_COMPRESSION_LEVEL TUNNEL_MAX_FETCH_SIZE TUNNEL_PROXY_PORT \
		TUNNEL_RETRIES; do
		eval "is_number \"\${$name-}\"" || return 1
	done
	for name in DIAL_EDGE_TIMEOUT TUNNEL_GRACE_PERIOD TUNNEL_METRICS_UPDATE_FREQ \
		TUNNEL_STREAM_WRITE_TIMEOUT; do
		eval "is_duration \"\${$name-}\"" || return 1
	done
}

# Sets $variables to those that it logs, by name. It splits each at its =.
list_variables() {
	variables=
	for name in BASTION CACERT EDGE_BIND_ADDRESS EDGE_IP_VERSION GRACE_PERIOD HELLO_WORLD \
		HTTP_HOST_HEADER LOGDIRECTORY LOGFILE LOGLEVEL LOG_OUTPUT MANAGEMENT_OUTPUT \
		METRICS NAME NO_PRECHECKS ORIGIN_SERVER_NAME RETRIES TRANSPORT_PROTOCOL URL; do
		eval "[ \"\${TUNNEL_$name+set}\" ] && value=\$TUNNEL_$name" || continue
		case $value in
		*=*) ;;
		*) variables="$variables TUNNEL_$name:$value" ;;
		esac
	done
}

# It is one page for everything that it can't make sense of.
print_help() {
	page="Incorrect Usage: $1

NAME:
   cloudflared tunnel - Use Cloudflare Tunnel to expose private services to the Internet or to Cloudflare connected private users.

USAGE:
   cloudflared tunnel [command options]

OPTIONS:
"
	for name in api-ca-key api-email api-key api-url autoupdate-freq bastion cacert \
		compression-quality config credentials-contents credentials-file dial-edge-timeout \
		disable-quic-path-mtu-discovery edge edge-bind-address edge-ip-version features \
		force grace-period ha-connections heartbeat-count heartbeat-interval hello-world \
		hostname http-host-header http2-origin icmpv4-src icmpv6-src id is-autoupdated \
		label lb-pool logdirectory logfile loglevel management-diagnostics \
		management-hostname max-active-flows max-edge-addr-retries max-fetch-size metrics \
		metrics-update-freq name no-autoupdate no-chunked-encoding no-prechecks no-tls-verify \
		origin-ca-pool origin-server-name origincert output overwrite-dns pidfile \
		post-quantum protocol proxy-address proxy-connect-timeout proxy-dns proxy-dns-port \
		proxy-dns-upstream proxy-expect-continue-timeout proxy-keepalive-connections \
		proxy-keepalive-timeout proxy-no-happy-eyeballs proxy-port proxy-tcp-keepalive \
		proxy-tls-timeout quick-service region retries rpc-timeout service-op-ip socks5 \
		stdin-control tag token token-file trace-output transport-loglevel unix-socket url \
		use-reconnect-token write-stream-timeout; do
		fit "   --$name value" 42
		page="$page$fitted What $name is for, what it does where it isn't given, and which of the others it goes with or rules out. [\$TUNNEL_...]
"
	done
	put_page "$page"
	exit 0
}

put_page() {
	put "$1" 2>&1
}

# --- the parts of the log -------------------------------------------------------------

# say, for what concerns the one connection: adds which it is.
say_connection() {
	say "$@" connIndex 0 event 0 ip 198.41.200.193
}

request_tunnel() {
	if [ "$version" = 2023 ]; then
		terms=
	else
		terms=', are subject to the Cloudflare Online Services Terms of Use (https://www.cloudflare.com/website-terms/), and Cloudflare reserves the right to investigate your use of Tunnels for violations of such terms'
	fi
	say INF "Thank you for trying Cloudflare Tunnel. Doing so, without a Cloudflare account, is a quick way to experiment and try it out. However, be aware that these account-less Tunnels have no uptime guarantee$terms. If you intend to use Tunnels in production you should use a pre-created named tunnel by following: https://developers.cloudflare.com/cloudflare-one/connections/connect-apps"
	say INF 'Requesting new quick Tunnel on trycloudflare.com...'
}

print_url() {
	[ -z "${FAKE_DIR-}" ] || echo "$service" >"$FAKE_DIR/$$.service"
	bar=+--------------------------------------------------------------------------------------------+
	say INF "$bar"
	say INF '|  Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):  |'
	fit "|  $url" 93
	say INF "$fitted|"
	say INF "$bar"
}

places='[~/.cloudflared ~/.cloudflare-warp ~/cloudflare-warp /etc/cloudflared /usr/local/etc/cloudflared]'

# All between the URL and the first attempt to connect.
start_server() {
	phase=serving
	[ "$configuration" ] ||
		say INF "Cannot determine default configuration path. No file [config.yml config.yaml] in $places"
	if [ "$version" = 2023 ]; then
		say INF 'Version 2023.7.3'
		say INF 'GOOS: linux, GOVersion: go1.19.8, GoArch: amd64'
	else
		say INF 'Version 2026.8.2 (Checksum 9bb7b05eef6b065cd424fb6141906c47143cb9690f8ac4fb2df2dfe9e8bc3721)'
		say INF 'GOOS: linux, GOVersion: go1.26.10, GoArch: amd64'
	fi
	settings="${config_given:+config:/dev/null }ha-connections:1"
	[ -z "$pinned" ] || settings="$settings protocol:$protocol"
	say INF "Settings: map[$settings url:$origin]"
	list_variables
	[ -z "$variables" ] || say INF "Environmental variables map[${variables# }]"
	new_uuid
	say INF "Generated Connector ID: $uuid"
	is_true "${NO_AUTOUPDATE-}" ||
		say INF 'Autoupdate frequency is set' autoupdateFreq 86400000
	[ "$version" = 2026 ] ||
		say ERR 'update check failed' error 'Get "https://update.argotunnel.com?arch=amd64&clientVersion=2023.7.3&os=linux": dial tcp: lookup update.argotunnel.com on 192.0.2.53:53: dial udp 192.0.2.53:53: connect: network is unreachable'
	[ "$version" = 2026 ] || say WRN 'Unable to lookup protocol percentage.'
	case $protocol in
	quic | http2) ;;
	*) refuse_to_serve "unknown protocol $protocol, Available protocols: 'auto' - automatically chooses the best protocol over time (the default; and also the recommended one); 'quic' - based on QUIC, relying on UDP egress to Cloudflare edge; 'http2' - using Go's HTTP2 library, relying on TCP egress to Cloudflare edge" ;;
	esac
	say INF "Initial protocol $protocol"
	is_duration "${TUNNEL_GRACE_PERIOD-}"
	[ "$seconds" -le 180 ] ||
		refuse_to_serve 'grace-period must be equal or less than 3m0s'
	case ${TUNNEL_EDGE_IP_VERSION-auto} in
	4 | 6 | auto) ;;
	*) refuse_to_serve "invalid value for edge-ip-version: $TUNNEL_EDGE_IP_VERSION" ;;
	esac
	if [ "$version" = 2023 ]; then
		complain_of_discovery
		random 20000
		metrics=127.0.0.1:$((random + 32768))
	else
		complain_of_ping
		metrics=127.0.0.1:20241
	fi
	[ -z "${TUNNEL_HELLO_WORLD-}" ] || say INF 'Starting Hello World server at 127.0.0.1:43211'
	say INF "Starting metrics server on ${TUNNEL_METRICS:-$metrics}/metrics"
}

refuse_to_serve() {
	say ERR "Couldn't start tunnel" error "$1"
	fail "$1"
}

complain_of_discovery() {
	say ERR 'edge discovery: error looking up Cloudflare edge IPs: the DNS query failed' error 'lookup _v2-origintunneld._tcp.argotunnel.com on 192.0.2.53:53: dial udp 192.0.2.53:53: connect: network is unreachable' event 0
	say ERR 'Please try the following things to diagnose this issue:' event 0
	say ERR '  1. ensure that argotunnel.com is returning "origintunneld" service records.' event 0
	say ERR "     Run your system's equivalent of: dig srv _origintunneld._tcp.argotunnel.com" event 0
	say ERR '  2. ensure that your DNS resolver is not returning compressed SRV records.' event 0
	say ERR '     See GitHub issue https://github.com/golang/go/issues/27546' event 0
	say ERR "     For example, you could use Cloudflare's 1.1.1.1 as your resolver:" event 0
	say ERR '     https://developers.cloudflare.com/1.1.1.1/setting-up-1.1.1.1/' event 0
}

complain_of_ping() {
	sources='ICMP proxy will use 0.0.0.0 as source for IPv4'
	sources6='ICMP proxy will use ::1 in zone lo as source for IPv6'
	say INF "$sources"
	say INF "$sources6"
	say WRN 'The user running cloudflared process has a GID (group ID) that is not within ping_group_range. You might need to add that user to a group within that range, or instead update the range to encompass a group the user is already in by modifying /proc/sys/net/ipv4/ping_group_range. Otherwise cloudflared will not be able to ping this network' error 'Group ID 0 is not between ping group 1 to 0'
	say WRN 'ICMP proxy feature is disabled' error 'cannot create ICMPv4 proxy: Group ID 0 is not between ping group 1 to 0 nor ICMPv6 proxy: socket: permission denied'
	say INF "$sources"
	say INF "$sources6"
}

# --- the pre-checks -------------------------------------------------------------------

# check_edge UDP TCP: the table and what follows it, each of the two PASS or FAIL; unless
# they are turned off, or it is too old for them.
check_edge() {
	if [ "$version" = 2023 ] || is_true "${TUNNEL_NO_PRECHECKS-}"; then
		return
	fi
	udp='QUIC connection successful'
	tcp='HTTP/2 connection successful'
	[ "$1" = PASS ] || udp='QUIC connection failed'
	[ "$2" = PASS ] || tcp='HTTP/2 connection is blocked or unreachable'
	hard=false
	suggested=http2
	summary="Environment ready with degraded transport. cloudflared will proceed using 'http2'."
	case $1:$2 in
	PASS:PASS)
		suggested=$protocol
		summary="Environment is healthy. cloudflared will use '$protocol' as primary protocol."
		;;
	PASS:*)
		suggested=quic
		summary="Environment ready with degraded transport. cloudflared will proceed using 'quic'."
		;;
	FAIL:FAIL)
		hard=true
		suggested=
		summary='Environment has critical failures. cloudflared may not be able to establish a tunnel.'
		;;
	esac
	details=$tcp
	[ ${#udp} -le ${#tcp} ] || details=$udp
	# Three columns of 18, 27 and 8 characters stand before the details.
	inner=$((${#details} + 53))
	[ $((${#summary} + 9)) -le $inner ] || inner=$((${#summary} + 9))
	inner=$((inner + 4))
	draw_table "$@"
	new_uuid
	for_each_check log_check "$@"
	if [ "$suggested" ]; then
		say INF 'precheck complete' hard_fail $hard run_id "$uuid" suggested_protocol "$suggested"
	else
		say INF 'precheck complete' hard_fail $hard run_id "$uuid"
	fi
}

# for_each_check COMMAND UDP TCP: calls it with component, target, status and details.
for_each_check() {
	for region in region1 region2; do
		"$1" 'DNS Resolution' $region.v2.argotunnel.com PASS 'DNS Resolved successfully'
	done
	for region in region1 region2; do
		"$1" 'UDP Connectivity' $region.v2.argotunnel.com "$2" "$udp"
	done
	for region in region1 region2; do
		"$1" 'TCP Connectivity' $region.v2.argotunnel.com "$3" "$tcp"
	done
	"$1" 'Cloudflare API' api.cloudflare.com:443 PASS 'API is reachable'
}

draw_table() {
	bar=+
	while [ ${#bar} -le $inner ]; do
		bar=$bar-
	done
	title='CONNECTIVITY PRE-CHECKS'
	fit '' $(((inner - ${#title}) / 2 - 2))
	say INF "$bar+"
	draw_row "$fitted$title"
	say INF "$bar+"
	draw_check COMPONENT TARGET STATUS DETAILS
	for_each_check draw_check "$@"
	degree=WARNING
	[ $hard = false ] || degree=ERROR
	if [ "$1" = FAIL ]; then
		draw_row "$degree: Allow outbound QUIC traffic on port 7844 or use HTTP2."
		draw_row "$degree: Allow outbound QUIC traffic on port 7844 or use HTTP2."
	fi
	if [ "$2" = FAIL ]; then
		draw_row "$degree: Allow outbound TCP on port 7844."
		draw_row "$degree: Allow outbound TCP on port 7844."
	fi
	draw_row ''
	draw_row "SUMMARY: $summary"
	say INF "$bar+"
}

draw_row() {
	fit "|  $1" $((inner + 1))
	say INF "$fitted|"
}

draw_check() {
	fit "$1" 18
	row=$fitted
	fit "$2" 27
	row=$row$fitted
	fit "$3" 8
	draw_row "$row$fitted$4"
}

log_check() {
	result=pass
	[ "$3" = PASS ] || result=fail
	say INF precheck component "$1" details "$4" run_id "$uuid" status $result target "$2"
}

# --- the connection -------------------------------------------------------------------

dial() {
	[ "$version" = 2023 ] ||
		say_connection INF 'Tunnel connection curve preferences: [X25519MLKEM768 CurveID(65074) CurveP256]'
}

register() {
	registered=yes
	retries=reset
	new_uuid
	location=tst01
	[ "$version" = 2026 ] || location=tpe01
	if [ "$mode" = old-edge ]; then
		say INF "Connection $uuid registered" connIndex 0 ip 198.41.200.193 location TPE
	else
		say INF 'Registered tunnel connection' connIndex 0 connection "$uuid" event 0 ip 198.41.200.193 location $location protocol "$protocol"
	fi
}

# What follows the URL where nothing is in the way.
serve() {
	start_server
	dial
	check_edge PASS PASS
	register
}

connect() {
	print_url
	serve
}

# It waits for twice as long as the time before, at random less; after a connection it
# starts anew.
retry() {
	case $retries in
	reset) span=1s retries=1 ;;
	0) span=2s retries=1 ;;
	1) span=4s retries=2 ;;
	2) span=8s retries=3 ;;
	3) span=16s retries=4 ;;
	4) span=32s retries=5 ;;
	*) span=1m4s ;;
	esac
	say_connection INF "Retrying connection in up to $span"
}

# stop_serving DATAGRAM-ERROR ERROR: how a QUIC connection of 2026 ends.
stop_serving() {
	say_error 'failed to run the datagram handler' "$1"
	say_error 'failed to serve tunnel connection' "$2"
	say_error 'Serve tunnel error' "$2"
}

say_error() {
	say ERR "$1" error "$2" connIndex 0 event 0 ip 198.41.200.193
}

# An attempt that reaches nobody. 2023 doesn't tell of the next one.
fail_to_dial() {
	case $version:$protocol in
	*:http2)
		say_error 'Unable to establish connection with Cloudflare edge' 'DialContext error: dial tcp 198.41.200.193:7844: i/o timeout'
		retry
		;;
	2023:*) say_error 'Failed to create new quic connection' 'failed to dial to edge with quic: timeout: no recent network activity' ;;
	*)
		say_error 'Failed to dial a quic connection' 'failed to dial to edge with quic: timeout: no recent network activity'
		retry
		;;
	esac
}

be_refused() {
	registered=
	say_error 'Register tunnel error from server side' 'Unauthorized: Tunnel not found'
	retry
}

# Over QUIC, 2026 keeps to itself what the edge said.
be_rejected() {
	if [ "$version:$protocol" != 2026:quic ]; then
		be_refused
		return
	fi
	registered=
	stop_serving 'context canceled' 'control stream encountered a failure while serving'
	retry
}

lose() {
	registered=
	say_connection INF 'Unregistered tunnel connection'
	case $version:$protocol in
	*:http2)
		say INF 'Lost connection with the edge' connIndex 0
		say_error 'Serve tunnel error' 'connection with edge closed'
		retry
		say ERR 'Connection terminated' error 'connection with edge closed' connIndex 0
		;;
	2023:*)
		say_error 'Failed to serve quic connection' 'timeout: no recent network activity'
		say_error 'Serve tunnel error' 'timeout: no recent network activity'
		retry
		say ERR 'Connection terminated' error 'timeout: no recent network activity' connIndex 0
		;;
	*)
		say_error 'failed to accept incoming stream requests' 'failed to accept QUIC stream: timeout: no recent network activity'
		stop_serving 'timeout: no recent network activity' 'accept stream listener encountered a failure while serving'
		retry
		;;
	esac
}

# An attempt that nobody answers takes its time to fail.
keep_failing() {
	while :; do
		dial
		pause "$interval"
		read_clock
		fail_to_dial
	done
}

# keep_refusing COMMAND: one that is answered comes after a wait.
keep_refusing() {
	while :; do
		pause 2
		read_clock
		dial
		"$1"
	done
}

# never_reach TCP: the second attempt fails when the pre-checks do, which say whether TCP
# would get through.
never_reach() {
	print_url
	start_server
	dial
	pause "${FAKE_DELAY:-5}"
	read_clock
	fail_to_dial
	dial
	pause "$interval"
	read_clock
	check_edge FAIL "$1"
	fail_to_dial
	keep_failing
}

connect_and_lose() {
	connect
	pause "${FAKE_DELAY:-1}"
	read_clock
	lose
}

end_by_itself() {
	say ERR 'Initiating shutdown' error 'connection with edge closed'
	say INF 'Tunnel server stopped'
	say INF 'Metrics server stopped'
	fail 'connection with edge closed' "${FAKE_STATUS:-1}"
}

# --- how a start fails ----------------------------------------------------------------

refuse_to_start() {
	fail_request 'context deadline exceeded (Client.Timeout exceeded while awaiting headers)' "${FAKE_STATUS:-1}"
}

fail_request() {
	fail "failed to request quick Tunnel: Post \"https://api.trycloudflare.com/tunnel\": $1" "${2:-1}"
}

# fail_to_parse ANSWER STATUS: an answer that is no JSON. 2023 doesn't show it.
fail_to_parse() {
	first=${1%"${1#?}"}
	[ "$version" = 2023 ] ||
		say ERR "Error unmarshaling QuickTunnel response: $1" error "invalid character '$first' looking for beginning of value" status_code "$2"
	fail "failed to unmarshal quick Tunnel: invalid character '$first' looking for beginning of value"
}

# Fails as the mode $1 does.
fail_as() {
	distrust='tls: failed to verify certificate: x509:'
	[ "$version" = 2026 ] || distrust=x509:
	case $1 in
	rate-limited) fail_to_parse "error code: 1015$newline" '429 Too Many Requests' ;;
	rate-limited-2026)
		version=2026
		fail_as rate-limited
		;;
	api-500) fail_to_parse 'error code: 1101' '500 Internal Server Error' ;;
	captive-portal)
		fail_to_parse '<!DOCTYPE html>
<html>
<head><title>Welcome</title></head>
<body class="portal">
<p>Please <a href="https://login.hotspot.example/?next=1&amp;to=api.trycloudflare.com">sign in</a> to use this network.</p>
</body>
</html>
' '200 OK'
		;;
	no-tunnel-id) fail 'failed to parse quick Tunnel ID: invalid UUID length: 0' ;;
	no-network) fail_request 'dial tcp: lookup api.trycloudflare.com on 192.0.2.53:53: dial udp 192.0.2.53:53: connect: network is unreachable' ;;
	no-dns) fail_request 'dial tcp: lookup api.trycloudflare.com on 127.0.0.1:53: no such host' ;;
	dns-timeout) fail_request 'dial tcp: lookup api.trycloudflare.com on 192.0.2.53:53: read udp 192.0.2.2:48611->192.0.2.53:53: i/o timeout' ;;
	api-refused) fail_request 'dial tcp 198.41.200.193:443: connect: connection refused' ;;
	api-hang)
		pause "${FAKE_DELAY:-15}"
		fail_request 'context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
		;;
	certificate) fail_request "$distrust certificate signed by unknown authority" ;;
	clock) fail_request "$distrust certificate has expired or is not yet valid: current time 1970-01-01T00:00:42Z is before 2026-10-02T00:00:00Z" ;;
	api-fails) fail_request "${FAKE_REASON:-EOF}" ;;
	esac
}

# TUNNEL_NAME makes a tunnel that stays in the account, where there is a certificate.
create_named_tunnel() {
	if [ ! -f "$home/.cloudflared/cert.pem" ]; then
		complaint="Cannot determine default origin certificate path. No file cert.pem in $places. You need to specify the origin certificate path by specifying the origincert option in the configuration file, or set TUNNEL_ORIGIN_CERT environment variable"
		# Once when it looks for the tunnel, once when it makes it.
		say ERR "$complaint"
		say ERR "$complaint"
		fail "failed to create tunnel: couldn't create client to talk to Cloudflare Tunnel backend: Error locating origin cert: client didn't specify origincert path"
	fi
	new_uuid
	put_page "Tunnel credentials written to $home/.cloudflared/$uuid.json. cloudflared chose this file based on where your origin certificate was found. Keep this file secret. To revoke these credentials, delete the tunnel.

Created tunnel $TUNNEL_NAME with id $uuid
"
	serve
	stay
}

# --- strange logs ---------------------------------------------------------------------

print_look_alikes() {
	letters=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
	for it in https://api.trycloudflare.com https://api.trycloudflare.com/tunnel \
		HTTPS://API.TRYCLOUDFLARE.COM https://Api.TryCloudflare.com: \
		https://trycloudflare.com https://.trycloudflare.com \
		http://x.trycloudflare.com https:/x.trycloudflare.com \
		https://x.trycloudflare.com.evil.example https://x.trycloudflare.com-evil \
		https://x.trycloudflare.com_evil https://x.trycloudflare.com.-evil \
		https://x.trycloudflare.company https://x.trycloudflare.com1 \
		https://x.trycloudflare.co https://xtrycloudflare.com \
		https://x.nottrycloudflare.com https://evil.example/x.trycloudflare.com \
		https://-x.trycloudflare.com https://x-.trycloudflare.com \
		https://x_y.trycloudflare.com https://a.b.trycloudflare.com \
		https://x@y.trycloudflare.com https://x..trycloudflare.com \
		"https://$letters$letters.trycloudflare.com"; do
		say INF "|  $it  |"
	done
}

# Titles, colours, a cleared screen, backspaces, a lone carriage return, DEL, NUL, and
# the C1 controls both as bytes and as UTF-8.
print_escapes() {
	printf '%s INF \033]0;owned\007\033[2J\033[31mred\033[0m \033[6n\n' "$stamp" >&2
	printf '%s INF over\rwritten \b\b\b \177 \013 \014 \000 nul\n' "$stamp" >&2
	printf '%s INF c1 \23331m \2350;owned\234 \302\23331m \302\2350;owned\302\234\n' "$stamp" >&2
	printf '%s INF caf\303\251 \377\376 tab\there\n' "$stamp" >&2
}

# --- driven by a test -----------------------------------------------------------------

# Sets $event to the next line of the FIFO. Whoever reads it must be killable while it
# waits, and see the end of the FIFO if we are gone: so it is a child, and has but a
# reading end.
next_event() {
	: >"$FAKE_DIR/$$.event"
	# Braces, or yash makes two processes of it.
	{
		IFS= read -r event
		printf '%s\n' "$event" >"$FAKE_DIR/$$.event"
	} <"$control" >/dev/null 2>&1 3>&- &
	hold $!
	event=
	IFS= read -r event <"$FAKE_DIR/$$.event"
}

play_event() {
	rest=${1#"${1%% *}"}
	rest=${rest# }
	case $1 in
	url)
		print_url
		start_server
		dial
		check_edge PASS PASS
		;;
	register) register ;;
	fail) fail_to_dial ;;
	refuse) be_refused ;;
	reject) be_rejected ;;
	lose) lose ;;
	'checks '*) check_edge "${rest% *}" "${rest#* }" ;;
	die | 'die '*)
		FAKE_STATUS=${rest:-1}
		[ $phase = serving ] || refuse_to_start
		end_by_itself
		;;
	exit | 'exit '*) exit "${rest:-0}" ;;
	kill | 'kill '*) die_by "${rest:-KILL}" ;;
	'log '*) say "${rest%% *}" "${rest#* }" ;;
	'line '*) put "$rest$newline" ;;
	*)
		fail_as "$1"
		put "fake-cloudflared.sh: no such event: $1$newline"
		exit 2
		;;
	esac
}

be_driven() {
	control=${FAKE_CONTROL:-$FAKE_DIR/control}
	[ -p "$control" ] || mkfifo "$control" 2>/dev/null
	# Both ends, or opening it waits, and what is written is lost whenever nobody reads.
	exec 3<>"$control"
	while :; do
		if next_event; then
			read_clock
			play_event "$event"
			printf '%s\n' "$event" >>"$FAKE_DIR/$$.played"
		fi
	done
}

# --- the start ------------------------------------------------------------------------

case ${1-} in
-h | --help)
	help
	exit 0
	;;
esac

version=${FAKE_VERSION:-2026}
[ "$mode" != rate-limited-2026 ] || version=2026
case $version in
2023 | 2026) ;;
*)
	echo "fake-cloudflared.sh: no such FAKE_VERSION: $version (2023, 2026)" >&2
	exit 2
	;;
esac

read_clock
seed=$((${clock#* } % 32749 * 65521 + $$ % 65521 + 1))
random 2; random 2; random 2 # neighbouring seeds begin alike
name_host
registered=
retries=0
interval=${FAKE_DELAY:-5}
[ "$interval" != 0 ] || interval=1

config_given=
origin=${3-}
usage=
case $#:${1-}:${2-}:${4-}:${5-} in
3:tunnel:--url::) ;;
5:tunnel:--url:--config:/dev/null) config_given=yes ;;
*) usage="flag provided but not defined: $*" ;;
esac
find_configuration

service=$origin
[ -z "${TUNNEL_BASTION-}" ] || service=bastion
[ -z "${TUNNEL_HELLO_WORLD-}" ] || service=hello_world

# A quick tunnel is pinned to QUIC unless something was said, be it nothing.
pinned=
protocol=${TUNNEL_TRANSPORT_PROTOCOL-unset}
case $version:$mode:$protocol in
2026:*:unset | 2023:no-edge:unset | 2023:udp-blocked:unset) pinned=yes protocol=quic ;;
2023:*:unset) protocol=http2 ;;
*:auto) protocol=quic ;;
esac

json=
case $mode:${TUNNEL_MANAGEMENT_OUTPUT-${TUNNEL_LOG_OUTPUT-}} in
json:* | json-split:* | *:json) json=yes ;;
esac

[ -z "${FAKE_DIR-}" ] || record "$@"
trap 'on_signal TERM' TERM
trap 'on_signal INT' INT
trap 'on_signal HUP' HUP
trap 'on_signal QUIT' QUIT
trap 'on_signal CONT' CONT
[ -z "${FAKE_DIR-}" ] || echo $$ >>"$FAKE_DIR/starts"

[ -z "$usage" ] || print_help "$usage"
variables_parse || exit 0
set_threshold "${TUNNEL_LOGLEVEL-info}"
[ -z "$config_given" ] || say ERR 'Configuration file /dev/null was empty'
[ -z "$configuration" ] || load_configuration
[ -z "${TUNNEL_NAME-}" ] || create_named_tunnel

case $mode in
silent-exit)
	exit 0
	;;
help-page)
	print_help 'invalid value "yes" for flag -no-tls-verify: parse error'
	;;
esac
request_tunnel

case $mode in
connect | json | json-split | bytes | old-edge | ignore-term | slow-stop)
	connect
	;;
slow)
	pause "${FAKE_DELAY:-1}"
	read_clock
	connect
	;;
late-edge)
	print_url
	start_server
	dial
	check_edge PASS PASS
	pause "${FAKE_DELAY:-1}"
	read_clock
	register
	;;
driven)
	be_driven
	;;
rate-limited | rate-limited-2026 | api-500 | captive-portal | no-tunnel-id | no-network)
	fail_as "$mode"
	;;
no-dns | dns-timeout | api-refused | api-hang | certificate | clock | api-fails)
	fail_as "$mode"
	;;
die-before)
	refuse_to_start
	;;
dies-n-times)
	deaths=0
	if [ -f "$FAKE_DIR/deaths" ]; then
		read -r deaths <"$FAKE_DIR/deaths"
	fi
	if [ "$deaths" -lt "${FAKE_COUNT:-1}" ]; then
		echo $((deaths + 1)) >"$FAKE_DIR/deaths"
		refuse_to_start
	fi
	connect
	;;
silent) ;;
no-edge)
	never_reach FAIL
	;;
udp-blocked)
	[ "$protocol" = http2 ] || never_reach PASS
	print_url
	start_server
	dial
	register
	# The pre-checks try both, and take their time.
	pause 10
	read_clock
	check_edge FAIL PASS
	;;
edge-refuses)
	print_url
	start_server
	dial
	check_edge PASS PASS
	be_rejected
	dial
	be_rejected
	keep_refusing be_rejected
	;;
edge-lost)
	connect_and_lose
	interval=5
	keep_failing
	;;
edge-back)
	connect_and_lose
	dial
	pause "${FAKE_DELAY:-1}"
	read_clock
	register
	;;
edge-gone)
	connect_and_lose
	dial
	be_refused
	keep_refusing be_refused
	;;
edge-forgets)
	connect_and_lose
	dial
	be_rejected
	keep_refusing be_rejected
	;;
die-after)
	connect
	pause "${FAKE_DELAY:-0}"
	read_clock
	end_by_itself
	;;
die-by-signal)
	connect
	pause "${FAKE_DELAY:-0}"
	die_by "${FAKE_SIGNAL:-KILL}"
	;;
grandchild)
	# What is ignored now stays so in the child, whenever it gets to run.
	trap '' TERM INT HUP
	exec sleep 600 &
	[ -z "${FAKE_DIR-}" ] || echo $! >"$FAKE_DIR/grandchild"
	trap 'on_signal TERM' TERM
	trap 'on_signal INT' INT
	trap 'on_signal HUP' HUP
	connect
	;;
close-log)
	connect
	exec >&- 2>&-
	# There is no log to say good-bye in.
	threshold=9
	;;
flood)
	connect
	count=0
	while heed_signals; do
		count=$((count + 1))
		put "$stamp DBG GET $url/ HTTP/1.1 connIndex=0 content-length=0 event=1 headers={\"Accept\":[\"*/*\"],\"Cf-Ray\":[\"$count-TPE\"]} host=$host ingressRule=0 originService=$origin path=/$newline"
	done
	;;
endless-line)
	head -c "${FAKE_BYTES:-1048576}" /dev/zero | tr '\0' x >&2 &
	hold $!
	put " $stamp INF |  $url  |$newline"
	serve
	;;
no-newline)
	phase=serving
	printf '%s INF |  %s' "$stamp" "$url" >&2
	;;
look-alikes)
	print_look_alikes
	connect
	;;
stdout)
	print_url 2>&1
	serve
	;;
escape)
	print_escapes
	[ -z "${FAKE_STATUS-}" ] || refuse_to_start
	connect
	print_escapes
	;;
*)
	echo "fake-cloudflared.sh: no such FAKE_MODE: $mode (-h lists them)" >&2
	exit 2
	;;
esac
stay
