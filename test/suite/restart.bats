#!/usr/bin/env bats
# -r: cloudflared is started again when it ends.

# shellcheck disable=SC2119 # next may be without a word
# shellcheck disable=SC2030,SC2031 # each test is a world of its own, as meant
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# Prints when the Nth cloudflared was started, in hundredths of a second.
birth() {
	local stat
	read -r stat <"$FAKE_DIR/$(sed -n "$1p" "$FAKE_DIR/starts").stat"
	stat=${stat##*) }
	# shellcheck disable=SC2086 # one field each
	set -- $stat
	echo $((${20} * 100 / $(getconf CLK_TCK)))
}

# assert_waited N SECONDS: that long, roughly, lay between the starts N and N + 1. On a
# machine that is busy it may be more.
assert_waited() {
	local gap
	[ -e "$FAKE_DIR/$(head -n 1 "$FAKE_DIR/starts").stat" ] || return 0
	gap=$(($(birth $(($1 + 1))) - $(birth "$1")))
	if [ $gap -lt $(($2 * 100 - 5)) ] ||
		[ $gap -gt $((($2 + 6) * 100 * ${TEST_SLOWNESS:-1})) ]; then
		fail "expected about $2 s between starts $1 and $(($1 + 1)), got 0.01 s * $gap"
	fi
}

messages() {
	grep -c '^tunnel: .*cloudflared' "$err"
}

@test "-r: each life of cloudflared has its URL line and its end a message" {
	local life urls=
	start_tunnel -r 8080
	for life in 1 2 3; do
		await has_lines "$out" "$life"
		await_cloudflared "$life"
		urls+=$(cloudflared_url "$cloudflared")$'\n'
		[ "$life" = 3 ] || kill -s KILL "$cloudflared"
	done
	assert_equal "$(cat "$out")" "${urls%$'\n'}"
	[ "$(messages)" -ge 2 ]
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	assert_equal "$(cloudflared_starts | wc -l)" 3
}

@test "-r: an end with success is an end, too" {
	start_tunnel -r 8080
	await_url
	await_cloudflared 1
	kill -s TERM "$cloudflared"
	await_cloudflared 2
	await has_lines "$out" 2
}

@test "-rw: each URL waits for the edge and for the server, which may be gone by then" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'life=$(grep -c . "$FAKE_DIR/starts")
		echo "https://life-$life.trycloudflare.com" >&2
		next
		echo "settled $life" >&2
		next
		registered
		next
		echo "still $life" >&2'
	serve
	start_tunnel -rvw "$port"
	printf '\n\n' >&7
	await has_lines "$out" 1
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_text "$err" life-2
	next
	await_text "$err" 'settled 2'
	assert_equal "$(<"$out")" https://life-1.trycloudflare.com
	next
	await has_lines "$out" 2
	kill -s TERM "$server"
	await gone "$server"
	await_cloudflared 2
	kill -s KILL "$cloudflared"
	await_text "$err" life-3
	printf '\n\n\n' >&7
	await_text "$err" 'still 3'
	assert_equal "$(tail -n 1 "$out")" https://life-2.trycloudflare.com
	serve -p "$port"
	await has_lines "$out" 3
}

@test "-r: a URL whose cloudflared has ended is listed no more" {
	start_tunnel -r 8080
	await_url
	await_cloudflared 1
	await listed "$url"
	kill -s KILL "$cloudflared"
	await_text "$err" 'again in 1 s'
	refute_contains "$("$TUNNEL" -l)" "$url"
	refute_contains "$("$TUNNEL" -l 8080)" "$url"
}

@test "-r: what one life had too much to say takes nothing of the next one's log" {
	# Of the first, more than is kept.
	# shellcheck disable=SC2016
	scripted 'if [ "$(wc -l <"$FAKE_DIR/starts")" = 1 ]; then
			head -c 300000 /dev/zero | tr "\\000" "\\n" >&2
			exit 3
		fi
		echo "ERR lookup api.trycloudflare.com: no such host" >&2
		exit 4'
	start_tunnel -r -t 0 8080
	await_text "$err" "the DNS doesn't answer"
}

