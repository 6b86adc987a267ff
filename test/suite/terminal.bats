#!/usr/bin/env bats
# At a terminal.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	use_terminals
}

rows() {
	terminal capture-pane -p | grep -c .
}

# cloudflared starts once there is $FAKE_DIR/go.
hold_cloudflared() {
	cloudflared_script <<-'END'
		echo held >"$FAKE_DIR/held"
		until [ -e "$FAKE_DIR/go" ]; do sleep 0.05; done
		exec "$STAND_IN" "$@"
	END
}

has_rows() {
	[ "$(rows)" = "$1" ]
}

# The screen has the command, the URL, the hint, nothing else.
assert_tidy() {
	await_screen 'Ctrl-C to stop'
	assert_match "$(screen)" "^\\$ tunnel [^"$'\n'"]*
https://[a-z-]*\\.trycloudflare\\.com
(tunnel: )?Ctrl-C to stop\$"
}

@test "a progress line shows while waiting and is gone afterwards, at 80 and at 30 columns" {
	local columns
	serve
	hold_cloudflared
	for columns in 80 30; do
		rm -f "$FAKE_DIR/go"
		open_terminal "$columns"
		enter "tunnel $port"
		# The command and one more, even at 30 columns.
		await has_rows 2
		touch "$FAKE_DIR/go"
		assert_tidy
		terminal send-keys C-c
		await none_left_but_the_terminal
		terminal kill-server
	done
}

none_left_but_the_terminal() {
	local id
	for id in $(cloudflared_starts); do
		gone "$id" && gone "$(tunnel_of "$id")" || return 1
	done
}

@test "the progress line goes when the terminal has become narrower" {
	serve
	hold_cloudflared
	open_terminal 80
	enter "tunnel $port"
	await has_rows 2
	terminal resize-window -x 30 -y 100
	touch "$FAKE_DIR/go"
	assert_tidy
}

@test "the progress line goes when the stop begins, not only when it is done" {
	serve
	cloudflared_script <<-'END'
		trap '' TERM
		echo $$ >>"$FAKE_DIR/starts"
		while :; do sleep 0.1; done
	END
	open_terminal 80
	enter "tunnel -g 600 $port"
	await_cloudflared 1
	await has_rows 2
	terminal send-keys C-c
	await has_rows 1
	alive "$cloudflared"
	refute_contains "$(screen)" waiting
	kill -s KILL "$cloudflared"
}

@test "the progress line says what is being waited for" {
	free_port
	mkfifo "$FAKE_DIR/control"
	exec 7<>"$FAKE_DIR/control"
	# Nobody answers there, so that the name may be waited for: some seconds.
	TRYCLOUDFLARE_NS=127.0.0.1:$port FAKE_MODE=driven open_terminal 80
	enter "tunnel -w $port"
	await_screen 'waiting for the URL'
	echo url >&7
	await_screen "waiting for Cloudflare's edge"
	echo register >&7
	await_screen 'waiting for the name in the DNS'
	await_screen "waiting for a server on localhost:$port"
	serve -p "$port"
	await_screen 'Ctrl-C to stop'
	refute_contains "$(screen)" waiting
	terminal send-keys C-c
	await none_left_but_the_terminal
	enter "clear; tunnel $port echo started"
	await_screen 'waiting for the URL, to run the command'
	printf '%s\n' url register >&7
	await_screen $'started\n'
	refute_contains "$(screen)" waiting
}

@test "the progress line is there before cloudflared says anything, with a command, too" {
	local command
	hold_cloudflared
	for command in '' 'sleep 600'; do
		rm -f "$FAKE_DIR/held"
		open_terminal 80
		enter "tunnel 8080 $command"
		await_text "$FAKE_DIR/held" held
		await_screen 'waiting for the URL'
		terminal send-keys C-c
		terminal kill-server
	done
}

