#!/bin/sh
# fake-cloudflared.sh: plays cloudflared, so that tunnel can be tried without a network.
#
# usage: fake-cloudflared.sh tunnel --url ORIGIN [--config /dev/null]
#        fake-cloudflared.sh -h
#
# It logs what cloudflared 2023.7.3 logs, one write a line, to standard error, and
# names a new host on every start. FAKE_MODE chooses what happens:
#
#   connect            the URL and, at once, a registered connection (the default)
#   slow               the URL after FAKE_DELAY seconds (1), then as connect
#   late-edge          the URL at once, the connection after FAKE_DELAY seconds (1)
#   no-edge            the URL, but never a connection: nothing answers on port 7844
#   old-edge           the connection in the words used before 2022
#   silent             no URL, ever
#   rate-limited       the API answers 429: the bare last line of 2023
#   rate-limited-2026  the same, with the line that names the status since late 2024
#   no-network         the API can't be reached
#   no-tunnel-id       the API answers without a tunnel
#   die-before         exits with FAKE_STATUS (1) instead of naming a URL
#   die-after          exits with FAKE_STATUS (1) FAKE_DELAY seconds (0) after connecting
#   die-by-signal      kills itself with FAKE_SIGNAL (KILL) FAKE_DELAY seconds (0) after
#                      connecting
#   dies-n-times       die-before for the first FAKE_COUNT (1) starts, counted in
#                      FAKE_DIR, then connect
#   ignore-term        connects, then ignores TERM and INT
#   slow-stop          connects; takes FAKE_DELAY seconds (1) to stop
#   grandchild         connects and leaves a process in its group that outlives it,
#                      ignores TERM, INT and HUP, and holds the log open; its id is in
#                      FAKE_DIR/grandchild
#   close-log          connects, closes standard output and error, stays
#   flood              connects, then logs without end
#   endless-line       FAKE_BYTES bytes (1048576) without a newline, then the URL
#   json               each line is a JSON object (as with TUNNEL_LOG_OUTPUT=json)
#   bytes              every byte is a write of its own
#   no-newline         the URL is the last thing logged, and no newline follows it
#   look-alikes        hosts that are not the tunnel, then the one that is
#   stdout             the box with the URL goes to standard output
#   escape             control characters and terminal escapes around the URL; with
#                      FAKE_STATUS set it exits with that status before the URL
#
# Honoured as the real one does: TUNNEL_LOGLEVEL, TUNNEL_LOG_OUTPUT, and a config.yml
# (its loglevel) unless --config is given. A signal before the URL kills it; after it
# the first TERM or INT stops it gracefully and a second one kills it.
#
# If FAKE_DIR names a directory, each start leaves there, before it logs anything:
# PID.args (an argument a line), PID.env (a variable a line), PID.cwd, PID.url, where
# there is a /proc PID.fds (ls -l of its descriptors), PID.stat, PID.status (its signal
# masks), PID.config (the path) if it loads a configuration file, and last its own
# process id as a line in starts. A signal adds its name as a line to PID.signals.

# Not set -e: a log line nobody takes is no reason to end, and traps run anywhere.
set -u
export LC_ALL=C

mode=${FAKE_MODE:-connect}
phase=starting
stopping=
deadly=
child=

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

