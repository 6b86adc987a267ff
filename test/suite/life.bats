#!/usr/bin/env bats
# Life and death of the foreground tunnel and its cloudflared.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# Some of the signals below leave a core.
ulimit -c 0

# Starts a tunnel, waits for its URL; sets $cloudflared.
open_tunnel() {
	start_tunnel "$@"
	await_url
	cloudflared=$(tail -n 1 "$FAKE_DIR/starts")
}

# Succeeds if tunnel says something that matches. What it copies from the log of
# cloudflared does not count.
said() {
	grep -Eiq "^tunnel: .*($1)" "$err"
}

assert_said() {
	said "$1" || fail "expected a message that matches: $1
but got: $(cat "$err")"
}

# Nothing on standard error is without the name of who says it.
assert_labelled() {
	refute_contains "$(sed -E '/^(tunnel|cloudflared): ./!s/^/unlabelled: /' "$err")" unlabelled:
}

# Whole seconds: a wait that took N counts as N at least.
assert_took() {
	[ $((SECONDS - since)) -ge "$1" ] || fail "took less than $1 s: $((SECONDS - since))"
}

# Tunnel handles signals in order, so that those sent before have had their effect.
let_it_handle_signals() {
	kill -s TSTP "$pid"
	await stopped "$pid"
	kill -s CONT "$pid"
	await_text "$FAKE_DIR/$cloudflared.signals" CONT
}

has_proc() {
	[ -r /proc/self/status ] || skip 'no /proc here'
}

# --- signals --------------------------------------------------------------------------

@test "INT, TERM, HUP and QUIT stop the tunnel, which dies of that signal" {
	local signal
	serve
	for signal in INT TERM HUP QUIT; do
		open_tunnel "$port"
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		gone "$cloudflared"
		assert_equal "$(stop_signals "$cloudflared")" TERM
		assert_equal "$(cat "$out")" "$url"
		assert_quiet
	done
}

@test "a signal while waiting for the URL stops it at once" {
	local signal
	export FAKE_MODE=silent
	for signal in INT TERM HUP; do
		start_tunnel 8080
		await_cloudflared 1
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		gone "$cloudflared"
		assert_equal "$(cat "$out")" ''
		rm "$FAKE_DIR/starts"
	done
}

