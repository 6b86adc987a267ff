#!/usr/bin/env bats
# Records: where they lie, the lock on them, one tunnel per origin, -l, -j and -k.

# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	records=$XDG_RUNTIME_DIR/tunnel
}

make_records() {
	mkdir -m 700 "$records"
}

# An empty list is no error.
assert_none_listed() {
	run_tunnel -l
	assert_equal "$ended" 'exit 0'
	assert_equal "$output$errors" ''
}

# stop ORIGIN...: whatever the stop waits for, it says nothing and succeeds.
stop() {
	run_tunnel -k "$@"
	assert_equal "$ended" 'exit 0'
	assert_equal "$output$errors" ''
}

# --- where they lie -------------------------------------------------------------------

@test "the record is the file HOST:PORT in XDG_RUNTIME_DIR/tunnel, which is private" {
	umask 000
	start_tunnel 8080
	await_url
	assert_equal "$(ls "$records")" localhost:8080
	assert_equal "$(find "$records" -prune -perm 700)" "$records"
	assert_equal "$(find "$records" -type f ! -perm -004 ! -perm -040 ! -perm -020 ! -perm -002)" "$records/localhost:8080"
	assert_equal "$(holder localhost:8080)" "$pid"
	assert_equal "$(grep '^waited ' "$records/localhost:8080")" 'waited 1'
	start_tunnel https://127.0.0.1:8081
	await_url
	assert_equal "$(holder 127.0.0.1:8081)" "$pid"
	start_tunnel '[::1]:8081'
	await_url
	assert_equal "$(holder '[::1]:8081')" "$pid"
}

@test "the directory of the records is private, not more, whatever the mask for files" {
	# shellcheck disable=SC2016 # it is for the other shell
	scripted 'umask 022; echo https://a-b-c-d.trycloudflare.com >&2; registered'
	# shellcheck disable=SC2016
	start_program sh -c 'umask 0777; exec "$@"' sh "$TUNNEL" 8080
	await_url
	refute_contains "$(<"$err")" 'cannot keep records'
	assert_equal "$(find "$records" -prune -perm 700)" "$records"
	assert_equal "$("$TUNNEL" -l | cut -f 2)" "$url"
}

@test "without XDG_RUNTIME_DIR the record is in TMPDIR/tunnel-UID" {
	unset XDG_RUNTIME_DIR
	start_tunnel 8080
	await_url
	records=$TMPDIR/tunnel-$(id -u)
	assert_equal "$("$ROOT/test/helpers/lock" "$records/localhost:8080")" "$pid"
	assert_equal "$(find "$records" -prune -perm 700)" "$records"
	assert_equal "$("$TUNNEL" -l | cut -f 2)" "$url"
	stop 8080
}

@test "without XDG_RUNTIME_DIR and TMPDIR the record is in /tmp/tunnel-UID" {
	unset XDG_RUNTIME_DIR TMPDIR
	# These records are everybody's: the port tells ours.
	free_port
	start_tunnel "$port"
	await_url
	local record
	record=/tmp/tunnel-$(id -u)/localhost:$port
	assert_equal "$("$ROOT/test/helpers/lock" "$record")" "$pid"
	assert_equal "$("$TUNNEL" -l "$port" | cut -f 2)" "$url"
	stop "$port"
	rm "$record"
}

# refused WHY: a foreground tunnel goes on with a warning; -b, -l and -k say so, exit 1.
refused() {
	local arguments starts
	start_tunnel 8080
	await_url
	assert_match "$(cat "$err")" "tunnel: warning: [^
]*$records"
	# Nor does it keep the directory open.
	[ ! -d /proc/self/fd ] ||
		refute_contains "$(readlink "/proc/$pid/fd/"*)" "$records"
	kill -s TERM "$pid"
	assert_signal TERM
	assert_equal "$(grep -c record "$err")" 1
	starts=$(cloudflared_starts)
	for arguments in '-b 8080' -l '-l 8080' -lj '-k 8080'; do
		# shellcheck disable=SC2086 # one word each
		run_tunnel $arguments
		assert_equal "$1: $arguments: $ended" "$1: $arguments: exit 1"
		assert_match "$errors" "^tunnel: [^
]*${records}[^
]*\$"
		assert_equal "$output" ''
	done
	assert_equal "$(cloudflared_starts)" "$starts"
}

@test "a record directory that others may enter is refused" {
	make_records
	chmod 0755 "$records"
	refused 'mode 0755'
	chmod 0701 "$records"
	refused 'mode 0701'
	chmod 0770 "$records"
	refused 'mode 0770'
	assert_equal "$(find "$records" -prune -perm 770)" "$records"
	assert_equal "$(ls "$records")" ''
}

