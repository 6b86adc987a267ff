# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables set here are the tests' to read
#
# What every test file loads (see stand-in.bats for how). It gives each test directories and an
# environment of its own, starts programs and remembers them, and fails a test that
# leaves a process behind.
#
# Before each test (common_setup; a file with a setup of its own calls it first):
#   HOME, TMPDIR, XDG_RUNTIME_DIR, FAKE_DIR   fresh directories below BATS_TEST_TMPDIR
#   CLOUDFLARED    the stand-in, fake-cloudflared.sh; FAKE_MODE etc. choose what it does
#                  (export them)
#   TUNNEL_*, FAKE_*, NO_AUTOUPDATE           unset
#   TRYCLOUDFLARE_NS   none: nobody is asked for the stand-in's names, which exist nowhere
#   ROOT, TUNNEL   the project; the program under test. Set TUNNEL in the environment
#                  to test another one (a wrapper must exec it), and TEST_SLOWNESS to a
#                  number by which all bounds are multiplied.
#   standard input is the null device
#
# Starting things. Each start sets $pid, $out, $err (files); copy them to keep them.
#   start_tunnel ARGUMENT...    runs $TUNNEL in the background
#   start_program COMMAND...    the same for any program
#   FAKE_MODE=silent start_tunnel 8080        a variable for one start
#   start_options=(-c 0 -i CHLD)              set before: options of test/helpers/start, such as
#                  -b SIGNAL, -c FD, -g, -n FILES, -o FILE, -e FILE. Without them all
#                  signals are at their default and only 0 to 2 are open.
#   run_tunnel ARGUMENT...      start_tunnel, await_exit; sets $output and $errors to
#                  what it printed
#   start_background ARGUMENT... tunnel -b; sets $url, and $background to its process id
#   adopt PID                   have a process that was started otherwise ended, too
#   cloudflared_script          reads a shell script that is to be cloudflared
#   tunnel_in_path              makes `tunnel` the program under test for shells
#   start_traced INJECTION ARGUMENT...        start_tunnel below strace, which does this to
#                  its system calls: kill:delay_enter=50000 (microseconds), fork:error=EAGAIN.
#                  What it starts isn't traced. `fork` is meant by all its names
#   trace_with INJECTION        sets the array $traced, which does that before a command
#
# A cloudflared of the test's own, where the stand-in has no such mode.
#   scripted COMMANDS   $CLOUDFLARED is a shell script of these, which then stays. In it
#                  `next` waits for, and sets $word to, a word that the test sends;
#                  `registered` logs that the edge has the connection
#   next [WORD]    sends it
#
# Waiting, never longer than TEST_PATIENCE (120) s (await -t SECONDS: that long), times
# TEST_SLOWNESS. What is waited for comes at once but on a machine that has much else to do.
#   await COMMAND...            until the command succeeds; await ! COMMAND... works, too
#   await_url                   until $out has a URL line; sets $url
#   await_text FILE TEXT        until the file contains the text
#   has_lines FILE N            there are as many lines, or more
#   await_exit [PID]            until $pid (or PID) has ended; sets $ended to "exit N" or
#                  "signal N" and $status to N or 128+N
#   await_cloudflared N         until the stand-in was started N times; sets
#                  $cloudflared to the process id of the Nth
#   gone PID, alive PID         is there such a process (a zombie is gone)
#   stopped PID                 has it been stopped by TSTP or STOP
#   stop_and_resume             TSTP to $pid stops it and $cloudflared, CONT resumes both
#   children_of PID             print the process ids of its children
#   holder HOST:PORT            print the process that holds the lock on the record
#   held PID                    does start_traced delay it just now
#   ended_itself FILE           the log that -v copied to FILE ends as that of a cloudflared that
#                               was given its time to stop
#
# Asserting. All of them show what they got.
#   assert_equal ACTUAL EXPECTED         assert_match TEXT REGEX
#   assert_contains TEXT PART            refute_contains TEXT PART
#   assert_exit N [PID]                  await_exit, and it exited with N
#   assert_signal NAME [PID]             await_exit, and that signal ended it
#   assert_quiet                         $err is empty
#   assert COMMAND...                    it succeeds
#   fail MESSAGE...                      need COMMAND... (skips the test without them)
#
# Ports. Both set $port; it is this test's until its end.
#   free_port                   nobody listens there (127.0.0.1 and ::1)
#   serve [-6] [-b] [-p PORT]   somebody does; -b: but never accepts. Sets $server. May
#                  be given the port of a free_port.
#
# Terminals: tmux is one, and tells what is on its screen.
#   use_terminals               in setup
#   open_terminal COLUMNS [PROGRAM]           100 rows; with an interactive bash by default.
#                  Its `tunnel` is the one under test; $SHELL is sh
#   terminal ARGUMENT...        tmux, speaking to the last one opened
#   enter TEXT                  types it and the enter key
#   screen                      print what it shows, lines joined
#   shows TEXT, await_screen TEXT
#
# File systems of a test's own.
#   use_mounts                  skips the test where none can be mounted
#   start_mounted OPTIONS DIRECTORY COMMAND...   start_program, with an empty tmpfs in that place,
#                  which nobody else sees but below /proc/$pid/root
#
# Other users, where root runs the tests.
#   use_others                  skips the test elsewhere. Moves it all to a directory that others
#                  may enter: $TUNNEL, $CLOUDFLARED, FAKE_DIR, which all may write to, TMPDIR,
#                  and XDG_RUNTIME_DIR, which is $first's
#   as_first, as_second         arrays: before a command, they run it as $first or $second, two
#                  user ids of nobody
#
# What the stand-in saw. PID is that of a cloudflared; see the head of the stand-in.
#   cloudflared_starts          their process ids in order
#   cloudflared_url PID, cloudflared_arguments PID, cloudflared_environment PID
#   cloudflared_descriptors PID "0 /dev/null" etc., a line each
#   cloudflared_signals PID     the signals it was sent, a line each
#   stop_signals PID            the same without CONT, which may come with any
#   cloudflared_masks PID       "blocked 0000000" and "ignored 0000000": what it was
#                  started with, in hexadecimal, for signals 1 to 28
#   tunnel_of PID               the process that started it
#
# After each test (common_teardown): terminals are closed, everything started gets TERM and
# must be gone in 40 s; then no process that carries the test's FAKE_DIR in its environment
# may be left.