@test "-r: the cause of one end isn't told of the next, which has none in its log" {
	# shellcheck disable=SC2016 # it is for the script
	scripted '[ "$(wc -l <"$FAKE_DIR/starts")" = 1 ] || exit 0
		echo "ERR lookup api.trycloudflare.com: no such host" >&2
		exit 3'
	start_tunnel -r -t 0 8080
	await_text "$err" 'a variable has a value that it cannot read'
	assert_equal "$(grep -c "the DNS doesn't answer" "$err")" 1
	assert_equal "$(grep -c '^cloudflared: ' "$err")" 1
}

@test "-r: what a cloudflared leaves behind doesn't live into the next one's life" {
	export FAKE_MODE=grandchild
	start_tunnel -r 8080
	await_url
	await_cloudflared 1
	local grandchild
	grandchild=$(cat "$FAKE_DIR/grandchild")
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	gone "$grandchild"
	await has_lines "$out" 2
	grandchild=$(cat "$FAKE_DIR/grandchild")
	kill -s INT "$pid"
	assert_signal INT
	gone "$cloudflared"
	gone "$grandchild"
}

@test "-r: the wait doubles with each end, also after a success that didn't last a minute" {
	export FAKE_MODE=dies-n-times FAKE_COUNT=2
	start_tunnel -r 8080
	await_cloudflared 3
	await_url
	# Nor is the second end told less of for being that of the first.
	assert_equal "$(grep -c '^cloudflared: failed to request' "$err")" 2
	assert_waited 1 1
	assert_waited 2 2
	kill -s KILL "$cloudflared"
	await_cloudflared 4
	assert_waited 3 4
	await has_lines "$out" 2
}

@test "-r: six failures in a row end it" {
	export FAKE_MODE=die-before
	start_tunnel -r -t 0 8080
	# 1 + 2 + 4 + 8 + 16 s.
	await -t 90 gone "$pid"
	assert_exit 1
	assert_equal "$(cloudflared_starts | wc -l)" 6
	assert_waited 3 4
	assert_waited 4 8
	assert_waited 5 16
	assert_equal "$(cat "$out")" ''
	[ "$(messages)" -ge 6 ]
	assert_equal "$(grep -Evc '^(tunnel|cloudflared): .' "$err")" 0
}

@test "-r: a signal during the wait ends it at once" {
	export FAKE_MODE=die-before
	start_tunnel -r 8080
	# The next start is 4 s away.
	await_cloudflared 3
	await gone "$cloudflared"
	local since=$SECONDS
	kill -s TERM "$pid"
	assert_signal TERM
	[ $((SECONDS - since)) -le 3 ]
	assert_equal "$(cloudflared_starts | wc -l)" 3
}

@test "-r: a signal that ends it leaves no cause behind, as what went before was overcome" {
	FAKE_MODE=die-before FAKE_STATUS=37 start_tunnel -r 8080
	await_text "$err" 'exit status 37'
	kill -s TERM "$pid"
	assert_signal TERM
	run_tunnel -l 8080
	assert_equal "$ended: $errors" 'exit 1: tunnel: no tunnel of localhost:8080 runs'
	[ ! -s "$XDG_RUNTIME_DIR/tunnel/localhost:8080" ] || fail 'there is something left in its record'
}

@test "-r: a signal before the first URL ends it" {
	FAKE_MODE=silent start_tunnel -r 8080
	await_cloudflared 1
	kill -s INT "$pid"
	assert_signal INT
	gone "$cloudflared"
}

@test "-r: standard output stays open for its reader, and is the null device once that is gone" {
	mkfifo "$TMPDIR/urls"
	head -n 2 "$TMPDIR/urls" >"$TMPDIR/read" 3>&- &
	start_options=(-o "$TMPDIR/urls")
	start_tunnel -r 8080
	await has_lines "$TMPDIR/read" 0
	await_cloudflared 1
	local life
	for life in 2 3 4; do
		# The URL of the life before has been printed, or tried to be.
		await_registered
		kill -s KILL "$cloudflared"
		await_cloudflared "$life"
	done
	assert_equal "$(cat "$TMPDIR/read")" "$(for life in 1 2; do
		cloudflared_url "$(sed -n "${life}p" "$FAKE_DIR/starts")"
	done)"
	if [ -d /proc/self ]; then
		assert_equal "$(readlink "/proc/$pid/fd/1")" /dev/null
	fi
	kill -s TERM "$pid"
	assert_signal TERM
}