@test "a record directory that is a link is refused and not followed" {
	mkdir -m 700 "$TMPDIR/elsewhere"
	ln -s "$TMPDIR/elsewhere" "$records"
	refused 'a link'
	assert_contains "$errors" 'it must be a directory, and no link'
	assert_equal "$(ls "$TMPDIR/elsewhere")" ''
}

@test "a record directory of another user is refused" {
	[ "$(id -u)" = 0 ] || skip 'only root can give a directory away'
	make_records
	chown 12345 "$records"
	refused 'another owner'
	assert_equal "$(ls "$records")" ''
}

@test "where there can be no record directory a foreground tunnel runs on" {
	local arguments first
	: >"$records"
	refused 'a file'
	assert_contains "$errors" 'it must be a directory, and no link'
	unset XDG_RUNTIME_DIR
	TMPDIR=$TMPDIR/missing
	records=$TMPDIR/tunnel-$(id -u)
	start_tunnel 8080
	await_url
	assert_match "$(<"$err")" "tunnel: warning: [^
]*$records"
	first=$pid
	run_tunnel -b 8080
	assert_equal "$ended: $output" 'exit 1: '
	assert_match "$errors" "^tunnel: [^
]*$records"
	# Nor can anybody tell what runs: that nothing is recorded isn't that nothing runs.
	for arguments in -l '-l 8080' '-k 8080' -ka; do
		# shellcheck disable=SC2086 # two words
		run_tunnel $arguments
		assert_equal "$arguments: $ended: $output" "$arguments: exit 1: "
		assert_match "$errors" "^tunnel: cannot keep records in $records: [^
]*XDG_RUNTIME_DIR"
	done
	alive "$first"
	[ ! -e "$TMPDIR" ] || fail 'it made TMPDIR'
}

# --- the lock -------------------------------------------------------------------------

@test "the record is locked from the start until all is gone" {
	FAKE_MODE=slow-stop FAKE_DELAY=86400 start_tunnel -g 86400 8080
	await_cloudflared 1
	assert_equal "$(holder localhost:8080)" "$pid"
	await_url
	assert_equal "$("$TUNNEL" -l | cut -f 3)" "$pid"
	assert_equal "$(holder localhost:8080)" "$pid"
	kill -s TERM "$pid"
	await contains "$FAKE_DIR/$cloudflared.signals" TERM
	assert_equal "$(holder localhost:8080)" "$pid"
	# Past the half second in which a repeat is no more than the first.
	sleep 0.6
	kill -s TERM "$pid"
	assert_signal TERM
	await ! holder localhost:8080
}

@test "a tunnel that was killed leaves nothing stale" {
	start_tunnel 8080
	await_url
	await_cloudflared 1
	kill -s KILL "$pid"
	assert_signal KILL
	await ! holder localhost:8080
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$output" ''
	assert_none_listed
	stop 8080
	# Where there is no parent-death signal it ends with its next log line.
	[ "$(uname)" != Linux ] || await gone "$cloudflared"
	start_tunnel 8080
	await_url
	assert_equal "$(holder localhost:8080)" "$pid"
}

@test "a record is emptied, never removed" {
	start_tunnel 8080
	await_url
	local before
	before=$(ls -i "$records")
	[ -s "$records/localhost:8080" ]
	stop 8080
	assert_equal "$(ls -i "$records")" "$before"
	[ ! -s "$records/localhost:8080" ] || fail 'there is something left in it'
	start_background 8080
	assert_equal "$(ls -i "$records")" "$before"
	stop 8080
	assert_equal "$(ls -i "$records")" "$before"
	[ ! -s "$records/localhost:8080" ] || fail 'there is something left in it'
}

# --- records that are none ------------------------------------------------------------

# Whatever lies there, nobody runs; and a tunnel starts over it.
assert_not_running() {
	run_tunnel -l 8080
	assert_equal "$1: $ended" "$1: exit 1"
	assert_equal "$output" ''
	assert_none_listed
	stop 8080
}

@test "a record full of noise, or half written, is not a running tunnel" {
	local record=$records/localhost:8080 size part
	make_records
	: >"$record"
	assert_not_running empty
	head -c 100000 /dev/urandom >"$record"
	assert_not_running noise
	head -c 1000000 /dev/zero >"$record"
	assert_not_running zeros
	yes '%s%n' | head -n 1000 >"$record"
	assert_not_running formats
	start_background 8080
	run_tunnel -lj 8080
	refute_contains "$(cat "$record")" '%s%n'
	cp "$record" "$TMPDIR/whole"
	size=$(wc -c <"$record")
	stop 8080
	for part in 1 "$((size / 3))" "$((size * 2 / 3))" "$((size - 1))" "$size"; do
		head -c "$part" "$TMPDIR/whole" >"$record"
		assert_not_running "$part bytes"
	done
}

