#!/usr/bin/env bats
# What whoever started tunnel had set up is as it was: for tunnel, and for a command.

# shellcheck disable=SC2016,SC2030,SC2031 # each test is a world of its own; commands' shells expand
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# Starts tunnel as a shell script would that has just set an alarm.
start_with_alarm() {
	need perl
	start_program perl -e 'alarm shift; exec @ARGV' "$1" "$TUNNEL" "${@:2}"
}

@test "an alarm of the caller's ends a tunnel, and leaves nothing" {
	export FAKE_MODE=grandchild
	start_with_alarm 5 8080
	await_url
	assert_signal ALRM
	await_cloudflared 1
	gone "$cloudflared"
	gone "$(cat "$FAKE_DIR/grandchild")"
	none_left_behind
}

@test "an alarm of the caller's ends a start, one that waits for another tunnel, too" {
	export FAKE_MODE=silent
	start_with_alarm 5 8080
	await_cloudflared 1
	assert_signal ALRM
	gone "$cloudflared"
	start_tunnel 8080
	await_cloudflared 2
	start_with_alarm 1 -b 8080
	assert_signal ALRM
	alive "$cloudflared"
}

@test "an alarm of the caller's ends a start that waits for the end of another tunnel" {
	FAKE_MODE=ignore-term start_tunnel -g 600 8080
	await_url
	await_cloudflared 1
	local first=$pid
	kill -s TERM "$first"
	await_text "$FAKE_DIR/$cloudflared.signals" TERM
	start_with_alarm 1 8080
	assert_signal ALRM
	alive "$first"
	kill -s KILL "$cloudflared"
}

@test "an alarm of the caller's ends a -k that waits" {
	FAKE_MODE=ignore-term start_tunnel -g 600 8080
	await_url
	await_cloudflared 1
	start_with_alarm 1 -k 8080
	assert_signal ALRM
	alive "$cloudflared"
	kill -s KILL "$cloudflared"
}

@test "an alarm of the caller's rings in a tunnel with a command" {
	start_with_alarm 5 8080 sh -c 'trap "exit 9" TERM; while :; do sleep 0.05; done'
	await_exit
	[ "$ended" != 'exit 9' ] || fail 'it was taken for a TERM'
	# The shell's last sleep ends by itself.
	await none_left_behind
}

@test "signals that the caller ignores are ignored in the command, and no others" {
	[ -r /proc/self/status ] || skip 'no /proc here'
	start_program sed -n 's/^SigIgn:\t*//p' /proc/self/status
	assert_exit 0
	assert_quiet
	local none
	none=$(<"$out")
	start_options=(-i HUP -i INT -i QUIT -i PIPE -i USR1 -i TSTP)
	start_program sed -n 's/^SigIgn:\t*//p' /proc/self/status
	assert_exit 0
	local some
	some=$(<"$out")
	[ "$some" != "$none" ]
	run_tunnel 8080 sed -n 's/^SigIgn:\t*//p' /proc/self/status
	assert_equal "$output" "$some"
	start_options=()
	run_tunnel 8080 sed -n 's/^SigIgn:\t*//p' /proc/self/status
	assert_equal "$output" "$none"
}

@test "signals that the caller blocks are blocked in the command, and heard by tunnel" {
	[ -r /proc/self/status ] || skip 'no /proc here'
	local blocked
	start_options=(-b USR1 -b HUP -b ALRM)
	start_program sed -n 's/^SigBlk:\t*//p' /proc/self/status
	assert_exit 0
	blocked=$(<"$out")
	run_tunnel 8080 sed -n 's/^SigBlk:\t*//p' /proc/self/status
	assert_equal "$output" "$blocked"
	start_options=()
	start_program sed -n 's/^SigBlk:\t*//p' /proc/self/status
	assert_exit 0
	[ "$(<"$out")" != "$blocked" ]
	blocked=$(<"$out")
	run_tunnel 8080 sed -n 's/^SigBlk:\t*//p' /proc/self/status
	assert_equal "$output" "$blocked"
}

@test "limits, the mask for files and the directory of the caller reach the command" {
	local before
	cd "$TMPDIR"
	umask 027
	before=$(ulimit -n 200; ulimit -c 0; ulimit -Hn; ulimit -Sn; ulimit -c; umask; pwd -P)
	(
		ulimit -n 200
		ulimit -c 0
		"$TUNNEL" 8080 bash -c 'ulimit -Hn; ulimit -Sn; ulimit -c; umask; pwd -P' >"$TMPDIR/inside" 2>/dev/null
	)
	assert_equal "$(<"$TMPDIR/inside")" "$before"
}

@test "a command sees the environment of the caller, and the URL" {
	start_program env
	assert_exit 0
	sort "$out" >"$TMPDIR/before"
	# Which is there once, whatever the caller had.
	TUNNEL_PUBLIC_URL=old run_tunnel 8080 env
	sort "$out" >"$TMPDIR/inside"
	assert_match "$(diff "$TMPDIR/before" "$TMPDIR/inside")" \
		'^[0-9a,]*
> TUNNEL_PUBLIC_URL=https://[a-z-]*\.trycloudflare\.com$'
}

