#!/usr/bin/env bats
# Records that can't be trusted, read, made or found: nothing is claimed that isn't known.

# shellcheck disable=SC2119 # next may be without a word
# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	records=$XDG_RUNTIME_DIR/tunnel
	record=$records/localhost:8080
	others=
	as=()
}

# run COMMAND...: as whoever the test is about.
run_as() {
	start_program ${as[@]+"${as[@]}"} "$@"
	await_exit
	output=$(<"$out")
	errors=$(<"$err")
}

# All that can be asked about the tunnel $1 of port 8080, which lives, is answered rightly or not at
# all; and who says that it is stopped has stopped it.
assert_fails_closed() {
	local arguments
	for arguments in -l '-l 8080' -lj; do
		# shellcheck disable=SC2086 # one word each
		run_as "$TUNNEL" $arguments
		case $ended in
		'exit 0')
			assert_contains "$arguments: $output" "$url"
			assert_equal "$errors" ''
			;;
		*)
			assert_equal "$arguments: $ended" "$arguments: exit 1"
			assert_match "$errors" '^tunnel: '
			refute_contains "$errors" 'no tunnel'
			;;
		esac
	done
	for arguments in '-k 8080' -ka; do
		alive "$1" || return 0
		# shellcheck disable=SC2086 # one word each
		run_as "$TUNNEL" $arguments
		case $ended in
		'exit 0') gone "$1" || fail "$arguments says it is stopped, and it lives" ;;
		*)
			assert_equal "$arguments: $ended" "$arguments: exit 1"
			assert_match "$errors" '^tunnel: '
			;;
		esac
	done
}

# --- what can't be read ---------------------------------------------------------------

@test "a tunnel whose record has a hard link, such as a backup, is not taken for gone" {
	start_background 8080
	ln "$record" "$TMPDIR/backup"
	assert_fails_closed "$background"
	rm "$TMPDIR/backup"
	run_tunnel -k 8080
	assert_equal "$ended" 'exit 0'
	gone "$background"
}

@test "-k and -l that have too few descriptors don't take a tunnel for gone" {
	local files
	for files in 3 4 5 6 7 8; do
		[ -n "${background-}" ] && alive "$background" || start_background 8080
		start_options=(-n "$files")
		# Before main the system may have failed already.
		run_tunnel -V
		if [ "$ended" != 'exit 127' ]; then
			assert_fails_closed "$background"
		fi
		start_options=()
	done
}

@test "-k and -l that may not read a record don't take its tunnel for gone" {
	if [ "$(id -u)" = 0 ]; then
		use_others
		as=("${as_first[@]}")
		record=$XDG_RUNTIME_DIR/tunnel/localhost:8080
	fi
	start_program ${as[@]+"${as[@]}"} "$TUNNEL" 8080
	await_url
	local tunnel=$pid
	chmod 000 "$record"
	assert_fails_closed "$tunnel"
	# A new one finds it in the way, too.
	if alive "$tunnel"; then
		run_as "$TUNNEL" -b 8080
		assert_equal "$ended" 'exit 1'
		assert_match "$errors" '^tunnel: '
	fi
}

# not_ours WHAT: something else is where the record should be.
not_ours() {
	local arguments
	for arguments in '-k 8080' '-l 8080' '-b 8080'; do
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$1: $arguments: $ended" "$1: $arguments: exit 1"
		assert_match "$1: $arguments: $errors" "tunnel: [^
]*localhost:8080"
		refute_contains "$errors" 'no tunnel'
		assert_equal "$output" ''
	done
}

@test "what is no record of ours, in the place of one, is an error and not a tunnel that is gone" {
	mkdir -m 700 "$records"
	mkdir "$record"
	not_ours 'a directory'
	rmdir "$record"
	mkfifo "$record"
	not_ours 'a FIFO'
	rm "$record"
	ln -s "$TMPDIR/nothing" "$record"
	not_ours 'a link'
	[ -L "$record" ] && [ ! -e "$TMPDIR/nothing" ]
}

@test "a directory of records that can't be read is an error and not an empty list" {
	if [ "$(id -u)" = 0 ]; then
		use_others
		as=("${as_first[@]}")
		records=$XDG_RUNTIME_DIR/tunnel
	fi
	start_program ${as[@]+"${as[@]}"} "$TUNNEL" 8080
	await_url
	local tunnel=$pid
	chmod 000 "$records"
	assert_fails_closed "$tunnel"
	chmod 700 "$records"
	alive "$tunnel"
}

