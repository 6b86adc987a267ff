#!/usr/bin/env bats
# What goes to standard output and standard error, and what becomes of both.
# shellcheck disable=SC2016 # the scripts' variables are theirs
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

amber=https://amber-apple.trycloudflare.com

stop() {
	kill -s TERM "$pid"
	assert_signal TERM
}

# unread_pipe: sets $pipe to one that has a reader, who doesn't read.
unread_pipe() {
	pipe=$TMPDIR/pipe
	mkfifo "$pipe"
	exec 8<>"$pipe"
}

# read_pipe: from now on somebody does, and $copy has what he got.
read_pipe() {
	local out err pid start_options=()
	start_program cat "$pipe"
	copy=$out
}

# terminal: sets $terminal to one of 1000 columns, and $server to the process that reads it.
terminal() {
	need tmux
	tmux -S "$TMPDIR/tmux" -f /dev/null new-session -d -x 1000 -y 50 \
		"tty >'$TMPDIR/tty'; exec sleep 600" 3>&- 7>&-
	server=$(tmux -S "$TMPDIR/tmux" display-message -p '#{pid}')
	adopt "$server"
	await test -s "$TMPDIR/tty"
	terminal=$(<"$TMPDIR/tty")
}

no_cloudflared() {
	local id
	for id in $(cloudflared_starts); do
		gone "$id" || return 1
	done
}

# Prints the lines on the terminal that aren't empty.
screen() {
	tmux -S "$TMPDIR/tmux" capture-pane -p | sed '/^ *$/d'
}

screen_has() {
	screen | grep -q -- "$1"
}

descriptor_is() {
	[ "$(readlink "/proc/$pid/fd/$1")" = "$2" ]
}

# --- standard output ------------------------------------------------------------------

@test "standard output is the URL and a newline; standard error is empty" {
	local mode
	serve
	for mode in connect json bytes escape; do
		FAKE_MODE=$mode start_tunnel "$port"
		await_url
		await_cloudflared 1
		assert_equal "$(od -c <"$out")" "$(cloudflared_url "$cloudflared" | od -c)"
		stop
		assert_equal "$(od -c <"$out")" "$(cloudflared_url "$cloudflared" | od -c)"
		assert_quiet
		rm "$FAKE_DIR/starts"
	done
}

@test "with -v standard output is still only the URL" {
	start_tunnel -v 8080
	await_text "$err" 'Registered tunnel connection'
	await_url
	stop
	assert_equal "$(<"$out")" "$url"
}

@test "a tunnel that fails prints nothing to standard output" {
	local mode
	for mode in die-before rate-limited no-network no-tunnel-id; do
		FAKE_MODE=$mode run_tunnel -v 8080
		assert_equal "$ended $output" 'exit 1 '
	done
}

@test "URL=\$(tunnel 8080 &) returns in every shell, with the tunnel up" {
	local shell number=0
	tunnel_in_path
	for shell in bash dash 'busybox sh' mksh zsh yash; do
		command -v "${shell%% *}" >/dev/null || continue
		number=$((number + 1))
		# shellcheck disable=SC2086 # a command and its argument
		start_program $shell -c 'URL=$(tunnel '$((20000 + number))' &); echo "$URL"'
		assert_exit 0
		await_cloudflared $number
		assert_equal "$shell: $(<"$out")" "$shell: $(cloudflared_url "$cloudflared")"
		pid=$(tunnel_of "$cloudflared")
		adopt "$pid"
		alive "$pid"
		await_text "$FAKE_DIR/starts" "$cloudflared"
		alive "$cloudflared"
	done
	[ $number -gt 0 ]
}

@test "after the URL standard output is closed, and cloudflared never had it" {
	unread_pipe
	start_options=(-o "$pipe")
	start_tunnel 8080
	await_cloudflared 1
	refute_contains "$(cloudflared_descriptors "$cloudflared")" "$pipe"
	# The test lets go of it; cat ends if nobody else has it.
	start_options=()
	local tunnel=$pid
	start_program sh -c "echo ready; exec cat '$pipe'"
	await_text "$out" ready
	await_text "$out" trycloudflare.com
	exec 8>&-
	assert_exit 0
	alive "$tunnel"
	pid=$tunnel
	descriptor_is 1 /dev/null
	alive "$cloudflared"
}