@test "the error kept in a record can't drive the terminal" {
	make_records
	local record=$records/localhost:8080
	FAKE_MODE=die-before run_tunnel 8080
	[ -s "$record" ] || fail 'it keeps no error'
	# Nor does cat show any of the log's control characters.
	cloudflared_script <<<"printf 'bad \\033[31m\\007 end\\n' >&2; exit 3"
	run_tunnel 8081
	assert_contains "$(<"$records/localhost:8081")" 'bad ?[31m? end'
	sed "s/exit status/$(printf '\033[31m\007')/" "$record" >"$TMPDIR/edited"
	assert_contains "$(cat "$TMPDIR/edited")" $'\033'
	cat "$TMPDIR/edited" >"$record"
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	refute_contains "$errors" $'\033'
}

@test "an error that has lines and escapes in it is one line of the record" {
	local record=$records/localhost:8080
	run_tunnel -c $'/no/such\nurl https://evil.trycloudflare.com\033[31m' 8080
	assert_equal "$ended" 'exit 127'
	assert_equal "$(grep -c '^error .*evil' "$record")" 1
	assert_equal "$(grep -cvE '^[a-z]+( [ -~]*)?$' "$record")" 0
	run_tunnel -l 8080
	assert_contains "$errors" 'the last one failed: '
}

# assert_refused WHAT WORDS: a link, a FIFO or a directory: seen in bounded time, said in these
# words, left as it is.
assert_refused() {
	FAKE_MODE=connect start_tunnel 8080
	await url_or_end
	# Whether it goes on without a record or not, it says that something is wrong.
	assert_match "$(cat "$err")" "^tunnel: [^
]*localhost:8080"
	kill -s TERM "$pid" 2>/dev/null || :
	await_exit
	run_tunnel -b 8080
	assert_equal "$1: $ended" "$1: exit 1"
	assert_equal "$output" ''
	assert_equal "$1: $errors" \
		"$1: tunnel: cannot lock the record of localhost:8080: its record is $2"
	run_tunnel -l
	assert_equal "$1: $output" "$1: "
	run_tunnel -l 8080
	assert_equal "$1: $ended" "$1: exit 1"
	assert_equal "$1: $output" "$1: "
	run_tunnel -k 8080
	assert_match "$1: $ended" "^$1: exit [01]\$"
}

@test "a symbolic or hard link in place of a record is refused, never followed" {
	make_records
	echo precious >"$TMPDIR/file"
	ln -s "$TMPDIR/file" "$records/localhost:8080"
	assert_refused 'a symbolic link' 'a link, or has one'
	assert_equal "$(cat "$TMPDIR/file")" precious
	[ -L "$records/localhost:8080" ]
	ln -sf "$TMPDIR/new" "$records/localhost:8080"
	assert_refused 'a link to nothing' 'a link, or has one'
	[ ! -e "$TMPDIR/new" ] || fail 'it made what the link points to'
	ln -f "$TMPDIR/file" "$records/localhost:8080"
	assert_refused 'a hard link' 'a link, or has one'
	assert_equal "$(cat "$TMPDIR/file")" precious
}

@test "a FIFO or a directory in place of a record is refused, and nothing hangs" {
	make_records
	mkfifo "$records/localhost:8080"
	assert_refused 'a FIFO' 'no file of yours'
	[ -p "$records/localhost:8080" ]
	rm "$records/localhost:8080"
	mkdir "$records/localhost:8080"
	assert_refused 'a directory' 'no file of yours'
	[ -d "$records/localhost:8080" ]
}

@test "a record written by hand can't make -k signal somebody else" {
	start_options=(-g)
	start_program sleep 600
	start_options=()
	local victim=$pid record=$records/localhost:8080
	FAKE_MODE=ignore-term start_background -g 0.1 8080
	await_cloudflared 1
	await_text "$record" "group $cloudflared"
	sed -E "s/^(pid|group|command) .*/\1 $victim/" "$record" >"$TMPDIR/forged"
	assert_equal "$(grep -cE "^(pid|group|command) $victim\$" "$TMPDIR/forged")" 3
	# While it runs, whoever holds the record isn't who it names.
	cp "$record" "$TMPDIR/honest"
	cat "$TMPDIR/forged" >"$record"
	run_tunnel -l 8080
	refute_contains "$output" "$victim"
	run_tunnel -k 8080
	alive "$victim" || fail 'it signalled a process that is none of its business'
	cat "$TMPDIR/honest" >"$record"
	stop 8080
	# And when it doesn't, nobody does.
	cat "$TMPDIR/forged" >"$record"
	stop 8080
	alive "$victim" || fail 'it signalled a process that is none of its business'
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$output" ''
	start_background 8080
	stop 8080
	alive "$victim" || fail 'it signalled a process that is none of its business'
}

