#!/usr/bin/env bats
# tunnel ORIGIN COMMAND: the tunnel is up for as long as the command runs.

# shellcheck disable=SC2016,SC2030,SC2031 # each test is a world of its own; commands' shells expand
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# A command that says "ready" and exits with 6 once there is $TMPDIR/go.
waiting='echo ready; until [ -e "$TMPDIR/go" ]; do sleep 0.05; done; exit 6'

# Sets $beside to what another tunnel prints.
run_tunnel_beside() {
	beside=$("$TUNNEL" "$@" 2>&1) || :
}

start_ready() {
	start_tunnel "$@"
	await_text "$out" ready
	await_cloudflared 1
}

@test "the command has the URL in TUNNEL_PUBLIC_URL and standard output to itself" {
	serve
	run_tunnel "$port" sh -c 'echo "<$TUNNEL_PUBLIC_URL>"; echo complaint >&2'
	await_cloudflared 1
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" "<$(cloudflared_url "$cloudflared")>"
	assert_equal "$errors" complaint
	gone "$cloudflared"
	assert_equal "$(stop_signals "$cloudflared")" TERM
}

@test "the command's status is tunnel's" {
	local number
	for number in 0 1 2 124 255; do
		run_tunnel 8080 sh -c "exit $number"
		assert_equal "$ended" "exit $number"
	done
	none_left_behind
}

@test "128+n if a signal ended the command" {
	run_tunnel 8080 sh -c 'kill -s KILL $$'
	assert_equal "$ended" 'exit 137'
	run_tunnel 8080 sh -c 'kill -s TERM $$'
	assert_equal "$ended" 'exit 143'
	none_left_behind
}

@test "126: the command can't be executed, 127: it isn't there" {
	run_tunnel 8080 "$ROOT/LICENSE"
	assert_equal "$ended" 'exit 126'
	assert_match "$errors" "tunnel: [^:]*$ROOT/LICENSE"
	assert_equal "$(cloudflared_starts)" ''
	run_tunnel 8080 no-such-command -x
	assert_equal "$ended" 'exit 127'
	assert_match "$errors" 'tunnel: [^:]*no-such-command'
	none_left_behind
}

@test "without a PATH the command is found where env(1) finds it" {
	scripted 'PATH=/usr/bin:/bin; echo https://amber-apple.trycloudflare.com >&2; registered'
	start_program env -u PATH "$TUNNEL" 8080 true
	assert_exit 0
}

@test "a script whose interpreter is missing is told before anything is started" {
	printf '#!/no/such/interpreter\n' >"$TMPDIR/script"
	chmod +x "$TMPDIR/script"
	run_tunnel 8080 "$TMPDIR/script"
	assert_equal "$ended" 'exit 126'
	assert_equal "$errors" "tunnel: cannot run $TMPDIR/script: its interpreter /no/such/interpreter is missing"
	mkdir "$TMPDIR/directory"
	run_tunnel 8080 "$TMPDIR/directory"
	assert_equal "$ended" 'exit 126'
	assert_equal "$errors" "tunnel: cannot run $TMPDIR/directory: Is a directory"
	assert_equal "$(cloudflared_starts)" ''
}

@test "a script that doesn't say of what is the shell's, as a shell would have it" {
	echo 'echo "$0: $# $1 $2"; exit 4' >"$TMPDIR/script"
	chmod +x "$TMPDIR/script"
	run_tunnel 8080 "$TMPDIR/script" 'one argument' another
	assert_equal "$ended" 'exit 4'
	assert_equal "$output" "$TMPDIR/script: 2 one argument another"
	# It is no shell that somebody has logged in to.
	echo 'echo profile' >"$HOME/.profile"
	PATH=$TMPDIR:$PATH run_tunnel 8080 -- script
	assert_equal "$ended" 'exit 4'
	assert_equal "$output" "$TMPDIR/script: 0  "
}

@test "127 even if nobody is left to be told" {
	mkfifo "$TMPDIR/left"
	# shellcheck disable=SC2016 # it is for the shell
	start_program bash -c 'exec 7<>"$0" 9>"$0" 7<&-; exec "$@" 2>&9 9>&-' \
		"$TMPDIR/left" "$TUNNEL" 8080 no-such-command
	assert_exit 127
}

@test "standard input is the command's" {
	run_tunnel 8080 cat <<<'to be read'
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" 'to be read'
}

