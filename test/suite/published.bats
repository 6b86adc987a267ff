#!/usr/bin/env bats
# Every way to run a tunnel waits for its name to be published; and what happens meanwhile
# and afterwards. All on the loopback.

# shellcheck disable=SC2030,SC2031,SC2119,SC2154 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=names.bash
source "$BATS_TEST_DIRNAME/names.bash"

setup() {
	names_setup
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

@test "-b beside a tunnel whose URL was given out too early waits until it works" {
	local second
	start_authority
	start_tunnel -n 8080
	await_url
	await contains "$XDG_RUNTIME_DIR/tunnel/localhost:8080" 'state up'
	assert_contains "$(<"$XDG_RUNTIME_DIR/tunnel/localhost:8080")" 'waited 0'
	assert_equal "$(said one no)" 0
	start_tunnel -b 8080
	second=$pid
	await has_said one no 4
	assert_unpublished "$out"
	publish one
	assert_exit 0 "$second"
	assert_equal "$(<"$out")" https://one.trycloudflare.com
	# With -n it isn't waited for here, either.
	forgets one
	run_tunnel -bn 8080
	assert_equal "$ended $output" 'exit 0 https://one.trycloudflare.com'
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
	LABEL=two run_tunnel -w -t 5 "$port"
	assert_equal "$ended" 'exit 124'
	assert_equal "$output" ''
	has_said two yes 3
}

@test "-r: a second start waits for its name as the first did" {
	start_authority
	publish one
	# shellcheck disable=SC2016 # the script's to expand
	connects 'case $(wc -l <"$FAKE_DIR/starts") in *2) LABEL=two ;; *3) LABEL=three ;; esac; name; register'
	start_tunnel -r 8080
	await_url
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await has_said two no 4
	assert_equal "$(cat "$out")" https://one.trycloudflare.com
	publish two
	await has_lines "$out" 2
	assert_equal "$(tail -n 1 "$out")" https://two.trycloudflare.com
	# What was said of one name counts for none after it.
	publish three
	await_cloudflared 2
	kill -s KILL "$cloudflared"
	await has_lines "$out" 3
	assert_equal "$(said three yes)" 3
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
	local asker silent
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
	# Nor of a question that nobody has answered.
	answers two silent
	LABEL=two start_tunnel 8083
	await_url
	silent=$pid
	export TRYCLOUDFLARE_NS=none
	start_tunnel 8082
	await_url
	assert_equal "$(sockets "$asker")" "$(sockets "$pid")"
	assert_equal "$(sockets "$silent")" "$(sockets "$pid")"
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
	# Long before the URL would come without an answer.
	[ $((SECONDS - since)) -le 3 ]
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
	run_tunnel -t 5 8080
	assert_equal "$ended" 'exit 124'
	assert_equal "$output" ''
}