# --- one tunnel per origin ------------------------------------------------------------

@test "a second tunnel of an origin exits 1, naming the process id and URL of the first" {
	start_tunnel 8080
	await_url
	local first=$pid origin
	for origin in 8080 localhost:8080 https://localhost:8080; do
		run_tunnel "$origin"
		assert_equal "$ended" 'exit 1'
		assert_equal "$output" ''
		assert_match "$errors" "^tunnel: .*$first.*$url"
	done
	run_tunnel 8080 touch "$TMPDIR/ran"
	assert_equal "$ended" 'exit 1'
	assert_match "$errors" "^tunnel: .*$first.*$url"
	[ ! -e "$TMPDIR/ran" ] || fail 'the command was run'
	run_tunnel -r 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$(cloudflared_starts | wc -l)" 1
	# Neither another port nor another host is that origin.
	run_tunnel 127.0.0.1:8080 true
	assert_equal "$ended" 'exit 0'
	run_tunnel 8081 true
	assert_equal "$ended" 'exit 0'
}

@test "a second tunnel while the first is starting exits 1, naming its process id" {
	FAKE_MODE=silent start_tunnel 8080
	await_cloudflared 1
	local first=$pid
	run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	assert_match "$errors" "^tunnel: .*$first"
	assert_equal "$(cloudflared_starts)" "$cloudflared"
}

@test "a second tunnel of another host is told to be stopped by its whole name" {
	start_tunnel 127.0.0.1:8080
	await_url
	run_tunnel 127.0.0.1:8080
	assert_equal "$ended" 'exit 1'
	assert_contains "$errors" 'tunnel -k 127.0.0.1:8080 stops it'
	run_tunnel -k 127.0.0.1:8080
	assert_signal TERM "$(sed -n 1p "$BATS_TEST_TMPDIR/numbers" | cut -d ' ' -f 1)"
}

@test "tunnels at the same instant: exactly one cloudflared" {
	local i outs=() winner
	for ((i = 0; i < 6; i++)); do
		start_tunnel 8080
		outs+=("$out")
	done
	ended() { [ "$(cat "$BATS_TEST_TMPDIR"/*.result 2>/dev/null | wc -l)" -ge "$1" ]; }
	await ended 5
	assert_equal "$(cat "$BATS_TEST_TMPDIR"/*.result | sort | uniq -c | tr -s ' ')" ' 5 exit 1'
	winner() { winner=$(cat "${outs[@]}") && [ -n "$winner" ]; }
	await winner
	assert_match "$winner" '^https://[a-z-]*\.trycloudflare\.com$'
	assert_equal "$(cloudflared_starts | wc -l)" 1
	assert_equal "$("$TUNNEL" -l | cut -f 2)" "$winner"
}

# --- listing --------------------------------------------------------------------------

@test "-l prints host:port, URL, process id, creation time and state of each running tunnel" {
	local line
	assert_none_listed
	start_tunnel 8080
	await_url
	local first=$url one=$pid
	start_background 127.0.0.1:8081
	run_tunnel -l
	assert_equal "$ended" 'exit 0'
	assert_quiet
	assert_equal "$(echo "$output" | sort | cut -f 1-3)" "$(printf '%s\t%s\t%s\n' \
		127.0.0.1:8081 "$url" "$background" localhost:8080 "$first" "$one")"
	line=$(echo "$output" | grep localhost | cut -f 4)
	assert_match "$line" '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$'
	assert_contains "$("$TUNNEL" -lj 8080)" "\"createdAt\":\"$line\""
	assert_equal "$(echo "$output" | awk -F '\t' '{ print NF }' | uniq)" 5
	assert_equal "$(echo "$output" | cut -f 5 | uniq)" up
	run_tunnel -l http://localhost:8080
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" "$(printf '%s\t%s\t%s\t%s\tup' localhost:8080 "$first" "$one" "$line")"
	run_tunnel -l 8082 127.0.0.1:8081
	assert_equal "$ended" 'exit 1'
	assert_equal "$(echo "$output" | cut -f 1)" 127.0.0.1:8081
	assert_match "$errors" '^tunnel: [^
]*localhost:8082[^
]*$'
	start_options=(-o /dev/full)
	run_tunnel -l
	assert_equal "$ended" 'exit 1'
	assert_match "$errors" '^tunnel: '
}