# Writes a line of the log.
put() {
	if [ "$mode" != bytes ]; then
		printf '%s\n' "$1" >&2
		return
	fi
	rest="$1
"
	while [ -n "$rest" ]; do
		tail=${rest#?}
		printf %s "${rest%"$tail"}" >&2
		rest=$tail
	done
}

# Sets $quoted to $1 with its quotes and backslashes escaped.
quote() {
	quoted=
	rest=$1
	while :; do
		case $rest in
		*[\"\\]*) ;;
		*) break ;;
		esac
		head=${rest%%[\"\\]*}
		rest=${rest#"$head"}
		tail=${rest#?}
		quoted=$quoted$head\\${rest%"$tail"}
		rest=$tail
	done
	quoted=$quoted$rest
}

# say LEVEL MESSAGE [FIELD VALUE ...]: logs it, if the level is one that is logged.
say() {
	case $1 in
	DBG) rank=0 level=debug ;;
	INF) rank=1 level=info ;;
	WRN) rank=2 level=warn ;;
	*) rank=3 level=error ;;
	esac
	[ "$rank" -ge "$threshold" ] || return 0
	if [ "$json" ]; then
		quote "$2"
		line="{\"level\":\"$level\",\"time\":\"$stamp\",\"message\":\"$quoted\""
	else
		line="$stamp $1 $2"
	fi
	shift 2
	while [ $# -ge 2 ]; do
		quote "$2"
		case $json:$2 in
		yes:*[!0-9]*) line="$line,\"$1\":\"$quoted\"" ;;
		yes:*) line="$line,\"$1\":$2" ;;
		:*[\ \"]*) line="$line $1=\"$quoted\"" ;;
		*) line="$line $1=$2" ;;
		esac
		shift 2
	done
	[ -z "$json" ] || line="$line}"
	put "$line"
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
	put "$1"
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
	if [ "$registered" ]; then
		say INF 'Unregistered tunnel connection' connIndex 0 event 0 ip 198.41.200.193
		say INF 'Retrying connection in up to 1s' connIndex 0 event 0 ip 198.41.200.193
	fi
	if [ "$mode" = slow-stop ]; then
		pause "${FAKE_DELAY:-1}"
		read_clock
	fi
	[ -z "$registered" ] || say ERR 'no more connections active and exiting'
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
		(ls -l /proc/$$/fd/ >"$FAKE_DIR/$$.fds")
		# A child's own, which are ours: ours are in flux while we start it.
		grep ^Sig /proc/self/status >"$FAKE_DIR/$$.status"
		read -r line </proc/$$/stat
		echo "$line" >"$FAKE_DIR/$$.stat"
	else
		env >"$FAKE_DIR/$$.env"
	fi
}

# --- the parts of the log -------------------------------------------------------------

request_tunnel() {
	say INF 'Thank you for trying Cloudflare Tunnel. Doing so, without a Cloudflare account, is a quick way to experiment and try it out. However, be aware that these account-less Tunnels have no uptime guarantee. If you intend to use Tunnels in production you should use a pre-created named tunnel by following: https://developers.cloudflare.com/cloudflare-one/connections/connect-apps'
	say INF 'Requesting new quick Tunnel on trycloudflare.com...'
}

bar=+--------------------------------------------------------------------------------------------+

