#!/usr/bin/env bats
# Recipes as users write them: CI jobs, a Makefile, traps, pipes, a picture for a phone.

# shellcheck disable=SC2016 # what is quoted is for other shells
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	tunnel_in_path
	serve # on $port, which the scripts see, too
	export port
	cd "$TMPDIR" || return
}

# step COMMANDS: as a CI job does it; its log is a pipe, and the step isn't over before the end of
# the pipe. Sets $ended, and $output to the log.
step() {
	printf '%s\n' "$1" >step.sh
	start_program bash -c 'set -o pipefail
		bash --noprofile --norc -eo pipefail step.sh 2>&1 | cat'
	await_exit
	output=$(<"$out")
}

assert_all_gone() {
	local id
	for id in $(cloudflared_starts); do
		gone "$id" || fail "cloudflared $id is still there"
	done
	assert_equal "$(tunnel -l)" ''
}

# --- continuous integration -----------------------------------------------------------

@test "GitHub Actions: a step opens the tunnel, one uses it, the last one closes it" {
	export GITHUB_OUTPUT=$TMPDIR/output
	step 'url=$(tunnel -bw "$port")
		echo "url=$url" >>"$GITHUB_OUTPUT"'
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" ''
	assert_match "$(cat output)" '^url=https://[a-z-]*\.trycloudflare\.com$'
	await_cloudflared 1
	assert_equal "$(cat output)" "url=$(cloudflared_url "$cloudflared")"
	url=$(sed -n s/^url=//p output) step '[ "$(tunnel -l "$port" | cut -f 2)" = "$url" ]; echo used'
	assert_equal "$ended: $output" 'exit 0: used'
	alive "$cloudflared"
	step 'tunnel -k "$port"'
	assert_equal "$ended: $output" 'exit 0: '
	assert_all_gone
}

@test "GitHub Actions: a step that can't open the tunnel fails and says why" {
	export GITHUB_OUTPUT=$TMPDIR/output FAKE_MODE=rate-limited-2026
	step 'url=$(tunnel -bw "$port")
		echo "url=$url" >>"$GITHUB_OUTPUT"'
	assert_equal "$ended" 'exit 1'
	assert_contains "$output" 'wait some minutes'
	[ ! -e output ] || fail 'there is an output'
	FAKE_MODE=silent step 'url=$(tunnel -bw -t 0.2 "$port")
		echo "url=$url" >>"$GITHUB_OUTPUT"'
	assert_equal "$ended" 'exit 124'
	step 'tunnel -k "$port"'
	assert_equal "$ended: $output" 'exit 0: '
	assert_all_gone
}

@test "GitLab CI: after_script closes what a failed script left open" {
	step 'URL=$(tunnel -bw "$port")
		echo "testing $URL"
		false
		echo "not reached"'
	assert_equal "$ended" 'exit 1'
	await_cloudflared 1
	assert_equal "$output" "testing $(cloudflared_url "$cloudflared")"
	alive "$cloudflared"
	step 'tunnel -k "$port"'
	assert_equal "$ended: $output" 'exit 0: '
	assert_all_gone
}

@test "any CI: a command gets the URL, and its status is that of the step" {
	step 'tunnel -w "$port" sh -c '\''echo "testing $TUNNEL_PUBLIC_URL"; exit 3'\'
	assert_equal "$ended" 'exit 3'
	await_cloudflared 1
	assert_equal "$output" "testing $(cloudflared_url "$cloudflared")"
	assert_all_gone
}

# --- make -----------------------------------------------------------------------------

@test "make: targets that open and close a tunnel, and one that tests through it" {
	need make
	printf '%s:\n\t@%s\n' >Makefile \
		preview 'tunnel -bw $(port)' \
		end-preview 'tunnel -k $(port)' \
		e2e 'tunnel -w $(port) sh -c '\''echo "testing $$TUNNEL_PUBLIC_URL"'\'
	unset MAKEFLAGS MFLAGS MAKELEVEL
	step 'make preview'
	assert_equal "$ended" 'exit 0'
	await_cloudflared 1
	assert_equal "$output" "$(cloudflared_url "$cloudflared")"
	step 'make preview'
	assert_equal "$ended: $output" "exit 0: $(cloudflared_url "$cloudflared")"
	step 'make end-preview; make end-preview'
	assert_equal "$ended: $output" 'exit 0: '
	step 'make -j2 e2e'
	assert_equal "$ended" 'exit 0'
	await_cloudflared 2
	assert_equal "$output" "testing $(cloudflared_url "$cloudflared")"
	FAKE_MODE=die-before step 'make preview'
	assert_equal "$ended" 'exit 2'
	assert_contains "$output" 'tunnel: '
	assert_all_gone
}

# --- scripts --------------------------------------------------------------------------

@test "trap 'tunnel -k 8080' EXIT: closed however the script ends" {
	local script='trap '\''tunnel -k "$port"'\'' EXIT
		URL=$(tunnel -bw "$port") || exit
		echo "$URL"'
	step "$script"
	assert_equal "$ended" 'exit 0'
	await_cloudflared 1
	assert_equal "$output" "$(cloudflared_url "$cloudflared")"
	assert_all_gone
	step "$script; exit 3"
	assert_equal "$ended" 'exit 3'
	assert_all_gone
	step "$script; false; echo not reached"
	assert_equal "$ended" 'exit 1'
	assert_all_gone
	FAKE_MODE=die-before step "$script"
	assert_equal "$ended" 'exit 1'
	assert_all_gone
	# Interrupted while it waits; the trap runs when the wait is over.
	start_program bash -eo pipefail -c "trap 'exit 143' TERM
		$script; sleep 600 & echo \$! >sleeper; wait"
	await test -s sleeper
	kill -s TERM "$pid"
	assert_exit 143
	kill -s TERM "$(cat sleeper)"
	assert_all_gone
}

@test "URL=\$(tunnel -bw 8080) || exit, in every shell" {
	local shell status
	for shell in bash dash 'busybox sh' mksh ksh zsh yash; do
		command -v "${shell%% *}" >/dev/null || continue
		# shellcheck disable=SC2086 # a command and its argument
		start_program $shell -c 'URL=$(tunnel -bw "$port") || exit; echo "have a look at $URL"'
		assert_exit 0
		assert_equal "$(cat "$out")" "have a look at $(tunnel -l "$port" | cut -f 2)"
		tunnel -k "$port"
		# shellcheck disable=SC2086 # a command and its argument
		FAKE_MODE=silent start_program $shell -c \
			'URL=$(tunnel -bw -t 0.1 "$port") || exit; echo "have a look at $URL"'
		assert_exit 124
		assert_equal "$(cat "$out")" ''
	done
	assert_all_gone
}

@test "URL=\$(tunnel 8080 &), in every shell but ksh" {
	local shell
	for shell in bash dash 'busybox sh' mksh zsh yash; do
		command -v "${shell%% *}" >/dev/null || continue
		# shellcheck disable=SC2086 # a command and its argument
		start_program $shell -c 'URL=$(tunnel "$port" &); echo "have a look at $URL"'
		assert_exit 0
		assert_equal "$(cat "$out")" "have a look at $(tunnel -l "$port" | cut -f 2)"
		tunnel -k "$port"
	done
	assert_all_gone
}

@test "tunnel -r 8080 | while read -r url: a round for every URL" {
	start_program bash -eo pipefail -c \
		'tunnel -r "$port" | while read -r url; do echo "now at $url"; done'
	await_cloudflared 1
	await_text "$out" "now at $(cloudflared_url "$cloudflared")"
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	await_text "$out" "now at $(cloudflared_url "$cloudflared")"
	assert_equal "$(wc -l <"$out")" 2
	tunnel -k "$port"
	assert_exit 143
	assert_all_gone
}

@test "tunnel -lj | jq -r .url" {
	need jq
	step 'tunnel -b "$port"; tunnel -b https://127.0.0.1:"$port"; echo
		tunnel -lj | jq -r .url
		tunnel -k "$port" 127.0.0.1:"$port"; tunnel -lj | jq -r .url'
	assert_equal "$ended" 'exit 0'
	assert_equal "$(sed '1,/^$/d' "$out" | sort)" "$(sed '/^$/,$d' "$out" | sort)"
	assert_equal "$(wc -l <"$out")" 5
	assert_all_gone
}

@test "a script with set -eu and nohup, whose terminal is gone" {
	start_program nohup bash -euo pipefail -c 'URL=$(tunnel -bw "$port"); echo "$URL"'
	assert_exit 0
	await_cloudflared 1
	assert_equal "$(cat "$out")" "$(cloudflared_url "$cloudflared")"
	# A job of a script is started with INT ignored; -k stops it all the same.
	tunnel -k "$port"
	start_options=(-i INT -i QUIT -i HUP)
	start_tunnel "$port"
	await_url
	kill -s HUP "$pid"
	kill -s INT "$pid"
	tunnel -k "$port"
	assert_signal TERM
	assert_all_gone
}

# --- a phone --------------------------------------------------------------------------

# Makes a picture for zbarimg of what qrencode -t ansiutf8 draws: half blocks, white on black.
photograph() {
	sed -e $'s/\033\\[[0-9;]*m//g' -e 's/█/F/g' -e 's/▀/U/g' -e 's/▄/L/g' -e 's/ /E/g' |
		awk '
			{ line[++lines] = $0 }
			END {
				width = length(line[1])
				print "P1", width * 4, lines * 8
				for (y = 0; y < lines * 8; y++)
					for (x = 0; x < width * 4; x++) {
						block = substr(line[int(y / 8) + 1], int(x / 4) + 1, 1)
						white = block == "F" || block == (y % 8 < 4 ? "U" : "L")
						print !white + 0
					}
			}'
}

@test "tunnel 8080 | tee | qrencode: a phone reads the URL from the screen" {
	need qrencode zbarimg
	start_program bash -eo pipefail -c 'tunnel "$port" | tee terminal | qrencode -t ansiutf8'
	await_cloudflared 1
	local url
	url=$(cloudflared_url "$cloudflared")
	await_text terminal "$url"
	# The picture is there although the tunnel is up: qrencode had the end of its input.
	await grep -q '[^ ]' "$out"
	complete() { [ "$(wc -l <"$out")" -gt 15 ]; }
	await complete
	photograph <"$out" >picture.pbm
	assert_equal "$(zbarimg -q --raw picture.pbm)" "$url"
	alive "$cloudflared"
	tunnel -k "$port"
	assert_exit 143
	assert_all_gone
}
