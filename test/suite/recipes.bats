#!/usr/bin/env bats
# Recipes as users write them: the CI jobs, the Makefile and the programs in examples/, as they
# are; traps, pipes, a picture for a phone.

# shellcheck disable=SC2016 # what is quoted is for other shells
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source=yaml.bash
source "$BATS_TEST_DIRNAME/yaml.bash"

# Compilers may have more there than a cache.
old_home=$HOME

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

# What the jobs fetch isn't fetched: curl brings the stand-in for cloudflared, and what comes
# through a tunnel from the server behind it.
ci_machine() {
	need jq curl python3 cc
	[ -d /proc/self ] || skip 'no /proc here'
	unset CLOUDFLARED XDG_RUNTIME_DIR
	free_port
	cat >"$BATS_TEST_TMPDIR/bin/curl" <<-END
		#!/bin/sh
		for last; do
			[ "\${before-}" != -o ] || file=\$last
			before=\$last
		done
		case \$last in
		https://github.com/cloudflare/cloudflared/releases/latest/download/cloudflared-linux-amd64)
			exec cp "$ROOT/fake-cloudflared.sh" "\$file" ;;
		https://*.trycloudflare.com/*)
			path=\${last#https://*/}
			origin=\$(tunnel -l | awk -F '\\t' -v url="\${last%"/\$path"}" '\$2 == url { print \$1 }')
			exec $(command -v curl) --noproxy '*' -fsS "http://127.0.0.1:\${origin#localhost:}/\$path" ;;
		*)
			echo "curl: what is \$last?" >&2
			exit 6 ;;
		esac
	END
	printf '#!/bin/sh\n' >"$BATS_TEST_TMPDIR/bin/apt-get"
	# Where many tests run at once, optimizing takes longer than a test waits.
	printf '#!/bin/sh\nexec "%s" "$@" -O0\n' "$(command -v cc)" >"$BATS_TEST_TMPDIR/bin/cc"
	chmod +x "$BATS_TEST_TMPDIR"/bin/{curl,apt-get,cc}
}

# in_ci NAME=VALUE... -- COMMAND...: as a runner runs it: its log is a pipe, and it isn't over
# before the end of the pipe. Sets $ended, and $output to the log.
in_ci() {
	# There is a compiler at work.
	local variables=() TEST_PATIENCE=300
	while [ "$1" != -- ]; do
		variables+=("$1")
		shift
	done
	start_program env "${variables[@]}" bash -c 'set -o pipefail; "$@" 2>&1 | cat' "$@"
	await_exit
	output=$(<"$out")
}

# What a job leaves running is killed when it is over.
end_job() {
	local id
	grep -lszxF "JOB=$PWD/$1" /proc/[0-9]*/environ | cut -d / -f 3 | while read -r id; do
		kill -s TERM "$id" 2>/dev/null || gone "$id"
	done
}

# github_job NAME: makes ready for its steps.
github_job() {
	sed "s/8080/$port/g" "$ROOT/examples/github-actions.yml" >github.yml
	yaml_as_json github.yml >github.json
	steps=$(jq '.jobs.e2e.steps | length' github.json)
	mkdir -p "$1/temp" "$1/checkout"
	: >"$1/env"
	: >"$1/path"
	: >"$1/output"
	cp "$ROOT/tunnel.c" "$1/checkout"
}

# github_step JOB NUMBER: runs it unless the job has failed; appends its log to JOB/log.
github_step() {
	local step=".jobs.e2e.steps[$2]" run name value words=()
	run=$(jq -r "$step.run // empty" github.json)
	[ -n "$run" ] || return 0
	if [ -e "$1/failed" ]; then
		[ "$(jq -r "$step.if // empty" github.json)" = 'always()' ] || return 0
	fi
	mapfile -t words <"$1/env"
	while IFS='=' read -r name value; do
		# The only expression there is.
		case $value in
		'${{ steps.tunnel.outputs.url }}') value=$(sed -n 's/^url=//p' "$1/output") ;;
		*'${{'*) fail "what is $value?" ;;
		esac
		words+=("$name=$value")
	done < <(jq -r "$step.env // {} | to_entries[] | \"\(.key)=\(.value)\"" github.json)
	printf '%s\n' "$run" >"$1/step.sh"
	in_ci "JOB=$PWD/$1" "RUNNER_TEMP=$PWD/$1/temp" "GITHUB_ENV=$PWD/$1/env" "GITHUB_PATH=$PWD/$1/path" \
		"GITHUB_OUTPUT=$PWD/$1/output" "PATH=$(tr '\n' : <"$1/path")$PATH" "${words[@]}" -- \
		env -C "$1/checkout" bash -e "$PWD/$1/step.sh"
	[ "$ended" = 'exit 0' ] || echo "$ended" >>"$1/failed"
	printf '%s\n' "$output" >>"$1/log"
}