# with_children ARGUMENT...: a tunnel whose process has two children before it is tunnel: one that
# stays, in $TMPDIR/sleeper, and one that ends once there is $TMPDIR/go, in $TMPDIR/waiter.
with_children() {
	rm -f "$TMPDIR/go" "$TMPDIR/waiter"
	start_program sh -c '
		sleep 600 &
		echo $! >"$TMPDIR/sleeper"
		until [ -e "$TMPDIR/go" ]; do sleep 0.02; done &
		echo $! >"$TMPDIR/waiter"
		exec "$@"' sh "$TUNNEL" "$@"
	await test -s "$TMPDIR/waiter"
	sleeper=$(<"$TMPDIR/sleeper")
	waiter=$(<"$TMPDIR/waiter")
	adopt "$sleeper"
	adopt "$waiter"
}

@test "children of the caller's own are neither waited for nor harmed, whatever is done" {
	local arguments
	for arguments in '8080' '8080 true' '-b 8080' '-l' '-k 8080' '-r 8080 sh -c exit' \
		"-c $TMPDIR/nothing 8080"; do
		# shellcheck disable=SC2086 # one word each
		with_children $arguments
		if [ "$arguments" = 8080 ]; then
			await_url
			kill -s TERM "$pid"
		fi
		await_exit
		refute_contains "$arguments: $(<"$err")" 'left behind'
		alive "$sleeper" || fail "$arguments: it killed a stranger"
		alive "$waiter" || fail "$arguments: it killed a stranger"
		touch "$TMPDIR/go"
		await gone "$waiter"
		kill -s KILL "$sleeper"
	done
}

@test "a child of the caller's own that is stopped stays so when the tunnel stops" {
	local sleeper
	start_options=(-g)
	# In the group of all three.
	start_program sh -c 'sleep 600 &
		kill -s STOP $!
		echo $! >"$TMPDIR/sleeper"
		exec "$@"' sh "$TUNNEL" -g 600 8080 \
		sh -c 'trap "echo caught" TERM; echo ready; until [ -e "$TMPDIR/done" ]; do sleep 0.02; done'
	await_text "$out" ready
	sleeper=$(<"$TMPDIR/sleeper")
	adopt "$sleeper"
	await stopped "$sleeper"
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_text "$out" caught
	stopped "$sleeper" || fail 'it was continued'
	touch "$TMPDIR/done"
	assert_exit 1
	kill -s KILL "$sleeper"
}

@test "the end of a child of the caller's own is taken for no other's" {
	local tunnel
	with_children 8080 sh -c 'echo ready; until [ -e "$TMPDIR/done" ]; do sleep 0.02; done; exit 6'
	tunnel=$pid
	await_text "$out" ready
	touch "$TMPDIR/go"
	await gone "$waiter"
	# Neither the command nor cloudflared has ended by that.
	await_cloudflared 1
	kill -s TSTP "$tunnel"
	await stopped "$cloudflared"
	kill -s CONT "$tunnel"
	await ! stopped "$cloudflared"
	touch "$TMPDIR/done"
	assert_exit 6
	alive "$sleeper"
	kill -s KILL "$sleeper"
}

@test "a filter that kills who makes one of the newer system calls, as Android's, kills no tunnel there" {
	need cc
	${CC:-cc} -o "$TMPDIR/filter" -x c - <<-'END' 2>/dev/null || skip 'no seccomp here'
		#include <linux/filter.h>
		#include <linux/seccomp.h>
		#include <stddef.h>
		#include <sys/prctl.h>
		#include <unistd.h>

		int
		main(int argc, char **argv)
		{
			/* close_range, pidfd_open, pidfd_send_signal */
			struct sock_filter steps[] = {
				{ BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr) },
				{ BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 436 },
				{ BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 434 },
				{ BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 424 },
				{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
				{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRAP },
			};
			struct sock_fprog program = { sizeof steps / sizeof *steps, steps };

			if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 ||
			    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == -1)
				return 125;
			execvp(argv[1], argv + 1);
			return 125;
		}
	END
	"$TMPDIR/filter" true || skip 'no seccomp here'
	${CC:-cc} -D__ANDROID__ -o "$TMPDIR/tunnel" "$ROOT/tunnel.c"
	TUNNEL=$TMPDIR/tunnel
	start_program "$TMPDIR/filter" "$TUNNEL" 8080
	await_url
	kill -s TERM "$pid"
	assert_signal TERM
	start_program "$TMPDIR/filter" "$TUNNEL" -b 8080
	assert_exit 0
	start_program "$TMPDIR/filter" "$TUNNEL" -k 8080
	assert_exit 0
	none_left_behind
}
