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

# Prints the seconds between the lines of questions that come, in thousandths.
gaps() {
	awk 'NR > 1 { printf "%.0f\n", ($1 - last) * 1000 } { last = $1 }'
}

# between LEAST MOST VALUE: on a machine that is busy it may be more.
assert_between() {
	if [ "$3" -lt "$1" ] || [ "$3" -gt $(($2 * ${TEST_SLOWNESS:-1})) ]; then
		fail "expected $1 to $2, got $3"
	fi
}

has_lines() {
	[ "$(wc -l <"$1")" -ge "$2" ]
}

# --- with -r --------------------------------------------------------------------------

# First, for it takes the longest: all of it at once.
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

	await -t 70 has_said returns no 1
	publish returns
	await -t 15 has_said gone no 3
	assert_equal "$(said gone no)" 3
	# What is between the third answer before the URL and the fourth.
	gap=$(questions gone | gaps | sed -n 3p)
	assert_between 55000 70000 "$gap"
	for gap in $(questions gone | gaps | tail -n +4); do
		assert_between 4700 9000 "$gap"
	done
	# The next of its tunnels is named as it was, and waited for as it was.
	await_cloudflared 6
	await has_said gone no 6
	assert_equal "$(wc -l <"${outs[0]}")" 1
	publish gone
	await has_lines "${outs[0]}" 2

	await has_said returns yes 4
	assert_equal "$(said stays yes)" 4
	assert_equal "$(said alone yes)" 3
	assert_equal "$(cloudflared_starts | wc -l)" 6
	for pid in "${pids[@]}" "$alone" "$quiet"; do
		alive "$pid"
	done
	for out in "${outs[@]:1}"; do
		assert_equal "$(wc -l <"$out")" 1
	done
}

# --- not before -----------------------------------------------------------------------

@test "the URL is not printed before cloudflared has registered, nor is its name asked for" {
	start_authority
	publish one
	connects 'name; next; register'
	run_tunnel -t 3 8080
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
}

@test "the name is asked for every 250 ms at first, every 2 s in the end" {
	local all
	start_authority
	run_tunnel -t 15 8080
	assert_equal "$ended" 'exit 124'
	mapfile -t all < <(questions one | gaps)
	assert_between 200 1000 "${all[0]}"
	assert_between 1900 4000 "${all[-1]}"
	assert_between 5 20 "${#all[@]}"
}

@test "a name that is not published by the start deadline: 124, and the DNS is named" {
	local words
	start_authority
	for words in no nodata; do
		answers one "$words"
		run_tunnel -t 2 8080
		assert_equal "$ended" 'exit 124'
		assert_equal "$output" ''
		assert_match "$errors" '^tunnel: .*(DNS|name server)'
		has_said one "$words" 3
	done
}

@test "no such name, or no data, holds the URL back for as long as it lasts" {
	local words port=8080 outs=()
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

# still_asked LABEL SECONDS: so long after the registration.
still_asked() {
	local last
	last=$(questions "$1" | tail -n 1 | cut -d ' ' -f 1)
	[ -n "$last" ] && [ $((${last/./} - $(milliseconds "$FAKE_DIR/$1.registered"))) -ge $(($2 * 1000)) ]
}

# --- what is an answer ----------------------------------------------------------------

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
	start_each @ 'yes no-aa' refused servfail formerr 'yes tc' 'yes wrong-id' 'yes wrong-name' \
		'yes wrong-type' 'yes query' 'yes no-question' 'yes short=8' 'yes short=40' empty \
		garbage 'yes elsewhere' silent
	for start in "${starts[@]}"; do
		read -r LABEL out asked <<<"$start"
		await_url
		assert_printed_after 5 "$LABEL" "$out"
		[ -n "$(questions)" ]
		assert_not_asked "$LABEL"
	done
}

@test "an answer without authority, an error, garbage, a truncated or another's answer says nothing about the name: 5 s after the registration" {
	local start
	start_each label 'yes no-aa' 'no no-aa' refused servfail formerr 'yes tc' 'no tc' \
		'yes wrong-id' 'yes wrong-name' 'yes wrong-type' 'yes query' 'yes no-question' \
		'yes short=8' 'yes short=50' empty garbage 'yes elsewhere' silent
	for start in "${starts[@]}"; do
		read -r LABEL out asked <<<"$start"
		await_url
		assert_printed_after 5 "$LABEL" "$out"
		[ -n "$(questions "$LABEL")" ] || fail "$LABEL was never asked for"
	done
}

@test "an answer whose names loop or lead nowhere, or whose counts lie, says nothing about the name" {
	local start
	start_each label 'yes loop' 'yes ahead' 'yes false-count' 'nodata loop' 'nodata ahead' \
		'nodata false-count'
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
}

@test "a TRYCLOUDFLARE_NS that is no address is told, with what it should be" {
	local value
	for value in nonsense ns.example.com 127.0.0.1: 127.0.0.1:0 127.0.0.1:65536 127.0.0.1:53x \
		256.0.0.1 1.2.3 '[::1' '[::1]53' '::1]:53' '[::1]:' ' 127.0.0.1'; do
		TRYCLOUDFLARE_NS=$value run_tunnel -t 1 8080
		assert_contains "$errors" "TRYCLOUDFLARE_NS"
		assert_contains "$errors" "$value"
		assert_equal "$output" ''
		assert_equal "$ended" 'exit 2'
	done
	assert_equal "$(cloudflared_starts)" ''
}

# --- all modes alike ------------------------------------------------------------------

