#!/usr/bin/env bats
# tunnel.1: it says what the program says, and can be read wherever manuals are read.

# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	need mandoc col
	page=$ROOT/tunnel.1
}

# Prints the page as text of so many columns, or the lines of it from one heading to the next.
render() {
	mandoc -T ascii -O "width=$1" "$page" 2>/dev/null | col -bx
}

section() {
	render "$1" | awk -v wanted="$2" '/^[^ ]/ { inside = $0 == wanted; next } inside'
}

# Joins lines, so that a text is found wherever it was broken.
join() {
	tr -s ' \n' '  '
}

# Prints the strings of tunnel.c, one a line; those that stand side by side are one.
strings() {
	awk '
	function flush() {
		if (has)
			print text
		text = ""
		has = 0
	}
	/^#define [A-Z_]+ "[^"]*"$/ {
		split($0, part, "\"")
		macro[$2] = part[2]
		next
	}
	/^#/ && !comment { next }
	{
		for (line = $0; line != ""; line = substr(line, size + 1)) {
			size = 1
			if (comment) {
				comment = line !~ /^\*\//
				size = comment ? 1 : 2
			} else if (line ~ /^[ \t]/)
				continue
			else if (line ~ /^\/\*/) {
				comment = 1
				size = 2
			} else if (match(line, /^"(\\.|[^"\\])*"/)) {
				text = text substr(line, 2, RLENGTH - 2)
				has = 1
				size = RLENGTH
			} else if (match(line, /^[A-Za-z_][A-Za-z_0-9]*/)) {
				size = RLENGTH
				name = substr(line, 1, size)
				if (name in macro) {
					text = text macro[name]
					has = 1
				} else
					flush()
			} else {
				flush()
				if (match(line, /^\047(\\.[0-9a-f]*|[^\\\047])\047/))
					size = RLENGTH
			}
		}
	}' "$ROOT/tunnel.c"
}

# Strings with spaces in them that are no messages, beside cloudflared's own words, which
# have bars or stars between them: what its log is read for, and what goes to files.
no_messages() {
	cat <<-'END_OF_LIST'
		Lost connection with the edge
		Unregistered tunnel connection
		Retrying connection
		Connection terminated
		Register tunnel error
		Serve tunnel error
		Unable to establish connection with Cloudflare
		Failed to dial a quic connection
		Failed to create new quic connection
		Registered tunnel connection
		control stream
		Initiating graceful shutdown
		Thank you for trying Cloudflare Tunnel
		read -r _; kill -s TERM 0; n=%lld; while [ $n -gt 0 ] && kill -s 0 %ld; do sleep 1; n=$((n - 1)); done; kill -s KILL 0
		%sstate %s\n
		.cfi_sections .debug_frame
	END_OF_LIST
}

# Prints the texts of all messages, and what is put into them.
messages() {
	strings | grep -E '[a-z]{2}[^ ]* [^ ]|^[ ,;]+[ (].*[a-z]{2}.* [^ ]|[^ ] [a-z]{2}' |
		grep -vE -e '[a-z0-9 ][|]|[a-z]:? ?[*][a-z ]' -e '^usage: ' -e '^tunnel [0-9.]+\\n$' -e '^ -[a-z] [A-Z]+$' |
		grep -vxFf <(no_messages) | sort -u
}

# Makes a pattern of a printf format: something stands for each conversion.
# shellcheck disable=SC2016 # the dollar sign is itself
pattern() {
	sed -E -e 's/^ +|^tunnel: //' -e 's/[][\\.*^$(){}+?|]/\\&/g' \
		-e 's/%(\\[.*]|[0-9])*(l|ll|z)?[a-z]/.{0,50}/g' \
		-e 's/^(\.\{0,50\})+ ?//' -e 's/ ?(\.\{0,50\})+$//'
}

# Prints the entries of the table of messages, as they are in the page's source.
entries() {
	sed -n '/^\.Sh DIAGNOSTICS/,/^\.Sh SEE ALSO/s/^\.It Sy "\(.*\)"$/\1/p' "$page" |
		sed -e 's/\\(dq/"/g' -e 's/\\(aq/'\''/g' -e 's/\\&//g' -e 's/\\-/-/g'
}

@test "a message of the program is found in DIAGNOSTICS, word for word" {
	local text number=0 missing=0
	section 500 DIAGNOSTICS | join >"$TMPDIR/table"
	while IFS= read -r text; do
		number=$((number + 1))
		grep -qE -e "$(pattern <<<"$text")" "$TMPDIR/table" || {
			echo "not in DIAGNOSTICS: $text" >&2
			missing=$((missing + 1))
		}
	done < <(messages)
	[ "$number" -gt 100 ] || fail "only $number messages found in tunnel.c"
	assert_equal "$missing" 0
}

@test "a message in DIAGNOSTICS is one of the program" {
	local part number=0 missing=0
	strings >"$TMPDIR/strings"
	# An entry is made of several strings; where one of them ends there is a mark.
	while IFS= read -r part; do
		number=$((number + 1))
		grep -qF -e "$part" "$TMPDIR/strings" || {
			echo "not in tunnel.c: $part" >&2
			missing=$((missing + 1))
		}
	done < <(entries | sed -E -e 's/^(cannot|waiting for|Exec format error:) //' |
		sed -E -e 's/\.\.\.|[:;,] | [(]|[)]/\n/g' | sed -E -e 's/^[ :;,]+//' -e 's/[ :;,]+$//' |
		grep '[a-z]' | sort -u)
	[ "$number" -gt 100 ] || fail "only $number parts of messages found"
	assert_equal "$missing" 0
}