@test "the progress line is written once for what it says, whatever happens meanwhile" {
	local shown=$TMPDIR/shown tunnel i
	serve
	FAKE_MODE=silent open_terminal 80
	terminal pipe-pane -o "cat >>'$shown'"
	enter "tunnel $port"
	await_cloudflared 1
	await_text "$shown" 'waiting for the URL'
	tunnel=$(tunnel_of "$cloudflared")
	for i in 1 2 3 4 5; do
		kill -s CONT "$tunnel"
		await has_lines "$FAKE_DIR/$cloudflared.signals" "$i"
	done
	terminal send-keys C-c
	await gone "$tunnel"
	assert_equal "$(grep -o 'waiting for the URL' "$shown" | grep -c .)" 1
}

@test "-r: there is no progress line while a command runs: what that shows stays" {
	local shown=$TMPDIR/shown
	FAKE_MODE=die-after FAKE_DELAY=0 open_terminal 80
	terminal pipe-pane -o "cat >>'$shown'"
	enter "tunnel -r 8080 sh -c 'echo started; read -r line; echo \"read \$line\"'"
	await_screen $'started\n'
	: >"$shown"
	await_cloudflared 3
	refute_contains "$(<"$shown")" 'waiting for'
	enter 'what was typed'
	await_screen 'read what was typed'
}

@test "30 columns are enough for the progress line to say what is waited for" {
	free_port
	mkfifo "$FAKE_DIR/control"
	exec 7<>"$FAKE_DIR/control"
	TRYCLOUDFLARE_NS=127.0.0.1:$port FAKE_MODE=driven open_terminal 30
	enter "tunnel -w $port true"
	await_screen $'\nthe URL, to run the command'
	echo url >&7
	await_screen $'\nCloudflare\'s edge, to run t'
	echo register >&7
	await_screen $'\nthe name in the DNS, to run'
	await_screen $'\n'"a server on localhost:$port"
	serve -p "$port"
	await_screen ' -> '
	refute_contains "$(screen)" 'server on'
}

@test "-l says at a terminal that nothing runs, and what has no URL yet" {
	hold_cloudflared
	open_terminal 80
	enter 'tunnel -l; echo status=$?'
	await_screen $'\ntunnel: no tunnel runs\nstatus=0'
	start_tunnel 8080
	await_text "$FAKE_DIR/held" held
	enter 'clear; tunnel -l; echo status=$?'
	await_screen 'tunnel: the tunnel of localhost:8080, process '"$pid"$', has no URL yet\nstatus=0'
	touch "$FAKE_DIR/go"
	await_url
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'clear; tunnel -l >$TMPDIR/list; echo lines=$(wc -l <$TMPDIR/list)'
	await_screen lines=1
	refute_contains "$(screen)" tunnel:
}

@test "-i in the background doesn't take the terminal's silence for its end, and hears it once it is continued in front" {
	open_terminal 80
	enter 'tunnel -i 8080 &'
	await_cloudflared 1
	await_screen "$(cloudflared_url "$cloudflared")"
	await listed "$(tunnel_of "$cloudflared")"
	enter 'kill -s STOP %1'
	await stopped "$(tunnel_of "$cloudflared")"
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'fg; echo status=$?'
	await_screen $'status=$?\ntunnel -i 8080'
	terminal send-keys x Enter C-d
	await_screen status=0
	gone "$cloudflared"
}

@test "-i in the background doesn't ask the terminal over and over" {
	[ -r /proc/self/status ] || skip 'no /proc here'
	open_terminal 80
	enter 'tunnel -i 8080 &'
	await_cloudflared 1
	await_screen "$(cloudflared_url "$cloudflared")"
	# The shell would read what is typed.
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo asleep$((40 + 2)); sleep 600'
	await_screen asleep42
	enter 'nobody reads this'
	await_screen 'reads this'
	await unmoved "$(tunnel_of "$cloudflared")"
	terminal send-keys C-c
	enter 'kill %1'
	await gone "$cloudflared"
}

# Succeeds if the process didn't run for 2 seconds.
unmoved() {
	local before
	before=$(grep ctxt_switches "/proc/$1/status") || return
	sleep 2
	[ "$(grep ctxt_switches "/proc/$1/status")" = "$before" ]
}