@test "standard output that can't take the URL is an error, and the tunnel is torn down" {
	local output_options arguments
	serve
	while IFS=: read -r output_options arguments; do
		[ -c /dev/full ] || [ "$output_options" != '-o /dev/full' ] || continue
		# shellcheck disable=SC2206 # one option each
		start_options=($output_options)
		# shellcheck disable=SC2086 # the first is none
		run_tunnel $arguments "$port"
		assert_equal "$output_options $arguments $ended" "$output_options $arguments exit 1"
		assert_match "$errors" $'^tunnel: [^\n]*standard output[^\n]*$'
		await no_cloudflared
	done <<-'END'
		-o /dev/full:
		-o /dev/full:-j
		-o /dev/full:-r
		-o /dev/full:-w
		-o /dev/full:-b
		-c 1:
		-c 1:-b
		-c 0 -c 1:
	END
}

@test "standard output that can't be let go of is an error, and the tunnel is torn down" {
	start_traced '/^dup[23]$:error=EIO:when=1' 8080
	assert_exit 1
	assert_match "$(<"$err")" "tunnel: cannot point a descriptor at /dev/null: $EIO"
	await no_cloudflared
}

@test "a reader who left before the URL is an error, and the tunnel is torn down" {
	unread_pipe
	scripted 'next; echo "$word" >&2; registered'
	start_options=(-o "$pipe")
	start_tunnel 8080
	await_cloudflared 1
	exec 8>&-
	next "$amber"
	assert_exit 1
	assert_contains "$(<"$err")" 'standard output'
	gone "$cloudflared"
}

@test "help that can't be printed is an error" {
	local options argument
	[ -c /dev/full ] || skip 'no /dev/full here'
	for options in '-o /dev/full' '-c 1'; do
		for argument in -h --version; do
			# shellcheck disable=SC2206 # one option each
			start_options=($options)
			run_tunnel "$argument"
			assert_equal "$options $argument $ended" "$options $argument exit 1"
			assert_match "$errors" $'^tunnel: [^\n]*standard output[^\n]*$'
		done
	done
}

@test "a write that takes nothing is an error, as on a full disk" {
	start_traced write:retval=0:when=1 -h
	assert_exit 1
	assert_match "$(<"$err")" $'^tunnel: [^\n]*standard output: No space left on device'
}

@test "a list or help whose reader left is an error" {
	local argument
	mkfifo "$TMPDIR/left"
	start_background 8080
	for argument in -l -h '-b 8080'; do
		# shellcheck disable=SC2086 # one argument each
		start_program bash -c 'exec 7<>"$0" 9>"$0" 7<&-; exec "$@" >&9 9>&-' \
			"$TMPDIR/left" "$TUNNEL" $argument
		await_exit
		assert_equal "$argument $ended" "$argument exit 1"
		assert_match "$(<"$err")" $'^tunnel: [^\n]*standard output[^\n]*$'
	done
	alive "$background"
}

@test "a full standard output is waited for, within the deadline" {
	local full deadline
	serve
	unread_pipe
	dd if=/dev/zero of="$pipe" bs=4096 oflag=nonblock 2>/dev/null || :
	start_options=(-o "$pipe")
	# It must have come that far by then: to the URL, and to the edge's connection.
	for deadline in 0.2 2 8 32; do
		start_tunnel -t "$deadline" "$port"
		assert_exit 124
		! contains "$err" 'standard output' || break
	done
	assert_match "$(<"$err")" $'^tunnel: [^\n]*standard output[^\n]*$'
	start_tunnel "$port"
	full=$pid
	await listed
	local i
	for ((i = 0; i < 100; i++)); do kill -s CONT "$pid"; kill -s WINCH "$pid"; done
	start_options=()
	read_pipe
	await_text "$copy" "$(cloudflared_url "$(cloudflared_starts | tail -n 1)")"
	pid=$full
	await descriptor_is 1 /dev/null
	stop
}

