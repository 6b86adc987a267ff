#!/usr/bin/env bats
# The services in README.md, taken from it as a reader would, are valid and do what they say.

# shellcheck disable=SC2016 # what is quoted is for other shells
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

setup() {
	common_setup
	tunnel_in_path
	cd "$TMPDIR" || return
}

# recipe TEXT: prints the block of README.md that has this line.
recipe() {
	awk -v line="$1" '
		/^```/ && inside { if (found) { printf "%s", block; exit } inside = 0; next }
		/^```/ { inside = 1; block = ""; found = 0; next }
		inside { block = block $0 "\n"; if (index($0, line) == 1) found = 1 }' "$ROOT/README.md" >recipe
	[ -s recipe ] || fail "README.md has no block with $1"
	cat recipe
}

# setting NAME: its value in the unit.
setting() {
	sed -n "s/^$1=//p" unit
}

# The unit, with the program under test, which may not be installed.
take_unit() {
	recipe '# /etc/systemd/system/tunnel@.service' >unit
	sed "s,/usr/local/bin/tunnel,$BATS_TEST_TMPDIR/bin/tunnel," unit >'tunnel@.service'
}

# start_service COMMAND...: starts a tunnel to $port and sets $url.
start_service() {
	start_program "$@"
	await_url
	await_cloudflared 1
	assert_equal "$url" "$(cloudflared_url "$cloudflared")"
}

@test "systemd: the unit is valid" {
	need systemd-analyze
	take_unit
	cp 'tunnel@.service' 'tunnel@8080.service'
	start_program systemd-analyze verify --man=no ./tunnel@8080.service
	await_exit
	# What it says of other units of this machine is not ours.
	assert_equal "$(grep -F 'tunnel@' "$err" || :)" ''
	assert_equal "$ended" 'exit 0'
}

@test "systemd: the unit leaves little to attack" {
	need systemd-analyze
	take_unit
	systemd-analyze security --help | grep -q -e --offline || skip 'systemd-analyze is too old'
	cp 'tunnel@.service' 'tunnel@8080.service'
	start_program systemd-analyze security --offline=true --threshold=25 --no-pager \
		./tunnel@8080.service
	await_exit
	assert_equal "$ended: $(cat "$err")" 'exit 0: '
}

