#!/usr/bin/env bats
# Whoever doesn't read what tunnel says holds up neither it nor cloudflared.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# make_pipe NAME: a FIFO that is open for reading and writing as descriptor 8.
make_pipe() {
	pipe=$TMPDIR/$1
	mkfifo "$pipe"
	exec 8<>"$pipe"
}

# Others write to the pipe, too, so that it is full again as soon as somebody has read.
fill_pipe() {
	local _ pid out err start_options=()
	for _ in 1 2; do
		# shellcheck disable=SC2016 # it is for the shell
		start_program sh -c 'exec yes "somebody else writes" >"$0"' "$pipe"
	done
}

# Fills it at once, and to the last byte.
fill_pipe_once() {
	dd if=/dev/zero of="$pipe" bs=4096 oflag=nonblock 2>/dev/null || :
	dd if=/dev/zero of="$pipe" bs=1 oflag=nonblock 2>/dev/null || :
}

# read_some PAGES: of the pipe, with a moment in between for those who write.
read_some() {
	local i
	for ((i = 0; i < $1; i++)); do
		dd bs=4096 count=1 <&8 >/dev/null 2>&1
	done
}

@test "a pipe that others write to and nobody reads for a while stalls neither cloudflared nor a signal" {
	make_pipe shared
	CLOUDFLARED=$ROOT/test/helpers/flood
	start_options=(-e "$pipe")
	FLOOD_BYTES=16M start_tunnel -v 8080
	await_cloudflared 1
	fill_pipe
	# While it writes, some of it gets through.
	read_some 100
	# And then nobody reads.
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "a pipe of another user's, which can't be opened anew, stalls nothing when nobody reads" {
	local tunnel
	use_others
	make_pipe theirs
	chmod 600 "$pipe"
	cp "$ROOT/test/helpers/flood" "$others/flood"
	start_options=(-e "$pipe")
	CLOUDFLARED=$others/flood FLOOD_BYTES=2M start_program "${as_first[@]}" "$TUNNEL" -v 8080
	tunnel=$pid
	start_options=()
	await_cloudflared 1
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	kill -s TERM "$tunnel"
	assert_signal TERM "$tunnel"
	gone "$cloudflared"
	# It is who started it that made it so, and it stays as it was.
	assert_equal "$(($(flags) & 04000))" 0
}

@test "help and version come whole through a pipe of another user's" {
	local reader copy argument
	use_others
	make_pipe theirs
	chmod 600 "$pipe"
	start_program cat <"$pipe"
	reader=$pid copy=$out
	start_options=(-o "$pipe")
	for argument in -h -V; do
		start_program "${as_first[@]}" "$TUNNEL" "$argument"
		assert_exit 0
		"$TUNNEL" "$argument" >>"$TMPDIR/whole"
	done
	exec 8>&-
	assert_exit 0 "$reader"
	assert cmp "$copy" "$TMPDIR/whole"
}

@test "a full pipe of another user's for standard output: the URL waits until somebody reads" {
	local tunnel
	use_others
	make_pipe theirs
	chmod 600 "$pipe"
	fill_pipe_once
	start_options=(-o "$pipe")
	start_program "${as_first[@]}" "$TUNNEL" 8080
	tunnel=$pid
	start_options=()
	await_cloudflared 1
	await_text "$XDG_RUNTIME_DIR/tunnel/localhost:8080" trycloudflare
	# Were it an error, it would be one by then.
	within 1 gone "$tunnel" || :
	assert alive "$tunnel"
	start_program cat <"$pipe"
	await_text "$out" "$(cloudflared_url "$cloudflared")"
	kill -s TERM "$tunnel"
	assert_signal TERM "$tunnel"
}

# What another writer does between a look at the pipe and the write to it: the fifth write
# comes five seconds after it was decided upon.
late_write=write,writev,sendto,sendmsg:delay_enter=5000000:when=5

@test "a write that finds the pipe full after all stalls nothing" {
	make_pipe late
	CLOUDFLARED=$ROOT/test/helpers/flood
	start_options=(-e "$pipe")
	FLOOD_BYTES=1M start_traced "$late_write" -v 8080
	await_cloudflared 1
	await held "$pid"
	fill_pipe_once
	held "$pid" || fail 'it was too slow for this test'
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "a write that finds the socket full after all stalls nothing" {
	local traced
	need perl
	trace_with "$late_write"
	CLOUDFLARED=$ROOT/test/helpers/flood
	# Some programs give those they start a socket for standard error. Here nobody reads its
	# other end, and when it is time it becomes full of somebody else's words.
	# shellcheck disable=SC2016 # it is perl's
	FLOOD_BYTES=1M start_program perl -MSocket -e '
		socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die;
		my $parent = $$;
		if (fork == 0) {
			select undef, undef, undef, 0.01 until -e "$ENV{TMPDIR}/go" or getppid != $parent;
			$theirs->blocking(0);
			1 while syswrite $theirs, "x" x 4096;
			1 while syswrite $theirs, "x";
			$theirs->blocking(1);
			open my $full, ">", "$ENV{TMPDIR}/full";
			close $full;
			select undef, undef, undef, 0.05 while getppid == $parent;
			exit;
		}
		open STDERR, ">&", $theirs or die;
		exec @ARGV;' "${traced[@]}" "$TUNNEL" -v 8080
	await_cloudflared 1
	await held "$pid"
	touch "$TMPDIR/go"
	await test -e "$TMPDIR/full"
	held "$pid" || fail 'it was too slow for this test'
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

# Starts a tunnel whose log is more than a pipe takes; then somebody reads it to TMPDIR/read.
# Each word for next is another line.
read_late() {
	make_pipe late
	# shellcheck disable=SC2016 # it is for the script
	scripted 'i=0
		while [ $((i += 1)) -le 3000 ]; do echo "line $i of the log, which nobody reads for a while"; done >&2
		echo https://a-b-c-d.trycloudflare.com INF Registered tunnel connection >&2
		while next; do echo "word $word" >&2; done'
	start_options=(-e "$pipe")
	start_tunnel -v 8080
	await_url
	cat <&8 >"$TMPDIR/read" &
	adopt $!
}

@test "lines that were lost are counted, once somebody reads again" {
	read_late
	await word_comes
	assert_match "$(grep 'lines lost' "$TMPDIR/read")" '\[[1-9][0-9]* lines lost\]'
	local seen lost
	seen=$(grep -c '^cloudflared: line ' "$TMPDIR/read")
	lost=$(sed -n 's/.*\[\([0-9]*\) lines lost\].*/\1/p' "$TMPDIR/read" | awk '{ all += $1 } END { print all }')
	# The URL or a word may be among the lost.
	[ $((seen + lost)) -ge 3000 ] && [ $((seen + lost)) -le $((3001 + sent)) ] ||
		fail "seen $seen, lost $lost, sent $sent"
}

@test "the first line for which there is room again is not lost" {
	read_late
	await much_is_read
	next only
	await_text "$TMPDIR/read" 'word only'
	assert_contains "$(<"$TMPDIR/read")" 'lines lost]'
}

# Succeeds if the reader has nearly all that the pipe held.
much_is_read() {
	[ "$(wc -c <"$TMPDIR/read")" -ge 50000 ]
}

# Sends a word, which may be lost itself while the reader is behind.
sent=0
word_comes() {
	next again
	sent=$((sent + 1))
	contains "$TMPDIR/read" 'word again'
}

@test "a line that was torn for want of room is ended before the next one" {
	need perl
	serve
	# shellcheck disable=SC2016 # it is for the script
	scripted 'i=0
		while [ $((i += 1)) -le 20 ]; do printf "line %03903d\n" $i; done >&2
		echo https://a-b-c-d.trycloudflare.com INF Registered tunnel connection >&2
		while next; do echo "word $word" >&2; done'
	# Standard error is a socket that has room for a line and a part of one, and is read
	# once there is a file.
	# shellcheck disable=SC2016 # it is perl's
	start_program perl -MSocket -e '
		my ($ours, $theirs, $room, $part);
		sub pair {
			socketpair $ours, $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die;
			setsockopt $ours, SOL_SOCKET, SO_SNDBUF, $room;
		}
		for ($room = 1000; ; $room += 50) {
			exit 77 if $room > 30000;
			pair;
			next if (send $ours, "x" x 3922, MSG_DONTWAIT) != 3922;
			$part = send $ours, "x" x 3922, MSG_DONTWAIT;
			last if $part && $part < 3922;
		}
		pair;
		my $parent = $$;
		if (fork == 0) {
			close $ours;
			select undef, undef, undef, 0.01 until -e "$ENV{TMPDIR}/go" or getppid != $parent;
			open my $read, ">", "$ENV{TMPDIR}/read";
			while (sysread $theirs, my $bytes, 4096) { syswrite $read, $bytes }
			exit;
		}
		close $theirs;
		open STDERR, ">&", $ours or die;
		exec @ARGV;' "$TUNNEL" -v "$port"
	await url_or_end
	[ -n "$url" ] || {
		assert_exit 77
		skip 'a socket takes all or nothing here'
	}
	touch "$TMPDIR/go"
	await word_comes
	kill -s TERM "$pid"
	assert_signal TERM
	assert_equal "$(sed -E -e 's/0{20,}[0-9]+$/0/' -e 's/[0-9]+ lines lost/lost/' \
		"$TMPDIR/read" | uniq)" $'cloudflared: line 0\ncloudflared: [lost]\ncloudflared: word again'
}

@test "help that waits for room in a full pipe comes whole, and takes no processor time till then" {
	[ -r /proc/self/stat ] || skip 'no /proc here'
	local help
	make_pipe full
	fill_pipe_once
	start_options=(-o "$pipe")
	start_tunnel -h
	help=$pid
	start_options=()
	assert_idle "$help" 1
	start_program cat <"$pipe"
	assert_exit 0 "$help"
	exec 8>&-
	assert_exit 0
	assert_equal "$(tr -d '\0' <"$out")" "$("$TUNNEL" -h)"
}

@test "what is said of a failure waits once for a full standard error, however many lines it has" {
	local waits
	need strace
	make_pipe full
	fill_pipe_once
	# shellcheck disable=SC2016 # it is for the script
	scripted 'i=0
		while [ $((i += 1)) -le 10 ]; do echo "line $i"; done >&2
		exit 1'
	start_options=(-e "$pipe")
	start_program strace -DDD -q -o "$TMPDIR/polls" -e signal=none -e 'trace=/^p?poll' \
		"$TUNNEL" 8080
	assert_exit 1
	await_text "$TMPDIR/polls" '+++ exited with 1'
	# Those that only look don't count. A signal may break one off, and it goes on.
	waits=$(grep -cE '\{fd=[0-9]+, events=POLLOUT\}\], 1, ([1-9]|\{tv_sec=0, tv_nsec=[1-9])' "$TMPDIR/polls") || :
	[ "$waits" -ge 1 ] && [ "$waits" -le 3 ] || fail "waited $waits times"
}

@test "a full pipe for standard output holds up no signal and no deadline" {
	make_pipe full
	fill_pipe_once
	start_options=(-o "$pipe")
	start_tunnel 8080
	await_cloudflared 1
	await_text "$XDG_RUNTIME_DIR/tunnel/localhost:8080" trycloudflare
	alive "$pid"
	kill -s INT "$pid"
	assert_signal INT
	gone "$cloudflared"
	run_tunnel -t 5 8080
	assert_equal "$ended" 'exit 124'
	assert_match "$errors" 'tunnel: [^
]*standard output'
}

@test "a pipe for standard output that becomes full as the URL is written holds up no signal" {
	make_pipe full
	serve
	start_options=(-o "$pipe")
	start_traced write:delay_enter=1500000 "$port"
	await_cloudflared 1
	await_text "$XDG_RUNTIME_DIR/tunnel/localhost:$port" trycloudflare
	within 1 held "$pid" || :
	fill_pipe_once
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "a full standard output with -r costs no start and no signal" {
	local created
	make_pipe results
	start_options=(-o "$pipe")
	start_tunnel -r 8080
	read -r url <&8
	assert_match "$url" '^https://'
	fill_pipe_once
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	await listed "$(cloudflared_url "$cloudflared")"
	created=$("$TUNNEL" -l | cut -f 4)
	# Something happens, in another second.
	await later_than "$created"
	kill -s CONT "$pid"
	await_text "$FAKE_DIR/$cloudflared.signals" CONT
	assert_equal "$("$TUNNEL" -l | cut -f 4)" "$created"
	kill -s TERM "$pid"
	assert_signal TERM
}

listed() {
	"$TUNNEL" -l | grep -q "	$1	"
}

later_than() {
	[ "$(date -u +%Y-%m-%dT%H:%M:%SZ)" != "$1" ]
}

# Prints the flags of descriptor 8 as the kernel has them, in octal.
flags() {
	sed -n 's/^flags:[[:space:]]*//p' "/proc/$BASHPID/fdinfo/8"
}

@test "what is shared with others is not made non-blocking" {
	local before
	[ -r /proc/self/fdinfo/0 ] || skip 'no /proc here'
	make_pipe shared
	before=$(flags)
	assert_equal "$((before & 04000))" 0
	for arguments in '8080' '-v 8080' '-r 8080' '8080 sleep 600'; do
		# By its number, so that it is the same description.
		(
			exec 1>&8
			# shellcheck disable=SC2086 # one word each
			"$TUNNEL" $arguments 2>&8 &
			echo $! >"$TMPDIR/pid"
		)
		pid=$(<"$TMPDIR/pid")
		adopt "$pid"
		await pid_listed "$pid"
		assert_equal "$arguments: $(flags)" "$arguments: $before"
		kill -s TERM "$pid"
		await gone "$pid"
		assert_equal "$arguments: $(flags)" "$arguments: $before"
	done
	"$TUNNEL" -b 8080 >&8 2>&8
	assert_equal "$(flags)" "$before"
	"$TUNNEL" -k 8080 >&8 2>&8
	assert_equal "$(flags)" "$before"
}

pid_listed() {
	"$TUNNEL" -l | grep -q "	$1	"
}

@test "bytes that some terminals take for control characters never reach standard error" {
	local bytes
	cloudflared_script <<-'END'
		printf 'capital U \303\233 31m, en dash \342\200\223, raw \233 31m, C1 \302\233 31m, caf\303\251\n' >&2
		exit 3
	END
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	bytes=$(LC_ALL=C grep -c "$(printf '[\200-\237]')" "$err") || :
	assert_equal "$bytes" 0
	assert_contains "$errors" $'caf\303\251'
}