@test "a tunnel that is starting is not listed yet" {
	FAKE_MODE=silent start_tunnel 8080
	await_cloudflared 1
	assert_none_listed
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$output" ''
}

@test "what lies about in the directory of the records isn't listed" {
	start_background 8080
	mkdir "$records/directory"
	touch "$records/.hidden" "$records/README" "$records/localhost:99999" "$records/x y:80"
	# An origin, but not what a record is named.
	touch "$records/8080"
	for i in {1..1000}; do
		: >"$records/localhost:$((i + 20000))"
	done
	# Nor does their number matter.
	start_options=(-n 64)
	run_tunnel -l
	start_options=()
	assert_equal "$ended: $errors" 'exit 0: '
	assert_equal "$(echo "$output" | cut -f 1,2)" "$(printf 'localhost:8080\t%s' "$url")"
	stop 8080
}

@test "what has a record's name and is none is told by -l and -ka, which do the rest" {
	local faults
	start_background 8080
	mkdir "$records/localhost:1"
	mkfifo "$records/localhost:2"
	ln -s localhost:8080 "$records/localhost:3"
	run_tunnel -l
	assert_equal "$ended" 'exit 1'
	assert_equal "$(echo "$output" | cut -f 1,2)" "$(printf 'localhost:8080\t%s' "$url")"
	faults='tunnel: cannot tell whether a tunnel of localhost:1 runs: its record is no file of yours
tunnel: cannot tell whether a tunnel of localhost:2 runs: its record is no file of yours
tunnel: cannot tell whether a tunnel of localhost:3 runs: its record is a link, or has one'
	assert_equal "$(sort "$err")" "$faults"
	run_tunnel -ka
	assert_equal "$ended" 'exit 1'
	assert_equal "$(sort "$err")" "$faults"
	await gone "$background"
	# Once, however often it is named.
	run_tunnel -k 1 localhost:1
	assert_equal "$ended" 'exit 1'
	assert_equal "$(wc -l <"$err" | tr -d ' ')" 1
	# However many there are.
	for i in {20001..20100}; do
		mkfifo "$records/localhost:$i"
	done
	start_options=(-n 64)
	run_tunnel -l
	assert_equal "$ended" 'exit 1'
	assert_equal "$(grep -c 'its record is no file of yours$' "$err")" 102
}

# failed_with TEXT: -l 8080 tells it.
failed_with() {
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	assert_equal "$output" ''
	assert_match "$errors" "^tunnel: [^
]*$1[^
]*\$"
}

@test "-l origin tells the error that ended its tunnel, until there is a new one" {
	FAKE_MODE=rate-limited-2026 run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	failed_with 'wait some minutes'
	FAKE_MODE=no-network run_tunnel -b 8080
	assert_equal "$ended" 'exit 1'
	failed_with 'resolver|DNS|network'
	FAKE_MODE=silent run_tunnel -t 0.1 8080
	assert_equal "$ended" 'exit 124'
	failed_with '0\.1'
	FAKE_MODE=die-after FAKE_STATUS=11 run_tunnel 8080
	assert_equal "$ended" 'exit 1'
	failed_with 11
	# Nor does a running one have it, nor one that was stopped.
	start_background 8080
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 0'
	assert_quiet
	stop 8080
	run_tunnel -l 8080
	assert_equal "$ended" 'exit 1'
	refute_contains "$errors" fail
	refute_contains "$errors" 11
}

@test "-l with several origins tells the error of each, and no other's" {
	FAKE_MODE=die-before run_tunnel 8080
	run_tunnel -l 8080 8081
	assert_equal "$ended: $output" 'exit 1: '
	assert_contains "$errors" 'localhost:8080 runs; the last one failed'
	assert_equal "$(tail -n 1 "$err")" 'tunnel: no tunnel of localhost:8081 runs'
}

@test "-l origin tells the error that ended a background tunnel" {
	FAKE_MODE=die-after FAKE_DELAY=0.2 FAKE_STATUS=11 run_tunnel -b 8080
	assert_equal "$ended" 'exit 0'
	await ! holder localhost:8080
	failed_with 11
}

