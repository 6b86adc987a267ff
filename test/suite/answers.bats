#!/usr/bin/env bats
# What a name server says of a name, and what of it is an answer. All on the loopback.

# shellcheck disable=SC2030,SC2031,SC2119,SC2154 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=names.bash
source "$BATS_TEST_DIRNAME/names.bash"

setup() {
	names_setup
}

# Starts a tunnel for each of the words, with a name server of its own that says them of
# $1 and knows the name, which is made of the words, otherwise. Sets starts to
# "LABEL OUT ASKED" each.
start_each() {
	local key=$1 words number=0
	starts=()
	shift
	for words; do
		LABEL=${words//[ =+]/-}
		start_authority
		publish "$LABEL"
		answers "${key/label/$LABEL}" "$words"
		start_tunnel $((8100 + number))
		starts+=("$LABEL $out $asked")
		number=$((number + 1))
	done
}

@test "what doesn't answer for the zone with authority is no name server: 5 s after the registration, its name not asked for" {
	local start
	start_each @ 'yes no-aa' no nodata refused servfail formerr 'yes tc' 'yes wrong-id' \
		'yes wrong-name' 'yes wrong-type' 'yes query' 'yes no-question' 'yes short=8' \
		'yes short=40' empty garbage 'yes elsewhere' silent
	for start in "${starts[@]}"; do
		read -r LABEL out asked <<<"$start"
		await_url
		assert_printed_after 5 "$LABEL" "$out"
		[ -n "$(questions)" ]
		assert_not_asked "$LABEL"
		# It has said so, and is left alone.
		case $LABEL in
		yes-no-aa | no | nodata) assert_equal "$(questions | wc -l)" 1 ;;
		esac
	done
}

@test "an answer without authority, an error, garbage, a truncated or another's answer says nothing about the name: 5 s after the registration" {
	local start
	start_each label 'yes no-aa' 'no no-aa' refused servfail formerr 'yes tc' 'no tc' \
		'yes wrong-id' 'yes wrong-name' 'yes wrong-type' 'yes query' 'yes no-question' \
		'yes short=8' 'yes short=50' 'yes short=61' empty garbage 'yes elsewhere' silent
	for start in "${starts[@]}"; do
		read -r LABEL out asked <<<"$start"
		await_url
		assert_printed_after 5 "$LABEL" "$out"
		[ -n "$(questions "$LABEL")" ] || fail "$LABEL was never asked for"
	done
}

@test "an answer with names that loop, lead nowhere or are none, or with a count or length that lies, says nothing about the name" {
	local start
	start_each label 'yes loop' 'yes ahead' 'yes false-count' 'nodata loop' 'nodata ahead' \
		'nodata false-count' 'yes blank' 'yes reserved' 'yes long' 'size=3' 'size=5'
	for start in "${starts[@]}"; do
		read -r LABEL out asked <<<"$start"
		await_url
		assert_printed_after 5 "$LABEL" "$out"
	done
}

@test "where nobody listens at all, the URL comes 5 s after the registration" {
	start_authority
	kill -s TERM "$server"
	await gone "$server"
	start_tunnel 8080
	await_url
	assert_printed_after 5 one "$out"
}

@test "an address and an alias both are a published name, however many there are" {
	local start
	start_each label yes cname alias many
	for start in "${starts[@]}"; do
		read -r LABEL out asked <<<"$start"
		await_url
		assert_printed_after 0 "$LABEL" "$out"
		assert_equal "$(questions "$LABEL" | wc -l)" 3
	done
}

@test "a record of another type, or of another name, is no address: not yet published" {
	local words port=8080 outs=()
	start_authority
	for words in text other; do
		answers "a-$words" "$words"
		LABEL=a-$words start_tunnel "$port"
		outs+=("$out")
		port=$((port + 1))
	done
	for words in text other; do
		await has_said "a-$words" "$words" 4
	done
	assert_unpublished "${outs[@]}"
	for words in text other; do
		publish "a-$words"
	done
	for out in "${outs[@]}"; do
		await_url
	done
}

@test "a name with an address by IPv6 only, or an alias that is seen there only, is published" {
	local start
	start_each label six 'six alias'
	for start in "${starts[@]}"; do
		read -r LABEL out asked <<<"$start"
		await_url
		assert_equal "$(questions "$LABEL" | cut -d ' ' -f 8 | tr '\n' ' ')" 'A AAAA AAAA AAAA '
	done
}

@test "several answers to one question are one" {
	start_authority
	answers one 'yes + yes + yes' no
	start_tunnel 8080
	await has_said one no 3
	assert_unpublished "$out"
	publish one
	await_url
}

@test "a URL in capitals, or with the longest of labels, is asked for as any other" {
	local longest=a23456789-123456789-123456789-123456789-123456789-123456789-123 outs=()
	start_authority
	publish mixed-case
	publish "$longest"
	LABEL=$longest start_tunnel 8080
	outs+=("$out")
	await_cloudflared 1
	connects 'say "|  HTTPS://Mixed-Case.TryCloudflare.COM  |"; register'
	LABEL=mixed-case start_tunnel 8081
	outs+=("$out")
	for out in "${outs[@]}"; do
		await_url
	done
	assert_equal "$url" HTTPS://Mixed-Case.TryCloudflare.COM
	assert_equal "$(said mixed-case yes)" 3
	assert_equal "$(said "$longest" yes)" 3
}

@test "what is no answer doesn't break a row of them" {
	start_authority
	answers one yes servfail yes refused 'yes tc' yes
	start_tunnel 8080
	await_url
	[ "$(said one yes)" -ge 3 ]
	[ "$(questions one | wc -l)" -le 7 ]
}

@test "a server that fails at first is asked again whether it has authority" {
	local failure start
	for failure in servfail refused 'yes tc'; do
		LABEL=${failure/ /-}
		start_authority
		answers @ "$failure" yes
		answers "$LABEL" no
		start_tunnel -t 0 8080
		await has_said "$LABEL" no 3
		assert_unpublished "$out"
		publish "$LABEL"
		await_url
		kill -s TERM "$pid"
		assert_signal TERM
	done
}

@test "an answer that can't be read at once is waited for, not asked for again from another port" {
	start_authority
	publish one
	start_traced recvfrom:error=EINTR:when=1 8080
	await_url
	assert_printed_after 0 one "$out"
	assert_equal "$(questions | awk '$8 == "SOA"' | cut -d ' ' -f 4 | sort -u | wc -l)" 1
}

@test "a forged answer does not hide the right one behind it" {
	start_authority
	answers one 'yes wrong-id + yes wrong-name + yes elsewhere + garbage + empty + no'
	start_tunnel 8080
	await still_asked one 6
	assert_unpublished "$out"
	answers one 'no wrong-id + no wrong-name + garbage + yes'
	await_url
}

@test "an answer that is late is an answer; one after 3 s is none" {
	local outs=()
	start_authority
	answers @ late=1500
	answers slow 'yes late=1500'
	LABEL=slow start_tunnel 8080
	outs+=("$out")
	local slow=$asked
	start_authority
	answers @ late=9000
	publish never
	LABEL=never start_tunnel 8081
	outs+=("$out")
	for out in "${outs[@]}"; do
		await_url
	done
	assert_printed_after 5 never "$out"
	assert_not_asked never
	asked=$slow
	[ "$(questions slow | cut -d ' ' -f 4 | sort -u | wc -l)" -ge 3 ]
	assert_between 4400 9000 $(($(milliseconds "${outs[0]}") - $(milliseconds "$FAKE_DIR/slow.registered")))
}