print_url() {
	say INF "$bar"
	say INF '|  Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):  |'
	row="|  $url"
	while [ ${#row} -lt 93 ]; do
		row="$row "
	done
	say INF "$row|"
	say INF "$bar"
}

start_server() {
	phase=serving
	if [ "$configuration" ]; then
		say DBG "Loading configuration from $configuration"
	elif [ -z "$config_given" ]; then
		say INF 'Cannot determine default configuration path. No file [config.yml config.yaml] in [~/.cloudflared ~/.cloudflare-warp ~/cloudflare-warp /etc/cloudflared /usr/local/etc/cloudflared]'
	fi
	say INF 'Version 2023.7.3'
	say INF 'GOOS: linux, GOVersion: go1.19.8, GoArch: amd64'
	protocol=http2
	[ "$mode" != no-edge ] || protocol=quic
	settings="${config_given:+config:/dev/null }"
	settings="$settings${TUNNEL_GRACE_PERIOD:+grace-period:$TUNNEL_GRACE_PERIOD }ha-connections:1"
	settings="$settings${TUNNEL_LOGLEVEL:+ loglevel:$TUNNEL_LOGLEVEL}"
	settings="$settings${NO_AUTOUPDATE:+ no-autoupdate:$NO_AUTOUPDATE}"
	[ $protocol = http2 ] || settings="$settings protocol:$protocol"
	say INF "Settings: map[$settings url:$origin]"
	variables="${TUNNEL_GRACE_PERIOD:+ TUNNEL_GRACE_PERIOD:$TUNNEL_GRACE_PERIOD}"
	variables="$variables${TUNNEL_LOGLEVEL:+ TUNNEL_LOGLEVEL:$TUNNEL_LOGLEVEL}"
	[ -z "$variables" ] || say INF "Environmental variables map[${variables# }]"
	new_uuid
	say INF "Generated Connector ID: $uuid"
	[ "${NO_AUTOUPDATE:-false}" != false ] ||
		say INF 'Autoupdate frequency is set' autoupdateFreq 86400000
	say ERR 'update check failed' error 'Get "https://update.argotunnel.com?arch=amd64&clientVersion=2023.7.3&os=linux": dial tcp: lookup update.argotunnel.com on 192.0.2.53:53: dial udp 192.0.2.53:53: connect: network is unreachable'
	say WRN 'Unable to lookup protocol percentage.'
	say INF "Initial protocol $protocol"
	say ERR 'edge discovery: error looking up Cloudflare edge IPs: the DNS query failed' error 'lookup _v2-origintunneld._tcp.argotunnel.com on 192.0.2.53:53: dial udp 192.0.2.53:53: connect: network is unreachable' event 0
	say ERR 'Please try the following things to diagnose this issue:' event 0
	say ERR '  1. ensure that argotunnel.com is returning "origintunneld" service records.' event 0
	say ERR "     Run your system's equivalent of: dig srv _origintunneld._tcp.argotunnel.com" event 0
	say ERR '  2. ensure that your DNS resolver is not returning compressed SRV records.' event 0
	say ERR '     See GitHub issue https://github.com/golang/go/issues/27546' event 0
	say ERR "     For example, you could use Cloudflare's 1.1.1.1 as your resolver:" event 0
	say ERR '     https://developers.cloudflare.com/1.1.1.1/setting-up-1.1.1.1/' event 0
	random 20000
	say INF "Starting metrics server on 127.0.0.1:$((random + 32768))/metrics"
}

register() {
	registered=yes
	new_uuid
	if [ "$mode" = old-edge ]; then
		say INF "Connection $uuid registered" connIndex 0 ip 198.41.200.193 location TPE
	else
		say INF 'Registered tunnel connection' connIndex 0 connection "$uuid" event 0 ip 198.41.200.193 location tpe01 protocol $protocol
	fi
}

connect() {
	print_url
	start_server
	register
}

refuse_to_start() {
	fail 'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": context deadline exceeded (Client.Timeout exceeded while awaiting headers)' "${FAKE_STATUS:-1}"
}

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

# --- the start ------------------------------------------------------------------------

case ${1-} in
-h | --help)
	help
	exit 0
	;;
esac

read_clock
seed=$((${clock#* } % 32749 * 65521 + $$ % 65521 + 1))
random 2; random 2; random 2 # neighbouring seeds begin alike
name_host
registered=

config_given=
origin=${3-}
usage=
case $#:${1-}:${2-}:${4-}:${5-} in
3:tunnel:--url::) ;;
5:tunnel:--url:--config:/dev/null) config_given=yes ;;
*) usage="unexpected arguments: $*" ;;
esac

configuration=
if [ -z "$config_given" ]; then
	for directory in "${HOME-}/.cloudflared" "${HOME-}/.cloudflare-warp" \
		"${HOME-}/cloudflare-warp" /etc/cloudflared /usr/local/etc/cloudflared; do
		for file in config.yml config.yaml; do
			if [ -z "$configuration" ] && [ -f "$directory/$file" ]; then
				configuration=$directory/$file
			fi
		done
	done
fi

level=${TUNNEL_LOGLEVEL-}
if [ -z "$level" ] && [ "$configuration" ]; then
	while read -r key value; do
		[ "$key" != loglevel: ] || level=$value
	done <"$configuration"
fi
case $level in
debug) threshold=0 ;;
'' | info) threshold=1 ;;
warn) threshold=2 ;;
error) threshold=3 ;;
fatal | panic) threshold=4 ;;
*) usage="unknown log level: $level" ;;
esac

