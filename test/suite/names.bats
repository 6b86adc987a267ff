#!/usr/bin/env bats
# The URL is printed when the name is published; how that is found out. All on the
# loopback; world.bats has resolvers.

# shellcheck disable=SC2030,SC2031,SC2154 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=names.bash
source "$BATS_TEST_DIRNAME/names.bash"

setup() {
	names_setup
}

# --- not before -----------------------------------------------------------------------

@test "the URL is not printed before cloudflared has registered, nor is its name asked for" {
	start_authority
	publish one
	connects 'name; next; register'
	run_tunnel -t 5 8080
	assert_equal "$ended" 'exit 124'
	assert_equal "$output" ''
	assert_match "$errors" 'Cloudflare|edge|connection'
	[ -n "$(questions)" ]
	assert_not_asked one
	start_tunnel -v 8080
	await_text "$err" one.trycloudflare.com
	assert_unpublished "$out"
	next go
	await_url
	assert_equal "$(said one yes)" 3
}

@test "the URL is not printed before its name is published, but then" {
	start_authority
	serve
	start_tunnel "$port"
	await has_said one no 4
	assert_unpublished "$out"
	publish one
	await_url
	assert_equal "$url" https://one.trycloudflare.com
	assert_quiet
}

@test "a name that the log ends with is asked for, too, once the log has paused" {
	start_authority
	publish one
	connects 'register; printf "INF |  https://one.trycloudflare.com" >&2'
	start_tunnel 8080
	await_url
	assert_equal "$(said one yes)" 3
}

@test "a tunnel that stops asks for its name no more" {
	local before
	start_authority
	connects 'trap "" TERM; name; register'
	start_tunnel -g 6 8080
	await has_said one no 1
	kill -s TERM "$pid"
	await contains "$XDG_RUNTIME_DIR/tunnel/localhost:8080" 'state stopping'
	before=$(questions one | wc -l)
	assert_signal TERM
	# What was under way then may have come late.
	[ $(($(questions one | wc -l) - before)) -le 1 ] || fail "$(questions one)"
}

@test "published is what the name server says three times in a row, each time to a new port" {
	start_authority
	answers one no yes yes no yes no yes yes yes no
	start_tunnel 8080
	await_url
	assert_equal "$(said one yes)" 6
	assert_equal "$(said one no)" 3
	assert_equal "$(questions one | cut -d ' ' -f 4 | sort -u | wc -l)" 9
}

@test "a name that one machine of three doesn't know yet is not published" {
	start_authority
	answers one yes yes no
	start_tunnel 8080
	await has_said one no 4
	assert_unpublished "$out"
	publish one
	await_url
}

@test "the zone's SOA is asked for first, and nothing with recursion" {
	start_authority
	publish one
	start_tunnel 8080
	await_url
	assert_equal "$(questions | head -n 1 | cut -d ' ' -f 7,8)" 'trycloudflare.com SOA'
	assert_equal "$(questions | cut -d ' ' -f 6 | sort -u)" 0
	assert_equal "$(questions | awk '$7 != "trycloudflare.com" { print $7 }' | sort -u)" one.trycloudflare.com
	assert_match "$(questions one | cut -d ' ' -f 8 | sort -u)" '^(A|AAAA)$'
}