ROOT=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd -P)

# What glibc, or musl, calls these errors: extended regular expressions.
# shellcheck disable=SC2034 # for the tests
{
	EIO='(Input/output|I/O) error'
	EMFILE='(Too many open files|No file descriptors available)'
	ENAMETOOLONG='(File name|Filename) too long'
	ENOMEM='(Cannot allocate memory|Out of memory)'
}

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# bats has a function of its own called before each command, which takes longer than most of
# them do. What follows `untraced` is called without, and without `set -e`.
untraced() {
	local untraced=0
	set +T
	"$@" || untraced=$?
	set -T
	return "$untraced"
}

common_setup() {
	untraced set_up
}

set_up() {
	local name
	others='' terminals=0
	exec </dev/null
	# shellcheck disable=SC2086 # one word each
	unset ${!TUNNEL_*} ${!TRYCLOUDFLARE_*} ${!FAKE_*} ${!FLOOD_*} NO_AUTOUPDATE CLOUDFLARED
	TUNNEL=${TUNNEL:-$ROOT/tunnel}
	export -n TUNNEL
	for name in start listen flood lock; do
		[ -x "$ROOT/test/helpers/$name" ] ||
			fail "test/helpers/$name is not built: run make test/helpers/$name" || return
	done
	export HOME=$BATS_TEST_TMPDIR/home TMPDIR=$BATS_TEST_TMPDIR/tmp
	export XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR/run FAKE_DIR=$BATS_TEST_TMPDIR/fake
	export CLOUDFLARED=$ROOT/fake-cloudflared.sh TRYCLOUDFLARE_NS=none
	mkdir -m 700 "$HOME" "$TMPDIR" "$XDG_RUNTIME_DIR" "$FAKE_DIR"
	: >"$BATS_TEST_TMPDIR/started"
	start_options=()
	skip_listed
}

