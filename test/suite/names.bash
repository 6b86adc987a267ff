# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables set here are the tests' to read
#
# What the test files about the name have in common: name servers that say what the test
# wants, a cloudflared whose tunnel has a name that the test knows, and the questions that
# were asked. See test/helpers/authority.c for what a name server can be told to say.
#
#   start_authority [ADDRESS]   a name server at ADDRESS (127.0.0.1:0); TRYCLOUDFLARE_NS
#                  leads to it. What it says is in the directory $zone, what it was asked in
#                  the file $asked; copy these to have several.
#   answers KEY LINE...         has it say that of the label KEY (or @, servers)
#   forgets LABEL               has it know nothing of the label
#   publish LABEL               the name is there
#
#   connects COMMANDS           $CLOUDFLARED is a script of these and then stays. Its tunnel
#                  is https://$LABEL.trycloudflare.com; LABEL is in the environment of each
#                  start (`LABEL=a start_tunnel 8080`), else `one`. In the script
#                  `name` logs the URL, `register` that the edge has the connection (and
#                  makes the file $FAKE_DIR/LABEL.registered), `next` is as in helper.bash
#
#   questions [LABEL]           the lines of $asked about the label, or all
#   said LABEL WORDS            how many questions about the label were answered so
#   has_said LABEL WORDS N      that was at least N times
#   milliseconds FILE           when it was last written
#   assert_printed_after SECONDS LABEL FILE
#                  the URL came into the FILE so long after the registration, not much later
#   assert_unpublished FILE...  nothing was printed there yet
#   quiet PID...                none of them ran for 2 seconds
#   still_asked LABEL SECONDS   so long after the registration
#   gaps           reads lines of questions, prints the milliseconds between each two
#   assert_between LEAST MOST NUMBER          on a slow machine it may be more

AUTHORITY=$ROOT/test/helpers/authority

names_setup() {
	common_setup
	[ -x "$AUTHORITY" ] || fail "test/helpers/authority is not built: run make test/helpers/authority"
	unset TRYCLOUDFLARE_NS LABEL
	export LABEL=one
	connects 'name; register'
}

# --- name servers ---------------------------------------------------------------------

# start_server_of ZONE LOG COMMAND...: the authority that is started so, for this zone.
start_server_of() {
	local out err pid start_options=()
	zone=$1
	asked=$2
	shift 2
	mkdir -p "$zone"
	: >>"$asked"
	start_program "$@" -z "$zone" -l "$asked" "${server_options[@]}"
	await test -s "$out" -o -s "$err"
	server=$pid
	address=$(head -n 1 "$out")
	[ -n "$address" ] || fail "no name server: $(cat "$err")"
}

start_authority() {
	local number=$((${authorities:-0} + 1)) server_options=("${1:-127.0.0.1:0}")
	authorities=$number
	start_server_of "$BATS_TEST_TMPDIR/zone$number" "$BATS_TEST_TMPDIR/asked$number" \
		"$AUTHORITY" || return 1
	export TRYCLOUDFLARE_NS=$address
}

answers() {
	local key=$1
	shift
	printf '%s\n' "$@" >"$zone/new.$key"
	mv "$zone/new.$key" "$zone/$key"
}

forgets() {
	rm -f "$zone/$1"
}

publish() {
	answers "$1" yes
}

# --- cloudflared ----------------------------------------------------------------------

connects() {
	scripted "
		say() { echo \"2026-11-25T23:10:56Z INF \$1\" >&2; }
		name() { say \"|  https://\$LABEL.trycloudflare.com  |\"; }
		register() {
			: >\"\$FAKE_DIR/\$LABEL.registered\"
			say 'Registered tunnel connection connIndex=0 connection=5b1b8d2f-93a1-4a49-9e8d-0f3c8e4c1b7a event=0 ip=198.41.200.193 location=tpe01 protocol=quic'
		}
		$1"
}

# --- what was asked -------------------------------------------------------------------

questions() {
	if [ $# = 0 ]; then
		cat "$asked"
	else
		awk -v name="$1.trycloudflare.com" 'tolower($7) == name' "$asked"
	fi
}

said() {
	awk -v name="$1.trycloudflare.com" -v words="$2" '
		tolower($7) == name {
			said = $9
			for (i = 10; i <= NF; i++)
				said = said " " $i
			if (said == words)
				count++
		}
		END { print count + 0 }' "$asked"
}

has_said() {
	[ "$(said "$1" "$2")" -ge "$3" ]
}

assert_not_asked() {
	assert_equal "$(questions "$1")" ''
}

# --- when -----------------------------------------------------------------------------

milliseconds() {
	local time
	time=$(stat -c %.3Y "$1" 2>/dev/null) || time=$(stat -f %.3Fm "$1")
	echo "${time/./}"
}

assert_printed_after() {
	local late least=$(($1 * 1000 - 50)) most=$((($1 + 4) * 1000 * ${TEST_SLOWNESS:-1}))
	# The clock of a file is a little behind.
	late=$(($(milliseconds "$3") - $(milliseconds "$FAKE_DIR/$2.registered")))
	if [ "$late" -lt "$least" ] || [ "$late" -gt "$most" ]; then
		fail "$2: expected the URL $1 s after the registration, it came after $late ms"
	fi
}

assert_unpublished() {
	local file
	for file; do
		[ ! -s "$file" ] || fail "printed too early: $(cat "$file")"
	done
}

still_asked() {
	local last
	last=$(questions "$1" | tail -n 1 | cut -d ' ' -f 1)
	[ -n "$last" ] && [ $((${last/./} - $(milliseconds "$FAKE_DIR/$1.registered"))) -ge $(($2 * 1000)) ]
}

gaps() {
	awk 'NR > 1 { printf "%.0f\n", ($1 - last) * 1000 } { last = $1 }'
}

assert_between() {
	if [ "$3" -lt "$1" ] || [ "$3" -gt $(($2 * ${TEST_SLOWNESS:-1})) ]; then
		fail "expected $1 to $2, got $3"
	fi
}

activity() {
	local id
	for id; do
		grep ctxt_switches "/proc/$id/status"
	done
}

quiet() {
	local before
	before=$(activity "$@")
	sleep 2
	[ "$(activity "$@")" = "$before" ]
}