# Prints the URLs of the tunnels of a job that are up.
github_tunnels() {
	XDG_RUNTIME_DIR=$1/temp/run tunnel -l | cut -f 2
}

@test "GitHub Actions: the job installs, serves, opens, tests, closes" {
	ci_machine
	github_job it
	local i
	for ((i = 0; i < steps; i++)); do
		github_step it "$i"
	done
	[ ! -e it/failed ] || fail "failed: $(cat it/log)"
	await_cloudflared 1
	assert_equal "$(cat it/output)" "url=$(cloudflared_url "$cloudflared")"
	cmp it/temp/bin/cloudflared "$ROOT/fake-cloudflared.sh"
	gone "$cloudflared"
	assert_equal "$(github_tunnels it)" ''
	end_job it
}

@test "GitHub Actions: a job that can't open the tunnel fails and says why" {
	ci_machine
	github_job it
	local i
	export FAKE_MODE=rate-limited-2026
	for ((i = 0; i < steps; i++)); do
		github_step it "$i"
	done
	# The step that opens it; the one that closes it is run, and has nothing to do.
	assert_equal "$(cat it/failed)" 'exit 1'
	assert_contains "$(cat it/log)" 'wait some minutes'
	assert_equal "$(cat it/output)" ''
	end_job it
}