json=
[ "$mode" != json ] && [ "${TUNNEL_LOG_OUTPUT-}" != json ] || json=yes

[ -z "${FAKE_DIR-}" ] || record "$@"
trap 'on_signal TERM' TERM
trap 'on_signal INT' INT
trap 'on_signal HUP' HUP
trap 'on_signal QUIT' QUIT
trap 'on_signal CONT' CONT
[ -z "${FAKE_DIR-}" ] || echo $$ >>"$FAKE_DIR/starts"

[ -z "$usage" ] || fail "Incorrect Usage: $usage"
[ -z "$config_given" ] || say ERR 'Configuration file /dev/null was empty'

case $mode in
connect | json | bytes | old-edge | ignore-term | slow-stop)
	request_tunnel
	connect
	;;
slow)
	request_tunnel
	pause "${FAKE_DELAY:-1}"
	read_clock
	connect
	;;
late-edge)
	request_tunnel
	print_url
	start_server
	pause "${FAKE_DELAY:-1}"
	read_clock
	register
	;;
no-edge)
	request_tunnel
	print_url
	start_server
	while :; do
		pause 5
		read_clock
		say ERR 'Failed to create new quic connection' error 'failed to dial to edge with quic: timeout: no recent network activity' connIndex 0 event 0 ip 198.41.200.193
	done
	;;
silent)
	request_tunnel
	;;
rate-limited)
	request_tunnel
	fail "failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning of value"
	;;
rate-limited-2026)
	request_tunnel
	say ERR 'Error unmarshaling QuickTunnel response: error code: 1015' error "invalid character 'e' looking for beginning of value" status_code '429 Too Many Requests'
	fail "failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning of value"
	;;
no-network)
	request_tunnel
	fail 'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": dial tcp: lookup api.trycloudflare.com on 192.0.2.53:53: dial udp 192.0.2.53:53: connect: network is unreachable'
	;;
no-tunnel-id)
	request_tunnel
	fail 'failed to parse quick Tunnel ID: invalid UUID length: 0'
	;;
die-before)
	request_tunnel
	refuse_to_start
	;;
die-after)
	request_tunnel
	connect
	pause "${FAKE_DELAY:-0}"
	read_clock
	say ERR 'Initiating shutdown' error 'connection with edge closed'
	say INF 'Tunnel server stopped'
	say INF 'Metrics server stopped'
	fail 'connection with edge closed' "${FAKE_STATUS:-1}"
	;;
die-by-signal)
	request_tunnel
	connect
	pause "${FAKE_DELAY:-0}"
	die_by "${FAKE_SIGNAL:-KILL}"
	;;
dies-n-times)
	request_tunnel
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
grandchild)
	request_tunnel
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
	request_tunnel
	connect
	exec >&- 2>&-
	# There is no log to say good-bye in.
	threshold=9
	;;
flood)
	request_tunnel
	connect
	count=0
	while heed_signals; do
		count=$((count + 1))
		put "$stamp DBG GET $url/ HTTP/1.1 connIndex=0 content-length=0 event=1 headers={\"Accept\":[\"*/*\"],\"Cf-Ray\":[\"$count-TPE\"]} host=$host path=/ rule=0"
	done
	;;
endless-line)
	request_tunnel
	head -c "${FAKE_BYTES:-1048576}" /dev/zero | tr '\0' x >&2 &
	hold $!
	put " $stamp INF |  $url  |"
	start_server
	register
	;;
no-newline)
	request_tunnel
	phase=serving
	printf '%s INF |  %s' "$stamp" "$url" >&2
	;;
look-alikes)
	request_tunnel
	print_look_alikes
	connect
	;;
stdout)
	request_tunnel
	print_url 2>&1
	start_server
	register
	;;
escape)
	request_tunnel
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