# denied INJECTION REGEX ARGUMENT...: a message like that, and no other, and exit 1.
denied() {
	start_traced "$1" "${@:3}"
	assert_exit 1
	# A build that counts has a word of its own where it is denied a lock.
	assert_match "$1 ${*:3}: $(grep -v '^profiling:' "$err")" "^$1 ${*:3}: tunnel: $2\$"
}

@test "-k and -l that the system denies a lock or a directory say so, and call nothing stopped" {
	start_background 8080
	denied fcntl:error=ENOLCK \
		'cannot tell whether a tunnel of localhost:8080 runs: No locks available' -l 8080
	denied fcntl:error=ENOLCK \
		'cannot tell whether a tunnel of localhost:8080 runs: No locks available' -k 8080
	denied getdents64:error=EIO \
		"cannot read the directory of the records: $EIO" -l
	denied getdents64:error=EIO \
		"cannot read the directory of the records: $EIO" -ka
	alive "$background"
}

# goes_on INJECTION REGEX: the tunnel does, with a warning like that.
goes_on() {
	start_traced "$1" 8080
	await url_or_end
	[ -n "$url" ] || return 1
	kill -s TERM "$pid"
	assert_signal TERM
	grep -qxE "tunnel: warning: $2" "$err"
}

@test "a tunnel whose record can't be locked or written goes on, and says so" {
	local i
	assert goes_on ftruncate:error=EIO:when=1 \
		"cannot lock the record of localhost:8080: $EIO"
	assert goes_on pwrite64:error=ENOSPC \
		'cannot write the record of localhost:8080: No space left on device'
	# The first of these is the lock's, and less is written for want of space.
	assert goes_on ftruncate:error=EIO:when=2 \
		"cannot write the record of localhost:8080: $EIO"
	assert goes_on pwrite64:retval=5 \
		'cannot write the record of localhost:8080: No space left on device'
	# Which call it is that locks is nobody's business.
	for ((i = 1; i < 20; i++)); do
		! goes_on "fcntl:error=ENOLCK:when=$i" \
			'cannot lock the record of localhost:8080: No locks available' || return 0
	done
	fail 'a lock that is denied ends it, or goes unsaid'
}

@test "a pipe that can't be made fit is no start, and the cause is said" {
	local i what said=
	# Which calls they are that see to our pipe and cloudflared's is nobody's business.
	for ((i = 1; i < 24; i++)); do
		start_traced "fcntl:error=EIO:when=$i" -t 2 8080
		await url_or_end
		if [ -n "$url" ]; then
			kill -s TERM "$pid"
			assert_signal TERM
			continue
		fi
		await_exit
		for what in 'cannot start' 'cannot start cloudflared'; do
			grep -qxE "tunnel: $what: $EIO" "$err" || continue
			assert_equal "$ended" 'exit 1'
			said+="$what;"
		done
		[[ $said != *'start;'*'start cloudflared;'* ]] || return 0
	done
	fail 'a pipe that cannot be made fit goes unsaid'
}

@test "why there can be no record directory is said: a file system that is read-only" {
	use_mounts
	start_mounted ro,mode=700 "$XDG_RUNTIME_DIR" "$TUNNEL" -b 8080
	assert_exit 1
	assert_match "$(<"$err")" "tunnel: [^
]*$records: Read-only file system"
}

@test "why there can be no record directory is said: no permission to make it" {
	if [ "$(id -u)" = 0 ]; then
		use_others
		as=("${as_first[@]}")
	fi
	chmod 500 "$XDG_RUNTIME_DIR"
	run_as "$TUNNEL" -b 8080
	assert_equal "$ended" 'exit 1'
	assert_match "$errors" "tunnel: [^
]*$XDG_RUNTIME_DIR/tunnel: Permission denied"
}

# start_full ARGUMENT...: a tunnel that has no room for its record.
start_full() {
	# shellcheck disable=SC2016 # the shell's to expand
	start_mounted size=64k,mode=700 "$XDG_RUNTIME_DIR" sh -c \
		'cat /dev/zero >"$XDG_RUNTIME_DIR/fill" 2>/dev/null; exec "$@"' sh "$TUNNEL" "$@"
}

