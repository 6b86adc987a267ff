#!/usr/bin/env bats
# What becomes of a URL behind a resolver that caches, as those in routers do: each test
# has a network of its own (test/helpers/world) with dnsmasq for a resolver and name
# servers that don't know the name yet when cloudflared has registered.

# shellcheck disable=SC2030,SC2031,SC2154 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=names.bash
source "$BATS_TEST_DIRNAME/names.bash"

WORLD=$ROOT/test/helpers/world
PATH=$PATH:/usr/sbin:/sbin

# The zone's name servers, and one that a resolver with a route of its own asks.
ONE=198.51.100.1
TWO=198.51.100.2
BEHIND=203.0.113.1

setup() {
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

# resolver ADDRESS [UPSTREAM]: dnsmasq there; its log is resolver.ADDRESS.
resolver() {
	local out err pid start_options=()
	start_inside dnsmasq --conf-file=/dev/null --no-daemon --no-resolv --no-hosts \
		--bind-interfaces --listen-address="$1" --log-queries \
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

# --------------------------------------------------------------------------------------

@test "20 of 20 URLs resolve through a caching resolver the moment they are printed, the names 2 s behind the registration" {
	local number outs=()
	usual_world
	for number in {1..20}; do
		visit "w$number" $((8000 + number))
		outs+=("$out")
	done
	for number in {1..20}; do
		assert_good_visit "w$number" "${outs[number - 1]}"
		# The one of the visitor.
		assert_equal "$(resolver_saw 127.0.0.1 "w$number" | wc -l)" 1
	done
	# The resolver was of use, though not for that.
	assert_contains "$(cat "$BATS_TEST_TMPDIR/resolver.127.0.0.1")" 'query[NS] trycloudflare.com'
}

@test "printed as soon as cloudflared names it (-n), a URL is broken behind that resolver for half an hour" {
	local label outs=()
	usual_world
	for label in a b c; do
		visit "$label" "808${#outs[@]}" -n
		outs+=("$out")
	done
	for out in "${outs[@]}"; do
		await test -s "$out"
		assert_match "$(cat "$out")" '^https://[abc]\.trycloudflare\.com NXDOMAIN$'
	done
	for label in a b c; do
		publish "$label"
		assert_equal "$(inside "$AUTHORITY" -q "$label.trycloudflare.com" A "$ONE")" 'NOERROR 192.0.2.80'
		assert_equal "$(inside "$AUTHORITY" -q "$label.trycloudflare.com" A 127.0.0.1)" NXDOMAIN
	done
}

@test "behind a resolver -b and a command get a URL that works, too" {
	local first
	usual_world
	start_inside "$TUNNEL" -b 8080
	first=$out
	# shellcheck disable=SC2016 # the command's to expand
	LABEL=two start_inside "$TUNNEL" 8081 sh -c '"$0" -q "${TUNNEL_PUBLIC_URL#https://}" A 127.0.0.1' "$AUTHORITY"
	await test -s "$first"
	assert_equal "$(inside "$AUTHORITY" -q one.trycloudflare.com A 127.0.0.1)" 'NOERROR 192.0.2.80'
	assert_exit 0
	assert_equal "$(cat "$out")" 'NOERROR 192.0.2.80'
	inside "$TUNNEL" -k 8080
}

@test "UDP 53 to the name servers dropped: the URL 5 s after the registration, the resolver not asked for it" {
	make_world 127.0.0.1 "$BEHIND"
	name_server 1 "$BEHIND"
	resolver 127.0.0.1 "$BEHIND"
	resolv_conf 'nameserver 127.0.0.1'
	start_unpublished
	await_url
	assert_printed_after 5 one "$out"
	assert_unasked
}

@test "no way to the name servers, however the system says so: the URL 5 s after the registration" {
	server_names=(-n 'one.ns.cloudflare.com=192.0.2.1,2001:db8::1'
		-n 'two.ns.cloudflare.com=192.0.2.2,192.0.2.3')
	usual_world
	# Of 192.0.2.3 it knows nothing.
	inside ip route add blackhole 192.0.2.1
	inside ip route add prohibit 192.0.2.2
	start_unpublished
	await_url
	assert_printed_after 5 one "$out"
	assert_unasked
}

@test "a router that intercepts port 53 never hears of the name: 5 s" {
	make_world 127.0.0.1 "$ONE" "$TWO" "$BEHIND"
	# It leads to a resolver, whose answers are without authority.
	name_server 1 "$BEHIND"
	answers @ 'yes no-aa ra'
	assert_not_heard
}

# Both name servers are intercepted on the way to BEHIND, by what caches.
assert_not_heard() {
	resolver 127.0.0.1 "$BEHIND"
	resolver "$ONE" "$BEHIND"
	resolver "$TWO" "$BEHIND"
	resolv_conf 'nameserver 127.0.0.1'
	start_unpublished
	await_url
	assert_printed_after 5 one "$out"
	assert_unasked
	# It was asked what tells it from a name server.
	assert_contains "$(cat "$BATS_TEST_TMPDIR/resolver.$ONE" "$BATS_TEST_TMPDIR/resolver.$TWO")" \
		'query[SOA] trycloudflare.com'
}

@test "where one of two name servers is intercepted only the other is asked" {
	make_world 127.0.0.1 "$ONE" "$TWO" "$BEHIND"
	name_server 2 "$BEHIND"
	answers @ 'yes no-aa ra'
	name_server 1 "$TWO"
	resolver 127.0.0.1 "$TWO"
	resolver "$ONE" "$BEHIND"
	resolv_conf 'nameserver 127.0.0.1'
	visit one 8080
	assert_good_visit one "$out"
	assert_equal "$(resolver_saw "$ONE" one)" ''
}

@test "a resolver that refuses: the URL 5 s after the registration" {
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	resolver 127.0.0.1
	resolv_conf 'nameserver 127.0.0.1'
	assert_equal "$(inside "$AUTHORITY" -q trycloudflare.com NS 127.0.0.1)" REFUSED
	start_unpublished
	await_url
	assert_printed_after 5 one "$out"
	assert_unasked
}

@test "a resolver that doesn't answer: the URL 5 s after the registration" {
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	resolv_conf 'nameserver 198.51.100.53'
	start_unpublished
	await_url
	assert_printed_after 5 one "$out"
	assert_unasked
}

@test "no resolver at all, or no resolv.conf: the URL 5 s after the registration" {
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	[ ! -e "$BATS_TEST_TMPDIR/etc/resolv.conf" ]
	start_unpublished
	await_url
	assert_printed_after 5 one "$out"
	: >"$BATS_TEST_TMPDIR/etc/resolv.conf"
	rm "$FAKE_DIR/one.registered"
	start_inside "$TUNNEL" 8081
	await_url
	assert_printed_after 5 one "$out"
	assert_unasked
}

@test "a second resolver is asked where the first is dead, or refuses" {
	local first outs=() port=8080
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	resolver 127.0.0.1 "$ONE"
	resolver 127.0.0.2
	for first in 198.51.100.53 127.0.0.2; do
		resolv_conf "nameserver $first" 'nameserver 127.0.0.1'
		visit "v$port" "$port"
		outs+=("$out")
		port=$((port + 1))
		await was_asked_often 127.0.0.1 "${#outs[@]}"
	done
	for port in 8080 8081; do
		assert_good_visit "v$port" "${outs[port - 8080]}"
		[ -n "$(questions "v$port" | awk '$6 == 0')" ]
	done
}

# The resolver was asked for the zone's name servers N times.
was_asked_often() {
	[ "$(grep -cF 'query[NS] trycloudflare.com' "$BATS_TEST_TMPDIR/resolver.$1")" -ge "$2" ]
}

@test "resolv.conf is read as it is found in the wild" {
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	resolver 127.0.0.1 "$ONE"
	resolv_conf '# made by a program' '; and another' '' 'search lan example.com' 'options edns0 trust-ad' \
		'nameserver' 'nameserver nonsense' 'nameservers 198.51.100.54' '#nameserver 198.51.100.55' \
		'nameserver fe80::1%lo' 'nameserver 192.0.2.53' 'sortlist 198.51.100.0/255.255.255.0'
	printf 'nameserver\t  127.0.0.1  # the router' >>"$BATS_TEST_TMPDIR/etc/resolv.conf"
	visit one 8080
	assert_good_visit one "$out"
	[ -n "$(questions one | awk '$6 == 0')" ]
}

@test "IPv6 only: the name servers are asked by IPv6" {
	[ -e /proc/sys/net/ipv6 ] || skip 'no IPv6 here'
	local six=2001:db8::1
	server_names=(-n "one.ns.cloudflare.com=$ONE,$six" -n "two.ns.cloudflare.com=$TWO,2001:db8::2")
	make_world ::1 "$six" 2001:db8::2
	name_server 1 "[$six]" '[2001:db8::2]'
	resolver ::1 "$six"
	resolv_conf 'nameserver ::1'
	export RESOLVER=::1
	visit one 8080
	assert_good_visit one "$out"
	assert_equal "$(questions one | awk '$6 == 0 { print $2 }' | sort -u)" "[$six]:53
[2001:db8::2]:53"
}

@test "IPv4 only: name servers that have IPv6 addresses as well are asked by IPv4" {
	server_names=(-n "one.ns.cloudflare.com=$ONE,2001:db8::1" -n "two.ns.cloudflare.com=$TWO,2001:db8::2")
	usual_world
	visit one 8080
	assert_good_visit one "$out"
	assert_equal "$(questions one | awk '$6 == 0 { print $2 }' | sort -u)" "$ONE:53
$TWO:53"
}

@test "name servers that answer after 1 s: the URL works when it is printed" {
	connects "name; sleep 0.3; register; ${published/yes/yes late=1000}"
	usual_world
	answers @ late=1000
	answers one no late=1000
	visit one 8080
	assert_good_visit one "$out"
	[ -n "$(questions one | awk '$6 == 0')" ]
}

@test "two name servers, one of which lags: the URL when both know the name" {
	local first second
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE"
	first=$asked
	name_server 2 "$TWO"
	second=$asked
	# The resolver may ask either.
	resolver 127.0.0.1 "$TWO"
	resolv_conf 'nameserver 127.0.0.1'
	visit one 8080
	asked=$first
	await has_said one yes 3
	asked=$second
	await has_said one no 3
	assert_equal "$(cat "$out")" ''
	[ ! -e "$TMPDIR/one.printed" ]
	publish one
	assert_good_visit one "$out"
	assert_equal "$(questions one | awk '$6 == 0' | grep -c ' yes$')" 3
}

@test "two name servers, one of which is dead: the other one is enough" {
	make_world 127.0.0.1 "$ONE"
	name_server 1 "$ONE"
	resolver 127.0.0.1 "$ONE"
	resolv_conf 'nameserver 127.0.0.1'
	visit one 8080
	assert_good_visit one "$out"
	[ -n "$(questions one | awk '$6 == 0')" ]
}

@test "with -n, or TRYCLOUDFLARE_NS=none, no resolver is asked for anything" {
	local pids=()
	usual_world
	connects 'name; register'
	: >"$BATS_TEST_TMPDIR/resolver.127.0.0.1"
	: >"$asked"
	start_inside "$TUNNEL" -n 8080
	pids+=("$pid")
	await_url
	export TRYCLOUDFLARE_NS=none
	start_inside "$TUNNEL" 8081
	pids+=("$pid")
	await_url
	await quiet "${pids[@]}"
	assert_equal "$(cat "$asked" "$BATS_TEST_TMPDIR/resolver.127.0.0.1")" ''
}