@test "a full standard output that another user made, and nobody else may open, is waited for, too" {
	local deadline
	use_others
	unread_pipe
	chmod 600 "$pipe"
	dd if=/dev/zero of="$pipe" bs=4096 oflag=nonblock 2>/dev/null || :
	start_options=(-o "$pipe")
	# It must have come that far by then: to the URL.
	for deadline in 2 8 32; do
		start_program "${as_first[@]}" "$TUNNEL" -n -t "$deadline" 8080
		assert_exit 124
		! contains "$err" 'standard output' || break
	done
	assert_contains "$(<"$err")" 'standard output'
}

has_child() {
	[ -n "$(children_of "$1")" ]
}

@test "-b beside a tunnel waits for a full standard output within its deadline, or a signal" {
	start_background 8080
	unread_pipe
	dd if=/dev/zero of="$pipe" bs=4096 oflag=nonblock 2>/dev/null || :
	start_options=(-o "$pipe")
	start_tunnel -b -t 0.5 8080
	assert_exit 124
	assert_match "$(<"$err")" $'^tunnel: [^\n]*standard output[^\n]*$'
	start_tunnel -b -t 0 8080
	await has_child "$pid"
	kill -s TERM "$pid"
	assert_signal TERM
	start_tunnel -b -t 0 8080
	read_pipe
	await_text "$copy" "$url"
	assert_exit 0
}

@test "a signal ends a tunnel that waits for a full standard output" {
	unread_pipe
	dd if=/dev/zero of="$pipe" bs=4096 oflag=nonblock 2>/dev/null || :
	start_options=(-o "$pipe")
	start_tunnel -t 0 8080
	await listed
	stop
	await no_cloudflared
}

listed() {
	[ -n "$("$TUNNEL" -l)" ]
}

@test "-r: a line for every URL, until nobody reads them" {
	local first
	unread_pipe
	start_options=(-o "$pipe")
	start_tunnel -r 8080
	await_cloudflared 1
	start_options=()
	local tunnel=$pid reader
	first=$cloudflared
	start_program sh -c 'read -r url; echo "$url"; read -r url; echo "$url"' <"$pipe"
	reader=$pid
	await_text "$out" trycloudflare.com
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	exec 8>&-
	assert_exit 0 "$reader"
	assert_equal "$(<"$out")" "$(cloudflared_url "$first"; cloudflared_url "$cloudflared")"
	kill -s KILL "$cloudflared"
	await_cloudflared 3
	pid=$tunnel
	[ ! -e /proc/self/fd ] || await descriptor_is 1 /dev/null
	alive "$tunnel"
	alive "$cloudflared"
	stop
}

@test "-r: a reader that leaves between two URLs is let go of, and the tunnel stays" {
	[ -e /proc/self/fd ] || skip 'no /proc here'
	local reader
	unread_pipe
	start_options=(-o "$pipe")
	start_tunnel -r 8080
	start_options=()
	local tunnel=$pid
	start_program head -n 1 "$pipe"
	reader=$pid
	await_text "$out" trycloudflare.com
	exec 8>&-
	assert_exit 0 "$reader"
	pid=$tunnel
	await descriptor_is 1 /dev/null
	await_cloudflared 1
	alive "$cloudflared"
	stop
}

@test "-r: a reader that pauses gets the later URL when it goes on" {
	local first
	unread_pipe
	start_options=(-o "$pipe")
	start_tunnel -r -t 5 8080
	start_options=()
	await_cloudflared 1
	first=$cloudflared
	# Its line, and then no room for another.
	await listed
	dd if=/dev/zero of="$pipe" bs=4096 oflag=nonblock 2>/dev/null || :
	dd if=/dev/zero of="$pipe" bs=1 oflag=nonblock 2>/dev/null || :
	kill -s KILL "$first"
	await_cloudflared 2
	await listed
	# The deadline passes.
	run_tunnel -t 5.5 -c "$ROOT/fake-cloudflared.sh" -w 8081
	local tunnel
	tunnel=$(tunnel_of "$cloudflared")
	alive "$cloudflared"
	read_pipe
	await_text "$copy" "$(cloudflared_url "$cloudflared")"
	assert_equal "$(wc -l <"$FAKE_DIR/starts" | tr -d ' ')" 3
	kill -s TERM "$tunnel"
	await gone "$tunnel"
}