@test "-l origin tells that nobody could be told the URL, which isn't kept" {
	[ -c /dev/full ] || skip 'no /dev/full here'
	start_options=(-o /dev/full)
	run_tunnel 8080
	start_options=()
	assert_equal "$ended" 'exit 1'
	failed_with 'failed: cannot print the URL'
	refute_contains "$(<"$records/localhost:8080")" trycloudflare.com
}

@test "-l origin tells all of it in one line: the error, what to do, the end of the log" {
	cloudflared_script <<<"echo 'ERR lookup api.trycloudflare.com: no such host' >&2; exit 3"
	run_tunnel 8080
	local advice
	advice=$(tail -n 1 "$err")
	assert_match "$advice" '^tunnel: the DNS [^;]*$'
	run_tunnel -l 8080
	assert_equal "$errors" "tunnel: no tunnel of localhost:8080 runs; the last one failed: \
cloudflared ended (exit status 3) before the tunnel was there; ${advice#tunnel: }; its log \
ended with: ERR lookup api.trycloudflare.com: no such host"
}

@test "-l origin tells the last line of the log that has words, from a log with CRLF, too" {
	cloudflared_script <<<"printf 'begun\\r\\ncannot find the daemon\\r\\n\\r\\n' >&2; exit 3"
	run_tunnel -b 8080
	assert_equal "$ended" 'exit 1'
	failed_with ' ended with: cannot find the daemon$'
	# A word is a word.
	cloudflared_script <<<"echo x >&2; exit 3"
	run_tunnel 8080
	failed_with ' ended with: x$'
}

@test "a tunnel's creation time is the date and the time of day in UTC, in leap years, too" {
	local seconds wanted
	need cc env
	cc -shared -fPIC -o "$TMPDIR/date.so" -x c - <<-'END' || skip 'cc makes no libraries here'
		#include <fcntl.h>
		#include <stdlib.h>
		#include <time.h>
		#include <unistd.h>

		__attribute__((constructor)) static void
		sign(void)
		{
			const char *name = getenv("DATE_SIGN");

			if (name != NULL)
				close(open(name, O_WRONLY | O_CREAT, 0600));
		}

		time_t
		time(time_t *where)
		{
			time_t now = (time_t)atoll(getenv("DATE"));

			if (where != NULL)
				*where = now;
			return now;
		}
	END
	# A static program, or one of another C library, takes none.
	DATE=0 DATE_SIGN=$TMPDIR/taken LD_PRELOAD=$TMPDIR/date.so "$TUNNEL" -V >/dev/null 2>&1 || :
	[ -e "$TMPDIR/taken" ] || skip 'it takes no library'
	CLOUDFLARED=$ROOT/test/helpers/flood
	while read -r seconds wanted; do
		# What 32 bits can't count.
		[ "$seconds" -lt 2147483648 ] || [ "$(getconf LONG_BIT)" = 64 ] || continue
		start_program env DATE="$seconds" LD_PRELOAD="$TMPDIR/date.so" "$TUNNEL" -nj 8080
		await grep -q createdAt "$out"
		assert_contains "$seconds: $(<"$out")" "\"createdAt\":\"$wanted\""
		kill -s TERM "$pid"
		assert_signal TERM
	done <<-'END'
		68169599 1972-02-28T23:59:59Z
		951782400 2000-02-29T00:00:00Z
		1735689599 2024-12-31T23:59:59Z
		1785542399 2026-07-31T23:59:59Z
		1790735696 2026-09-30T02:34:56Z
		1795823999 2026-11-27T23:59:59Z
		1798761600 2027-01-01T00:00:00Z
		1835395200 2028-02-29T00:00:00Z
		4107542400 2100-03-01T00:00:00Z
	END
}

# --- JSON -----------------------------------------------------------------------------

# assert_record ORIGIN PORT: $output is the JSON of a tunnel of that origin.
assert_record() {
	assert_equal "$(echo "$output" | wc -l)" 1
	echo "$output" | jq -e --arg origin "$1" --argjson port "$2" '
		(keys_unsorted == ["id", "origin", "port", "url", "hostname", "createdAt", "pid", "state"])
		and (.id | test("^quick-[0-9a-f]{8}$")) and .origin == $origin and .port == $port
		and (.url | test("^https://[a-z-]+[.]trycloudflare[.]com$"))
		and .url == "https://" + .hostname
		and (.createdAt | fromdateiso8601 | . > now - 600 and . < now + 2)
		and (.pid | type) == "number" and .state == "up"' >/dev/null || fail "not the record of $1: $output"
}

