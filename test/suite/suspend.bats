#!/usr/bin/env bats
# Suspending and resuming: the last word counts, and nothing freezes.

# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=slow.bash
source "$BATS_TEST_DIRNAME/slow.bash"

setup() {
	common_setup
	use_terminals
	# A shell would be busy with its traps.
	CLOUDFLARED=$ROOT/test/helpers/flood
}

# Starts a tunnel, waits for its URL; sets $cloudflared.
open_tunnel() {
	start_tunnel "$@"
	await_up
}

await_up() {
	await listed "$pid"
	cloudflared=$(tail -n 1 "$FAKE_DIR/starts")
}

listed() {
	"$TUNNEL" -l 2>/dev/null | grep -q "	$1	"
}

# Waits some microseconds; a fork takes longer.
wait_briefly() {
	local end=${EPOCHREALTIME/[!0-9]/}
	end=$((end + $1))
	while [ "${EPOCHREALTIME/[!0-9]/}" -lt "$end" ]; do
		:
	done
}

# Succeeds if one of the processes has been stopped; without a fork.
any_stopped() {
	local id stat
	for id; do
		{ read -r stat <"/proc/$id/stat"; } 2>/dev/null || continue
		[[ ${stat##*) } != T* ]] || return 0
	done
	return 1
}

# suspend_and_resume ROUNDS PROCESS...: stops and continues $pid with 0 to 1 ms in between, after
# which the processes run.
suspend_and_resume() {
	local round rounds=$1
	shift
	mkfifo "$TMPDIR/nothing"
	exec 7<>"$TMPDIR/nothing"
	for ((round = 0; round < rounds; round++)); do
		kill -s TSTP "$pid"
		wait_briefly $((round * 7 % 1000))
		kill -s CONT "$pid"
		# What went wrong stays wrong.
		read -r -t 0.003 <&7 || :
		! any_stopped "$@" || await ! any_stopped "$@" || return
	done
	# And after the last one all is done that there is to do.
	await ! any_stopped "$@"
}

@test "TSTP, then CONT within a millisecond, again and again: it runs" {
	[ -r /proc/self/stat ] || skip 'no /proc here'
	open_tunnel 8080
	suspend_and_resume 400 "$pid" "$cloudflared"
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "TSTP, then CONT within a millisecond, again and again: its command runs" {
	[ -r /proc/self/stat ] || skip 'no /proc here'
	local command
	open_tunnel 8080 sh -c 'echo $$; exec sleep 600'
	await test -s "$out"
	command=$(<"$out")
	suspend_and_resume 200 "$pid" "$cloudflared" "$command"
	kill -s TERM "$pid"
	assert_exit 143
}

@test "TSTP three hundred times, then CONT: it runs" {
	local many=()
	[ -r /proc/self/stat ] || skip 'no /proc here'
	open_tunnel 8080
	for _ in {1..300}; do
		many+=("$pid")
	done
	for _ in {1..20}; do
		kill -s TSTP "${many[@]}"
		kill -s CONT "$pid"
		# What went wrong stays wrong.
		pause 0.1
		await ! any_stopped "$pid" "$cloudflared"
	done
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "TSTP without an end stops it all the same" {
	local sender
	[ -r /proc/self/stat ] || skip 'no /proc here'
	open_tunnel 8080
	mkfifo "$TMPDIR/nothing"
	# shellcheck disable=SC2016 # it is for the shell
	start_program bash -c 'while kill -s TSTP "$1"; do read -r -t 0.005 <>"$2"; done' \
		bash "$pid" "$TMPDIR/nothing"
	sender=$pid
	await stopped "$cloudflared"
	kill -s TERM "$sender"
	assert_signal TERM "$sender"
}

@test "CONT that comes while it is about to stop lets it run" {
	local call
	for call in kill tgkill rt_sigsuspend; do
		start_traced "$call:delay_enter=1500000" 8080
		await_up
		kill -s TSTP "$pid"
		# It may have stopped otherwise.
		within 1 held "$pid" || :
		kill -s CONT "$pid"
		kill -s TERM "$pid"
		assert_signal TERM
		gone "$cloudflared"
	done
}

@test "CONT between the last look for it and the stop lets it run" {
	local round
	need setsid
	make_slow <<-'END'
		ssize_t
		read(int fd, void *bytes, size_t size)
		{
			ssize_t got = syscall(SYS_read, fd, bytes, size);
			int error = errno;

			poll(NULL, 0, 40);
			errno = error;
			return got;
		}
	END
	start_program setsid env LD_PRELOAD="$TMPDIR/slow.so" "$TUNNEL" -n 8080
	await_url
	await_cloudflared 1
	mkfifo "$TMPDIR/nothing"
	exec 7<>"$TMPDIR/nothing"
	for round in {0..24}; do
		kill -s TSTP "$pid"
		read -r -t "0.$((100 + round * 5))" <&7 || :
		kill -s CONT "$pid"
		# What went wrong stays wrong.
		read -r -t 0.2 <&7 || :
		await -t 20 ! any_stopped "$pid" "$cloudflared"
	done
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "a tunnel that works by its deadline is printed and stays, though it is seen only after that" {
	local deadline
	# The line that tells of the edge takes it longer than that.
	make_slow <<-'END'
		#include <string.h>

		ssize_t
		read(int fd, void *bytes, size_t size)
		{
			ssize_t got = syscall(SYS_read, fd, bytes, size);

			if (got > 10 && memmem(bytes, (size_t)got, "event=4711", 10) != NULL)
				while (access("passed", F_OK) == -1)
					poll(NULL, 0, 10);
			return got;
		}
	END
	cd "$TMPDIR"
	# Not as the script has it, in which it looks for an interpreter.
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo "INF https://one.trycloudflare.com" >&2
		echo "INF Registered tunnel connection connIndex=0 event=$((4700 + 11))" >&2
		: >"$FAKE_DIR/registered"'
	# It must have come that far by then.
	for deadline in 2 8 32; do
		rm -f passed "$FAKE_DIR/registered"
		start_program env LD_PRELOAD="$TMPDIR/slow.so" "$TUNNEL" -t "$deadline" 8080
		await test -e "$FAKE_DIR/registered"
		# The deadline passes.
		sleep "$deadline.3"
		: >passed
		await url_or_end
		[ -z "$url" ] || break
	done
	assert_equal "$url" https://one.trycloudflare.com
	await_cloudflared 1
	refute_contains "$(<"$err")" 'no tunnel'
	kill -s TERM "$pid"
	assert_signal TERM
	refute_contains "$(<"$err")" 'no tunnel'
}

@test "Ctrl-Z before -b has left the terminal: a signal to the one that waits ends the start" {
	cd "$TMPDIR"
	make_slow <<-'END'
		pid_t
		setsid(void)
		{
			close(open("before", O_WRONLY | O_CREAT, 0600));
			for (int i = 0; i < 6000 && access("go", F_OK) == -1; i++)
				poll(NULL, 0, 10);
			return (pid_t)syscall(SYS_setsid);
		}
	END
	start_options=(-g)
	start_program env LD_PRELOAD="$TMPDIR/slow.so" "$TUNNEL" -b -t 0 8080
	await test -e before
	kill -s TSTP -- "-$pid"
	# What has stopped stays so.
	within 1 stopped "$(children_of "$pid")" || :
	kill -s INT "$pid"
	touch go
	assert_signal INT
}

@test "TSTP, CONT, TSTP: the last word is to stop, and CONT still resumes it" {
	local round
	open_tunnel 8080
	for round in {1..20}; do
		kill -s TSTP "$pid"
		wait_briefly $((round * 40))
		kill -s CONT "$pid"
		wait_briefly $((round * 40))
		stop_and_resume
	done
}

@test "TSTP, CONT, TSTP while it is busy: the last word is to stop, too" {
	local signal signals
	need setsid
	cd "$TMPDIR"
	make_slow <<-'END'
		#include <sys/wait.h>

		int
		waitid(idtype_t kind, id_t id, siginfo_t *info, int options)
		{
			close(open("held", O_WRONLY | O_CREAT, 0600));
			for (int i = 0; i < 6000 && access("busy", F_OK) == 0; i++)
				poll(NULL, 0, 10);
			return (int)syscall(SYS_waitid, kind, id, info, options, NULL);
		}
	END
	start_program setsid env LD_PRELOAD="$TMPDIR/slow.so" "$TUNNEL" 8080
	await_up
	# An emulator takes the library for itself.
	[ -e held ] || skip 'it takes no library'
	# CHLD asks for nothing; it looks which child that was.
	for signals in 'TSTP CONT TSTP' 'TSTP CHLD'; do
		rm held
		touch busy
		kill -s CHLD "$pid"
		await test -e held
		for signal in $signals; do
			kill -s "$signal" "$pid"
			# It hears each of them at once, or the system forgets the first.
			pause 0.1
		done
		rm busy
		await stopped "$pid"
		await stopped "$cloudflared"
		kill -s CONT "$pid"
		await ! stopped "$cloudflared"
	done
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "TSTP stops it soon" {
	local since
	[ -r /proc/self/stat ] || skip 'no /proc here'
	open_tunnel 8080
	# It may have to wait for a processor.
	for _ in {1..12}; do
		since=${EPOCHREALTIME/[!0-9]/}
		kill -s TSTP "$pid"
		await stopped "$pid"
		[ $((${EPOCHREALTIME/[!0-9]/} - since)) -ge 500000 ] || return 0
		kill -s CONT "$pid"
		await ! stopped "$pid"
		# Until it handles TSTP itself again.
		pause 0.1
	done
	fail 'it always took more than half a second'
}

@test "CONT to a tunnel whose cloudflared has gone continues nobody else" {
	local other
	FAKE_MODE=die-before
	CLOUDFLARED=$ROOT/fake-cloudflared.sh
	export FAKE_MODE
	start_options=(-g)
	# shellcheck disable=SC2016 # it is for the shell
	start_program bash -c 'sleep 600 & echo $! >"$TMPDIR/other"; kill -s STOP $!; exec "$@"' bash \
		"$TUNNEL" -r -t 0 8080
	await test -s "$TMPDIR/other"
	other=$(<"$TMPDIR/other")
	adopt "$other"
	# The next start is 4 s away.
	await contains "$err" 'again in 4 s'
	kill -s TSTP "$pid"
	await stopped "$pid"
	kill -s CONT "$pid"
	await_cloudflared 4
	assert stopped "$other"
}

@test "TSTP away from any terminal stops both, where no shell could resume them, too" {
	local round
	need setsid
	start_program setsid "$TUNNEL" 8080
	await_up
	for round in 1 2 3; do
		stop_and_resume
	done
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "a signal that was ignored at the start is so while it is resumed, too" {
	start_options=(-i HUP)
	# It makes the moment long in which something could go wrong.
	start_traced rt_sigaction:delay_exit=10000 8080
	await_up
	kill -s TSTP "$pid"
	await stopped "$cloudflared"
	await held "$pid"
	kill -s CONT "$pid"
	mkfifo "$TMPDIR/nothing"
	exec 7<>"$TMPDIR/nothing"
	hang_up_until_resumed || fail 'cloudflared was not resumed'
	kill -s TERM "$pid"
	assert_signal TERM
}

# Every millisecond, for some seconds at most.
hang_up_until_resumed() {
	local _
	for _ in {1..5000}; do
		kill -s HUP "$pid" 2>/dev/null || return 0
		any_stopped "$cloudflared" || return 0
		read -r -t 0.001 <&7 || :
	done
	return 1
}

# --- at a terminal --------------------------------------------------------------------

# Sets $tunnel and $cloudflared.
await_tunnel() {
	await_cloudflared 1
	await grep -q '^PPid' "/proc/$cloudflared/status"
	tunnel=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$cloudflared/status")
	await listed "$tunnel"
}

@test "Ctrl-Z where no shell could resume it, its standard error elsewhere, freezes nothing" {
	[ -r /proc/self/stat ] || skip 'no /proc here'
	local program tunnel
	# tmux itself would resume its own child.
	for program in "'$TUNNEL' 8080 2>'$TMPDIR/errors'; exit" \
		"'$TUNNEL' 8080 2>'$TMPDIR/errors' </dev/null >'$TMPDIR/output'; exit" \
		"'$TUNNEL' 8080 sleep 600 2>'$TMPDIR/errors'; exit"; do
		rm -f "$FAKE_DIR/starts"
		open_terminal 80 "sh -c \"$program\""
		await_tunnel
		terminal send-keys C-z
		# In order, so that this comes when that has had its effect.
		kill -s WINCH "$tunnel"
		terminal send-keys C-c
		await gone "$tunnel"
		gone "$cloudflared"
	done
}

@test "Ctrl-Z where no shell could resume it lets the log be read and the URL work" {
	local tunnel
	[ -r /proc/self/stat ] || skip 'no /proc here'
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo https://a-b-c-d.trycloudflare.com "INF Registered tunnel connection" >&2
		until next; [ "$word" = end ]; do echo "got $word" >&2; done'
	open_terminal 80 "sh -c \"'$TUNNEL' -v 8080 2>'$TMPDIR/errors'; exit\""
	await_tunnel
	terminal send-keys C-z
	next before
	await_text "$TMPDIR/errors" 'got before'
	terminal send-keys C-z
	next after
	await_text "$TMPDIR/errors" 'got after'
	terminal send-keys C-c
	await gone "$tunnel"
}

@test "a command that stops itself stops the job, and fg resumes it, as with env(1)" {
	local program
	for program in env 'tunnel 8080'; do
		open_terminal 80
		enter "$program sh -c 'echo \"go on\"; kill -s TSTP \$\$; echo \"go\" further'"
		await_screen $'\ngo on'
		await_screen Stopped
		enter fg
		await_screen $'\ngo further'
		# shellcheck disable=SC2016 # it is for the other shell
		enter 'echo status=$?'
		await_screen status=0
		terminal kill-server
	done
}

@test "a command that was stopped by itself is resumed with its tunnel by bg, too" {
	open_terminal 80
	enter "tunnel 8080 sh -c 'echo \"go on\"; kill -s TSTP \$\$; echo \"go\" further'"
	await_screen $'\ngo on'
	await_screen Stopped
	enter bg
	# Wherever the shell's prompt is by then.
	await_screen 'go further'
	await_cloudflared 1
	await gone "$cloudflared"
}

@test "HUP reaches a command that was stopped by somebody, where its tunnel goes on" {
	local command
	need setsid
	start_program setsid "$TUNNEL" 8080 sh -c 'echo $$; exec sleep 600'
	await test -s "$out"
	command=$(<"$out")
	kill -s STOP "$command"
	await stopped "$command"
	kill -s HUP "$pid"
	assert_exit 129
	gone "$command"
}

@test "a command that stops itself where no shell could resume it: the tunnel is heard all the same" {
	local tunnel
	[ -r /proc/self/stat ] || skip 'no /proc here'
	open_terminal 80 "sh -c \"'$TUNNEL' 8080 sh -c 'echo go on; kill -s STOP \\\$\\\$' 2>'$TMPDIR/errors'; exit\""
	await_screen 'go on'
	await_tunnel
	kill -s TERM "$tunnel"
	# It may have ended by that already.
	kill -s CONT "$tunnel" 2>/dev/null || :
	await gone "$tunnel"
	gone "$cloudflared"
}
