# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables set here are the tests' to read
#
# What the test files about resolvers have in common: each test has a network of its own
# (test/helpers/world) with dnsmasq for a resolver and name servers that don't know the
# name yet when cloudflared has registered.

# shellcheck source-path=SCRIPTDIR source=names.bash
source "$BATS_TEST_DIRNAME/names.bash"

WORLD=$ROOT/test/helpers/world
PATH=$PATH:/usr/sbin:/sbin

# The zone's name servers, and one that a resolver with a route of its own asks.
ONE=198.51.100.1
TWO=198.51.100.2
BEHIND=203.0.113.1

setup_world() {
	names_setup
	need unshare nsenter mount ip dnsmasq
	"$WORLD" can || skip 'no network namespaces here'
	server_names=(-n "one.ns.cloudflare.com=$ONE" -n "two.ns.cloudflare.com=$TWO")
	# shellcheck disable=SC2016 # the script's to expand
	published='(sleep 2; echo yes >"$ZONE/.$LABEL"; mv "$ZONE/.$LABEL" "$ZONE/$LABEL") >/dev/null 2>&1 &'
	connects "name; sleep 0.3; register; $published"
}

# make_world ADDRESS...: sets $world.
make_world() {
	start_program "$WORLD" hold "$BATS_TEST_TMPDIR" "$@"
	world=$pid
	await test -e "$BATS_TEST_TMPDIR/ready"
}

inside() {
	"$WORLD" in "$world" "$@"
}

start_inside() {
	start_program "$WORLD" in "$world" "$@"
}

# name_server NUMBER ADDRESS...: what it says is in $zone.
name_server() {
	local number=$1 server_options
	shift
	server_options=("${server_names[@]}" "$@")
	start_server_of "$BATS_TEST_TMPDIR/zone$number" "$BATS_TEST_TMPDIR/asked$number" \
		"$WORLD" in "$world" "$AUTHORITY"
	export ZONE=$BATS_TEST_TMPDIR/zone1
}

# resolver ADDRESS[%ZONE] [UPSTREAM]: dnsmasq there; its log is resolver.ADDRESS[%ZONE].
resolver() {
	local out err pid start_options=()
	start_inside dnsmasq --conf-file=/dev/null --no-daemon --no-resolv --no-hosts \
		--bind-interfaces --listen-address="${1%\%*}" --log-queries \
		--log-facility="$BATS_TEST_TMPDIR/resolver.$1" ${2+--server="$2"}
	await resolves "$1"
}

resolves() {
	[ "$(inside "$AUTHORITY" -q trycloudflare.com SOA "[$1]")" != nothing ]
}

resolv_conf() {
	printf '%s\n' "$@" >"$BATS_TEST_TMPDIR/etc/resolv.conf"
}

# The usual one: a name server at two addresses, and a resolver.
usual_world() {
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	resolver 127.0.0.1 "$ONE"
	resolv_conf 'nameserver 127.0.0.1'
}

# The lines of a resolver's log with questions about the label.
resolver_saw() {
	grep -h "query.* $2\.trycloudflare\.com " "$BATS_TEST_TMPDIR/resolver.$1" || :
}

# visit LABEL PORT [OPTION...]: starts a tunnel and, the moment its URL is printed, asks
# the resolver for it as a browser would. The visitor prints the URL and what it was told.
visit() {
	local label=$1 port=$2
	shift 2
	# shellcheck disable=SC2016 # the script's to expand
	LABEL=$label start_inside sh -c '
		label=$1 port=$2 authority=$3 tunnel=$4
		shift 4
		mkfifo "$TMPDIR/$label"
		"$tunnel" "$@" "$port" >"$TMPDIR/$label" &
		read -r url <"$TMPDIR/$label"
		: >"$TMPDIR/$label.printed"
		told=$("$authority" -q "${url#https://}" A "${RESOLVER-127.0.0.1}")
		echo "$url $told"
		kill "$!"
		wait "$!"' visit "$label" "$port" "$AUTHORITY" "$TUNNEL" "$@"
}

# The URL came, the resolver knew it, and nobody had asked the resolver for it before.
assert_good_visit() {
	await test -s "$2" -o -s "${2%.out}.result"
	assert_equal "$(cat "$2")" "https://$1.trycloudflare.com NOERROR ${3-192.0.2.80}"
	assert_equal "$(early_questions "$1")" ''
}

# Questions with recursion that came to the name servers before the URL was printed.
early_questions() {
	local printed
	printed=$(milliseconds "$TMPDIR/$1.printed")
	cat "$BATS_TEST_TMPDIR"/asked* | awk -v name="$1.trycloudflare.com" -v printed="$printed" \
		'$7 == name && $6 == 1 && $1 * 1000 < printed - 50'
}

# A tunnel whose name is never published.
start_unpublished() {
	connects 'name; sleep 0.3; register'
	start_inside "$TUNNEL" 8080
}

# assert_unasked: no resolver or interceptor heard of the name, nor did a name server.
assert_unasked() {
	assert_equal "$(cat "$BATS_TEST_TMPDIR"/asked* "$BATS_TEST_TMPDIR"/resolver.* 2>/dev/null |
		grep -F 'one.trycloudflare.com')" ''
}