@test "GitHub Actions: two jobs on one machine keep apart" {
	ci_machine
	github_job one
	github_job two
	local i number
	for ((i = 0; i < steps - 1; i++)); do
		github_step one "$i"
		github_step two "$i"
	done
	assert_equal "$(cat one/failed two/failed 2>/dev/null)" ''
	assert_equal "$(cat one/output two/output | sort -u | wc -l)" 2
	github_step one $((steps - 1))
	assert_equal "$(github_tunnels one)" ''
	assert_equal "url=$(github_tunnels two)" "$(cat two/output)"
	number=$(grep -l "$(github_tunnels two)" "$FAKE_DIR"/*.url)
	alive "$(basename "$number" .url)"
	github_step two $((steps - 1))
	assert_equal "$(github_tunnels two)" ''
	end_job one
	end_job two
}

# gitlab_job NAME: runs it. Sets $ended, and $output to its log without that of after_script.
gitlab_job() {
	mkdir -p "$1" "$BATS_TEST_TMPDIR/bin"
	cp "$ROOT/tunnel.c" "$1"
	sed -e "s/8080/$port/g" -e "s,/usr/local/bin,$PWD/$1/bin,g" "$ROOT/examples/gitlab-ci.yml" >gitlab.yml
	mkdir -p "$1/bin"
	yaml_as_json gitlab.yml >gitlab.json
	assert_equal "$(jq -r '.e2e.variables | keys[]' gitlab.json)" XDG_RUNTIME_DIR
	local runtime job=$1 result log
	runtime=$(jq -r .e2e.variables.XDG_RUNTIME_DIR gitlab.json)
	runtime=${runtime/'$CI_PROJECT_DIR'/$PWD/$job}
	jq -r '.e2e | .before_script[], .script[]' gitlab.json >"$job.script.sh"
	jq -r '.e2e.after_script[]' gitlab.json >"$job.after.sh"
	set -- "JOB=$PWD/$job" "XDG_RUNTIME_DIR=$runtime" "PATH=$PWD/$job/bin:$PATH" --
	in_ci "$@" env -C "$job" bash -eo pipefail "$PWD/$job.script.sh"
	result=$ended log=$output
	in_ci "$@" env -C "$job" bash -eo pipefail "$PWD/$job.after.sh"
	assert_equal "$ended: $output" 'exit 0: '
	ended=$result output=$log
}

@test "GitLab CI: the job installs, serves, opens, tests, closes" {
	ci_machine
	gitlab_job it
	assert_equal "$ended: $output" 'exit 0: '
	await_cloudflared 1
	gone "$cloudflared"
	end_job it
}

@test "GitLab CI: after_script closes what a failed script left open" {
	ci_machine
	# What comes through differs.
	printf '#!/bin/sh\nfalse\n' >"$BATS_TEST_TMPDIR/bin/cmp"
	chmod +x "$BATS_TEST_TMPDIR/bin/cmp"
	gitlab_job it
	assert_equal "$ended" 'exit 1'
	await_cloudflared 1
	gone "$cloudflared"
	end_job it
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
	need make python3
	local ours
	unset MAKEFLAGS MFLAGS MAKELEVEL
	# The page that comes through is the URL it was asked for at.
	printf '#!/bin/sh\necho "testing $2"\n' >"$BATS_TEST_TMPDIR/bin/curl"
	chmod +x "$BATS_TEST_TMPDIR/bin/curl"
	cp "$ROOT/examples/Makefile" .
	step 'make preview port="$port"'
	assert_equal "$ended" 'exit 0'
	await_cloudflared 1
	assert_equal "$output" "$(cloudflared_url "$cloudflared")"
	step 'make preview port="$port"'
	assert_equal "$ended: $output" "exit 0: $(cloudflared_url "$cloudflared")"
	step 'make end-preview port="$port"; make end-preview port="$port"'
	assert_equal "$ended: $output" 'exit 0: '
	FAKE_MODE=die-before step 'make preview port="$port"'
	assert_equal "$ended" 'exit 2'
	assert_contains "$output" 'tunnel: '
	# It starts the server itself.
	free_port
	ours=$(left_behind)
	step 'make -j2 e2e port="$port"'
	assert_equal "$ended" 'exit 0'
	await_cloudflared 3
	assert_equal "$output" "testing $(cloudflared_url "$cloudflared")"
	# Neither is the server left.
	await only_left_behind "$ours"
	if command -v bmake >/dev/null; then
		step 'bmake e2e port="$port"'
		assert_equal "$ended" 'exit 0'
		await_cloudflared 4
		assert_equal "$output" "testing $(cloudflared_url "$cloudflared")"
	fi
	assert_all_gone
}

# --- dev servers ----------------------------------------------------------------------

@test "TUNNEL_HTTP_HOST_HEADER=localhost:5173 tunnel 5173: cloudflared is told" {
	TUNNEL_HTTP_HOST_HEADER=localhost:$port start_tunnel "$port"
	await_url
	await_cloudflared 1
	assert_contains "$(cloudflared_environment "$cloudflared")" "TUNNEL_HTTP_HOST_HEADER=localhost:$port"
}

@test "tunnel 3000 npm run dev: the command is the server" {
	local server
	free_port
	start_program tunnel "$port" sh -c 'echo "$TUNNEL_PUBLIC_URL"; exec "$0" -p "$1"' \
		"$ROOT/test/helpers/listen" "$port"
	await_url
	await_text "$out" $'\n'"$port"
	assert_quiet
	server=$(children_of "$pid" | grep -vxF "$(cloudflared_starts)")
	kill -s TERM "$server"
	assert_exit 143
	assert_all_gone
}

# status_behind URL ARGUMENT...: what curl, asking the server that this tunnel leads to by the name of
# the URL, gets for an answer.
status_behind() {
	local origin
	origin=$(tunnel -l | awk -F '\t' -v url="$1" '$2 == url { print $1 }')
	curl --noproxy '*' -s -o "$TMPDIR/page" -w '%{http_code}' -H "Host: ${1#https://}" "${@:2}" \
		"http://127.0.0.1:${origin#*:}"
}

@test "a password: caddy in between lets nobody in without it, and logs who asks" {
	need caddy curl
	local behind caddy_log
	mkfifo stay
	exec 6<>stay
	start_program "$ROOT/test/helpers/page" <stay
	await test -s "$out"
	behind=$(<"$out")
	free_port
	sed -e "s/:8081/:$port/" -e "s/localhost:3000/localhost:$behind/" "$ROOT/examples/Caddyfile" >Caddyfile
	HASH=$(caddy hash-password --plaintext secret) start_program caddy run --config Caddyfile
	caddy_log=$err
	start_program tunnel -w "$port"
	await_url
	assert_equal "$(status_behind "$url")" 401
	refute_contains "$(cat page)" 'It works'
	assert_equal "$(status_behind "$url" -u me:guessed)" 401
	assert_equal "$(status_behind "$url" -u me:secret)" 200
	assert_contains "$(cat page)" 'It works'
	assert_equal "$(grep -cF "\"host\":\"${url#https://}\"" "$caddy_log")" 3
	exec 6>&-
}

# --- README.md ------------------------------------------------------------------------

@test "README.md is short, and every file that it names is there" {
	local file
	[ "$(wc -l <"$ROOT/README.md")" -lt 150 ] || fail 'it is no minute to read'
	for file in $(grep -o '](\(examples[^)]*\|[A-Z][A-Za-z.]*\))' "$ROOT/README.md" | tr -d '()]'); do
		[ -e "$ROOT/$file" ] || fail "there is no $file"
	done
	for file in "$ROOT"/examples/*; do
		assert_contains "$(cat "$ROOT/README.md")" "](examples/${file##*/})"
	done
}