# Until the record names the URL of $cloudflared.
await_registered() {
	await listed "$(cloudflared_url "$cloudflared")"
}

listed() {
	"$TUNNEL" -l 2>/dev/null | grep -qF "$1"
}

@test "-r: without a standard output it is an error, not a reason to restart" {
	start_options=(-c 1)
	run_tunnel -r 8080
	assert_equal "$ended" 'exit 1'
	assert_contains "$errors" 'standard output'
	assert_equal "$(cloudflared_starts | wc -l)" 1
}

@test "-r: a cloudflared that can't be run ends it at once, 126 or 127" {
	run_tunnel -r -c "$ROOT/LICENSE" 8080
	assert_equal "$ended" 'exit 126'
	run_tunnel -r -c "$TMPDIR/nothing" 8080
	assert_equal "$ended" 'exit 127'
	# Nor is one that has been removed waited for.
	ln -s "$CLOUDFLARED" "$TMPDIR/cloudflared"
	start_tunnel -r -c "$TMPDIR/cloudflared" 8080
	await_url
	await_cloudflared 1
	rm "$TMPDIR/cloudflared"
	kill -s KILL "$cloudflared"
	assert_exit 127
}

@test "-r: the start deadline that passes at the first start ends it" {
	FAKE_MODE=silent run_tunnel -r -t 0.5 8080
	assert_equal "$ended" 'exit 124'
	none_left_behind
}

@test "-r: the deadline of the first URL counts from the beginning, however often it is tried" {
	FAKE_MODE=die-before run_tunnel -r -t 6 8080
	assert_equal "$ended" 'exit 124'
	# At 0, 1 and 3 s; the next would be at 7 s.
	[ "$(cloudflared_starts | wc -l)" -le 3 ] || fail "$(cloudflared_starts | wc -l) starts"
}

@test "-r: a later start has the deadline for itself, and is made again when that passes" {
	STAND_IN=$CLOUDFLARED
	export STAND_IN
	cloudflared_script <<-'END'
		case $(wc -l <"$FAKE_DIR/starts" 2>/dev/null || echo 0) in
		*1) FAKE_MODE=silent ;;
		*) FAKE_MODE=connect ;;
		esac
		export FAKE_MODE
		exec "$STAND_IN" "$@"
	END
	start_tunnel -r -t 5 8080
	await_url
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	await_text "$err" 'no tunnel within 5 s: cloudflared gave no URL'
	await_cloudflared 3
	await has_lines "$out" 2
	gone "$(sed -n 2p "$FAKE_DIR/starts")"
	# That was 1 s, then 2 s.
	assert_match "$(grep 'again in' "$err")" 'in 1 s
.*in 2 s'
}

@test "-r: the start deadline that passes while the next start is waited for: that is said" {
	# Starts after 0, 1, 3 and 7 s.
	FAKE_MODE=die-before run_tunnel -r -t 5 8080
	assert_equal "$ended" 'exit 124'
	assert_contains "$errors" 'no tunnel within 5 s: cloudflared was to be started again'
}

@test "-r: the wait between two later starts may be longer than the start deadline" {
	# The second start is one s after the first, the third 2, the fourth 4.
	# shellcheck disable=SC2016 # it is for the script
	scripted 'case $(wc -l <"$FAKE_DIR/starts") in *[23]) exit 1 ;; esac
		echo "https://amber-apple-$$.trycloudflare.com" >&2; registered'
	start_tunnel -r -t 3 8080
	await_url
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_cloudflared 4
	await has_lines "$out" 2
	refute_contains "$(<"$err")" 'no tunnel within'
}