# --- standard error -------------------------------------------------------------------

@test "-v copies the log, each line with its source before it" {
	serve
	scripted 'echo "first line" >&2
		echo "  second  line, on standard output"
		echo "$LONG" >&2
		echo "|  '$amber'  |" >&2
		next
		echo "afterwards" >&2'
	LONG=$(printf '%03000d' 0)
	export LONG
	start_tunnel -nv "$port"
	await_url
	next
	await_text "$err" afterwards
	stop
	assert_equal "$(<"$err")" "cloudflared: first line
cloudflared:   second  line, on standard output
cloudflared: $LONG
cloudflared: |  $amber  |
cloudflared: afterwards"
}

@test "-v shows a line without an end once, whatever ends cloudflared" {
	local deadline count
	scripted 'printf "no end" >&2; next'
	# It must have come by then.
	for deadline in 1 4 16 64; do
		run_tunnel -v -t "$deadline" 8080
		assert_equal "$ended" 'exit 124'
		count=$(grep -c '^cloudflared: no end' "$err") || continue
		break
	done
	assert_equal "$count" 1
}

@test "a log of as much as a pipe holds is read, and on it goes" {
	[ "$(uname)" = Linux ] || skip 'a pipe may hold less here'
	scripted 'echo ready
		next
		dd if=/dev/zero bs=65536 count=1 2>/dev/null
		: >"$TMPDIR/written"
		next
		echo afterwards
		next
		echo the end'
	start_tunnel -v -t 0 8080
	await_text "$err" ready
	# Which finds all of it at once, and then nothing.
	kill -s STOP "$pid"
	await stopped "$pid"
	next
	await test -e "$TMPDIR/written"
	kill -s CONT "$pid"
	await_text "$err" '???'
	next
	await_text "$err" afterwards
	next
	await_text "$err" 'the end'
	stop
}

@test "-v shows a line that is too long for a pipe in pieces" {
	local size piece
	serve
	for size in 1 3999 4000 4001 4031 4032 4033 8000 8001 8064 8065 100000 0; do
		head -c $size /dev/zero | tr '\0' "$((size % 10))"
		echo
	done >"$TMPDIR/lines"
	scripted 'cat "$TMPDIR/lines"
		echo "'$amber'"'
	start_tunnel -nv "$port"
	await_url
	await_text "$err" "$amber"
	stop
	piece=$(LC_ALL=C awk '{ sub("^cloudflared: ", ""); if (length > most) most = length } END { print most }' "$err")
	[ "$piece" -ge 2000 ] && [ "$piece" -le 4082 ]
	assert_equal "$(<"$err")" "$({ fold -w "$piece" "$TMPDIR/lines"; echo $amber; } |
		sed 's/^/cloudflared: /')"
}

@test "-v with a standard error nobody reads: lines are lost and counted, nothing stalls" {
	local ticks=0 received lost
	unread_pipe
	scripted 'awk "BEGIN { for (i = 1; i <= 20000; i++) print \"line \" i }" >&2
		echo "'$amber'" >&2
		while next; do echo "$word" >&2; done'
	start_options=(-e "$pipe")
	serve
	start_options=(-e "$pipe")
	start_tunnel -nv "$port"
	await_url
	# Shared as it is, it must not have become non-blocking.
	[ ! -r "/proc/$pid/fdinfo/2" ] || assert_match "$(<"/proc/$pid/fdinfo/2")" \
		'flags:[[:space:]]+[0-7]*[0-3][0-7]{3}'$'\n'
	read_pipe
	await lost_some
	next the-end
	await_text "$copy" the-end
	received=$(grep -cE '^cloudflared: (line [0-9]+|https:[a-z./-]*|tick|the-end)$' "$copy")
	lost=$(sed -n 's/.*\[\([0-9]*\) lines* lost\].*/\1/p' "$copy" | awk '{ n += $1 } END { print n }')
	assert_equal "$((received + lost))" "$((20000 + 1 + ticks + 1))"
	# Every line is whole, and one of these.
	assert_equal "$(grep -vE '^cloudflared: (line [0-9]+|https:[a-z./-]*|tick|the-end)$' "$copy" |
		grep -cvE '\[[0-9]+ lines? lost\]$')" 0
	stop
}