@test "JSON is valid for every form of an origin, and the same bytes from -j, -bj and -lj" {
	need jq
	local given origin record ports=() all=
	while read -r given origin; do
		run_tunnel -bj "$given"
		assert_equal "$given: $ended" "$given: exit 0"
		assert_record "$origin" "${origin##*:}"
		record=$output
		all=$all$record$'\n'
		adopt "$(echo "$record" | jq .pid)"
		assert_equal "$(holder "${origin#*//}")" "$(echo "$record" | jq .pid)"
		run_tunnel -lj "$given"
		assert_equal "$ended: $output" "exit 0: $record"
		run_tunnel -b -j "$given"
		assert_equal "$ended: $output" "exit 0: $record"
		run_tunnel -b "$given"
		assert_equal "$ended: $output" "exit 0: $(echo "$record" | jq -r .url)"
		ports+=("$given")
	done <<-'END'
		8080 http://localhost:8080
		localhost:1 http://localhost:1
		http://localhost:65535 http://localhost:65535
		https://localhost:8443 https://localhost:8443
		127.0.0.1:3000 http://127.0.0.1:3000
		[::1]:3000 http://[::1]:3000
		https://[::1]:3001 https://[::1]:3001
		under_score.host-name.example:80 http://under_score.host-name.example:80
	END
	run_tunnel -lj
	assert_equal "$(echo "$output" | sort)" "$(printf %s "$all" | sort)"
	assert_equal "$(echo "$output" | jq -r .id | sort -u | wc -l)" 8
	run_tunnel -l -j 8080 '[::1]:3000'
	assert_equal "$(echo "$output" | jq -r .origin)" 'http://localhost:8080
http://[::1]:3000'
	stop "${ports[@]}"
	assert_none_listed
	start_tunnel -j 8080
	await test -s "$out"
	output=$(<"$out")
	assert_record http://localhost:8080 8080
	assert_equal "$(jq .pid "$out")" "$pid"
	record=$output
	run_tunnel -l -j
	assert_equal "$output" "$record"
	run_tunnel -bj 8080
	assert_equal "$output" "$record"
}

@test "the id in JSON is made from the URL: one URL has one id, in every version" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo https://a-b-c-d.trycloudflare.com >&2; registered'
	start_tunnel -j 8080
	await test -s "$out"
	assert_contains "$(<"$out")" '{"id":"quick-6bebf2a0",'
}

# --- stopping -------------------------------------------------------------------------

@test "-k returns when the tunnel and all its processes are gone" {
	FAKE_MODE=grandchild start_background 8080
	FAKE_MODE=slow-stop FAKE_DELAY=0.3 start_tunnel 8081
	await_url
	local id foreground=$pid
	await_cloudflared 2
	stop https://localhost:8080 8081
	assert_signal TERM "$foreground"
	for id in $(cloudflared_starts) "$(cat "$FAKE_DIR/grandchild")" "$background"; do
		gone "$id" || fail "process $id is still there"
	done
	assert_none_listed
}

@test "-k of an origin that doesn't run is fine" {
	stop 8080
	stop 8080 '[::1]:8080' host.example:80
	start_background 8080
	stop 8081
	alive "$background"
	stop 8081 8080 8082
	gone "$background" || fail 'it still runs'
	stop 8080
}

@test "-ka stops all tunnels, those that are starting, too" {
	local id foreground starting
	run_tunnel -ka
	assert_equal "$ended: $output$errors" 'exit 0: '
	start_tunnel 8080
	await_url
	foreground=$pid
	start_background https://127.0.0.1:8081
	FAKE_MODE=silent start_tunnel '[::1]:8082'
	starting=$pid
	await_cloudflared 3
	run_tunnel -ka
	assert_equal "$ended: $output$errors" 'exit 0: '
	assert_signal TERM "$foreground"
	assert_signal TERM "$starting"
	gone "$background" || fail 'it still runs'
	for id in $(cloudflared_starts); do
		gone "$id" || fail "process $id is still there"
	done
	assert_none_listed
}

@test "-ka stops more tunnels than it may have files open" {
	local i pids=()
	for i in {8080..8093}; do
		CLOUDFLARED=$ROOT/test/helpers/flood start_tunnel "$i"
		await_url
		pids+=("$pid")
	done
	start_options=(-n 12)
	run_tunnel -ka
	start_options=()
	assert_equal "$ended: $output$errors" 'exit 0: '
	for pid in "${pids[@]}"; do
		assert_signal TERM
	done
}

@test "-k of an invalid origin is a usage error and stops nothing" {
	start_background 8080
	for origin in 0 ../x:80 8081/x; do
		run_tunnel -k 8080 "$origin"
		assert_equal "$ended" 'exit 2'
		alive "$background" || fail "stopped by -k 8080 $origin"
	done
	run_tunnel -k
	assert_equal "$ended" 'exit 2'
	stop 8080
}