@test "no room for the record: -b says so and leaves nothing, a foreground tunnel warns and goes on" {
	local words='cannot write the record of localhost:8080: No space left on device'
	use_mounts
	start_full -b 8080
	assert_exit 1
	assert_match "$(<"$err")" "tunnel: $words"
	assert_equal "$(<"$out")" ''
	assert_equal "$(cloudflared_starts)" ''
	none_left_behind
	start_full 8080
	await_url
	assert_match "$(<"$err")" "tunnel: warning: $words"
	kill -s TERM "$pid"
	assert_signal TERM
}

# --- nothing is made ------------------------------------------------------------------

@test "without a null device there is no tunnel, and that is said" {
	use_mounts
	start_mounted size=64k /dev "$TUNNEL" 8080
	assert_exit 1
	assert_equal "$(<"$err")" 'tunnel: cannot open /dev/null: No such file or directory'
	assert_equal "$(cloudflared_starts)" ''
}

@test "a tunnel that can't wait for events any more says so once, and ends" {
	need prlimit
	start_tunnel 8080
	await_url
	await_cloudflared 1
	prlimit --pid "$pid" --nofile=4:4
	kill -s CONT "$pid"
	assert_exit 1
	gone "$cloudflared"
	assert_equal "$(grep -c 'cannot wait for events' "$err")" 1
}

@test "-k and -l make nothing, and find nobody" {
	local arguments
	for arguments in -l -lj '-k 8080' -ka; do
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$arguments: $ended" "$arguments: exit 0"
		assert_equal "$arguments: $output$errors" "$arguments: "
	done
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$(find "$XDG_RUNTIME_DIR" "$TMPDIR" -mindepth 1)" ''
	unset XDG_RUNTIME_DIR
	for arguments in -l '-k 8080' -ka; do
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$arguments: $ended" "$arguments: exit 0"
		assert_equal "$arguments: $output$errors" "$arguments: "
	done
	assert_equal "$(find "$TMPDIR" -mindepth 1)" ''
	# Nor a record beside others.
	start_background 8080
	run_tunnel -k 8081
	run_tunnel -l 8081
	assert_equal "$(find "$TMPDIR" -type f)" "$TMPDIR/tunnel-$(id -u)/localhost:8080"
}

@test "root leaves nothing in a user's XDG_RUNTIME_DIR, who isn't locked out" {
	local arguments
	use_others
	for arguments in -l '-l 8080' '-k 8080' -ka; do
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$(find "$XDG_RUNTIME_DIR" -mindepth 1)" ''
	done
	start_tunnel 8080
	await_url
	run_tunnel -b 8081
	assert_equal "$ended" 'exit 0'
	assert_equal "$(find "$XDG_RUNTIME_DIR" -mindepth 1)" ''
	assert_equal "$("$TUNNEL" -l | cut -f 1 | sort | xargs)" 'localhost:8080 localhost:8081'
	run_tunnel -k 8081
	as=("${as_first[@]}")
	run_as "$TUNNEL" -l
	assert_equal "$ended" 'exit 0'
	assert_equal "$output$errors" ''
	start_program "${as[@]}" "$TUNNEL" 8080
	await_url
	assert_equal "$(find "$XDG_RUNTIME_DIR" -type f -user "$first")" "$XDG_RUNTIME_DIR/tunnel/localhost:8080"
	# Nor does a user who became root by su(1) or sudo(8) see whose it is.
	assert_equal "$(find "$XDG_RUNTIME_DIR" ! -user "$first")" ''
}

# --- where records are ----------------------------------------------------------------

@test "an XDG_RUNTIME_DIR that is missing, a file or somebody else's is passed over" {
	local runtime
	: >"$TMPDIR/file"
	mkdir "$TMPDIR/links"
	mkdir -m 700 "$TMPDIR/theirs"
	records=$TMPDIR/tunnel-$(id -u)
	set -- "$TMPDIR/missing" "$TMPDIR/file" "$TMPDIR/missing/too" ''
	if [ "$(id -u)" = 0 ]; then
		chown 64321 "$TMPDIR/theirs"
		set -- "$@" "$TMPDIR/theirs"
	else
		set -- "$@" /
	fi
	for runtime; do
		export XDG_RUNTIME_DIR=$runtime
		start_background 8080
		assert_equal "$runtime: $("$ROOT/test/helpers/lock" "$records/localhost:8080")" "$runtime: $background"
		# Whoever has another one sees it as well.
		assert_equal "$(XDG_RUNTIME_DIR='' "$TUNNEL" -l | cut -f 2)" "$url"
		run_tunnel -k 8080
		assert_equal "$ended: $errors" 'exit 0: '
		start_tunnel 8080 true
		assert_exit 0
		assert_quiet
	done
	assert_equal "$(find "$TMPDIR/theirs" "$TMPDIR/links" -mindepth 1)" ''
	[ ! -e "$TMPDIR/missing" ]
}