@test "-r: a dead tunnel has no URL while its cloudflared ends, and one that is stopped can" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'trap "until [ -e \"\$FAKE_DIR/end\" ]; do sleep 0.05; done; exit" TERM
		echo "https://amber-apple-$$.trycloudflare.com" >&2
		registered
		[ "$(wc -l <"$FAKE_DIR/starts")" != 1 ] || {
			next
			echo "ERR Register tunnel error" >&2
			kill -s STOP $$
		}
		next'
	start_tunnel -r -g 600 -t 5 8080
	await_url
	next
	await_text "$err" 'is dead'
	await_cloudflared 1
	await ! stopped "$cloudflared"
	run_tunnel -l 8080
	assert_equal "$ended: $output" 'exit 1: '
	touch "$FAKE_DIR/end"
	await_cloudflared 2
}

@test "-r: what was overcome is no cause of a later end, nor in the record" {
	FAKE_MODE=dies-n-times start_tunnel -r 8080
	await_url
	assert_contains "$(<"$XDG_RUNTIME_DIR/tunnel/localhost:8080")" "url $url"
	assert_match "$(<"$err")" 'cloudflared ended'
	refute_contains "$(grep -E '^(error|log) .' "$XDG_RUNTIME_DIR/tunnel/localhost:8080")" ' '
	FAKE_MODE=dies-n-times FAKE_DIR=$TMPDIR run_tunnel -r 8081 true
	assert_equal "$ended" 'exit 0'
	run_tunnel -l 8081
	assert_equal "$ended: $errors" 'exit 1: tunnel: no tunnel of localhost:8081 runs'
}

@test "-r: where Cloudflare limits the rate it waits a minute" {
	FAKE_MODE=rate-limited start_tunnel -r -t 0 8080
	await_text "$err" 'starting cloudflared again in 60 s'
	kill -s TERM "$pid"
	assert_signal TERM
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 1
}

@test "-r: a later URL that can't be written is no reason to end" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo "https://amber-apple-$$.trycloudflare.com" >&2; registered'
	# The file may have 100 MiB: there is room for one URL.
	dd of="$TMPDIR/file" bs=1 count=0 seek=$((102400 * 1024 - 60)) 2>/dev/null
	# shellcheck disable=SC2016 # it is for the shell
	start_program bash -c 'ulimit -f 102400; exec "$@" >>"$0"' "$TMPDIR/file" "$TUNNEL" -r 8080
	await_cloudflared 1
	await has_bytes "$TMPDIR/file" $((102400 * 1024 - 60 + 40))
	assert_contains "$(tail -c 50 "$TMPDIR/file" | tr -d '\0')" "apple-$cloudflared."
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	await contains "$XDG_RUNTIME_DIR/tunnel/localhost:8080" 'state up'
	await contains "$XDG_RUNTIME_DIR/tunnel/localhost:8080" "apple-$cloudflared."
	alive "$pid"
	kill -s TERM "$pid"
	assert_signal TERM
}

has_bytes() {
	[ "$(wc -c <"$1")" -ge "$2" ]
}

# full_disk BYTES: a tunnel -r whose URLs go to a disk of two pages. The second is full, and the
# first has so many bytes left behind the first URL. The next two follow at `next`.
full_disk() {
	disk=$TMPDIR/disk line=https://amber-apple-1.trycloudflare.com
	use_mounts
	mkdir "$disk"
	page=$(getconf PAGESIZE)
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo "https://amber-apple-$(grep -c . "$FAKE_DIR/starts").trycloudflare.com" >&2; registered; next; exit 1'
	# shellcheck disable=SC2016 # it is for the shell
	start_mounted "size=$((2 * page))" "$disk" sh -c 'head -c "$0" /dev/zero >"$1/urls"; exec 3>>"$1/urls"; shift
		exec "$@" >&3 3>&-' $((page - ${#line} - 1 - $1)) "$disk" "$TUNNEL" -r 8080
	disk=/proc/$pid/root$disk
	await has_bytes "$disk/urls" $((page - $1))
	head -c "$page" /dev/zero >"$disk/fill"
}