@test "-b, -j, -r, -w and a command wait for the name as well" {
	local label outs=() pids=()
	start_authority
	serve
	LABEL=b start_tunnel -b 8080
	outs+=("$out")
	pids+=("$pid")
	LABEL=j start_tunnel -j 8081
	outs+=("$out")
	LABEL=r start_tunnel -r 8082
	outs+=("$out")
	LABEL=w start_tunnel -w "$port"
	outs+=("$out")
	# shellcheck disable=SC2016 # the command's to expand
	LABEL=c start_tunnel 8083 sh -c 'echo "$TUNNEL_PUBLIC_URL"'
	outs+=("$out")
	for label in b j r w c; do
		await has_said "$label" no 3
	done
	assert_unpublished "${outs[@]}"
	for label in b j r w c; do
		publish "$label"
	done
	for out in "${outs[@]}"; do
		await test -s "$out"
		assert_match "$(cat "$out")" '^(\{.*)?https://[bjrwc]\.trycloudflare\.com'
	done
	assert_exit 0 "${pids[0]}"
	"$TUNNEL" -k 8080
	for label in b j r w c; do
		has_said "$label" yes 3
	done
}

@test "-b waits for the name of a tunnel that is being started already" {
	local outs=() pids=()
	start_authority
	start_tunnel 8080
	outs+=("$out")
	await has_said one no 1
	start_tunnel -b 8080
	outs+=("$out")
	pids+=("$pid")
	start_tunnel -b 8080
	outs+=("$out")
	pids+=("$pid")
	await has_said one no 5
	assert_unpublished "${outs[@]}"
	publish one
	for out in "${outs[@]}"; do
		await_url
		assert_equal "$url" https://one.trycloudflare.com
	done
	for pid in "${pids[@]}"; do
		assert_exit 0 "$pid"
	done
}

@test "-w waits for both the name and the server" {
	start_authority
	free_port
	start_tunnel -w "$port"
	await has_said one no 3
	serve -p "$port"
	await has_said one no 5
	assert_unpublished "$out"
	publish one
	await_url
	# And the other way round.
	free_port
	publish two
	LABEL=two run_tunnel -w -t 3 "$port"
	assert_equal "$ended" 'exit 124'
	assert_equal "$output" ''
	has_said two yes 3
}

@test "-r: a second start waits for its name as the first did" {
	start_authority
	publish one
	# shellcheck disable=SC2016 # the script's to expand
	connects '[ "$(wc -l <"$FAKE_DIR/starts")" = 1 ] || LABEL=two; name; register'
	start_tunnel -r 8080
	await_url
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await has_said two no 4
	assert_equal "$(cat "$out")" https://one.trycloudflare.com
	publish two
	await has_lines "$out" 2
	assert_equal "$(tail -n 1 "$out")" https://two.trycloudflare.com
}

@test "-n prints the URL before the edge has the tunnel, and asks nobody" {
	local asking
	start_authority
	connects 'name; next; register'
	start_tunnel -n 8080
	asking=$pid
	await_url
	[ ! -e "$FAKE_DIR/one.registered" ]
	next go
	await test -e "$FAKE_DIR/one.registered"
	[ ! -r /proc/self/status ] || await quiet "$asking"
	assert_equal "$(cat "$asked")" ''
	alive "$asking"
}

# --- afterwards, and in between -------------------------------------------------------

@test "once the URL is printed nobody is asked and nothing wakes up" {
	[ -r /proc/self/status ] || skip 'no /proc here'
	local before
	start_authority
	publish one
	start_tunnel 8080
	await_url
	before=$(cat "$asked")
	await quiet "$pid"
	await quiet "$pid"
	assert_equal "$(cat "$asked")" "$before"
	assert_equal "$(questions one | wc -l)" 3
}

@test "no socket is left of the asking, nor given to cloudflared or a command" {
	[ -d /proc/self/fd ] || skip 'no /proc here'
	local asker
	start_authority
	publish one
	start_tunnel 8080
	await_url
	asker=$pid
	await_cloudflared 1
	assert_equal "$(sockets "$cloudflared")" ''
	run_tunnel 8081 ls -l /proc/self/fd/
	assert_equal "$ended" 'exit 0'
	refute_contains "$output" socket:
	export TRYCLOUDFLARE_NS=none
	start_tunnel 8082
	await_url
	assert_equal "$(sockets "$asker")" "$(sockets "$pid")"
}

# Prints a line for each socket that the process has.
sockets() {
	readlink "/proc/$1"/fd/* | sed -n 's/^socket:.*/socket/p'
}

@test "a signal while the name is being waited for ends the tunnel at once" {
	local since
	start_authority
	answers one silent
	start_tunnel 8080
	await has_said one silent 1
	await_cloudflared 1
	since=$SECONDS
	kill -s TERM "$pid"
	assert_signal TERM
	[ $((SECONDS - since)) -le 2 ]
	gone "$cloudflared"
	assert_equal "$(cat "$out")" ''
}

@test "cloudflared that ends while the name is being waited for is an end: 1" {
	start_authority
	start_tunnel 8080
	await has_said one no 2
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	assert_exit 1
	assert_equal "$(cat "$out")" ''
	assert_contains "$(cat "$err")" cloudflared
}

@test "a connection that was lost again is none: no URL" {
	start_authority
	publish one
	connects 'name
		register
		say "Unregistered tunnel connection connIndex=0 event=0 ip=198.41.200.193"
		say "Retrying connection in up to 1s connIndex=0 event=0 ip=198.41.200.193"'
	run_tunnel -t 3 8080
	assert_equal "$ended" 'exit 124'
	assert_equal "$output" ''
}