@test "-i in the background ends when its terminal goes, whatever was typed before" {
	local last tunnel
	# shellcheck disable=SC2016 # the shell's to expand
	for last in exit 'kill -s KILL $$' 'echo asleep$((40 + 2)); sleep 600'; do
		rm -f "$FAKE_DIR/starts"
		open_terminal 80
		enter 'tunnel -i 8080 &'
		await_cloudflared 1
		await_screen "$(cloudflared_url "$cloudflared")"
		tunnel=$(tunnel_of "$cloudflared")
		await listed "$tunnel"
		enter "$last"
		if [[ $last = *sleep* ]]; then
			# Before, the shell takes what is typed.
			await_screen asleep42
			enter 'nobody reads this'
			await_screen 'reads this'
			kill -s KILL "$(terminal display-message -p '#{pane_pid}')"
		fi
		await gone "$tunnel"
		gone "$cloudflared"
	done
}

@test "-b whose standard error is /dev/tty keeps its deadline while nobody reads that" {
	local tunnel server kept=1
	# shellcheck disable=SC2016 # it is for the script
	scripted 'next; i=0
		while [ $i -lt 2000 ]; do
			echo "INF a line of the log, long enough for two thousand to be too many: $i"
			i=$((i + 1))
		done >&2'
	open_terminal 80
	enter 'tunnel -b -v -t 3 8080 2>/dev/tty'
	await_cloudflared 1
	tunnel=$(ps -o ppid= -p "$cloudflared" | tr -d ' ')
	server=$(terminal display-message -p '#{pid}')
	kill -s STOP "$server"
	next go
	within 30 gone "$tunnel" || kept=
	kill -s CONT "$server"
	[ "$kept" ] || fail 'it is still there'
	gone "$cloudflared"
}

@test "no progress line is left above an error, or between log lines" {
	local mode
	serve
	hold_cloudflared
	for mode in die-before connect; do
		rm -f "$FAKE_DIR/go"
		FAKE_MODE=$mode open_terminal 80
		enter "tunnel -v $port"
		# Whether there is a progress line with -v is left open.
		await_text "$FAKE_DIR/held" held
		rm "$FAKE_DIR/held"
		touch "$FAKE_DIR/go"
		case $mode in
		connect) await_screen 'Registered tunnel' ;;
		*) await_screen 'deadline exceeded' ;;
		esac
		assert_equal "$(screen | sed -E '/^(\$|tunnel: |cloudflared: |https:|Ctrl-C)/d')" ''
		terminal kill-server
	done
}

@test "-b beside a tunnel that is starting shows what that waits for, and only until then" {
	serve
	hold_cloudflared
	start_tunnel "$port"
	await test -e "$FAKE_DIR/held"
	open_terminal 80
	enter "tunnel -b $port"
	await_screen 'waiting for the URL'
	touch "$FAKE_DIR/go"
	await_screen "tunnel -k $port stops it"
	assert_match "$(screen)" "^\\$ tunnel -b $port
https://[a-z-]*\\.trycloudflare\\.com
tunnel: tunnel -k $port stops it"
}

@test "-b says how to stop it at the terminal, and Ctrl-C doesn't" {
	serve
	open_terminal 80
	enter "tunnel -b $port"
	await_screen $'stops it\n$'
	assert_match "$(screen)" "^\\$ tunnel -b $port
https://[a-z-]*\\.trycloudflare\\.com
tunnel: tunnel -k $port stops it
\\$\$"
	enter "tunnel -k $port && clear && tunnel -b $port >$TMPDIR/url; tunnel -k $port; echo fin''ished"
	await_screen finished
	refute_contains "$(screen)" Ctrl-C
	[ -s "$TMPDIR/url" ]
	# What -k has stopped was there.
	refute_contains "$(screen)" 'no tunnel'
	enter "clear; tunnel -b $port && clear && tunnel -ka; echo en''ded"
	await_screen ended
	refute_contains "$(screen)" 'no tunnel'
}

@test "-b beside a tunnel says at the terminal which URL went elsewhere, and how to stop it" {
	serve
	start_tunnel "$port"
	await_url
	open_terminal 80
	enter "tunnel -b $port >$TMPDIR/url"
	await_screen "tunnel: $url -> http://localhost:$port, tunnel -k $port stops it"
	assert_equal "$(<"$TMPDIR/url")" "$url"
}