@test "cleaners of temporary files pass a record over: its sticky bit is set" {
	start_background 8080
	assert_equal "$(find "$records" -type f -perm -1000)" "$record"
	assert_equal "$(find "$records" -type f -perm 1600)" "$record"
	run_tunnel -k 8080
	# And it is set for one that was there before.
	chmod 600 "$record"
	start_background 8080
	assert_equal "$(find "$records" -type f -perm -1000)" "$record"
}

@test "a record that was removed while a tunnel took it is made anew" {
	# The first four are those of the pipe for signals.
	start_traced fcntl:delay_enter=1000000:when=5..8 8080
	# Again and again until it has one that stays for as long as it takes to lock.
	await test -e "$record"
	rm "$record"
	await_url
	await holder localhost:8080
	assert_equal "$(holder localhost:8080)" "$pid"
	assert_equal "$("$TUNNEL" -l | cut -f 2,3)" "$url	$pid"
}

# --- what is in them ------------------------------------------------------------------

@test "cat shows a record: a key and a value in each line" {
	start_tunnel -g 2.5 https://127.0.0.1:8080 sleep 600
	await_cloudflared 1
	record=$records/127.0.0.1:8080
	await_text "$record" trycloudflare
	await has_children 2 "$pid"
	local command lines
	command=$(children_of "$pid" | grep -vx "$cloudflared")
	await_text "$record" "command $command"
	lines=$(<"$record")
	assert_equal "$(head -n 1 "$record")" 'tunnel 2'
	assert_equal "$(tail -n 1 "$record")" end
	assert_equal "$(grep -cvE '^[a-z]+( [ -~]*)?$' "$record")" 0
	for line in 'state up' "pid $pid" 'grace 2500' "group $cloudflared" "url $(cloudflared_url "$cloudflared")" \
		'origin https://127.0.0.1:8080'; do
		assert_contains "
$lines
" "
$line
"
	done
	assert_match "$lines" '
created [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z
'
}

has_children() {
	[ "$(children_of "$2" | wc -l)" = "$1" ]
}

has_state() {
	grep -qx "state $1" "$record"
}

@test "a record tells what state its tunnel is in" {
	FAKE_MODE=silent start_tunnel 8080
	await has_state starting
	kill -s TERM "$pid"
	assert_signal TERM
	FAKE_MODE=slow-stop FAKE_DELAY=3 start_tunnel -g 600 8080
	await_url
	await has_state up
	kill -s TERM "$pid"
	await has_state stopping
	assert_signal TERM
	refute_contains "$(<"$record")" 'state up'
	FAKE_MODE=die-before run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	grep -q '^error ..' "$record"
	assert_equal "$(tail -n 1 "$record")" end
}

@test "a record says that its tunnel starts as long as it has no URL, whatever the edge has" {
	scripted 'registered; next; echo https://a-b-c-d.trycloudflare.com >&2; next; exit 1'
	start_tunnel -v -r 8080
	await_text "$err" Registered
	assert has_state starting
	next
	await_url
	await has_state up
	next
	await_text "$err" 'starting cloudflared again'
	assert has_state starting
}

# A tunnel that was killed leaves its record; the next has the same process id.
forge_record() {
	start_tunnel 8080
	await_url
	old=$url
	kill -s KILL "$pid"
	assert_signal KILL
	await_cloudflared 1
	await gone "$cloudflared"
	cp "$record" "$TMPDIR/left"
	grep -qx "pid $pid" "$TMPDIR/left"
}

@test "what a killed tunnel left in its record isn't believed when its process id recurs" {
	local old traced
	# Long between the lock and the first thing that could be known.
	trace_with fork:delay_enter=10000000
	forge_record
	mkfifo "$TMPDIR/go"
	# shellcheck disable=SC2016 # it is for the shell
	start_program sh -c 'read -r _ <"$TMPDIR/go"; exec "$@"' sh "${traced[@]}" "$TUNNEL" 8080
	sed "s/^pid .*/pid $pid/" "$TMPDIR/left" >"$record"
	grep -qx "pid $pid" "$record"
	echo >"$TMPDIR/go"
	await holder localhost:8080
	await held "$pid"
	local tunnel=$pid out_of_tunnel=$out
	run_tunnel -l
	assert_equal "$output" ''
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	refute_contains "$errors$output" "$old"
	run_tunnel -b 8080
	[ "$output" != "$old" ] || fail 'it hands out a URL that is dead'
	assert_equal "$ended" 'exit 0'
	assert_equal "$(holder localhost:8080)" "$tunnel"
	assert_equal "$output" "$(<"$out_of_tunnel")"
}

@test "a record that another process than its own holds isn't believed" {
	local old
	forge_record
	start_program "$ROOT/test/helpers/lock" -w "$record"
	await test -s "$out"
	local holder=$pid
	run_tunnel -l
	refute_contains "$output" "$old"
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	refute_contains "$output$errors" "$old"
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_contains "$errors" "$holder"
	refute_contains "$errors" "$old"
	run_tunnel -k 8080
	[ "$ended" != 'exit 0' ] || gone "$holder" || fail 'it says that it is stopped, and it lives'
}

# forged KEY VALUE: the record of a tunnel that failed, with this in it, is shown in no part;
# believed KEY VALUE: it is.
forged() {
	edit_record "$@"
	assert_equal "$* $ended: $errors" "$* exit 1: tunnel: no tunnel of localhost:8080 runs"
}

believed() {
	edit_record "$@"
	assert_equal "$*: $ended" "$*: exit 1"
	assert_contains "$*: $errors" 'no tunnel of localhost:8080 runs; the last one failed: cloudflared ended (exit status 37)'
}

edit_record() {
	awk -v key="$1" -v line="$1 $2" '{ print $1 == key ? line : $0 }' "$TMPDIR/honest" >"$record"
	run_tunnel -l 8080
	assert_equal "$output" ''
}

# added LINE: with this line in it.
added() {
	sed -e '$d' "$TMPDIR/honest" >"$record"
	printf '%s\nend\n' "$1" >>"$record"
	run_tunnel -l 8080
	assert_equal "$ended $output" 'exit 1 '
}

@test "a record that tunnel cannot have written is not believed, whatever is wrong in it" {
	local key number value
	FAKE_MODE=die-before FAKE_STATUS=37 run_tunnel 8080
	cp "$record" "$TMPDIR/honest"
	# A key that another build has is passed over; what is none isn't.
	added 'colour blue'
	assert_contains "$errors" 'exit status 37'
	for value in colour '' '=' ; do
		added "$value"
		assert_equal "$value: $errors" "$value: tunnel: no tunnel of localhost:8080 runs"
	done
	for key in pid group command grace; do
		for number in '' -1 1x x 0x10 ' 2' 1.5 99999999999 9223372036854775808; do
			forged $key "$number"
		done
	done
	for key in pid group command; do
		forged $key 2147483648
		believed $key 2147483647
	done
	# The version.
	forged tunnel 3
	believed tunnel 2
	forged pid 0
	believed pid 1
	for key in group command; do
		# Process 1 is nobody's to signal.
		forged $key 1
		believed $key 0
		believed $key 2
	done
	forged grace 86400001
	believed grace 86400000
	believed grace 0
	for value in '' 8080 localhost:8080 http://localhost http://localhost:8080/ http://8080 \
		HTTP://localhost:8080 ftp://localhost:8080 http://localhost:8080/x http://a@localhost:8080 \
		http://localhost:65536; do
		forged origin "$value"
	done
	believed origin https://localhost:8080
	for value in https://example.org http://a.trycloudflare.com https://a.trycloudflare.com/ \
		https://api.trycloudflare.com https://a.trycloudflare.com.evil.example x \
		' https://a.trycloudflare.com'; do
		forged url "$value"
	done
	believed url https://a.trycloudflare.com
	for value in yesterday 2026-11-21t01:58:36Z $'\e[31m' '2026-11-21 01:58:36'; do
		forged created "$value"
	done
	believed created 2026-11-21T01:58:36Z
}

@test "what is forged in the record of a tunnel that runs is not passed on" {
	local key value words
	start_tunnel 8080
	await_url
	local tunnel=$pid first=$url
	await has_state up
	cp "$record" "$TMPDIR/honest"
	while read -r key value; do
		edit_record "$key" "$value"
		assert_equal "$key $value $ended" "$key $value exit 1"
		assert_contains "$errors" "$tunnel"
		run_tunnel -l
		assert_equal "$key $value $ended $output" "$key $value exit 0 "
		run_tunnel 8080
		assert_equal "$key $value $ended $output" "$key $value exit 1 "
		assert_contains "$errors" "process $tunnel, its record cannot be read here"
	done <<-'END'
		url https://example.org
		url https://api.trycloudflare.com
		origin http://localhost:8080/path
		created now
		grace -1
		group 1
		command 1
		pid 1
	END
	# Nor does one that is neither starting nor up hand out a URL.
	while IFS='|' read -r value words; do
		edit_record state "$value"
		assert_equal "state $value $ended" "state $value exit 1"
		assert_contains "$errors" "process $tunnel, $words"
	done <<-'END'
		over|is stopping
		flying|has no URL yet
		|has no URL yet
	END
	cat "$TMPDIR/honest" >"$record"
	run_tunnel -b 8080
	assert_equal "$ended $output" "exit 0 $first"
}

@test "a record of another version still tells who holds it" {
	local arguments holder
	mkdir -m 700 "$records"
	printf '%s\n' 'tunnel 3' 'colour blue' 'end' >"$record"
	start_program "$ROOT/test/helpers/lock" -w "$record"
	await test -s "$out"
	holder=$pid
	for arguments in 8080 '8080 true' '-r 8080' '-l 8080'; do
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$arguments: $ended" "$arguments: exit 1"
		assert_match "$errors" "^tunnel: [^
]*${holder}[^
]*cannot be read here"
		# Which -b couldn't do.
		refute_contains "$errors" 'prints it'
		assert_equal "$output" ''
	done
	# Among all it isn't passed over in silence.
	run_tunnel -l
	assert_equal "$ended: $output" 'exit 0: '
	assert_match "$errors" "^tunnel: [^
]*localhost:8080, process $holder, [^
]*cannot be read here"
	run_tunnel -b -t 1 8080
	assert_equal "$ended: $output" 'exit 124: '
	assert_match "$errors" "process $holder: its record cannot be read here"
	assert_equal "$(cat "$record")" $'tunnel 3\ncolour blue\nend'
	run_tunnel -k 8080
	case $ended in
	'exit 0') gone "$holder" || fail 'it says that it is stopped, and it lives' ;;
	*)
		assert_equal "$ended" 'exit 1'
		assert_contains "$errors" "$holder"
		;;
	esac
}