@test "-k stops a tunnel that is starting, in the foreground and in the background" {
	export FAKE_MODE=silent
	start_tunnel 8080
	local foreground=$pid id
	start_tunnel -b 8081
	local waiting=$pid
	await_cloudflared 2
	stop 8080 8081
	assert_signal TERM "$foreground"
	await_exit "$waiting"
	[ "$status" -ne 0 ] || fail '-b succeeded'
	for id in $(cloudflared_starts); do
		gone "$id" || fail "process $id is still there"
	done
}

@test "-k stops a tunnel that was stopped by SIGSTOP" {
	start_tunnel 8080
	await_url
	await_cloudflared 1
	local stopped=$pid
	kill -s STOP "$stopped"
	await stopped "$stopped"
	stop 8080
	# It was woken to end as always, not killed in its sleep.
	assert_signal TERM "$stopped"
	gone "$cloudflared" || fail 'cloudflared is still there'
}

@test "-k stops one whose cloudflared ignores TERM" {
	export FAKE_MODE=ignore-term
	start_tunnel -g 0.2 8080
	await_url
	await_cloudflared 1
	local tunnel=$pid
	stop 8080
	assert_signal TERM "$tunnel"
	gone "$cloudflared" || fail 'cloudflared is still there'
	# It was asked first, once.
	assert_equal "$(cloudflared_signals "$cloudflared" | grep -v CONT)" TERM
}

@test "-k kills a tunnel that ignores TERM, and cloudflared with it" {
	export FAKE_MODE=grandchild
	start_options=(-i TERM)
	start_tunnel -g 0.5 8080
	start_options=()
	await_url
	await_cloudflared 1
	local deaf=$pid grandchild start
	grandchild=$(cat "$FAKE_DIR/grandchild")
	start=$SECONDS
	stop 8080
	[ $((SECONDS - start)) -ge 2 ] || fail 'its grace and 2 s were not over'
	# And what a busy machine adds.
	[ $((SECONDS - start)) -le $((10 * ${TEST_SLOWNESS:-1})) ] || fail "took $((SECONDS - start)) s"
	assert_signal KILL "$deaf"
	gone "$cloudflared" || fail 'cloudflared is still there'
	gone "$grandchild" || fail 'a process of its group is still there'
	await ! holder localhost:8080
}

@test "-k kills a tunnel that ignores TERM and has restarted, and its new cloudflared" {
	cloudflared_script <<-'END'
		echo $$ >>"$FAKE_DIR/starts"
		[ "$(wc -l <"$FAKE_DIR/starts")" -gt 1 ] || exit 1
		trap '' TERM
		while :; do sleep 0.1; done
	END
	export CLOUDFLARED
	start_options=(-i TERM)
	start_tunnel -r -t 0 -g 0 8080
	start_options=()
	await_cloudflared 2
	local deaf=$pid
	stop 8080
	assert_signal KILL "$deaf"
	gone "$cloudflared" || fail 'cloudflared is still there'
}

@test "a tunnel of another PID namespace is listed, but can't be stopped from here" {
	local new=(unshare --pid --fork --mount-proc)
	need unshare
	[ "$(id -u)" = 0 ] || new+=(--map-root-user)
	"${new[@]}" true 2>/dev/null || skip 'not allowed to unshare'
	start_background -g 0 8080
	start_program "${new[@]}" "$TUNNEL" -l 8080
	assert_exit 0
	assert_contains "$(<"$out")" "localhost:8080	$url	$background	"
	start_program "${new[@]}" "$TUNNEL" 8080
	assert_exit 1
	assert_contains "$(<"$err")" "runs already: process $background, $url"
	start_program "${new[@]}" "$TUNNEL" -k 8080
	assert_exit 1
	assert_match "$(<"$err")" "^tunnel: cannot stop the tunnel of localhost:8080: [^
]*namespace"
	alive "$background"
}

@test "-k of a tunnel that ends meanwhile, and several -k at once" {
	local i first
	for i in 1 2 3 4 5 6; do
		start_tunnel 8080
		await_url
		first=$pid
		kill -s TERM "$first" &
		stop 8080
		gone "$first" || fail 'it is still there'
	done
	FAKE_MODE=slow-stop FAKE_DELAY=0.2 start_background 8080
	local stops=()
	for i in 1 2 3; do
		start_tunnel -k 8080
		stops+=("$pid")
	done
	for pid in "${stops[@]}"; do
		assert_exit 0
	done
	gone "$background" || fail 'it is still there'
}