@test "the progress line says that a reader of standard output is waited for" {
	mkfifo "$TMPDIR/full"
	exec 8<>"$TMPDIR/full"
	dd if=/dev/zero of="$TMPDIR/full" bs=4096 oflag=nonblock 2>/dev/null || :
	open_terminal 80
	enter "tunnel 8080 1<>$TMPDIR/full"
	await_screen 'waiting for a reader of standard output'
	terminal send-keys C-c
	await none_left_but_the_terminal
}

@test "Ctrl-Z leaves no progress line on the terminal" {
	hold_cloudflared
	open_terminal 80
	enter 'tunnel 8080'
	await_screen 'waiting for the URL'
	terminal send-keys C-z
	await_screen Stopped
	refute_contains "$(screen)" waiting
	enter fg
	await_screen 'waiting for the URL'
	terminal send-keys C-c
	await has_no_tunnel
}

has_no_tunnel() {
	[ -z "$("$TUNNEL" -l 8080 2>/dev/null)" ] && ! holder localhost:8080
}

@test "-k of what doesn't run says so at a terminal, and it is no error" {
	open_terminal 80
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'tunnel -k 300; echo status=$?'
	await_screen status=0
	assert_contains "$(screen)" 'localhost:300 '
	assert_equal "$(screen | grep -c '^tunnel: ')" 1
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'clear; tunnel -ka; echo status=$?'
	await_screen $'\nstatus=0'
	assert_match "$(screen)" 'tunnel: no tunnel'
}

@test "Ctrl-C reaches cloudflared once, and tunnel dies of it" {
	open_terminal 80
	enter 'tunnel 8080'
	await_screen 'Ctrl-C to stop'
	await_cloudflared 1
	terminal send-keys C-c
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo status=$?'
	await_screen status=130
	gone "$cloudflared"
	assert_equal "$(stop_signals "$cloudflared")" TERM
}

@test "Ctrl-C again after half a second kills a stubborn cloudflared" {
	FAKE_MODE=ignore-term open_terminal 80
	enter 'tunnel -g 600 8080'
	await_screen 'Ctrl-C to stop'
	await_cloudflared 1
	terminal send-keys C-c
	await_text "$FAKE_DIR/$cloudflared.signals" TERM
	# It is the time itself that matters.
	sleep 0.6
	terminal send-keys C-c
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo status=$?'
	await_screen status=130
	gone "$cloudflared"
}

@test "Ctrl-Z and fg" {
	local tunnel
	open_terminal 80
	enter 'tunnel 8080'
	await_screen 'Ctrl-C to stop'
	await_cloudflared 1
	tunnel=$(tunnel_of "$cloudflared")
	terminal send-keys C-z
	await_screen Stopped
	stopped "$tunnel"
	await stopped "$cloudflared"
	enter fg
	await ! stopped "$cloudflared"
	await ! stopped "$tunnel"
	terminal send-keys C-c
	await gone "$tunnel"
	gone "$cloudflared"
}

@test "Ctrl-Z where there is no shell to resume it stops nothing" {
	open_terminal 80 "'$TUNNEL' 8080"
	await_screen 'Ctrl-C to stop'
	await_cloudflared 1
	local tunnel
	tunnel=$(tunnel_of "$cloudflared")
	terminal send-keys C-z
	await_text "$FAKE_DIR/$cloudflared.signals" CONT
	await in_state S "$tunnel"
	terminal send-keys C-c
	await gone "$tunnel"
	gone "$cloudflared"
}

@test "-r on a terminal: a cloudflared that has gone ends it at once" {
	# shellcheck disable=SC2016 # it is for the script
	cloudflared_script <<<'rm "$0"; exit 1'
	open_terminal 80
	enter 'tunnel -r 8080'
	await_screen 'tunnel: cannot run'
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo status=$?'
	await_screen status=127
	assert_equal "$(screen | grep -c '^cloudflared:')" 0
}