# TEST_SKIP names a file of the tests that say nothing about this build of tunnel: a name,
# a tab and why in each line.
skip_listed() {
	local name reason
	[ -n "${TEST_SKIP-}" ] || return 0
	while IFS=$'\t' read -r name reason; do
		[ "$name" != "$BATS_TEST_DESCRIPTION" ] || skip "$reason"
	done <"$TEST_SKIP"
}

# --- failing --------------------------------------------------------------------------

fail() {
	printf '%s\n' "$*" >&2
	return 1
}

need() {
	local command
	for command; do
		command -v "$command" >/dev/null || skip "no $command here"
	done
}

# What the programs said, after a failure.
show_errors() {
	local file
	for file in "$BATS_TEST_TMPDIR"/*.err; do
		[ -s "$file" ] || continue
		printf -- '-- %s:\n' "${file##*/}" >&2
		tail -n 12 "$file" | cut -c 1-200 >&2
	done
}

assert_equal() {
	[ "$1" = "$2" ] || {
		printf 'expected: %s\nbut got:  %s\n' "$2" "$1" >&2
		show_errors
		return 1
	}
}

assert_match() {
	[[ $1 =~ $2 ]] || fail "expected a match of: $2
but got: $1"
}

assert_contains() {
	[[ $1 == *"$2"* ]] || fail "expected to find: $2
in: $1"
}

refute_contains() {
	[[ $1 != *"$2"* ]] || fail "did not expect: $2
in: $1"
}

assert() {
	"$@" || {
		printf 'not so: %s\n' "$*" >&2
		show_errors
		return 1
	}
}

assert_quiet() {
	[ ! -s "$err" ] || fail "expected nothing on standard error, got:
$(cat "$err")"
}

assert_exit() {
	await_exit "${2:-$pid}"
	assert_equal "$ended" "exit $1"
}

assert_signal() {
	await_exit "${2:-$pid}"
	assert_equal "$ended" "signal $(kill -l "$1")"
}

# --- processes ------------------------------------------------------------------------