@test "signals that were ignored at the start stay ignored" {
	start_options=(-i INT -i HUP -i QUIT)
	open_tunnel 8080
	kill -s INT "$pid"
	kill -s HUP "$pid"
	kill -s QUIT "$pid"
	let_it_handle_signals
	assert_equal "$(cloudflared_signals "$cloudflared" | sort -u)" CONT
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "cloudflared has default signal actions whatever was ignored or blocked" {
	has_proc
	start_options=(-i INT -i HUP -i TERM -i PIPE -i CHLD -i USR1 -b TERM -b USR2)
	open_tunnel 8080
	assert_equal "$(cloudflared_masks "$cloudflared")" $'blocked 0000000\nignored 0000000'
	kill -s QUIT "$pid"
	assert_signal QUIT
}

@test "a stubborn cloudflared is dead after the grace period" {
	export FAKE_MODE=ignore-term
	open_tunnel -g 2 8080
	local since=$SECONDS
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	assert_took 2
}

@test "the grace period is 3 seconds unless -g says otherwise" {
	export FAKE_MODE=ignore-term
	open_tunnel 8080
	local since=$SECONDS
	kill -s TERM "$pid"
	assert_signal TERM
	assert_took 3
	gone "$cloudflared"
	# It was not given up before.
	refute_contains "$(<"$err")" 'left behind'
}

@test "-g 0 grants no grace" {
	export FAKE_MODE=ignore-term
	open_tunnel -g 0 8080
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "a cloudflared that takes part of the grace period is left to end by itself" {
	export FAKE_MODE=slow-stop FAKE_DELAY=0.5
	open_tunnel -v -g 600 8080
	kill -s TERM "$pid"
	assert_signal TERM
	assert_contains "$(cat "$err")" 'Metrics server stopped'
}

@test "a stopped cloudflared does not survive" {
	open_tunnel -g 1 8080
	kill -s STOP "$cloudflared"
	await stopped "$cloudflared"
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "a stopped cloudflared is continued when the tunnel stops, and ends by itself" {
	open_tunnel -v -g 600 8080
	kill -s STOP "$cloudflared"
	await stopped "$cloudflared"
	kill -s TERM "$pid"
	assert_signal TERM
	assert ended_itself "$err"
}

@test "a process that cloudflared leaves behind is dead when tunnel has exited" {
	export FAKE_MODE=grandchild
	local signal
	for signal in TERM KILL; do
		open_tunnel 8080
		if [ $signal = KILL ]; then
			kill -s KILL "$cloudflared"
			assert_exit 1
		else
			kill -s TERM "$pid"
			assert_signal TERM
		fi
		gone "$cloudflared"
		gone "$(cat "$FAKE_DIR/grandchild")"
	done
}

@test "a cloudflared that is a wrapper, its real program in a session of its own, is dead as well" {
	local signal
	[ "$(uname)" = Linux ] || skip 'nobody adopts it there'
	need setsid
	STAND_IN=$CLOUDFLARED
	export STAND_IN
	cloudflared_script <<-'END'
		setsid "$STAND_IN" "$@" &
		wait
	END
	for signal in TERM INT; do
		open_tunnel -g 1 8080
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		gone "$cloudflared"
	done
	open_tunnel 8080
	kill -s KILL "$(children_of "$pid")"
	assert_exit 1
	gone "$cloudflared"
	open_tunnel 8080
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	gone "$cloudflared"
	# In the background it has none of the children of who started it.
	# shellcheck disable=SC2016 # it is for the shell
	start_program sh -c 'sleep 600 & echo $! >"$TMPDIR/child"; exec "$@"' sh "$TUNNEL" -b 8080
	assert_exit 0
	adopt "$(<"$TMPDIR/child")"
	cloudflared=$(tail -n 1 "$FAKE_DIR/starts")
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	gone "$cloudflared"
	alive "$(<"$TMPDIR/child")"
}

@test "tunnel killed by SIGKILL takes cloudflared along" {
	[ "$(uname)" = Linux ] || [ "$(uname)" = FreeBSD ] || skip 'no parent-death signal'
	open_tunnel 8080
	kill -s KILL "$pid"
	await gone "$cloudflared"
	assert_equal "$(cloudflared_signals "$cloudflared")" TERM
	FAKE_MODE=silent start_tunnel 8080
	await_cloudflared 2
	kill -s KILL "$pid"
	await gone "$cloudflared"
}

@test "a signal of another kind that ends tunnel leaves nothing behind" {
	export FAKE_MODE=grandchild
	local signal
	for signal in USR1 USR2 ALRM VTALRM PROF XCPU IO RTMIN+3; do
		kill -l "$signal" >/dev/null 2>&1 || continue
		open_tunnel 8080
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		gone "$cloudflared"
		gone "$(cat "$FAKE_DIR/grandchild")"
	done
}

@test "a crash of tunnel leaves nothing behind" {
	export FAKE_MODE=grandchild
	local signal
	for signal in SEGV ABRT BUS FPE ILL TRAP SYS; do
		open_tunnel 8080
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		gone "$cloudflared"
		gone "$(cat "$FAKE_DIR/grandchild")"
	done
}

@test "a fault of its own ends tunnel at once, and leaves nothing behind" {
	need cc env
	cd "$TMPDIR"
	cc -shared -fPIC -o fault.so -x c - <<-'END' || skip 'cc makes no libraries here'
		#define _GNU_SOURCE
		#include <sys/syscall.h>
		#include <sys/wait.h>
		#include <fcntl.h>
		#include <stdlib.h>
		#include <unistd.h>

		__attribute__((constructor)) static void
		keep_to_ourselves(void)
		{
			unsetenv("LD_PRELOAD");
		}

		int
		waitid(idtype_t kind, id_t id, siginfo_t *info, int options)
		{
			int *volatile nowhere = NULL;

			close(open("taken", O_WRONLY | O_CREAT, 0600));
			if (access("fault", F_OK) == 0)
				*nowhere = 1;
			return (int)syscall(SYS_waitid, kind, id, info, options, NULL);
		}
	END
	# A static program, or one of another C library, takes none; an emulator has it for itself.
	LD_PRELOAD=$TMPDIR/fault.so "$TUNNEL" -V >/dev/null 2>&1 || :
	[ -e taken ] || skip 'it takes no library'
	ulimit -c 0
	start_program env LD_PRELOAD="$TMPDIR/fault.so" "$TUNNEL" 8080
	await_url
	await_cloudflared 1
	touch fault
	# It looks which child that was.
	kill -s CHLD "$pid"
	assert_signal SEGV
	await gone "$cloudflared"
}

@test "of two signals that come while it is stopped, it dies of the first that the system hands over" {
	[ "$(uname)" = Linux ] || skip 'which one that is, the system decides'
	open_tunnel 8080
	kill -s STOP "$pid"
	await stopped "$pid"
	kill -s QUIT "$pid"
	kill -s INT "$pid"
	kill -s CONT "$pid"
	# The lowest.
	assert_signal INT
	gone "$cloudflared"
}

@test "TSTP stops both, CONT resumes both" {
	open_tunnel 8080
	stop_and_resume
	# Not just once.
	kill -s TSTP "$pid"
	await stopped "$pid"
	await stopped "$cloudflared"
	kill -s CONT "$pid"
	await ! stopped "$cloudflared"
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	assert_equal "$(cat "$out")" "$url"
}

@test "TSTP stops both before the URL, too, which comes after CONT" {
	scripted 'next; echo https://a-b-c-d.trycloudflare.com >&2; registered'
	start_tunnel 8080
	await_cloudflared 1
	kill -s TSTP "$pid"
	await stopped "$pid"
	await stopped "$cloudflared"
	next go
	assert_equal "$(cat "$out")" ''
	kill -s CONT "$pid"
	await_url
}

@test "TERM ends a stopped tunnel once it is continued" {
	open_tunnel 8080
	kill -s TSTP "$pid"
	await stopped "$cloudflared"
	kill -s TERM "$pid"
	kill -s CONT "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

# --- the log --------------------------------------------------------------------------

@test "the log goes on being read, at constant memory" {
	has_proc
	local id tunnels=()
	CLOUDFLARED=$ROOT/test/helpers/flood
	export FLOOD_BYTES=16M
	start_tunnel 8080
	tunnels+=("$pid")
	start_tunnel -r 8081
	tunnels+=("$pid")
	start_tunnel 8082 sleep 600
	tunnels+=("$pid")
	FLOOD_LINE=1 start_tunnel 8083
	tunnels+=("$pid")
	await_url
	await_cloudflared 4
	for id in $(cloudflared_starts); do
		await test -s "$FAKE_DIR/$id.flooded"
	done
	for id in "${tunnels[@]}"; do
		assert_match "$(grep VmHWM "/proc/$id/status")" '[^0-9]([1-3][0-9]{3}|[0-9]{1,3}) kB'
	done
}

@test "a signal is heard above a flooding log" {
	FAKE_MODE=flood open_tunnel 8080
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	cloudflared_script <<-'END'
		echo $$ >>"$FAKE_DIR/starts"
		exec yes 'no address here' >&2
	END
	start_tunnel -t 0 8080
	await_cloudflared 2
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "with -v, a full standard error stalls neither cloudflared nor a signal" {
	mkfifo "$TMPDIR/full"
	exec 7<>"$TMPDIR/full"
	CLOUDFLARED=$ROOT/test/helpers/flood
	start_options=(-e "$TMPDIR/full")
	FLOOD_BYTES=4M open_tunnel -v 8080
	await test -s "$FAKE_DIR/$cloudflared.flooded"
	local stuck=$pid lively=$cloudflared
	kill -s TERM "$stuck"
	assert_signal TERM "$stuck"
	gone "$lively"
}

@test "room on standard output wakes nobody who has nothing to print yet" {
	has_proc
	local tunnels=()
	mkfifo "$TMPDIR/pipe"
	exec 8<>"$TMPDIR/pipe"
	dd if=/dev/zero of="$TMPDIR/pipe" bs=4096 oflag=nonblock 2>/dev/null || :
	scripted 'echo "INF https://one.trycloudflare.com" >&2; registered; next
		echo "INF Lost connection with the edge" >&2'
	start_options=(-o "$TMPDIR/pipe")
	start_tunnel -t 0 8080
	tunnels+=("$pid")
	await contains "$XDG_RUNTIME_DIR/tunnel/localhost:8080" 'state up'
	next
	# The URL is in the record, and so is that it doesn't work.
	await contains "$XDG_RUNTIME_DIR/tunnel/localhost:8080" 'state lost'
	dd if="$TMPDIR/pipe" of=/dev/null bs=65536 count=1 2>/dev/null
	await unmoved
}

@test "an idle tunnel never wakes up" {
	has_proc
	local id tunnels=()
	CLOUDFLARED=$ROOT/test/helpers/flood
	start_tunnel 8080
	tunnels+=("$pid")
	start_tunnel -r -v 8081
	tunnels+=("$pid")
	start_tunnel 8082 sleep 600
	tunnels+=("$pid")
	serve
	start_tunnel -w "$port"
	tunnels+=("$pid")
	export CLOUDFLARED=$ROOT/fake-cloudflared.sh
	FAKE_MODE=silent start_tunnel 8083
	tunnels+=("$pid")
	FAKE_MODE=close-log start_tunnel 8084
	tunnels+=("$pid")
	await_url
	await_cloudflared 6
	# Its reader leaves before there is anything to read.
	mkfifo "$TMPDIR/pipe"
	exec 8<>"$TMPDIR/pipe"
	start_options=(-o "$TMPDIR/pipe")
	FAKE_MODE=silent start_tunnel -r -t 0 8086
	start_options=()
	tunnels+=("$pid")
	await_cloudflared 7
	exec 8>&-
	run_tunnel -b 8085
	await_cloudflared 8
	id=$(tunnel_of "$cloudflared")
	adopt "$id"
	tunnels+=("$id")
	# Once all is quiet it stays so; each look takes 2 seconds.
	await unmoved
	for id in "${tunnels[@]}"; do
		alive "$id"
	done
}

# Succeeds if none of the $tunnels ran for 2 seconds.
unmoved() {
	local before
	before=$(activity)
	sleep 2
	[ "$(activity)" = "$before" ]
}

activity() {
	local id
	for id in "${tunnels[@]}"; do
		grep ctxt_switches "/proc/$id/status"
		cut -d ' ' -f 14,15 "/proc/$id/stat"
	done
}

@test "a tunnel that waits for its cloudflared to stop sleeps, whatever it stops for" {
	has_proc
	local id tunnels=() input
	scripted 'trap "" TERM'
	open_with_input -i -t 0 -g 600 8080
	tunnels+=("$pid")
	input=$pid
	start_tunnel -b -t 0 -g 600 8081
	await_cloudflared 2
	await has_state 8081 starting
	id=$(children_of "$pid")
	adopt "$id"
	tunnels+=("$id")
	exec 6>&-
	kill -s KILL "$pid"
	await has_state 8080 stopping
	await has_state 8081 stopping
	await unmoved
	for id in $(cloudflared_starts); do
		kill -s KILL "$id"
	done
	assert_exit 0 "$input"
	await gone "${tunnels[1]}"
}

# has_state PORT STATE: that is in the record.
has_state() {
	contains "$XDG_RUNTIME_DIR/tunnel/localhost:$1" "state $2"
}

@test "cloudflared may close its log and live on" {
	export FAKE_MODE=close-log
	open_tunnel 8080
	let_it_handle_signals
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	assert_contains "$(cloudflared_signals "$cloudflared")" TERM
	open_tunnel 8080
	kill -s KILL "$cloudflared"
	assert_exit 1
	assert_said 'cloudflared'
}

# --- cloudflared ends -----------------------------------------------------------------

@test "cloudflared dying before the URL: its status and its last words, exit 1" {
	export FAKE_MODE=die-before FAKE_STATUS=37
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$output" ''
	assert_said 'cloudflared.*37'
	assert_contains "$errors" 'cloudflared: failed to request quick Tunnel'
	assert_labelled
	cloudflared_script <<<"echo 'something went wrong' >&2; exit 37"
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_said 'cloudflared.*37'
	assert_contains "$errors" 'cloudflared: something went wrong'
	# Nothing tells the cause.
	if said 'limit|7844|DNS|Cloudflare.s|network|certificate'; then
		fail "how does it know: $errors"
	fi
}

@test "of the log of a dead cloudflared the last 10 lines are shown" {
	cloudflared_script <<-'END'
		i=0
		while [ $((i += 1)) -lt 300 ]; do
			echo "log line $i."
		done >&2
		printf 'without newline' >&2
		exit 5
	END
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$(grep '^cloudflared: ' "$err")" \
		"$(printf 'cloudflared: %s\n' 'log line '{291..299}. 'without newline')"
	assert_labelled
}

@test "a last line of any length is shown as far as it goes" {
	cloudflared_script <<<'printf "%010000d the end" 0 >&2; exit 5'
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_match "$(grep ^cloudflared: "$err")" '^cloudflared: 0{1000}'
	assert_labelled
}

@test "a cloudflared that exits with 126 or 127 by itself is an end like any other" {
	local number
	for number in 126 127; do
		cloudflared_script <<<"echo 'sh: no-such-program: not found' >&2; exit $number"
		run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		assert_said "exit status $number"
	done
}

@test "a dead cloudflared without a word" {
	cloudflared_script <<<'exit 0'
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_said 'cloudflared'
	refute_contains "$errors" $'\ncloudflared:'
}

@test "cloudflared killed before the URL: the signal is named" {
	# shellcheck disable=SC2016 # it is the script's
	cloudflared_script <<<'kill -s KILL $$'
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_said 'signal 9|SIGKILL|killed'
}

@test "cloudflared killed by a signal that has no common name: its number" {
	# shellcheck disable=SC2016 # it is the script's
	cloudflared_script <<<'kill -s VTALRM $$'
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_said "signal $(kill -l VTALRM)"
}

@test "why cloudflared died is said where its log tells" {
	local mode cause line
	while read -r mode cause; do
		FAKE_MODE=$mode run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		assert_said "$cause"
		assert_labelled
	done <<-'END'
		rate-limited rate.*minutes.*again
		rate-limited-2026 rate.*minutes
		no-network network.*DNS
		no-tunnel-id sense.*again
	END
	while read -r cause line; do
		cloudflared_script <<<"echo '$line' >&2; exit 1"
		run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		assert_said "$cause"
	done <<-'END'
		minutes {"level":"error","status":429,"message":"no new tunnel"}
		DNS ERR Post "https://api.trycloudflare.com/tunnel": dial tcp4: i/o timeout
		minutes ERR Error unmarshaling QuickTunnel response: error code: 1015 error="invalid character"
		DNS failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": dial tcp: lookup api.trycloudflare.com: no such host
		7844.*WARP ERR Failed to create new quic connection error="failed to dial to edge with quic: timeout: no recent network activity" connIndex=0
		7844.*WARP ERR Unable to establish connection with Cloudflare edge error="DialContext error: dial tcp 198.41.200.193:7844: i/o timeout" connIndex=0
	END
}

@test "cloudflared dying after the URL: what it was, the last words, exit 1" {
	FAKE_MODE=die-after FAKE_STATUS=11 FAKE_DELAY=0.2 open_tunnel 8080
	assert_exit 1
	assert_equal "$(cat "$out")" "$url"
	assert_said 'cloudflared.*11'
	assert_contains "$(cat "$err")" 'cloudflared: connection with edge closed'
	assert_match "$(grep -c ^cloudflared: "$err")" '^([1-9]|10)$'
	assert_labelled
}

@test "cloudflared ending with success is an end, too" {
	open_tunnel 8080
	kill -s TERM "$cloudflared"
	assert_exit 1
	assert_said 'cloudflared'
}

@test "cloudflared killed after the URL: the signal is named, exit 1" {
	FAKE_MODE=die-by-signal FAKE_SIGNAL=KILL FAKE_DELAY=0.2 open_tunnel 8080
	assert_exit 1
	assert_said 'signal 9|SIGKILL|killed'
}

# --- -i -------------------------------------------------------------------------------

# Starts a tunnel whose standard input is a pipe that is open, as descriptor 6.
open_with_input() {
	[ -p "$TMPDIR/input" ] || mkfifo "$TMPDIR/input"
	exec 6<>"$TMPDIR/input"
	# shellcheck disable=SC2016 # it is for the shell
	start_program sh -c 'exec "$@" <"$0"' "$TMPDIR/input" "$TUNNEL" "$@"
}

@test "-i: the end of standard input is a stop, with status 0" {
	local option
	for option in -i -iv -ij -ir -in; do
		open_with_input "$option" 8080
		await test -s "$out"
		cloudflared=$(tail -n 1 "$FAKE_DIR/starts")
		exec 6>&-
		assert_exit 0
		gone "$cloudflared"
		assert_equal "$(stop_signals "$cloudflared")" TERM
	done
}

@test "-i: the end of standard input ends a start as well" {
	FAKE_MODE=silent open_with_input -i -t 0 8080
	await_cloudflared 1
	exec 6>&-
	assert_exit 0
	gone "$cloudflared"
	assert_equal "$(<"$out")" ''
	# It may have ended before there was anything.
	start_tunnel -i 8080
	assert_exit 0
	none_left_behind
}

@test "-i: what is read is thrown away, however much, and without -i nothing is read" {
	open_with_input -i 8080
	await_url
	cloudflared=$(tail -n 1 "$FAKE_DIR/starts")
	printf x >&6
	let_it_handle_signals
	assert alive "$pid"
	head -c 1000000 /dev/zero >&6
	alive "$pid"
	exec 6>&-
	assert_exit 0
	gone "$cloudflared"
	# shellcheck disable=SC2016 # it is for the command
	run_tunnel 8080 sh -c 'read -r line; echo "<$line>"' <<<'for the command'
	assert_equal "$output" '<for the command>'
	start_tunnel 8080 <&-
	await_url
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "-i: what somebody else was quicker to read is no end" {
	local traced
	scripted 'next; echo "INF https://one.trycloudflare.com" >&2; registered'
	# The first thing that it does to read.
	trace_with recvfrom:delay_exit=5000000:when=1
	mkfifo "$TMPDIR/input"
	exec 6<>"$TMPDIR/input"
	# shellcheck disable=SC2016 # it is for the shell
	start_program sh -c 'exec "$@" <"$0"' "$TMPDIR/input" "${traced[@]}" "$TUNNEL" -i -t 0 8080
	await_cloudflared 1
	echo >&6
	await held "$pid"
	read -r _ <&6
	next
	await_url
	assert alive "$cloudflared"
	exec 6>&-
	assert_exit 0
	gone "$cloudflared"
}

@test "-i: a socket is read as well, and its end is one" {
	need perl
	scripted 'next; echo "INF https://one.trycloudflare.com" >&2; registered'
	mkfifo "$TMPDIR/go"
	exec 6<>"$TMPDIR/go"
	# shellcheck disable=SC2016 # it is perl's
	start_program perl -MSocket -e '
		socketpair(my $ours, my $its, AF_UNIX, SOCK_STREAM, 0) or die;
		my $pid = fork;
		if ($pid == 0) {
			close $ours;
			open STDIN, "<&", $its or die;
			exec @ARGV;
		}
		close $its;
		syswrite $ours, "x";
		open my $go, "<", "$ENV{TMPDIR}/go" or die;
		<$go>;
		close $ours;
		waitpid $pid, 0;
		exit $? >> 8' "$TUNNEL" -i -t 0 8080
	await_cloudflared 1
	next
	await_url
	assert alive "$cloudflared"
	echo >&6
	assert_exit 0
	gone "$cloudflared"
}

@test "-i: a program that is killed takes its tunnel along" {
	local program
	need perl
	# It holds the other end of a pipe, as programs do that start others.
	# shellcheck disable=SC2016 # it is perl's
	start_program perl -e 'open my $to, "|-", @ARGV or die; sleep 600' "$TUNNEL" -ij 8080
	program=$pid
	await test -s "$out"
	await_cloudflared 1
	local tunnel
	tunnel=$(tunnel_of "$cloudflared")
	kill -s KILL "$program"
	await gone "$tunnel"
	gone "$cloudflared"
}

# --- the start deadline ---------------------------------------------------------------

@test "the start deadline: exit 124, a message, nothing left" {
	export FAKE_MODE=silent
	start_tunnel -t 5 8080
	local since=$SECONDS
	await_cloudflared 1
	assert_exit 124
	assert_took 4
	gone "$cloudflared"
	assert_equal "$(cat "$out")" ''
	assert_said '5.* s|5 seconds'
	assert_labelled
	# However soon it is.
	run_tunnel -t 0.001 8080
	assert_equal "$ended" 'exit 124'
	assert_said '0\.001 s'
}

@test "-t 0 is no deadline" {
	FAKE_MODE=slow FAKE_DELAY=1 start_tunnel -t 0 8080
	await_url
}

@test "the deadline is for the start only" {
	open_tunnel -t 5 8080
	# As long as it takes for the deadline to pass.
	sleep 5.5
	let_it_handle_signals
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "a stubborn cloudflared that floods its log misses the deadline and is dead" {
	cloudflared_script <<-'END'
		echo $$ >>"$FAKE_DIR/starts"
		trap '' TERM
		exec yes 'no address here' >&2
	END
	local deadline
	# It must have come that far by then.
	for deadline in 0.5 2 8 32; do
		start_tunnel -t "$deadline" -g 0.5 8080
		assert_exit 124
		! started_often 1 || break
	done
	await_cloudflared 1
	gone "$cloudflared"
}

@test "126: cloudflared can't be executed, 127: it isn't there" {
	run_tunnel -c "$ROOT/LICENSE" 8080
	assert_equal "$ended" 'exit 126'
	assert_said "$ROOT/LICENSE"
	run_tunnel -c "$TMPDIR/nothing" 8080
	assert_equal "$ended" 'exit 127'
	assert_said "$TMPDIR/nothing"
	assert_equal "$output" ''
}

# --- strange parents ------------------------------------------------------------------

@test "standard input and error may be closed" {
	local closed
	for closed in '-c 0' '-c 2' '-c 0 -c 2'; do
		# shellcheck disable=SC2206 # one word each
		start_options=($closed)
		open_tunnel 8080
		assert_equal "$(cat "$out")" "$(cloudflared_url "$cloudflared")"
		kill -s TERM "$pid"
		assert_signal TERM
		assert_match "$(cloudflared_descriptors "$cloudflared")" \
			$'^0 /dev/null\n1 (pipe:[^\n]*)\n2 (pipe:[^\n]*)$'
		assert_equal "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
	done
}

@test "without a standard output the URL can't be printed: exit 1, nothing left" {
	local closed
	for closed in '-c 1' '-c 0 -c 1' '-c 1 -c 2' '-c 0 -c 1 -c 2'; do
		# shellcheck disable=SC2206 # one word each
		start_options=($closed)
		run_tunnel 8080
		assert_equal "$ended" 'exit 1'
		[[ $closed = *2 ]] || assert_said 'standard output'
		none_left_behind
	done
}

@test "SIGCHLD ignored at the start: the end of cloudflared is still seen" {
	start_options=(-i CHLD)
	open_tunnel 8080
	kill -s KILL "$cloudflared"
	assert_exit 1
	assert_said 'signal 9|SIGKILL|killed'
	FAKE_STATUS=37 FAKE_MODE=die-before run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_said 37
	run_tunnel 8080 sh -c 'exit 7'
	assert_equal "$ended" 'exit 7'
}

@test "signals blocked at the start: they stop it, the end of cloudflared is seen" {
	local signal
	start_options=(-b INT -b TERM -b HUP -b QUIT -b CHLD -b PIPE -b ALRM)
	for signal in INT TERM HUP; do
		open_tunnel 8080
		kill -s "$signal" "$pid"
		assert_signal "$signal"
		gone "$cloudflared"
	done
	open_tunnel 8080
	kill -s KILL "$cloudflared"
	assert_exit 1
}

@test "few descriptors: business as usual or an error, never a hang" {
	local files pids=() outs=()
	# A shell script alone needs more.
	CLOUDFLARED=$ROOT/test/helpers/flood
	for files in 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
		start_options=(-n "$files")
		start_tunnel -t 10 "$((8080 + files))"
		pids+=("$pid")
		outs+=("$out")
	done
	for pid in "${pids[@]}"; do
		out=${outs[0]}
		err=${out%.out}.err
		outs=("${outs[@]:1}")
		await url_or_end
		if [ -n "$url" ]; then
			kill -s TERM "$pid"
			assert_signal TERM
		else
			await_exit
			# Before main the system may have failed already: 127.
			assert_match "$ended" '^exit (1|126|127)$'
			[ -s "$err" ]
		fi
	done
	none_left_behind
	[ -n "$url" ]
}

@test "children that its process had before are not taken for cloudflared, nor harmed" {
	# shellcheck disable=SC2016 # they are the script's
	start_program sh -c '
		sleep 600 &
		echo $! >"$TMPDIR/sleeper"
		until [ -e "$TMPDIR/go" ]; do sleep 0.05; done &
		echo $! >"$TMPDIR/waiter"
		exec "$@"' sh "$TUNNEL" 8080
	await_url
	adopt "$(cat "$TMPDIR/sleeper")"
	await_cloudflared 1
	touch "$TMPDIR/go"
	await gone "$(cat "$TMPDIR/waiter")"
	let_it_handle_signals
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	alive "$(cat "$TMPDIR/sleeper")"
}

# Starts tunnel as process 1 of a new PID namespace.
start_as_process_1() {
	local new=(unshare --pid --fork --mount-proc)
	need unshare
	[ "$(id -u)" = 0 ] || new+=(--map-root-user)
	"${new[@]}" true 2>/dev/null || skip 'not allowed to unshare'
	start_program "${new[@]}" "$TUNNEL" "$@"
}

has_one_child() {
	[ "$(children_of "$1" | wc -l)" = 1 ]
}

@test "as process 1 it reaps every orphan and exits with 128+n" {
	STAND_IN=$CLOUDFLARED
	export STAND_IN
	cloudflared_script <<-'END'
		for orphan in 1 2 3; do
			# The process in between ends at once.
			(sh -c 'echo $$ >>"$FAKE_DIR/orphans"; exec sleep 0.1' &)
		done
		exec "$STAND_IN" "$@"
	END
	start_as_process_1 8080
	await_url
	# Its id out here.
	local init
	init=$(children_of "$pid")
	adopt "$init"
	await has_lines "$FAKE_DIR/orphans" 3
	# Zombies count.
	await has_one_child "$init"
	kill -s TERM "$init"
	assert_exit 143
}

@test "as process 1 it exits with the status of a command" {
	start_as_process_1 8080 sh -c 'exit 7'
	assert_exit 7
}

@test "as process 1 it ends with cloudflared" {
	FAKE_MODE=die-after FAKE_DELAY=0.5 start_as_process_1 8080
	assert_exit 1
	assert_said cloudflared
}

@test "as process 1 it is stopped by a -k beside it" {
	local init enter
	need nsenter
	start_as_process_1 8080
	await_url
	init=$(children_of "$pid")
	adopt "$init"
	enter=(nsenter --target "$init" --pid --mount)
	[ "$(id -u)" = 0 ] || enter+=(--user --preserve-credentials)
	local tunnel=$pid
	start_program "${enter[@]}" "$TUNNEL" -k 8080
	# With the tunnel ends all that is in its namespace.
	await_exit
	assert_quiet
	assert_exit 143 "$tunnel"
}

# --- what the system refuses ----------------------------------------------------------

# system_fails INJECTION MESSAGE ARGUMENT...: that is said, and nothing is left.
system_fails() {
	start_traced "$1" "${@:3}"
	assert_exit 1
	assert_equal "$1: $(<"$out")" "$1: "
	grep -qxE "tunnel: $2" "$err" || fail "$1: expected: $2
but got: $(cat "$err")"
	await none_left_behind
}

@test "cloudflared is not run without its descriptors: 126, and why" {
	local number traced
	for number in 1 2 3 4; do
		trace_with "/^dup[23]\$:error=EMFILE:when=$number"
		# In each process the calls are counted anew.
		start_program "${traced[@]}" -f "$TUNNEL" -n 8080
		assert_exit 126
		assert_match "$number: $(tail -n 1 "$err")" "^$number: tunnel: cannot run $CLOUDFLARED: $EMFILE\$"
		assert_equal "$(cloudflared_starts)" ''
	done
}

@test "what the system refuses is said in its words, and nothing is left" {
	system_fails fork:error=EAGAIN \
		'cannot start cloudflared: Resource temporarily unavailable' 8080
	system_fails fork:error=ENOMEM "cannot start cloudflared: $ENOMEM" 8080
	system_fails '/^pipe2?$:error=ENFILE:when=1' \
		'cannot start: Too many open files in system' 8080
	system_fails '/^pipe2?$:error=EMFILE:when=2' \
		"cannot start cloudflared: $EMFILE" 8080
	system_fails '/^pipe2?$:error=EMFILE:when=3' \
		"cannot start cloudflared: $EMFILE" 8080
	system_fails fork:error=EAGAIN \
		'cannot start cloudflared: Resource temporarily unavailable' 8080 true
	system_fails fork:error=ENOMEM:when=2 \
		"cannot start the command: $ENOMEM" 8080 true
	system_fails '/^pipe2?$:error=ENFILE:when=4' \
		'cannot start the command: Too many open files in system' 8080 true
	system_fails '/^p?poll$:error=ENOMEM:when=1' \
		"cannot wait for events: $ENOMEM" 8080
	system_fails fork:error=EAGAIN \
		'cannot go to the background: Resource temporarily unavailable' -b 8080
	system_fails socketpair:error=EMFILE \
		"cannot go to the background: $EMFILE" -b 8080
	# Both are the child's.
	local number
	for number in 1 2; do
		trace_with "/^dup[23]\$:error=EBUSY:when=$number"
		start_program "${traced[@]}" -f "$TUNNEL" -b 8080
		assert_exit 1
		assert_match "$(<"$err")" \
			'^tunnel: cannot go to the background: (Device or resource|Resource) busy$'
		await none_left_behind
	done
}