lost_some() {
	grep -qE '\[[0-9]+ lines? lost\]' "$copy" && return
	next tick
	ticks=$((ticks + 1))
	return 1
}

@test "-v with a standard error that is read slowly: nothing stalls, a signal ends it at once" {
	unread_pipe
	export CLOUDFLARED=$ROOT/test/helpers/flood FLOOD_BYTES=20M
	start_options=(-e "$pipe")
	start_tunnel -v 8080
	local tunnel=$pid
	start_options=()
	# shellcheck disable=SC2016 # it is for the shell
	start_program sh -c 'while dd bs=4096 count=1 2>/dev/null; do sleep 0.1; done' <"$pipe"
	pid=$tunnel
	await_cloudflared 1
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	stop
}

@test "-v with a standard error nobody reads: a signal ends it at once" {
	local mode
	unread_pipe
	export CLOUDFLARED=$ROOT/test/helpers/flood FLOOD_BYTES=2M
	start_options=(-e "$pipe")
	start_tunnel -v 8080
	await_url
	await_cloudflared 1
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	stop
	CLOUDFLARED=$ROOT/fake-cloudflared.sh FAKE_MODE=flood start_tunnel -v 8080
	await_url
	stop
}

@test "-v on a terminal nobody reads: nothing stalls, a signal ends it at once" {
	terminal
	kill -s STOP "$server"
	await stopped "$server"
	export CLOUDFLARED=$ROOT/test/helpers/flood FLOOD_BYTES=2M
	start_options=(-e "$terminal")
	start_tunnel -v 8080
	await_url
	await_cloudflared 1
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	stop
}

@test "-v with a standard error that is full, closed or without reader: the tunnel is up" {
	local options
	unread_pipe
	for options in '-e /dev/full' '-c 2' "-e $pipe"; do
		# shellcheck disable=SC2206 # one option each
		start_options=($options)
		start_tunnel -v 8080
		[ "$options" != "-e $pipe" ] || {
			await_cloudflared 3
			exec 8>&-
		}
		await_url
		stop
	done
}

@test "on a terminal: progress while it waits, then the URL, what it leads to and how to stop it" {
	terminal
	serve
	scripted 'next; echo "$word" >&2; registered'
	start_options=(-e "$terminal")
	start_tunnel "$port"
	await screen_has .
	refute_contains "$(screen)" Ctrl-C
	assert_equal "$(screen | wc -l | tr -d ' ')" 1
	next "$amber"
	# Not Ctrl-C, which this terminal doesn't send to it.
	await screen_has "stops it"
	# The progress line has been erased.
	assert_equal "$(screen)" "tunnel: $amber -> http://localhost:$port, tunnel -k $port stops it"
	stop
}

@test "on a terminal: the progress line leaves nothing on a failure, a message does" {
	terminal
	serve
	start_options=(-e "$terminal")
	FAKE_MODE=silent start_tunnel -t 0.2 "$port"
	assert_exit 124
	await screen_has 'tunnel: '
	assert_equal "$(screen | grep -cv '^tunnel: \|^cloudflared: ')" 0
}

# --- what cloudflared says ------------------------------------------------------------

# Fails if there is any control character but the newlines in the file: C0, DEL, C1 as a
# byte or as UTF-8.
assert_clean() {
	assert_equal "$(LC_ALL=C tr -d '\n\40-\176\240-\377' <"$1" | od -c)" "$(od -c </dev/null)"
	assert_equal "$(grep -cvE '^(tunnel|cloudflared): ' "$1")" 0
}

@test "control characters of the log are replaced" {
	FAKE_MODE=escape start_tunnel -v 8080
	await_url
	await_text "$err" 'Registered tunnel connection'
	stop
	assert_clean "$err"
	assert_contains "$(<"$err")" '[31mred'
	assert_contains "$(<"$err")" 'café'
	FAKE_STATUS=3 FAKE_MODE=escape run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_clean "$err"
	assert_contains "$errors" '[31mred'
}