@test "Ctrl-Z and bg: it goes on in the background" {
	local tunnel
	open_terminal 80
	enter 'tunnel 8080'
	await_screen 'Ctrl-C to stop'
	await_cloudflared 1
	tunnel=$(tunnel_of "$cloudflared")
	terminal send-keys C-z
	await_screen Stopped
	enter bg
	await ! stopped "$cloudflared"
	await ! stopped "$tunnel"
	enter 'kill %1'
	await gone "$tunnel"
	gone "$cloudflared"
}

@test "from the background it writes to a terminal that stops those who do" {
	local tunnel
	serve
	open_terminal 80
	enter 'stty tostop'
	enter "tunnel $port &"
	await_cloudflared 1
	await_screen "$(cloudflared_url "$cloudflared")"
	tunnel=$(tunnel_of "$cloudflared")
	await listed "$tunnel"
	await in_state S "$tunnel"
	enter 'kill %1'
	await gone "$tunnel"
	gone "$cloudflared"
}

@test "closing the terminal leaves nothing, whoever led its session" {
	local tunnel program
	# shellcheck disable=SC2089,SC2090 # quoted for the shell that tmux runs
	for program in "'$TUNNEL' -v 8080" '' "'$TUNNEL' 8080 sleep 600"; do
		rm -f "$FAKE_DIR/starts"
		# Ends on TERM only, and leaves a process that doesn't.
		FAKE_MODE=grandchild open_terminal 80 ${program:+"$program"}
		[ -n "$program" ] || enter 'tunnel -v 8080'
		await_cloudflared 1
		await contains "$FAKE_DIR/grandchild" ''
		tunnel=$(tunnel_of "$cloudflared")
		await_leading "$tunnel"
		terminal kill-session
		await gone "$tunnel"
		gone "$cloudflared"
		gone "$(cat "$FAKE_DIR/grandchild")"
		terminal kill-server 2>/dev/null || :
		rm -f "$FAKE_DIR/grandchild"
	done
}

# Until it has done what comes after the URL: the record is there.
await_leading() {
	await listed "$1"
}

listed() {
	"$TUNNEL" -l 2>/dev/null | grep -q "	$1	"
}

@test "a command reads the terminal" {
	open_terminal 80
	# shellcheck disable=SC2016 # it is for the command
	enter 'tunnel 8080 sh -c '\''echo "go on"; read -r line; echo "<$line>"'\'
	await_screen $'\ngo on'
	enter 'some words'
	await_screen '<some words>'
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo status=$?'
	await_screen status=0
}

@test "Ctrl-C while a command runs is the command's" {
	open_terminal 80
	enter "tunnel 8080 sh -c 'trap \"exit 5\" INT; echo \"go on\"; while :; do sleep 0.05; done'"
	await_screen $'\ngo on'
	await_cloudflared 1
	terminal send-keys C-c
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo status=$?'
	await_screen status=5
	assert_equal "$(stop_signals "$cloudflared")" TERM
}

@test "an interactive shell as the command works as ever, job control included" {
	open_terminal 80
	enter 'tunnel 8080 bash --norc --noprofile -i'
	await_cloudflared 1
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo inside=$TUNNEL_PUBLIC_URL'
	await_screen "inside=$(cloudflared_url "$cloudflared")"
	enter "echo 'go on'; sleep 600"
	await_screen $'\ngo on'
	terminal send-keys C-z
	await_screen Stopped
	alive "$cloudflared"
	! stopped "$cloudflared" || fail 'cloudflared was stopped'
	enter 'kill -s KILL %1; fg; echo killed'
	# What is typed before the shell reads, or while it heeds Ctrl-C, may be lost.
	await_screen $'\nkilled\n$'
	terminal send-keys C-c
	await_screen $'^C\n$'
	enter 'exit 3'
	await_screen $'exit 3\nexit\n'
	# shellcheck disable=SC2016 # it is for the other shell
	enter 'echo status=$?'
	await_screen status=3
	gone "$cloudflared"
	assert_equal "$(stop_signals "$cloudflared")" TERM
}