@test "what starts with - after the command is the command's" {
	run_tunnel 8080 printf '[%s]' -v -h --version -- -k
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" '[-v][-h][--version][--][-k]'
}

@test "the command runs where tunnel does, in its process group, with its descriptors only" {
	[ -d /proc/self/fd ] || skip 'no /proc here'
	cd "$TMPDIR"
	# The runner may have ignored signals that are seldom thought of. From 32 on they are the
	# C library's.
	local signals masks='s/^Sig(Blk|Ign):.*(.{7})$/\1 \2/p'
	start_program sed -nE "$masks" /proc/self/status
	assert_exit 0
	signals=$(<"$out")
	export masks
	run_tunnel 8080 sh -c 'pwd -P
		sed "s/.*) //" /proc/$PPID/stat | cut -d " " -f 3
		sed "s/.*) //" /proc/$$/stat | cut -d " " -f 3
		ls /proc/$$/fd
		sed -nE "$masks" /proc/self/status'
	assert_match "$output" "^$(pwd -P)
([0-9]+)
([0-9]+)
0
1
2
$signals\$"
	assert_equal "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
}

@test "beside a command the tunnel holds the end of one pipe more than without" {
	local before
	[ -d /proc/self/fd ] || skip 'no /proc here'
	start_tunnel 8080
	await_url
	before=$(readlink "/proc/$pid/fd/"* | grep -c ^pipe:)
	start_ready 8081 sh -c "$waiting"
	assert_equal "$(readlink "/proc/$pid/fd/"* | grep -c ^pipe:)" $((before + 1))
	touch "$TMPDIR/go"
	assert_exit 6
}

@test "no URL, no command" {
	FAKE_MODE=die-before run_tunnel 8080 touch "$TMPDIR/ran"
	assert_equal "$ended" 'exit 1'
	FAKE_MODE=silent run_tunnel -t 0.3 8080 touch "$TMPDIR/ran"
	assert_equal "$ended" 'exit 124'
	# Whether that one had come as far as to be counted is chance.
	rm "$FAKE_DIR/starts"
	FAKE_MODE=silent start_tunnel 8080 touch "$TMPDIR/ran"
	await_cloudflared 1
	kill -s INT "$pid"
	assert_signal INT
	none_left_behind
	[ ! -e "$TMPDIR/ran" ]
}

@test "a stubborn cloudflared is dead when the command has ended" {
	FAKE_MODE=ignore-term run_tunnel -g 0.3 8080 sh -c 'exit 7'
	assert_equal "$ended" 'exit 7'
	await_cloudflared 1
	gone "$cloudflared"
}

@test "a process the command leaves behind keeps neither tunnel nor cloudflared" {
	run_tunnel 8080 sh -c 'sleep 600 & echo $!'
	adopt "$output"
	assert_equal "$ended" 'exit 0'
	await_cloudflared 1
	gone "$cloudflared"
	alive "$output"
}

# --- signals --------------------------------------------------------------------------

@test "INT and QUIT are the command's own business" {
	start_ready 8080 sh -c "trap 'echo signalled' INT QUIT; $waiting"
	kill -s INT "$pid"
	kill -s QUIT "$pid"
	kill -s INT "$pid"
	touch "$TMPDIR/go"
	assert_exit 6
	assert_equal "$(cat "$out")" ready
	assert_equal "$(stop_signals "$cloudflared")" TERM
}

@test "Ctrl-C ends a command that catches it its own way" {
	start_options=(-g)
	start_ready 8080 sh -c "trap 'exit 5' INT; $waiting"
	kill -s INT -- "-$pid"
	assert_exit 5
	assert_equal "$(stop_signals "$cloudflared")" TERM
}

@test "Ctrl-C ends a command that doesn't catch it: 130" {
	start_options=(-g)
	start_ready 8080 sh -c 'echo ready; exec sleep 600'
	kill -s INT -- "-$pid"
	assert_exit 130
	gone "$cloudflared"
}

@test "TERM and HUP are passed to the command, which may catch them" {
	local signal
	for signal in TERM HUP; do
		rm -f "$FAKE_DIR/starts"
		start_ready 8080 sh -c "trap 'echo caught; exit 9' $signal; $waiting"
		kill -s "$signal" "$pid"
		assert_exit 9
		assert_equal "$(cat "$out")" $'ready\ncaught'
		gone "$cloudflared"
	done
}

stops() {
	kill -s TSTP "$1"
	stopped "$1"
}

