#!/usr/bin/env bats
# Where no name server can be asked, whatever the reason: the URL comes 5 s after the
# registration, and no resolver hears of the name.

# shellcheck disable=SC2030,SC2031,SC2154 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=world.bash
source "$BATS_TEST_DIRNAME/world.bash"

setup() {
	setup_world
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
	# It was asked once a second, for 3 s.
	assert_between 2 6 "$(grep -cF 'query[NS] trycloudflare.com' "$BATS_TEST_TMPDIR/resolver.127.0.0.1")"
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