@test "what ended a start early is in the record, so that -l tells no older error" {
	FAKE_MODE=die-before FAKE_STATUS=37 run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	run_tunnel -l 8080
	assert_contains "$errors" 37
	run_tunnel -c "$TMPDIR/nothing" 8080
	assert_equal "$ended" 'exit 127'
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	assert_contains "$errors" "$TMPDIR/nothing"
	FAKE_MODE=die-before FAKE_STATUS=37 run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	run_tunnel -b -c "$ROOT/LICENSE" 8080
	assert_equal "$ended" 'exit 126'
	run_tunnel -l 8080
	assert_contains "$errors" LICENSE
	FAKE_MODE=die-before FAKE_STATUS=37 run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	run_tunnel 8080 no-such-command
	assert_equal "$ended" 'exit 127'
	run_tunnel -l 8080
	refute_contains "$errors" 37
}

@test "a message says its reason, however long the path before it" {
	local long=$TMPDIR
	while [ ${#long} -lt 3000 ]; do
		long=$long/./a-directory/..
	done
	run_tunnel -c "$long/nothing" 8080
	assert_equal "$ended" 'exit 127'
	assert_contains "$errors" 'No such file'
	run_tunnel -l 8080
	assert_contains "$errors" 'No such file'
	run_tunnel 8080 "$long/nothing"
	assert_equal "$ended" 'exit 127'
	assert_contains "$errors" 'No such file'
}