# --- programs -------------------------------------------------------------------------

# program COMMAND...: what all of them promise.
program() {
	mkfifo input
	exec 6<>input
	start_program "$@" "$port" <input
	await_url
	await_cloudflared 1
	assert_equal "$(cat "$out")" "$(cloudflared_url "$cloudflared")"
	assert_equal "$(tunnel -l "$port" | cut -f 2)" "$url"
	# The end of its input is its end.
	exec 6>&-
	assert_exit 0
	assert_quiet
	gone "$cloudflared"
	gone "$(tunnel_of "$cloudflared")"

	exec 6<>input
	start_program "$@" "$port" <input
	await_url
	await_cloudflared 2
	kill -s KILL "$pid"
	assert_signal KILL
	await gone "$cloudflared"
	await gone "$(tunnel_of "$cloudflared")"
	exec 6>&-

	FAKE_MODE=rate-limited-2026 start_program "$@" "$port"
	assert_exit 1
	assert_equal "$(cat "$out")" ''
	assert_match "$(cat "$err")" '^no tunnel, status 1: tunnel: [^'$'\n'']* wait some minutes[^'$'\n'']*$'
	start_program "$@" eighty
	assert_exit 2
	assert_match "$(cat "$err")" '^no tunnel, status 2: tunnel: [^'$'\n'']*$'
	assert_all_gone
	mv "$BATS_TEST_TMPDIR/bin/tunnel" "$BATS_TEST_TMPDIR/tunnel"
	if ! command -v tunnel; then
		start_program "$@"
		assert_exit 127
		assert_equal "$(cat "$out" "$err")" 'tunnel is not installed'
	fi
	mv "$BATS_TEST_TMPDIR/tunnel" "$BATS_TEST_TMPDIR/bin/tunnel"
}

@test "from a program, sh: started, ended, killed, refused" {
	program sh "$ROOT/examples/program.sh"
	assert_equal "$(ls -A "$TMPDIR")" input
}

@test "from a program, other shells: started, ended, killed, refused" {
	local shell
	for shell in bash 'busybox sh' mksh ksh zsh yash; do
		command -v "${shell%% *}" >/dev/null || continue
		# shellcheck disable=SC2086 # a command and its argument
		program $shell "$ROOT/examples/program.sh"
		rm -f input "$FAKE_DIR"/*
	done
}

@test "from a program, Node: started, ended, killed, refused" {
	need node
	program node "$ROOT/examples/program.mjs"
}

@test "from a program, Python: started, ended, killed, refused" {
	need python3
	program python3 "$ROOT/examples/program.py"
}

@test "from a program, Go: started, ended, killed, refused" {
	need go
	export GOCACHE=$TMPDIR/cache GOPATH=$TMPDIR/path GOFLAGS=-modcacherw
	go vet "$ROOT/examples/program.go"
	go build -o program "$ROOT/examples/program.go"
	program ./program
	if command -v gofmt >/dev/null; then
		assert_equal "$(gofmt -l "$ROOT/examples/program.go")" ''
	fi
}

@test "from a program, Rust: started, ended, killed, refused" {
	need rustc
	HOME=$old_home rustc -D warnings -o program "$ROOT/examples/program.rs"
	program ./program
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

@test "tunnel 8080 | qrencode: a phone reads the URL from the screen" {
	need qrencode zbarimg
	start_program bash -eo pipefail -c 'tunnel "$port" | qrencode -t ansiutf8'
	await_cloudflared 1
	local url
	url=$(cloudflared_url "$cloudflared")
	# The picture is there although the tunnel is up: qrencode had the end of its input. It may
	# come in parts.
	await has_lines "$out" 15
	is_read() { photograph <"$out" >picture.pbm && [ "$(zbarimg -q --raw picture.pbm)" = "$url" ]; }
	await is_read
	alive "$cloudflared"
	tunnel -k "$port"
	assert_exit 143
	assert_all_gone
}