@test "what is left out of the table of messages is in the source" {
	local text
	strings >"$TMPDIR/strings"
	while IFS= read -r text; do
		grep -qxF -e "$text" "$TMPDIR/strings" || fail "no longer in tunnel.c: $text"
	done < <(no_messages)
}

@test "the manual's SYNOPSIS is the usage that -h shows" {
	local usage
	usage=$("$TUNNEL" -h | sed -n -e '1s/^usage: //' -e '/^An origin is/q' -e p | join)
	assert_equal "$(section 500 SYNOPSIS | join)" " $usage"
}

@test "each option is in the manual's list, and in -h" {
	local help list
	help=$("$TUNNEL" -h | sed '1,/^URL in/d' | grep -oE '(^ |  )-[a-zA-Z]  ' | tr -d ' ' | sort)
	list=$(section 80 DESCRIPTION | grep -oE '^     -[a-zA-Z]( |$)' | tr -d ' ' | sort)
	assert_equal "$list" "$help"
	assert_equal "$(wc -l <<<"$list")" "$(grep -oE '":[a-zA-Z:]+"' "$ROOT/tunnel.c" | tr -d '":\n' | wc -m)"
}

@test "each variable that the program knows is in the manual" {
	local name
	section 80 'ENVIRONMENT VARIABLES' >"$TMPDIR/variables"
	for name in $(strings | grep -oE '^[A-Z]+(_[A-Z]+)+(=|$)|TRYCLOUDFLARE_NS' | tr -d = | sort -u) \
		$(grep -oE 'getenv\("[A-Z_]+"' "$ROOT/tunnel.c" | cut -d '"' -f 2) \
		TUNNEL_HTTP_HOST_HEADER NO_TLS_VERIFY TUNNEL_METRICS TUNNEL_LOGFILE; do
		grep -qwF "$name" "$TMPDIR/variables" || fail "not in ENVIRONMENT VARIABLES: $name"
	done
	[ -n "$name" ]
}

@test "EXAMPLES come right after the options" {
	assert_equal "$(render 80 | grep '^[^ ]' | sed -n 2,5p | tr '\n' ' ')" 'NAME SYNOPSIS DESCRIPTION EXAMPLES '
	section 80 DESCRIPTION | grep -qE '^     -w '
}

# Whether another page is installed isn't a matter of this one.
@test "mandoc has nothing against the manual" {
	local complaints
	complaints=$(mandoc -T lint "$page" 2>/dev/null | grep -v 'referenced manual not found') || :
	assert_equal "$complaints" ''
}

@test "no line of the manual is wider than the terminal" {
	local columns
	for columns in 60 80 120; do
		assert_equal "$(render $columns | awk -v columns=$columns 'length > columns')" ''
		assert_contains "$(render $columns | join)" 'SECURITY CONSIDERATIONS'
	done
}

@test "the manual renders as a web page" {
	local heading
	mandoc -T html "$page" 2>/dev/null | join >"$TMPDIR/page.html"
	sed -n 's/^\.S[hs] //p' "$page" >"$TMPDIR/headings"
	[ -s "$TMPDIR/headings" ]
	while IFS= read -r heading; do
		grep -qF ">$heading</a></h" "$TMPDIR/page.html" || fail "no heading: $heading"
	done <"$TMPDIR/headings"
	grep -q '</html>' "$TMPDIR/page.html"
}

@test "the manual renders as a PDF" {
	mandoc -T pdf "$page" >"$TMPDIR/page.pdf" 2>/dev/null
	assert_equal "$(head -c 5 "$TMPDIR/page.pdf")" '%PDF-'
	assert_contains "$(tail -n 1 "$TMPDIR/page.pdf")" '%%EOF'
	[ "$(wc -c <"$TMPDIR/page.pdf")" -gt 20000 ]
}

# What is between the .Bd and the .Ed around this text, as it is read.
example() {
	sed -n '/^\.Bd/,/^\.Ed/p' "$page" | awk -v wanted="$1" '
		/^\.Bd/ { text = ""; next }
		/^\.Ed/ { if (index(text, wanted)) printf "%s", text; next }
		{ text = text $0 "\n" }' | sed -e 's/\\(aq/'\''/g' -e 's/\\-/-/g' -e 's/\\e/\\/g'
}

@test "the manual's program in Python prints the URL, and Enter ends the tunnel" {
	need python3
	tunnel_in_path
	example 'import json' >"$TMPDIR/program.py"
	mkfifo "$TMPDIR/typed"
	exec 7<>"$TMPDIR/typed"
	# shellcheck disable=SC2016 # it is for the other shell
	start_program sh -c 'exec python3 -u "$1" <"$2"' sh "$TMPDIR/program.py" "$TMPDIR/typed"
	await_url
	echo >&7
	assert_exit 0
	await_cloudflared 1
	await gone "$cloudflared"
}

@test "the manual's program in Python passes a failure on" {
	need python3
	tunnel_in_path
	example 'import json' >"$TMPDIR/program.py"
	FAKE_MODE=rate-limited start_program python3 "$TMPDIR/program.py"
	assert_exit 1
	assert_contains "$(cat "$err")" 'limits the rate'
}