@test "systemd: what ExecStart runs opens the tunnel, and one SIGTERM closes it in time" {
	take_unit
	serve
	local command
	command=$(sed -n 's/^ExecStart=//p' 'tunnel@.service')
	export XDG_RUNTIME_DIR=$TMPDIR/tunnel-$port
	mkdir -m "$(setting RuntimeDirectoryMode)" "$XDG_RUNTIME_DIR"
	# shellcheck disable=SC2086 # words, as systemd makes them
	FAKE_MODE=ignore-term start_service ${command//%i/$port}
	local since=$SECONDS
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	assert_equal "$(setting KillMode)" mixed
	[ $((SECONDS - since)) -lt $(($(setting TimeoutStopSec) * ${TEST_SLOWNESS:-1})) ]
}

@test "systemd: what a restart can't mend isn't restarted" {
	take_unit
	local command
	command=$(sed -n 's/^ExecStart=//p' 'tunnel@.service')
	assert_equal "$(setting Restart)" on-failure
	# shellcheck disable=SC2086 # words, as systemd makes them
	CLOUDFLARED=$TMPDIR/none start_program ${command//%i/8080}
	await_exit
	assert_contains " $(setting RestartPreventExitStatus) " " $status "
	# shellcheck disable=SC2086 # words, as systemd makes them
	CLOUDFLARED=$ROOT/LICENSE start_program ${command//%i/8080}
	await_exit
	assert_contains " $(setting RestartPreventExitStatus) " " $status "
	# shellcheck disable=SC2086 # words, as systemd makes them
	start_program ${command//%i/eighty}
	await_exit
	assert_contains " $(setting RestartPreventExitStatus) " " $status "
}

@test "runit, s6: the run script opens the tunnel, and TERM to it closes it" {
	recipe '# /etc/sv/tunnel-8080/run' | sed "s/ 8080$/ \"\$PORT\"/" >run
	# chpst -u USER PROGRAM: without becoming somebody else.
	printf '#!/bin/sh\nshift 2\nexec "$@"\n' >"$BATS_TEST_TMPDIR/bin/chpst"
	chmod +x run "$BATS_TEST_TMPDIR/bin/chpst"
	serve
	PORT=$port start_service ./run
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
}

@test "runit: what a restart can't mend isn't restarted" {
	recipe '# /etc/sv/tunnel-8080/finish' >finish
	# Those two only say that they were asked.
	printf '#!/bin/sh\necho "${0##*/} $*"\n' | tee "$BATS_TEST_TMPDIR/bin/sv" \
		>"$BATS_TEST_TMPDIR/bin/sleep"
	chmod +x finish "$BATS_TEST_TMPDIR/bin/sv" "$BATS_TEST_TMPDIR/bin/sleep"
	local status
	for status in 2 126 127; do
		assert_equal "$(./finish "$status" 0)" 'sv down .'
	done
	for status in 1 124 -1; do
		assert_equal "$(./finish "$status" 15)" 'sleep 60'
	done
	rm "$BATS_TEST_TMPDIR/bin/sleep"
}

@test "the scripts in README.md are clean" {
	need shellcheck
	recipe '# /etc/sv/tunnel-8080/run' >run
	recipe '# /etc/sv/tunnel-8080/finish' >finish
	shellcheck run finish
}

@test "container: the entry point opens the tunnel with the port as its argument" {
	need jq
	recipe 'FROM alpine' >Dockerfile
	assert_equal "$(grep -vcE '^((FROM|RUN|COPY|ENV|HEALTHCHECK|ENTRYPOINT|#) .*)?$' Dockerfile)" 0
	local words=()
	mapfile -t words < <(sed -n 's/^ENTRYPOINT //p' Dockerfile | jq -r '.[]')
	serve
	start_service "${words[@]}" "$port"
}

@test "container: the line that builds it builds it" {
	recipe 'FROM alpine' >Dockerfile
	local command
	command=$(sed -n 's/^RUN \(cc .*\)/\1/p' Dockerfile)
	command=${command//\/tunnel /"$TMPDIR"/tunnel }
	cp "$ROOT/tunnel.c" .
	# shellcheck disable=SC2086 # one word each
	start_program $command
	await_exit
	! grep -q 'cannot find -lc' "$err" || skip 'no static libc here'
	assert_equal "$ended: $(cat "$err")" 'exit 0: '
	assert_equal "$("$TMPDIR/tunnel" -V)" "$("$TUNNEL" -V)"
}

# yaml_as_json FILE >FILE: not in a pipe, where it could skip nothing.
yaml_as_json() {
	if command -v yq >/dev/null && yq . "$1" 2>/dev/null | jq . 2>/dev/null; then
		:
	elif python3 -c 'import yaml' 2>/dev/null; then
		python3 -c 'import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))' <"$1"
	elif command -v ruby >/dev/null; then
		ruby -ryaml -rjson -e 'puts JSON.generate(YAML.load($stdin.read))' <"$1"
	else
		skip 'no reader of YAML here'
	fi
}

@test "Kubernetes: the pod is one, and its tunnel points to a port of the pod" {
	need jq
	recipe 'kind: Pod' >pod.yaml
	yaml_as_json pod.yaml >pod.json
	assert_equal "$(jq -r '.apiVersion, .kind, (.spec.containers | length)' pod.json | tr '\n' ' ')" \
		'v1 Pod 2 '
	serve
	start_service tunnel -rw -t 0 "$port"
	tunnel -k "$port"
	assert_equal "$(jq -r '.spec.containers[] | select(.name == "tunnel").args[]' pod.json)" 8080
	# Longer than tunnel takes to stop.
	[ "$(jq .spec.terminationGracePeriodSeconds pod.json)" -gt 5 ]
}

@test "GitHub Actions, GitLab CI: the jobs are YAML, and their scripts shell" {
	need jq
	recipe 'steps:' >github.yaml
	yaml_as_json github.yaml >github.json
	jq -r '.steps[].run' github.json >github.sh
	recipe 'e2e:' >gitlab.yaml
	grep -q after_script gitlab.yaml
	yaml_as_json gitlab.yaml >gitlab.json
	jq -r '.e2e | .script[], .after_script[]' gitlab.json >gitlab.sh
	assert_contains "$(cat github.sh)" 'tunnel -k 8080'
	assert_contains "$(cat gitlab.sh)" 'tunnel -k 8080'
	bash -n github.sh
	bash -n gitlab.sh
}