# Sets $since to what tells this process from a later one with the same id.
get_start_time() {
	local stat
	since=
	if [ -d /proc/self ]; then
		{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
		stat=${stat##*) }
		# shellcheck disable=SC2086 # one field each
		set -- $stat
		since=${20}
	else
		since=$(ps -o lstart= -p "$1" | tr -d ' ') || :
	fi
}

# Sets $state to what ps says: R, S, T, Z, ...; to nothing if there is no such process.
get_state() {
	state=
	if [ -d /proc/self ]; then
		{ read -r state <"/proc/$1/stat"; } 2>/dev/null || return 0
		state=${state##*) }
		state=${state%% *}
	else
		state=$(ps -o stat= -p "$1" | cut -c 1) || :
	fi
}

gone() {
	local state
	get_state "$1"
	case $state in
	'' | Z | X) return 0 ;;
	*) return 1 ;;
	esac
}

alive() {
	! gone "$1"
}

stopped() {
	in_state T "$1"
}

children_of() {
	grep -sl "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | cut -d / -f 3
}

# TSTP stops tunnel $pid and its $cloudflared, CONT resumes both.
stop_and_resume() {
	kill -s TSTP "$pid"
	await stopped "$pid"
	await stopped "$cloudflared"
	kill -s CONT "$pid"
	await ! stopped "$pid"
	await ! stopped "$cloudflared"
}

in_state() {
	local state
	get_state "$2"
	[ "$state" = "$1" ]
}

# A process that is traced is stopped at each system call, too, for a moment, which is long
# where its tracer has to wait for its turn. But then it goes on.
held() {
	local before='' after=''
	in_state t "$1" || return
	IFS= read -r -d '' before <"/proc/$1/status"
	pause 0.5
	IFS= read -r -d '' after <"/proc/$1/status"
	[ -n "$before" ] && [ "${after#*ctxt_switches}" = "${before#*ctxt_switches}" ]
} 2>/dev/null

ended_itself() {
	contains "$1" 'Metrics server stopped'
}

holder() {
	"$ROOT/test/helpers/lock" "$XDG_RUNTIME_DIR/tunnel/$1" 2>/dev/null
}

start_program() {
	untraced start_untraced "$@"
}

start_untraced() {
	local number files=("$BATS_TEST_TMPDIR"/[0-9]*.err)
	number=${#files[@]}
	[ ! -e "${files[0]}" ] || number=$((number + 1))
	out=$BATS_TEST_TMPDIR/$number.out
	err=$BATS_TEST_TMPDIR/$number.err
	: >"$out"
	: >"$err"
	pid=$("$ROOT/test/helpers/start" -r "$BATS_TEST_TMPDIR/$number.result" -o "$out" -e "$err" \
		${start_options[@]+"${start_options[@]}"} -- "$@" 3>&-)
	[ -n "$pid" ] || fail "could not start $1" || return
	echo "$pid $number" >>"$BATS_TEST_TMPDIR/numbers"
	adopt "$pid"
}

start_tunnel() {
	start_program "$TUNNEL" "$@"
}

trace_with() {
	local calls=${1%%:*} what=${1#*:}
	need strace
	[ "$calls" != fork ] || calls='/^(clone3?|v?fork)$'
	traced=(strace -DDD -q -o /dev/null -e signal=none -e "trace=$calls" -e "inject=$calls:$what")
}

start_traced() {
	local traced
	trace_with "$1"
	shift
	start_program "${traced[@]}" "$TUNNEL" "$@"
}

run_tunnel() {
	start_tunnel "$@"
	await_exit
	output=$(<"$out")
	errors=$(<"$err")
}

start_background() {
	run_tunnel -b "$@"
	assert_equal "$ended" 'exit 0'
	url=$output
	background=$("$TUNNEL" -l | awk -F '\t' -v url="$url" '$2 == url { print $3 }')
	[ -n "$background" ] || fail "tunnel -l doesn't list $url"
	adopt "$background"
}

adopt() {
	local since
	get_start_time "$1"
	echo "$1 $since" >>"$BATS_TEST_TMPDIR/started"
}

cloudflared_script() {
	CLOUDFLARED=$BATS_TEST_TMPDIR/cloudflared
	# A new file each time: one that is being run must not be written.
	rm -f "$CLOUDFLARED"
	{
		echo '#!/bin/sh'
		cat
	} >"$CLOUDFLARED"
	chmod 755 "$CLOUDFLARED"
}

tunnel_in_path() {
	mkdir -p "$BATS_TEST_TMPDIR/bin"
	ln -sf "$TUNNEL" "$BATS_TEST_TMPDIR/bin/tunnel"
	PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

scripted() {
	[ -p "$FAKE_DIR/next" ] || mkfifo "$FAKE_DIR/next"
	exec 7<>"$FAKE_DIR/next"
	cat >"$TMPDIR/scripted.new" <<-END
		#!/bin/sh
		next() { read -r word <"\$FAKE_DIR/next"; }
		registered() { echo "INF Registered tunnel connection connIndex=0 event=0" >&2; }
		echo \$\$ >>"\$FAKE_DIR/starts"
		$1
		exec sleep 600
	END
	chmod +x "$TMPDIR/scripted.new"
	# A new file each time: one that is being run must not be written.
	mv "$TMPDIR/scripted.new" "$TMPDIR/scripted"
	export CLOUDFLARED=$TMPDIR/scripted
}

next() {
	echo "${1-}" >&7
}

# --- waiting --------------------------------------------------------------------------

# Sleeps, where the shell can do that itself without another process for it. Nobody writes to
# the pipe.
pause() {
	if [ "${BASH_VERSINFO[0]}" -lt 4 ]; then
		sleep "$1"
		return
	fi
	[ -p "$BATS_RUN_TMPDIR/pause" ] || mkfifo "$BATS_RUN_TMPDIR/pause" 2>/dev/null || :
	read -r -t "$1" _ <>"$BATS_RUN_TMPDIR/pause" || :
}

# ticks PID: sets $ticks to the processor time it has had, in hundredths of a second mostly.
ticks() {
	local stat fields
	read -r stat <"/proc/$1/stat"
	read -ra fields <<<"${stat##*) }"
	ticks=$((fields[11] + fields[12]))
}

# assert_idle PID SECONDS: it takes next to no processor time for so long. It needs /proc.
assert_idle() {
	local ticks before
	# It is the time itself that matters; what it does at first isn't meant.
	sleep 0.5
	ticks "$1"
	before=$ticks
	sleep "$2"
	ticks "$1"
	[ $((ticks - before)) -le 15 ] || fail "$((ticks - before)) ticks"
}

# within SECONDS COMMAND...: await without a word.
within() {
	untraced within_untraced "$@"
}

within_untraced() {
	local deadline negate='' turns=0
	# SECONDS counts whole ones, the first of which may be nearly over.
	deadline=$((SECONDS + 1 + $1 * ${TEST_SLOWNESS:-1}))
	shift
	if [ "$1" = ! ]; then
		negate=1
		shift
	fi
	while if "$@"; then [ -n "$negate" ]; else [ -z "$negate" ]; fi; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		# What takes its time needn't be noticed that soon.
		if [ $((turns += 1)) -le 25 ]; then
			pause 0.02
		else
			pause 0.1
		fi
	done
}

await() {
	local seconds=${TEST_PATIENCE:-120}
	if [ "$1" = -t ]; then
		seconds=$2
		shift 2
	fi
	within "$seconds" "$@" || {
		printf 'waited in vain for: %s\n' "$*" >&2
		show_errors
		return 1
	}
}

# The shell reads a file of the usual size itself.
contains() {
	local text=
	[ -s "$1" ] || return
	if { IFS= read -r -d '' -n 65536 text <"$1"; } 2>/dev/null; then
		grep -qF -- "$2" "$1"
	else
		[[ $text == *"$2"* ]]
	fi
}

await_text() {
	await contains "$1" "$2"
}

has_lines() {
	local count=0
	while [ "$count" -lt "$2" ]; do
		read -r _ || return 1
		count=$((count + 1))
	done <"$1"
} 2>/dev/null

# Sets $url to the first line that is one.
url_or_end() {
	local line pattern='^[Hh][Tt][Tt][Pp][Ss]://[A-Za-z0-9-]+\.[Tt][Rr][Yy][A-Za-z]+\.[Cc][Oo][Mm]$'
	url=
	while IFS= read -r line; do
		if [[ $line =~ $pattern ]]; then
			url=$line
			return
		fi
	done <"$out"
	[ -s "${out%.out}.result" ]
}

await_url() {
	await url_or_end
	[ -n "$url" ] || {
		printf 'no URL: %s\n' "$(cat "${out%.out}.result")" >&2
		show_errors
		return 1
	}
}

await_exit() {
	untraced await_exit_untraced "$@"
}

await_exit_untraced() {
	local id each number=''
	while read -r id each; do
		[ "$id" != "${1:-$pid}" ] || number=$each
	done <"$BATS_TEST_TMPDIR/numbers"
	[ -n "$number" ] || fail "process ${1:-$pid} is none that start_program started" || return
	await test -s "$BATS_TEST_TMPDIR/$number.result" || return
	ended=$(<"$BATS_TEST_TMPDIR/$number.result")
	case $ended in
	exit*) status=${ended#* } ;;
	*) status=$((128 + ${ended#* })) ;;
	esac
}

cloudflared_starts() {
	cat "$FAKE_DIR/starts" 2>/dev/null || :
}

# Sets $cloudflared to the last of so many.
started_often() {
	local count=0
	while [ "$count" -lt "$1" ]; do
		read -r cloudflared || return 1
		count=$((count + 1))
	done <"$FAKE_DIR/starts"
} 2>/dev/null

await_cloudflared() {
	await started_often "$1"
}

# --- what the stand-in saw ------------------------------------------------------------

cloudflared_url() {
	cat "$FAKE_DIR/$1.url"
}

cloudflared_arguments() {
	cat "$FAKE_DIR/$1.args"
}

cloudflared_environment() {
	cat "$FAKE_DIR/$1.env"
}

cloudflared_signals() {
	cat "$FAKE_DIR/$1.signals" 2>/dev/null || :
}

stop_signals() {
	cloudflared_signals "$1" | grep -vx CONT || :
}

# Without the script, which its shell holds open.
cloudflared_descriptors() {
	[ -e "$FAKE_DIR/$1.fds" ] || skip 'no /proc here'
	sed -n -e '/fake-cloudflared\.sh$/d' -e 's/.* \([0-9]*\) -> /\1 /p' "$FAKE_DIR/$1.fds" |
		sort -n
}

# Above 31 the real-time signals begin, which are the C library's.
cloudflared_masks() {
	[ -e "$FAKE_DIR/$1.status" ] || skip 'no /proc here'
	sed -n -e 's/^SigBlk:.*\(.......\)$/blocked \1/p' \
		-e 's/^SigIgn:.*\(.......\)$/ignored \1/p' "$FAKE_DIR/$1.status"
}

tunnel_of() {
	local stat
	read -r stat <"$FAKE_DIR/$1.stat"
	stat=${stat##*) }
	# shellcheck disable=SC2086 # one field each
	set -- $stat
	echo "$2"
}

# --- terminals ------------------------------------------------------------------------

use_terminals() {
	need tmux bash
	tunnel_in_path
	STAND_IN=$CLOUDFLARED
	export STAND_IN SHELL=/bin/sh PS1='$ ' HISTFILE='' ENV='' TMUX_TMPDIR=$TMPDIR
	unset TMUX BASH_ENV PROMPT_COMMAND
	socket=tunnel-$$
}

close_terminals() {
	local number
	for ((number = 1; number <= terminals; number++)); do
		socket=tunnel-$$-$number
		terminal kill-server 2>/dev/null || :
	done
}

terminal() {
	tmux -u -L "$socket" -f /dev/null "$@" 3>&-
}

open_terminal() {
	# A server that is being killed still has the last one's.
	socket=tunnel-$$-$((++terminals))
	terminal new-session -d -x "$1" -y 100 \
		"exec '$ROOT/test/helpers/start' -- ${2:-bash --norc --noprofile -i}"
	[ $# -gt 1 ] || await shows '$'
}

screen() {
	terminal capture-pane -p -J | sed 's/ *$//'
}

shows() {
	[[ $(screen) == *"$1"* ]]
}

await_screen() {
	await shows "$1" || fail "on the screen: $(screen)"
}

enter() {
	terminal send-keys -l "$1"
	terminal send-keys Enter
}

# --- file systems ---------------------------------------------------------------------

use_mounts() {
	need unshare mount
	mounts=(unshare -m)
	[ "$(id -u)" = 0 ] || mounts=(unshare -rm)
	"${mounts[@]}" mount -t tmpfs none "$TMPDIR" 2>/dev/null || skip 'nothing can be mounted here'
}

start_mounted() {
	# shellcheck disable=SC2016 # the shell's to expand
	start_program "${mounts[@]}" sh -c 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"' sh "$@"
}

# --- other users ----------------------------------------------------------------------

use_others() {
	[ "$(id -u)" = 0 ] || skip 'only root can be somebody else'
	need setpriv
	first=64321 second=64322
	as_first=(setpriv --reuid="$first" --regid="$first" --clear-groups)
	as_second=(setpriv --reuid="$second" --regid="$second" --clear-groups)
	others=$(mktemp -d /tmp/tunnel-others.XXXXXX)
	chmod 755 "$others"
	cp "$TUNNEL" "$others/tunnel"
	cp "$CLOUDFLARED" "$others/cloudflared"
	chmod 755 "$others/tunnel" "$others/cloudflared"
	TUNNEL=$others/tunnel CLOUDFLARED=$others/cloudflared
	HOME=$others TMPDIR=$others/tmp FAKE_DIR=$others/fake XDG_RUNTIME_DIR=$others/run
	mkdir -m 1777 "$TMPDIR" "$FAKE_DIR"
	mkdir -m 700 "$XDG_RUNTIME_DIR"
	chown "$first" "$XDG_RUNTIME_DIR"
}

# --- ports ----------------------------------------------------------------------------

# A program started for a test's needs must not look like the one that is tested.
serve() {
	local out err pid start_options=()
	start_program "$ROOT/test/helpers/listen" "$@"
	await test -s "$out" -o -s "$err"
	port=$(<"$out")
	server=$pid
	[ -n "$port" ] || fail "no port: $(cat "$err")"
}

free_port() {
	serve -n
}

# --- the end --------------------------------------------------------------------------

# Succeeds if it is still the process that was started.
same() {
	local since
	# The first is for speed: most are gone.
	kill -s 0 "$1" 2>/dev/null && alive "$1" && get_start_time "$1" && [ "$since" = "$2" ]
}

all_gone() {
	local id since
	while read -r id since; do
		! same "$id" "$since" || return 1
	done <"$BATS_TEST_TMPDIR/started"
}

signal_started() {
	local id since
	while read -r id since; do
		if same "$id" "$since"; then
			kill -s "$1" "$id" 2>/dev/null || :
		fi
	done <"$BATS_TEST_TMPDIR/started"
}

# Prints the ids of the processes this test has left behind. A command that it is piped into
# may be one of them: it has the mark, too.
left_behind() {
	local file id mark=FAKE_DIR=$FAKE_DIR
	if [ -d /proc/self ]; then
		# The grep itself must not be found.
		FAKE_DIR='' grep -lszxF "$mark" /proc/[0-9]*/environ |
			while read -r file; do
				id=${file#/proc/}
				alive "${id%/*}" && echo "${id%/*}"
			done || :
	else
		cloudflared_starts | while read -r id; do
			alive "$id" && echo "$id"
		done || :
	fi
}

# only_left_behind IDS: nothing that isn't one of these, a line each. Some of them may have gone.
only_left_behind() {
	local now
	now=$(left_behind)
	[ -z "$now" ] || ! grep -qvxF "$1" <<<"$now"
}

none_left_behind() {
	local mark=FAKE_DIR=$FAKE_DIR
	# The first is for speed: mostly there are none.
	if [ -d /proc/self ] && ! FAKE_DIR='' grep -qszxF "$mark" /proc/[0-9]*/environ; then
		return
	fi
	[ -z "$(left_behind)" ]
}

common_teardown() {
	untraced end_all
}

end_all() {
	local id failed=0
	close_terminals
	signal_started TERM
	# A stopped process gets its TERM only then.
	signal_started CONT
	within $((${TEST_PATIENCE:-120} / 3)) all_gone || {
		echo 'a program did not end on TERM' >&2
		signal_started KILL
		failed=1
	}
	within $((${TEST_PATIENCE:-120} / 6)) none_left_behind || {
		for id in $(left_behind); do
			printf 'left behind: %s %s\n' "$id" \
				"$(tr '\0' ' ' <"/proc/$id/cmdline" 2>/dev/null)" >&2
			kill -s KILL "$id" 2>/dev/null || :
		done
		failed=1
	}
	[ -z "$others" ] || rm -rf "$others"
	return "$failed"
}
