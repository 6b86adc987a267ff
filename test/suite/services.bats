#!/usr/bin/env bats
# The services and containers in examples/, taken as they are, are valid and do what they say.

# shellcheck disable=SC2016 # what is quoted is for other shells
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"
# shellcheck source=yaml.bash
source "$BATS_TEST_DIRNAME/yaml.bash"

setup() {
	common_setup
	tunnel_in_path
	cd "$TMPDIR" || return
	unit=$ROOT/examples/tunnel@.service
}

# setting NAME: its value in the unit.
setting() {
	sed -n "s/^$1=//p" "$unit"
}

# exec_start INSTANCE: what the unit runs, with the program under test, which may not be installed.
exec_start() {
	sed -n -e "s,/usr/local/bin/tunnel,$BATS_TEST_TMPDIR/bin/tunnel," -e "s/%i/$1/" \
		-e 's/^ExecStart=//p' "$unit"
}

# stub NAME: a program of that name that runs what is behind its first COUNT arguments, without
# becoming somebody else.
stub() {
	printf '#!/bin/sh\nshift %s\nexec "$@"\n' "$2" >"$BATS_TEST_TMPDIR/bin/$1"
	chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

# start_service COMMAND...: starts a tunnel to $port and sets $url.
start_service() {
	start_program "$@"
	await_url
	await_cloudflared 1
	assert_equal "$url" "$(cloudflared_url "$cloudflared")"
}

# copy_service DIRECTORY: the example, for $port, in ./service.
copy_service() {
	cp -R "$ROOT/examples/$1" service
	sed "s/ 8080$/ $port/" "$ROOT/examples/$1/run" >service/run
	stub chpst 2
	stub s6-setuidgid 1
}

# --- systemd --------------------------------------------------------------------------

@test "systemd: the unit is valid" {
	need systemd-analyze
	sed "s,/usr/local/bin/tunnel,$BATS_TEST_TMPDIR/bin/tunnel," "$unit" >'tunnel@.service'
	cp 'tunnel@.service' 'tunnel@8080.service'
	start_program systemd-analyze verify --man=no ./tunnel@8080.service
	await_exit
	# What it says of other units of this machine is not ours.
	assert_equal "$(grep -F 'tunnel@' "$err" || :)" ''
	assert_equal "$ended" 'exit 0'
}

@test "systemd: the unit leaves little to attack" {
	need systemd-analyze
	systemd-analyze security --help | grep -q -e --offline || skip 'systemd-analyze is too old'
	cp "$unit" 'tunnel@8080.service'
	start_program systemd-analyze security --offline=true --threshold=25 --no-pager \
		./tunnel@8080.service
	await_exit
	assert_equal "$ended: $(cat "$err")" 'exit 0: '
}

@test "systemd: what ExecStart runs opens the tunnel, and one SIGTERM closes it in time" {
	serve
	export XDG_RUNTIME_DIR=$TMPDIR/tunnel-$port
	mkdir -m "$(setting RuntimeDirectoryMode)" "$XDG_RUNTIME_DIR"
	# shellcheck disable=SC2046 # words, as systemd makes them
	FAKE_MODE=ignore-term start_service $(exec_start "$port")
	local since=$SECONDS
	kill -s TERM "$pid"
	assert_signal TERM
	gone "$cloudflared"
	assert_equal "$(setting KillMode)" mixed
	[ $((SECONDS - since)) -lt $(($(setting TimeoutStopSec) * ${TEST_SLOWNESS:-1})) ]
}

@test "systemd: the line in the unit prints the current URL, after a restart too" {
	local line
	line=$(sed -n "s/^#  *sudo \(sed .*\)/\1/p" "$unit")
	[ -n "$line" ] || fail 'the unit has no such line'
	assert_equal "$(setting Environment)" 'XDG_RUNTIME_DIR=%t/tunnel-%i'
	assert_contains "$line" ' /run/tunnel-8080/'
	serve
	line=${line//8080/$port}
	export XDG_RUNTIME_DIR=$TMPDIR/tunnel-$port
	line=${line//"/run/tunnel-$port"/"$XDG_RUNTIME_DIR"}
	mkdir -m 700 "$XDG_RUNTIME_DIR"
	# shellcheck disable=SC2046 # words, as systemd makes them
	start_service $(exec_start "$port")
	assert_equal "$(sh -c "$line")" "$url"
	kill -s KILL "$cloudflared"
	await_cloudflared 2
	await_text "$out" "$(cloudflared_url "$cloudflared")"
	assert_equal "$(sh -c "$line")" "$(cloudflared_url "$cloudflared")"
}

@test "systemd: what a restart can't mend isn't restarted" {
	assert_equal "$(setting Restart)" on-failure
	# shellcheck disable=SC2046 # words, as systemd makes them
	CLOUDFLARED=$TMPDIR/none start_program $(exec_start 8080)
	await_exit
	assert_contains " $(setting RestartPreventExitStatus) " " $status "
	# shellcheck disable=SC2046 # words, as systemd makes them
	CLOUDFLARED=$ROOT/LICENSE start_program $(exec_start 8080)
	await_exit
	assert_contains " $(setting RestartPreventExitStatus) " " $status "
	# shellcheck disable=SC2046 # words, as systemd makes them
	start_program $(exec_start eighty)
	await_exit
	assert_contains " $(setting RestartPreventExitStatus) " " $status "
}

# --- runit, s6 ------------------------------------------------------------------------

@test "runit, s6: the run script opens the tunnel, and TERM to it closes it" {
	local manager number=0
	serve
	for manager in runit s6; do
		copy_service "$manager"
		start_program ./service/run
		await_url
		await_cloudflared $((number += 1))
		assert_equal "$url" "$(cloudflared_url "$cloudflared")"
		kill -s TERM "$pid"
		assert_signal TERM
		gone "$cloudflared"
		rm -r service
	done
}

# Succeeds once runsv has been told so; until then it is `down: ..., normally up, want up`.
given_up() {
	sv status ./service | grep -q '^down: .*normally up$'
}

@test "runit: sv start, sv stop, which doesn't hang" {
	need runsv sv
	serve
	copy_service runit
	start_service runsv service
	# It waits for that many seconds at most, and fails then.
	export SVWAIT=$((30 * ${TEST_SLOWNESS:-1}))
	sv stop ./service
	gone "$cloudflared"
	sv start ./service
	await_cloudflared 2
	await_text "$out" "$(cloudflared_url "$cloudflared")"
	sv force-stop ./service
	gone "$cloudflared"
}

@test "runit: a service that dies is started again, one for want of cloudflared is not" {
	need runsv sv
	serve
	copy_service runit
	start_service runsv service
	kill -s KILL "$(tunnel_of "$cloudflared")"
	await_cloudflared 2
	await_text "$out" "$(cloudflared_url "$cloudflared")"
	sv exit ./service
	assert_exit 0
	CLOUDFLARED=$TMPDIR/none start_program runsv service
	await given_up
	await_text "$out" 'tunnel: '
	assert_equal "$(grep -c '^tunnel: .*/none' "$out")" 1
}

@test "runit, s6: what a restart can't mend isn't restarted, and nothing waits" {
	local status
	printf '#!/bin/sh\necho "sv $*"\n' >"$BATS_TEST_TMPDIR/bin/sv"
	# A sleep in it would be found.
	printf '#!/bin/sh\necho "sleep $*"\n' >"$BATS_TEST_TMPDIR/bin/sleep"
	chmod +x "$BATS_TEST_TMPDIR/bin/sv" "$BATS_TEST_TMPDIR/bin/sleep"
	for status in 2 126 127; do
		assert_equal "$("$ROOT/examples/runit/finish" "$status" 0)" 'sv down .'
		assert_equal "$("$ROOT/examples/s6/finish" "$status" 0; echo "$?")" 125
	done
	for status in 1 124 -1 256; do
		assert_equal "$("$ROOT/examples/runit/finish" "$status" 15; echo "$?")" 0
		assert_equal "$("$ROOT/examples/s6/finish" "$status" 15; echo "$?")" 0
	done
	rm "$BATS_TEST_TMPDIR/bin/sleep"
}

@test "s6: up, down, which doesn't hang; for want of cloudflared it stays down" {
	need s6-supervise s6-svc s6-svstat
	serve
	copy_service s6
	# s6 would kill a finish script that lingers, after 5 seconds.
	echo 0 >service/timeout-finish
	start_service s6-supervise service
	# -wD: until the finish script has ended, too.
	s6-svc -wD -T $((30000 * ${TEST_SLOWNESS:-1})) -d service
	gone "$cloudflared"
	s6-svc -wu -T $((30000 * ${TEST_SLOWNESS:-1})) -u service
	await_cloudflared 2
	await_text "$out" "$(cloudflared_url "$cloudflared")"
	kill -s TERM "$pid"
	assert_exit 0
	gone "$cloudflared"
	CLOUDFLARED=$TMPDIR/none start_program s6-supervise service
	await_text "$out" 'tunnel: '
	is_down() { [ "$(s6-svstat -o up,wantedup service)" = 'false false' ]; }
	await is_down
	assert_equal "$(grep -c '^tunnel: .*/none' "$out")" 1
}

# --- containers -----------------------------------------------------------------------

entry_point() {
	sed -n 's/^ENTRYPOINT //p' "$ROOT/examples/Dockerfile" | jq -r '.[]'
}

@test "Docker: the entry point opens the tunnel with the port as its argument" {
	need jq
	assert_equal "$(grep -vcE '^((FROM|RUN|COPY|ENV|HEALTHCHECK|ENTRYPOINT) .*|#.*)?$' \
		"$ROOT/examples/Dockerfile")" 0
	local words=()
	mapfile -t words < <(entry_point)
	serve
	start_service "${words[@]}" "$port"
}

@test "Docker: the line that builds it builds it" {
	local command
	command=$(sed -n 's/^RUN \(cc .*\)/\1/p' "$ROOT/examples/Dockerfile")
	command=${command//\/tunnel /"$TMPDIR"/tunnel }
	cp "$ROOT/tunnel.c" .
	# A compiler takes the time that it takes.
	# shellcheck disable=SC2086 # one word each
	if ! $command 2>"$TMPDIR/said"; then
		! grep -q 'cannot find -lc' "$TMPDIR/said" || skip 'no static libc here'
	fi
	assert_equal "$(cat "$TMPDIR/said")" ''
	assert_equal "$("$TMPDIR/tunnel" -V)" "$("$TUNNEL" -V)"
}

@test "Compose: the tunnel leads to the server beside it, by its name" {
	need jq
	yaml_as_json "$ROOT/examples/compose.yaml" >compose.json
	tunnel_has() { jq -r ".services.tunnel$1" compose.json; }
	assert_equal "$(jq -r '.services | keys | join(" ")' compose.json)" 'tunnel web'
	# Who shares the network of a container loses it when that is started again.
	assert_equal "$(tunnel_has .network_mode)" null
	cmp "$ROOT/examples/$(tunnel_has .build.context)/$(tunnel_has .build.dockerfile)" \
		"$ROOT/examples/Dockerfile"
	cmp "$ROOT/examples/$(tunnel_has .build.context)/tunnel.c" "$ROOT/tunnel.c"
	# Longer than tunnel takes to stop.
	local grace words=()
	grace=$(tunnel_has .stop_grace_period)
	[ "${grace%s}" -gt 5 ]
	mapfile -t words < <(tunnel_has '.entrypoint[]'; tunnel_has '.command[]')
	start_service "${words[@]}"
	assert_quiet
	assert_contains "$(cloudflared_arguments "$cloudflared")" 'http://web:80'
}

@test "Kubernetes: the pod is one, and its tunnel points to a port of the pod" {
	need jq
	yaml_as_json "$ROOT/examples/kubernetes-pod.yaml" >pod.json
	assert_equal "$(jq -r '.apiVersion, .kind, (.spec.containers | length)' pod.json | tr '\n' ' ')" \
		'v1 Pod 2 '
	assert_equal "$(jq -r '.spec.containers[] | select(.name == "tunnel").args[]' pod.json)" \
		"$(jq -r '.spec.containers[] | select(.name == "app").ports[].containerPort' pod.json)"
	# Longer than tunnel takes to stop.
	[ "$(jq .spec.terminationGracePeriodSeconds pod.json)" -gt 5 ]
	# What it may write to is there.
	assert_equal "$(jq -r '.spec.containers[] | select(.name == "tunnel").volumeMounts[].name' pod.json)" \
		"$(jq -r '.spec.volumes[] | select(.emptyDir).name' pod.json)"
}

@test "the scripts in examples/ are clean" {
	need shellcheck
	shellcheck "$ROOT"/examples/*/* "$ROOT"/examples/*.sh
}
