#!/usr/bin/env bats
# SIGKILL to tunnel, which it can't see coming: nothing may be left of cloudflared,
# whatever the mode and the moment. KILLS=1000 makes it so many rounds a test.

# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source-path=SCRIPTDIR source=slow.bash
source "$BATS_TEST_DIRNAME/slow.bash"

setup() {
	common_setup
	rounds=${KILLS:-4}
	RANDOM=${KILLS_SEED:-$$}
	echo "KILLS_SEED=${KILLS_SEED:-$$}"
}

# Lets a random time pass: every other one within a start, the rest up to half a second.
# It is no synchronisation, the moment of the kill is to be any.
moment() {
	local ms=$((RANDOM % (RANDOM % 2 ? 20 : 500)))
	sleep "$(printf '0.%03d' "$ms")"
}

# A cloudflared in any state, for the next start.
any_cloudflared() {
	local modes=(connect slow silent flood close-log)
	export FAKE_MODE=${modes[RANDOM % ${#modes[@]}]} FAKE_DELAY=0.2
}

assert_nothing_left() {
	await none_left_behind || {
		echo "round $round, FAKE_MODE=$FAKE_MODE" >&2
		return 1
	}
}

# What a killed tunnel leaves is in nobody's way.
assert_next_one_starts() {
	export FAKE_MODE=connect
	start_background -g 0.3 8080
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	assert_nothing_left
}

# kill_at_any_moment ARGUMENT...: tunnel with these, again and again.
kill_at_any_moment() {
	for ((round = 1; round <= rounds; round++)); do
		any_cloudflared
		start_tunnel -g 0.3 "$@"
		moment
		kill -s KILL "$pid"
		# A command goes on until it is told.
		touch "$TMPDIR/go"
		assert_nothing_left
		rm "$TMPDIR/go"
	done
	assert_next_one_starts
}

@test "SIGKILL to tunnel in the foreground, at any moment, leaves nothing" {
	kill_at_any_moment 8080
}

@test "SIGKILL to tunnel before cloudflared is bound to its life: none is started" {
	local child
	[ "$(uname)" = Linux ] || skip 'it is bound otherwise there'
	make_slow <<-'END'
		#include <sys/prctl.h>

		int
		prctl(int option, ...)
		{
			const char *directory = getenv("FAKE_DIR");
			va_list more;
			unsigned long value;

			va_start(more, option);
			value = va_arg(more, unsigned long);
			va_end(more);
			if (option != PR_SET_PDEATHSIG || chdir(directory) == -1)
				return (int)syscall(SYS_prctl, option, value, 0, 0, 0);
			close(open("before", O_WRONLY | O_CREAT, 0600));
			for (int i = 0; i < 6000 && access("go", F_OK) == -1; i++)
				poll(NULL, 0, 10);
			return (int)syscall(SYS_prctl, option, value, 0, 0, 0);
		}
	END
	start_program env LD_PRELOAD="$TMPDIR/slow.so" "$TUNNEL" 8080
	await test -e "$FAKE_DIR/before" -o -e "$FAKE_DIR/starts"
	[ -e "$FAKE_DIR/before" ] || skip 'it is bound otherwise'
	child=$(children_of "$pid")
	adopt "$child"
	kill -s KILL "$pid"
	assert_signal KILL
	touch "$FAKE_DIR/go"
	await gone "$child"
	assert_equal "$(cloudflared_starts)" ''
}

@test "SIGKILL to tunnel leaves nothing where its log is copied, either" {
	kill_at_any_moment -v 8080
}

@test "SIGKILL to tunnel with a command leaves nothing but the command" {
	# shellcheck disable=SC2016 # it is for the command
	kill_at_any_moment 8080 sh -c 'until [ -e "$TMPDIR/go" ]; do sleep 0.1; done'
}

@test "SIGKILL to tunnel -r, between the lives of cloudflared, too, leaves nothing" {
	local number
	export FAKE_MODE=dies-n-times
	for ((round = 1; round <= rounds; round++)); do
		rm -f "$FAKE_DIR/deaths"
		number=$(cloudflared_starts | wc -l)
		start_tunnel -r -g 0.3 8080
		# The first dies at once, a second follows after a second and stays.
		[ $((RANDOM % 2)) = 0 ] || await_cloudflared $((number + 2))
		moment
		kill -s KILL "$pid"
		assert_nothing_left
	done
	assert_next_one_starts
}

@test "SIGKILL to a tunnel in the background leaves nothing" {
	export FAKE_MODE
	local modes=(connect flood close-log)
	for ((round = 1; round <= rounds; round++)); do
		FAKE_MODE=${modes[RANDOM % ${#modes[@]}]}
		start_background -g 0.3 8080
		moment
		kill -s KILL "$background"
		assert_nothing_left
		run_tunnel -l 8080
		assert_equal "$ended" 'exit 1'
	done
	assert_next_one_starts
}

@test "SIGKILL to a -b that waits leaves nothing" {
	for ((round = 1; round <= rounds; round++)); do
		any_cloudflared
		# None that would be in the background by then.
		[ "$FAKE_MODE" = silent ] || export FAKE_MODE=slow FAKE_DELAY=60
		start_tunnel -b -g 0.3 8080
		moment
		kill -s KILL "$pid"
		assert_nothing_left
	done
	assert_next_one_starts
}

@test "SIGKILL to the tunnel that a -b waits for leaves nothing, and is told" {
	export FAKE_MODE=silent
	local number
	for ((round = 1; round <= rounds; round++)); do
		number=$((1 + $(cloudflared_starts | wc -l)))
		start_tunnel -b -g 0.3 8080
		await_cloudflared "$number"
		moment
		kill -s KILL "$(tunnel_of "$cloudflared")"
		await_exit
		[ "$status" -gt 0 ] || fail 'it says success'
		assert_equal "$(cat "$out")" ''
		assert_nothing_left
	done
	assert_next_one_starts
}

# All that has the name of process $1, as killall(1) finds it.
namesakes() {
	local name id
	read -r name <"/proc/$1/comm" || return 0
	for id in $(left_behind); do
		[ "$(cat "/proc/$id/comm" 2>/dev/null)" != "$name" ] || echo "$id"
	done
}

@test "killall -9 tunnel leaves nothing" {
	[ -e /proc/self/comm ] || skip 'no names of processes in /proc here'
	local ids
	for ((round = 1; round <= rounds; round++)); do
		export FAKE_MODE=connect
		start_background -r -g 0.3 8080
		moment
		ids=$(namesakes "$background")
		assert_contains " $(echo "$ids" | tr '\n' ' ')" " $background "
		# shellcheck disable=SC2086 # a process each
		kill -s KILL $ids
		assert_nothing_left
	done
	assert_next_one_starts
}