@test "a question's id can't be guessed from the one before" {
	local ids
	start_authority
	answers one no no no no no no yes yes yes no
	start_tunnel 8080
	await_url
	ids=$(questions one | cut -d ' ' -f 5)
	[ "$(echo "$ids" | sort -u | wc -l)" -ge 8 ] || fail "$ids"
	# Nor are they counted.
	[ "$(echo "$ids" | awk 'NR > 1 { print $1 - last } { last = $1 }' | sort -u | wc -l)" -ge 6 ] ||
		fail "$ids"
	# Nor do they go with the clock.
	[ "$(questions one | awk '
		{ off = $5 - $1 * 1000 }
		NR > 1 { by = (off - last + 65536 * 65536) % 65536; if (by < 1000 || by > 64536) near++ }
		{ last = off }
		END { print near + 0 }')" -le 4 ] || fail "$(questions one)"
}

@test "the name is asked for every 250 ms at first, every 2 s in the end" {
	local all
	start_authority
	run_tunnel -t 15 8080
	assert_equal "$ended" 'exit 124'
	mapfile -t all < <(questions one | gaps)
	assert_between 200 1000 "${all[0]}"
	# They grow by and by.
	assert_between 600 3800 $((all[0] + all[1] + all[2]))
	# On a busy machine one gap may be short because the one before was long.
	assert_between 4500 8400 $((all[-3] + all[-2] + all[-1]))
	assert_between 5 20 "${#all[@]}"
}

@test "a server that has the name is asked every 2 s in the end, too, while the edge is lost" {
	local all
	start_authority
	connects "name; register; next; say 'Lost connection with the edge connIndex=0'; next"
	start_tunnel -v -t 20 8080
	await has_said one no 1
	next
	await_text "$err" 'Lost connection'
	publish one
	assert_exit 124
	[ "$(said one yes)" -ge 3 ] || fail 'hardly asked'
	mapfile -t all < <(questions one | gaps)
	assert_between 4500 8400 $((all[-3] + all[-2] + all[-1]))
	assert_between 5 25 "${#all[@]}"
}

@test "a name that is not published by the start deadline: 124, and the DNS is named" {
	local words
	start_authority
	for words in no nodata; do
		answers one "$words"
		run_tunnel -t 5 8080
		assert_equal "$ended" 'exit 124'
		assert_equal "$output" ''
		assert_match "$errors" '^tunnel: .*(DNS|name server)'
		has_said one "$words" 3
	done
}

@test "no such name, or no data, holds the URL back for as long as it lasts" {
	local words port=8080 outs=() all
	start_authority
	for words in no nodata; do
		answers "$words" "$words"
		LABEL=$words start_tunnel "$port"
		outs+=("$out")
		port=$((port + 1))
	done
	for words in no nodata; do
		await still_asked "$words" 7
	done
	assert_unpublished "${outs[@]}"
	publish no
	publish nodata
	for out in "${outs[@]}"; do
		await_url
	done
	# Once it is there the rest comes as quickly as at first.
	for words in no nodata; do
		mapfile -t all < <(questions "$words" | gaps)
		assert_between 200 3600 $((all[-2] + all[-1]))
	done
}

@test "an error between answers of no is no answer, and lets no URL out" {
	local label outs=() port=8080
	start_authority
	for label in refused servfail; do
		answers "$label" no no "$label"
		LABEL=$label start_tunnel "$port"
		outs+=("$out")
		port=$((port + 1))
	done
	for label in refused servfail; do
		await has_said "$label" "$label" 2
		await still_asked "$label" 9
	done
	assert_unpublished "${outs[@]}"
	for label in refused servfail; do
		publish "$label"
	done
	for out in "${outs[@]}"; do
		await_url
	done
}

# --- TRYCLOUDFLARE_NS -----------------------------------------------------------------

@test "TRYCLOUDFLARE_NS=none asks nobody: registered is enough" {
	export TRYCLOUDFLARE_NS=none
	connects 'name; next; register'
	serve
	start_tunnel -v "$port"
	await_text "$err" one.trycloudflare.com
	assert_unpublished "$out"
	next go
	await_url
	assert_printed_after 0 one "$out"
	refute_contains "$(cat "$err")" 'tunnel: '
}

@test "TRYCLOUDFLARE_NS may be an IPv6 address" {
	start_authority '[::1]:0' || skip 'no IPv6 here'
	start_tunnel 8080
	await has_said one no 3
	assert_unpublished "$out"
	publish one
	await_url
	assert_equal "$(questions | cut -d ' ' -f 3 | sort -u)" ::1
	# It needs no brackets where no port follows.
	TRYCLOUDFLARE_NS=::1 start_tunnel -n 8081
	await_url
}

@test "a TRYCLOUDFLARE_NS that is no address is told, with what it should be" {
	local value
	for value in nonsense ns.example.com localhost localhost:53 53 :53 127.0.0.1: 127.0.0.1:0 127.0.0.1:65536 127.0.0.1:53x \
		256.0.0.1 1.2.3 '[::1' '[::1]53' '::1]:53' '[::1]:' ' 127.0.0.1'; do
		TRYCLOUDFLARE_NS=$value run_tunnel -t 1 8080
		assert_contains "$errors" "TRYCLOUDFLARE_NS"
		assert_contains "$errors" "$value"
		assert_equal "$output" ''
		assert_equal "$ended" 'exit 2'
	done
	assert_equal "$(cloudflared_starts)" ''
}
