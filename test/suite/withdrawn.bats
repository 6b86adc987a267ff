#!/usr/bin/env bats
# -r notices that the name of a tunnel is published no more. It takes a minute and a half.

# shellcheck disable=SC2030,SC2031,SC2119,SC2154 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=names.bash
source "$BATS_TEST_DIRNAME/names.bash"

setup() {
	names_setup
}

# All of it at once.
@test "-r asks once a minute; three times no, 5 s apart, and the tunnel is dead: not one no, not silence" {
	local label port=8080 pids=() outs=() alone quiet zones=() logs=() gap
	start_authority
	for label in gone stays returns alone; do
		publish "$label"
	done
	zones[0]=$zone
	logs[0]=$asked
	for label in gone stays returns; do
		LABEL=$label start_tunnel -r "$port"
		pids+=("$pid")
		outs+=("$out")
		port=$((port + 1))
	done
	LABEL=alone start_tunnel "$port"
	alone=$pid
	outs+=("$out")
	start_authority
	publish quiet
	LABEL=quiet start_tunnel -r 8089
	quiet=$pid
	outs+=("$out")
	for out in "${outs[@]}"; do
		await_url
	done
	answers quiet silent
	answers @ silent
	zone=${zones[0]}
	asked=${logs[0]}
	answers gone no
	answers returns no
	assert_equal "$(said stays yes)" 3

	await -t 120 has_said returns no 1
	publish returns
	# The next of its tunnels is named as it was, and waited for as it was.
	await_cloudflared 6
	await has_said gone no 6
	questions gone | awk -v registered="$(milliseconds "$FAKE_DIR/gone.registered")" \
		'$1 * 1000 < registered' >"$TMPDIR/first"
	assert_equal "$(cut -d ' ' -f 9- "$TMPDIR/first" | tr '\n' ' ')" 'yes yes yes no no no '
	# What is between the third answer before the URL and the fourth.
	gap=$(gaps <"$TMPDIR/first" | sed -n 3p)
	assert_between 55000 70000 "$gap"
	for gap in $(gaps <"$TMPDIR/first" | tail -n +4); do
		assert_between 4700 9000 "$gap"
	done
	assert_equal "$(wc -l <"${outs[0]}")" 1
	publish gone
	await has_lines "${outs[0]}" 2

	await has_said returns yes 4
	assert_equal "$(said stays yes)" 4
	# The fourth time as soon as the server was known.
	assert_between 0 3000 "$(questions | awk '
		$8 == "SOA" { proof = $1 }
		$7 == "stays.trycloudflare.com" && ++asked == 4 { printf "%.0f\n", ($1 - proof) * 1000 }')"
	assert_equal "$(said alone yes)" 3
	assert_equal "$(cloudflared_starts | wc -l)" 6
	for pid in "${pids[@]}" "$alone" "$quiet"; do
		alive "$pid"
	done
	for out in "${outs[@]:1}"; do
		assert_equal "$(wc -l <"$out")" 1
	done
	# And the minute after, too.
	await -t 120 has_said stays yes 5
}

@test "an edge that is lost for long while the name servers answer: with -r the tunnel is renewed" {
	local plain plain_err
	start_authority
	publish one
	publish two
	connects 'name; register; next; say "Lost connection with the edge"'
	LABEL=two start_tunnel -t 5 8081
	plain=$pid plain_err=$err
	await_url
	next
	await_text "$plain_err" 'no connection'
	start_tunnel -r -t 5 8080
	await_url
	next
	await_text "$err" "https://one.trycloudflare.com is dead: its edge is lost, and the network is there"
	await_cloudflared 3
	refute_contains "$(<"$plain_err")" 'is dead'
	alive "$plain"
}