@test "a C1 byte is replaced, in whatever it is found" {
	scripted 'printf "\351\23331mred \303\251\23331m \342\202\23331m \360\237\230\200\233 \303\233\n" >&2
		echo "'$amber'"'
	start_tunnel -nv 8080
	await_url
	await_text "$err" "$amber"
	stop
	assert_clean "$err"
	# Some terminals take it for a control character in UTF-8, too.
	assert_equal "$(LC_ALL=C grep -c "$(printf '[\200-\237]')" "$err")" 0
	local LC_ALL=C
	assert_match "$(<"$err")" "cloudflared: [^ ]*31mred $(printf '\303\251')[^ ]*31m"
}

@test "a character with a control byte is replaced as a whole, and nothing else is" {
	local given wanted
	while read -r given wanted; do
		printf '%b\n' "$given" >>"$TMPDIR/log"
		printf 'cloudflared: %b\n' "$wanted" >>"$TMPDIR/wanted"
	done <<-'END'
		a\0001\0033\0037\0177z a????z
		~\0040~ ~\0040~
		a\0200\0233\0237\0240\0377z a???\0240\0377z
		a\0301\0201z a\0301?z
		a\0302\0200\0302\0205\0302\0237z a??????z
		\0302\0240\0303\0251\0303\0277 \0302\0240\0303\0251\0303\0277
		a\0303\0237\0337\0200z\0337\0277 a????z\0337\0277
		a\0340\0244\0205z\0340\0244\0244 a???z\0340\0244\0244
		a\0341\0264\0200z\0342\0261\0277z a???z\0342\0261\0277z
		a\0342\0201\0242z\0342\0202\0254z a???z???z
		a\0357\0274\0201z\0357\0275\0241 a???z\0357\0275\0241
		a\0360\0237\0230\0200z\0360\0240\0240\0200z a????z????z
		\0360\0240\0240\0240\0360\0241\0241\0241 \0360\0240\0240\0240\0360\0241\0241\0241
		\0360\0240\0240\0240\0233z \0360\0240\0240\0240?z
		a\0363\0240\0204\0240z\0364\0217\0277\0277z a????z????z
		\0303z\0342\0240z\0360\0240\0240z \0303z\0342\0240z\0360\0240\0240z
		\0303\0033z\0342\0240\0033z\0360\0240\0240\0033z \0303?z\0342\0240?z\0360\0240\0240?z
		\0342\0240\0303\0251\0360\0240\0303\0251 \0342\0240\0303\0251\0360\0240\0303\0251
		z\0303 z\0303
		z\0342\0240 z\0342\0240
		z\0360\0240\0240 z\0360\0240\0240
		z\0033 z?
		\0177 ?
	END
	serve
	scripted 'cat "$TMPDIR/log" >&2; echo "'$amber'"'
	start_tunnel -nv "$port"
	await_url
	await_text "$err" "$amber"
	stop
	assert_equal "$(cat -v "$err" | grep -v "$amber")" "$(cat -v "$TMPDIR/wanted")"
}

@test "every message is one line that says who says it" {
	local mode name
	name=$'no\nsuch\rfile\e[31m'
	run_tunnel -c "$name" 8080
	assert_equal "$ended" 'exit 127'
	assert_clean "$err"
	CLOUDFLARED=$name run_tunnel 8080
	assert_equal "$ended" 'exit 127'
	assert_clean "$err"
	run_tunnel 8080 "$name"
	assert_equal "$ended" 'exit 127'
	assert_clean "$err"
	for mode in rate-limited rate-limited-2026 no-network no-tunnel-id die-before die-after \
		die-by-signal; do
		FAKE_MODE=$mode run_tunnel 8080
		assert_equal "$mode $ended" "$mode exit 1"
		assert_clean "$err"
	done
	FAKE_MODE=silent run_tunnel -t 0.1 8080
	assert_equal "$ended" 'exit 124'
	assert_clean "$err"
}