@test "TERM reaches a command that was stopped with its tunnel once both are continued" {
	# shellcheck disable=SC2016 # it is for the command
	start_tunnel 8080 sh -c 'echo $$ >"$TMPDIR/command"; exec sleep 600'
	await test -s "$TMPDIR/command"
	local command
	command=$(<"$TMPDIR/command")
	kill -s STOP "$command"
	await stopped "$command"
	# One that comes just as it looks at the stop of its command counts as that.
	await stops "$pid"
	kill -s TERM "$pid"
	kill -s CONT "$pid"
	assert_exit 143
	gone "$command"
}

@test "a command that survives HUP keeps its tunnel" {
	start_ready 8080 sh -c "trap 'echo caught' HUP; $waiting"
	kill -s HUP "$pid"
	await_text "$out" caught
	alive "$cloudflared"
	assert_equal "$(cloudflared_signals "$cloudflared")" ''
	touch "$TMPDIR/go"
	assert_exit 6
}

@test "TERM stops both: no other start takes it for a tunnel, and the command's status is tunnel's" {
	start_ready -g 600 8080 sh -c "trap 'echo caught' TERM; $waiting"
	kill -s TERM "$pid"
	await_text "$out" caught
	run_tunnel_beside -l
	assert_equal "$beside" ''
	assert_contains "$(<"$XDG_RUNTIME_DIR/tunnel/localhost:8080")" 'state stopping'
	touch "$TMPDIR/go"
	assert_exit 6
	gone "$cloudflared"
}

@test "TERM: a command that ignores it is dead after the grace" {
	start_ready -g 0.5 8080 sh -c 'trap "" TERM; echo $$ ready; exec sleep 600'
	local command
	read -r command _ <"$out"
	kill -s TERM "$pid"
	assert_exit 137
	gone "$command"
	gone "$cloudflared"
}

@test "TERM: a command has the whole grace, though cloudflared is gone long since" {
	# Its sleep is what is tested: more than 2 s.
	start_ready -g 600 8080 sh -c 'trap "sleep 2.5; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
	kill -s TERM "$pid"
	await gone "$cloudflared"
	assert_exit 9
	refute_contains "$(<"$err")" 'left behind'
}

@test "TERM: a command has the whole grace, though cloudflared was told to end before" {
	scripted 'trap "" TERM; echo "INF https://one.trycloudflare.com" >&2; registered; next
		echo "INF Retrying connection" >&2; next
		echo "ERR Register tunnel error" >&2'
	# Its sleep is what is tested: longer than what is left of the other's grace.
	start_tunnel -r -t 5 -g 6 8080 \
		sh -c 'trap "sleep 3; echo ended; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
	await_text "$out" ready
	next go
	await_text "$err" 'no connection'
	next go
	await_text "$err" 'is dead'
	# So that little is left of it.
	sleep 4.5
	kill -s TERM "$pid"
	assert_exit 9
	assert_contains "$(<"$out")" ended
}

@test "TERM ends a command that doesn't catch it: 143" {
	start_ready 8080 sh -c 'echo ready; exec sleep 600'
	kill -s TERM "$pid"
	await_exit
	assert_equal "$status" 143
	gone "$cloudflared"
}

# --- cloudflared ends first -----------------------------------------------------------

@test "cloudflared dying first: SIGTERM to the command, the reason, exit 1" {
	start_ready 8080 sh -c "trap 'echo caught; exit 9' TERM; $waiting"
	kill -s KILL "$cloudflared"
	assert_exit 1
	assert_equal "$(cat "$out")" $'ready\ncaught'
	assert_match "$(cat "$err")" 'tunnel: [^'$'\n'']*cloudflared'
}

@test "cloudflared dying first: a command that ignores TERM is dead after the grace period" {
	start_ready -g 1 8080 sh -c 'trap "" TERM; echo $$ ready; exec sleep 600'
	local command since=$SECONDS
	read -r command _ <"$out"
	kill -s KILL "$cloudflared"
	assert_exit 1
	gone "$command"
	[ $((SECONDS - since)) -ge 1 ]
}

@test "cloudflared dying first: tunnel is gone only when the command is" {
	start_ready -g 600 8080 sh -c "trap 'sleep 0.5; echo done; exit 0' TERM; $waiting"
	kill -s KILL "$cloudflared"
	assert_exit 1
	assert_equal "$(cat "$out")" $'ready\ndone'
}
