#!/usr/bin/env bats
# What becomes of a URL behind a resolver that caches, as those in routers do.

# shellcheck disable=SC2030,SC2031,SC2119,SC2154 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=world.bash
source "$BATS_TEST_DIRNAME/world.bash"

setup() {
	setup_world
}

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

@test "resolvers are asked in their order, with recursion, and the next one at once where one refuses" {
	local all
	make_world 127.0.0.1 "$ONE"
	server_names=(-n "one.ns.cloudflare.com=$ONE")
	name_server 1 "$ONE" 127.0.0.1 127.0.0.2
	resolv_conf 'nameserver 127.0.0.1' 'nameserver 127.0.0.2'
	answers servers refused yes
	visit one 8080
	assert_good_visit one "$out"
	assert_equal "$(questions | awk '$8 == "NS" || $7 == "one.ns.cloudflare.com" { print $6 }' | sort -u)" 1
	assert_equal "$(questions | awk '$8 == "NS" { print $2 }' | head -n 2)" '127.0.0.1:53
127.0.0.2:53'
	# Two of them refused, and neither was waited for.
	mapfile -t all < <(questions | awk '$8 == "NS" || $8 == "SOA"' | awk '!seen[$8]++' | gaps)
	assert_between 0 1800 "${all[0]}"
}

@test "a single name server, by IPv4 only, is all that is looked up, and its addresses once" {
	server_names=(-n "one.ns.cloudflare.com=$ONE")
	usual_world
	visit one 8080
	assert_good_visit one "$out"
	assert_equal "$(questions one | awk '$6 == 0 { print $2 }' | sort -u)" "$ONE:53"
	assert_equal "$(grep -cF 'query[A] . from' "$BATS_TEST_TMPDIR/resolver.127.0.0.1")" 0
	# Twice if the first was slow.
	assert_between 1 2 "$(grep -cF 'query[AAAA] one.ns.cloudflare.com' "$BATS_TEST_TMPDIR/resolver.127.0.0.1")"
}

@test "name servers with long names, and more than two: the first two are asked" {
	local long
	long=$(printf '%054d.%054d.%054d.%054d' 1 2 3 4)
	server_names=(-n "$long.example.org=$ONE" -n "two.example.org=$TWO"
		-n "$(printf '%050d.%050d.%050d' 5 6 7).example.org=198.51.100.3")
	usual_world
	visit one 8080
	assert_good_visit one "$out"
	assert_equal "$(questions one | awk '$6 == 0 { print $2 }' | sort -u)" "$ONE:53
$TWO:53"
}

@test "-r: resolvers are read anew for each tunnel" {
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	resolver 127.0.0.1 "$ONE"
	resolv_conf 'nameserver 198.51.100.53' 'nameserver 198.51.100.54' 'nameserver 198.51.100.55'
	# shellcheck disable=SC2016 # the script's to expand
	connects '[ "$(wc -l <"$FAKE_DIR/starts")" = 1 ] || LABEL=two; name; register'
	start_inside "$TUNNEL" -r 8080
	await_url
	assert_not_asked one
	resolv_conf 'nameserver 127.0.0.1'
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await has_said two no 3
	publish two
	await has_lines "$out" 2
}

# The resolver was asked for the zone's name servers N times.
was_asked_often() {
	[ "$(grep -cF 'query[NS] trycloudflare.com' "$BATS_TEST_TMPDIR/resolver.$1")" -ge "$2" ]
}

@test "resolv.conf is read as it is found in the wild" {
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	resolver 127.0.0.1 "$ONE"
	resolv_conf '# made by a program' '# primary 198.51.100.51' '# another 198.51.100.52' \
		'# a third 198.51.100.53' '; and another' '' 'search lan example.com' 'options edns0 trust-ad' \
		'nameserver' 'nameserver nonsense' 'nameservers 198.51.100.54' '#nameserver 198.51.100.55' \
		'nameserver fe80::1%lo' 'nameserver 192.0.2.53' 'sortlist 198.51.100.0/255.255.255.0'
	printf 'nameserver\t  127.0.0.1  # the router' >>"$BATS_TEST_TMPDIR/etc/resolv.conf"
	visit one 8080
	assert_good_visit one "$out"
	[ -n "$(questions one | awk '$6 == 0')" ]
}

@test "resolv.conf is read to its end, however much stands before" {
	local number lines=()
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE" "$TWO"
	# Without a line for it, it would be 127.0.0.1.
	resolver 127.0.0.2 "$ONE"
	export RESOLVER=127.0.0.2
	for number in {1..80}; do
		lines+=("# what some program has to say about this file, line $number of eighty of these")
	done
	resolv_conf "${lines[@]}" 'nameserver 127.0.0.2'
	visit one 8080
	assert_good_visit one "$out"
	[ -n "$(questions one | awk '$6 == 0')" ]
}

@test "a resolver with a zone, as routers announce it: the name servers are found by it" {
	[ -e /proc/sys/net/ipv6 ] || skip 'no IPv6 here'
	make_world 127.0.0.1 "$ONE" "$TWO" fe80::53
	name_server 1 "$ONE" "$TWO"
	resolver fe80::53%lo "$ONE"
	resolv_conf 'nameserver fe80::53%lo'
	export RESOLVER=fe80::53%lo
	visit one 8080
	assert_good_visit one "$out"
	[ -n "$(questions one | awk '$6 == 0')" ]
	# Its number will do.
	resolv_conf "nameserver fe80::53%$(inside cat /sys/class/net/lo/ifindex)"
	visit two 8081
	assert_good_visit two "$out"
	[ -n "$(questions two | awk '$6 == 0')" ]
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
	export TRYCLOUDFLARE_NS=$six
	visit two 8081
	assert_good_visit two "$out"
	assert_equal "$(questions two | awk '$6 == 0 { print $2 }' | sort -u)" "[$six]:53"
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

@test "two name servers, one of which refuses to speak of the name: the other one is enough, at once" {
	local good
	make_world 127.0.0.1 "$ONE" "$TWO"
	name_server 1 "$ONE"
	good=$asked
	name_server 2 "$TWO"
	answers one refused
	resolver 127.0.0.1 "$ONE"
	resolv_conf 'nameserver 127.0.0.1'
	visit one 8080
	assert_good_visit one "$out"
	asked=$good
	assert_between 3 8 "$(questions one | awk '$6 == 0' | grep -c ' yes$')"
}

@test "two name servers, one of which is dead: the other one is enough" {
	local all
	make_world 127.0.0.1 "$ONE"
	name_server 1 "$ONE"
	resolver 127.0.0.1 "$ONE"
	resolv_conf 'nameserver 127.0.0.1'
	visit one 8080
	assert_good_visit one "$out"
	# As often as if it were alone.
	mapfile -t all < <(questions one | awk '$6 == 0' | gaps)
	assert_between 600 2600 $((all[0] + all[1] + all[2]))
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
	# Nor what has become of a tunnel whose edge is lost.
	connects 'name; register; next; say "Lost connection with the edge"; next; say settled'
	start_inside "$TUNNEL" -v -r -t 5 8082
	await_url
	next
	await contains "$err" 'no connection'
	next
	await contains "$err" settled
	assert_equal "$(cat "$asked" "$BATS_TEST_TMPDIR/resolver.127.0.0.1")" ''
}