@test "-r: a URL that a full disk doesn't take is told, and the next one is printed once there is room" {
	local page disk line
	full_disk 0
	next
	await_text "$err" 'cannot print the URL to standard output'
	rm "$disk/fill"
	next
	await has_bytes "$disk/urls" $((page + ${#line}))
	assert_equal "$(tail -n 1 "$disk/urls")" https://amber-apple-3.trycloudflare.com
	alive "$pid"
}

@test "-r: a URL of which a full disk takes but a byte is told, and nothing is put behind it" {
	local page disk line
	full_disk 1
	next
	await_text "$err" 'cannot print the URL to standard output'
	rm "$disk/fill"
	next
	await_text "$XDG_RUNTIME_DIR/tunnel/localhost:8080" amber-apple-3
	assert_equal "$(wc -c <"$disk/urls" | tr -d ' ')" "$page"
	assert_equal "$(tail -n 1 "$disk/urls")" h
	alive "$pid"
}

@test "-r: tunnel killed by SIGKILL takes a later cloudflared along, too" {
	[ "$(uname)" = Linux ] || [ "$(uname)" = FreeBSD ] || skip 'no parent-death signal'
	start_tunnel -r 8080
	await_url
	await_cloudflared 1
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	kill -s KILL "$pid"
	await gone "$cloudflared"
}

@test "-r with a command: it goes on, and the new URL is said on standard error" {
	local command
	# shellcheck disable=SC2016 # it is for the command
	start_tunnel -r 8080 sh -c 'echo "$$ $TUNNEL_PUBLIC_URL"; until [ -e "$TMPDIR/go" ]; do sleep 0.05; done; exit 6'
	await_text "$out" trycloudflare
	await_cloudflared 1
	read -r command url <"$out"
	assert_equal "$url" "$(cloudflared_url "$cloudflared")"
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	await_text "$err" "$(cloudflared_url "$cloudflared")"
	assert_equal "$(grep -F "$(cloudflared_url "$cloudflared")" "$err" | tail -n 1)" \
		"tunnel: $(cloudflared_url "$cloudflared") -> http://localhost:8080, the tunnel's new URL"
	await listed "$(cloudflared_url "$cloudflared")"
	alive "$command"
	# It is told once, and started once.
	assert_equal "$(<"$out")" "$command $url"
	touch "$TMPDIR/go"
	assert_exit 6
	gone "$cloudflared"
}

@test "-r with a command: the grace of the cloudflared before isn't the next one's" {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'echo "https://amber-$(grep -c . "$FAKE_DIR/starts").trycloudflare.com" >&2; registered
		next; echo "ERR Register tunnel error" >&2'
	start_tunnel -r -g 2 -t 5 8080 sh -c 'echo ready; exec sleep 600'
	await_text "$out" ready
	next
	await_text "$err" 'https://amber-2.trycloudflare.com'
	await_cloudflared 2
	# It is the time itself that matters: the grace of the first is over 1 s from now.
	sleep 3
	assert alive "$cloudflared"
	assert_equal "$(cloudflared_starts | wc -l | tr -d ' ')" 2
}

@test "-r with a command that ends while cloudflared is away: its status, at once" {
	# shellcheck disable=SC2016 # it is for the command
	start_tunnel -r 8080 sh -c 'echo ready; until [ -e "$TMPDIR/go" ]; do sleep 0.05; done; exit 6'
	await_text "$out" ready
	await_cloudflared 1
	FAKE_MODE=die-before
	kill -s KILL "$cloudflared"
	await_text "$err" again
	touch "$TMPDIR/go"
	assert_exit 6
	assert_equal "$(cloudflared_starts | wc -l)" 1
}

# Prints how many ends of pipes the tunnel has open, where one can see that.
opened() {
	readlink "/proc/$pid/fd/"* | grep -c ^pipe: || :
}

no_more_opened() {
	[ "$(opened)" -le "$before" ]
}

@test "-r: a start for which there is no process is a failure like any other" {
	local before
	start_traced fork:error=EAGAIN:when=2 -r 8080
	await_url
	await_cloudflared 1
	before=$(opened)
	kill -s KILL "$cloudflared"
	# 1 s, then 2 s later.
	await_cloudflared 2
	await has_lines "$out" 2
	assert_match "$(<"$err")" 'tunnel: cannot start cloudflared'
	# Nor is anything left open.
	await no_more_opened
	kill -s TERM "$pid"
	assert_signal TERM
}
