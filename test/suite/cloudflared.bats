#!/usr/bin/env bats
# Which cloudflared is run, and as what.
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# Skips where a directory that is searched beyond those of the test has a cloudflared.
none_installed() {
	local directory
	for directory in /usr/local/bin /opt/homebrew/bin /home/linuxbrew/.linuxbrew/bin /usr/bin \
		/snap/bin; do
		[ ! -e "$directory/cloudflared" ] || skip "there is $directory/cloudflared"
	done
}

# plant DIRECTORY...: a cloudflared in each, which says where it lies and ends.
plant() {
	local directory
	for directory; do
		mkdir -p "$directory"
		printf '#!/bin/sh\n%s\n%s\n' "echo '$directory' >\"\$FAKE_DIR/ran\"" 'exit 9' \
			>"$directory/cloudflared"
		chmod +x "$directory/cloudflared"
	done
}

# ran DIRECTORY ARGUMENT...: with these it is the cloudflared there that runs.
ran() {
	rm -f "$FAKE_DIR/ran"
	run_tunnel "${@:2}"
	assert_equal "$ended $(cat "$FAKE_DIR/ran")" "exit 1 $1"
}

# starts ARGUMENT...: starts it and waits until cloudflared, whose id is $cloudflared, runs.
starts() {
	start_tunnel "$@"
	await_cloudflared $((number_started += 1))
}
number_started=0

environment_has() {
	assert_equal "$(cloudflared_environment "$cloudflared" | grep "^${1%%=*}=")" "$1"
}

no_system_configuration() {
	local file
	for file in /etc/cloudflared/config.y*ml /usr/local/etc/cloudflared/config.y*ml; do
		[ ! -e "$file" ] || skip "$file exists"
	done
}

# field NUMBER: of /proc/PID/stat of $cloudflared, counted as in proc(5), from 4 on.
field() {
	local stat
	[ -e "$FAKE_DIR/$cloudflared.stat" ] || skip 'no /proc here'
	read -r stat <"$FAKE_DIR/$cloudflared.stat"
	# shellcheck disable=SC2086 # one field each
	set -- "$1" ${stat##*) }
	echo "${@:$1-1:1}"
}

# --- where it is looked for -----------------------------------------------------------

@test "-c, then CLOUDFLARED, then PATH, then beside tunnel, then below HOME" {
	local directory arguments=(-c "$TMPDIR/option/cloudflared" 8080)
	local places=("$TMPDIR/option" "$TMPDIR/variable" "$TMPDIR/path1" "$TMPDIR/path2"
		"$TMPDIR/beside" "$HOME/.local/bin" "$HOME/bin")
	[ "$(head -c 2 "$TUNNEL")" != '#!' ] || skip 'a wrapper can not be copied'
	plant "${places[@]}"
	cp "$TUNNEL" "$TMPDIR/beside/tunnel"
	TUNNEL=$TMPDIR/beside/tunnel
	export CLOUDFLARED=$TMPDIR/variable/cloudflared
	PATH=$TMPDIR/path1:$TMPDIR/path2:$PATH
	for directory in "${places[@]}"; do
		case $directory in
		*/variable) arguments=(8080) ;;
		*/path1) unset CLOUDFLARED ;;
		*/beside) ! command -v cloudflared || skip 'a cloudflared in PATH' ;;
		esac
		ran "$directory" "${arguments[@]}"
		rm "$directory/cloudflared"
		hash -r
	done
}

@test "the one beside tunnel is found when tunnel was found in PATH, by a link, too" {
	[ "$(head -c 2 "$TUNNEL")" != '#!' ] || skip 'a wrapper can not be copied'
	! command -v cloudflared || skip 'a cloudflared in PATH'
	[ -e /proc/self/exe ] || skip 'no /proc here'
	unset CLOUDFLARED
	plant "$TMPDIR/beside" "$HOME/bin"
	cp "$TUNNEL" "$TMPDIR/beside/tunnel"
	TUNNEL=tunnel
	PATH=$TMPDIR/beside:$PATH
	rm "$TMPDIR/beside/cloudflared"
	ran "$HOME/bin" 8080
	plant "$TMPDIR/beside"
	PATH=$TMPDIR/beside:$PATH ran "$TMPDIR/beside" 8080
	mkdir "$TMPDIR/links"
	ln -s "$TMPDIR/beside/tunnel" "$TMPDIR/links/tunnel"
	PATH=$TMPDIR/links:${PATH#*:} ran "$TMPDIR/beside" 8080
}

@test "the one beside tunnel is found in / as well, as in an image that has but the two" {
	need chroot musl-gcc
	[ "$(id -u)" = 0 ] || skip 'not allowed to chroot'
	mkdir -p "$TMPDIR/root/dev"
	musl-gcc -Os -static -o "$TMPDIR/root/tunnel" "$ROOT/tunnel.c"
	musl-gcc -Os -static -o "$TMPDIR/root/cloudflared" "$ROOT/test/helpers/flood.c"
	: >"$TMPDIR/root/dev/null"
	unset CLOUDFLARED FAKE_DIR
	start_program chroot "$TMPDIR/root" /tunnel 8080
	await_url
	kill -s TERM "$pid"
	assert_signal TERM
}

@test "the one beside tunnel is found by the path of tunnel where there is no /proc" {
	[ "$(head -c 2 "$TUNNEL")" != '#!' ] || skip 'a wrapper can not be copied'
	! command -v cloudflared || skip 'a cloudflared in PATH'
	use_mounts
	plant "$TMPDIR/beside"
	cp "$TUNNEL" "$TMPDIR/beside/tunnel"
	unset CLOUDFLARED
	start_mounted mode=755 /proc "$TMPDIR/beside/tunnel" 8080
	assert_exit 1
	assert_equal "$(<"$FAKE_DIR/ran")" "$TMPDIR/beside"
}

@test "what cannot be run is passed over in PATH" {
	plant "$TMPDIR/good"
	mkdir -p "$TMPDIR/directory/cloudflared" "$TMPDIR/text"
	cp "$TMPDIR/good/cloudflared" "$TMPDIR/text"
	chmod -x "$TMPDIR/text/cloudflared"
	unset CLOUDFLARED
	PATH=$TMPDIR/none:$TMPDIR/directory:$TMPDIR/text:$TMPDIR/good:$PATH ran "$TMPDIR/good" 8080
}

@test "no cloudflared: it says where to get it, 127" {
	none_installed
	unset CLOUDFLARED
	# A folder of its name is none.
	mkdir "$TMPDIR/cloudflared"
	# shellcheck disable=SC2123 # that it finds nothing is the point
	PATH=$TMPDIR start_tunnel 8080
	assert_exit 127
	assert_equal "$(cat "$out")" ''
	assert_match "$(cat "$err")" '^tunnel: cloudflared is not installed.*https?://'
	assert_equal "$(wc -l <"$err" | tr -d ' ')" 1
}

@test "a path that was named is never replaced by another" {
	plant "$TMPDIR/path" "$HOME/bin"
	PATH=$TMPDIR/path:$PATH
	CLOUDFLARED=$TMPDIR/path/cloudflared run_tunnel -c "$TMPDIR/none" 8080
	assert_equal "$ended" 'exit 127'
	assert_contains "$errors" "$TMPDIR/none"
	CLOUDFLARED=$TMPDIR/none run_tunnel 8080
	assert_equal "$ended" 'exit 127'
	assert_contains "$errors" "$TMPDIR/none"
	run_tunnel -c '' 8080
	assert_equal "$ended: $errors" 'exit 127: tunnel: cannot run : No such file or directory'
	[ ! -e "$FAKE_DIR/ran" ]
	# However short it is.
	cd "$TMPDIR"
	mv "$HOME/bin/cloudflared" c
	ran "$HOME/bin" -c c 8080
}

@test "a cloudflared that is there but can't be run: which and why, 126" {
	local file
	cd "$TMPDIR"
	mkdir directory
	echo 'exit 0' >text
	printf '#!/no/such/interpreter\n' >interpreter
	printf '\177nothing\0that\1runs\n' >garbage
	echo 'exit 0' >no-first-line
	: >empty
	ln -s loop loop
	chmod +x interpreter garbage no-first-line empty
	for file in directory text interpreter garbage no-first-line empty loop; do
		run_tunnel -c "$TMPDIR/$file" 8080
		assert_equal "$file $ended" "$file exit 126"
		assert_equal "$output" ''
		assert_match "$errors" "tunnel: cannot run $TMPDIR/$file: "
		assert_equal "$(grep -vE '^(cloudflared: )?tunnel: ' "$err")" ''
		[ "$file" != directory ] || assert_contains "$errors" 'Is a directory'
	done
}

@test "a cloudflared that is there but can't be run: what it is and what to do" {
	local head words file=$TMPDIR/file
	while IFS='|' read -r head words; do
		# shellcheck disable=SC2059 # it is one
		printf "$head" >"$file"
		chmod +x "$file"
		run_tunnel -c "$file" 8080
		assert_equal "$head $ended" "$head exit 126"
		assert_contains "$head: $errors" "tunnel: cannot run $file: "
		assert_contains "$head: $errors" "$words"
	done <<-'END'
		|an empty file: download it again
		\037\213\010\000|an archive, not a program: unpack it
		PK\003\004\024\000|an archive, not a program: unpack it
		BZh91AY|an archive, not a program: unpack it
		\3757zXZ\000|an archive, not a program: unpack it
		\050\265\057\375|an archive, not a program: unpack it
		7z\274\257|an archive, not a program: unpack it
		cloudflared\000%0245dustar\00000|an archive, not a program: unpack it
		!<arch>\ndebian-binary|a package, not a program: install it
		\355\253\356\333|a package, not a program: install it
		xar!\000|a package, not a program: install it
		\177ELF\002\001\001\000|a program for another machine
		MZ\220\000|a program for another machine
		\317\372\355\376|a program for another machine
		\312\376\272\276|a program for another machine
		<!DOCTYPE html>\n<html>|a web page, not a program: download it again
		Not Found|not a program: download it again
		%0300d|not a program: download it again
		exit 0\n\000|not a program: download it again
		exit\000|not a program: download it again
		#!/no/such/interpreter -x\nexit 0\n|its interpreter /no/such/interpreter is missing
		#!/etc/passwd\nexit 0\n|its interpreter /etc/passwd cannot be executed
		#!\nexit 0\n|not a program: download it again
		#! /no/such/interpreter\nexit 0\n|its interpreter /no/such/interpreter is missing
		#!/bin/sh\r\nexit 0\r\n|its interpreter /bin/sh is missing (the line ends with CR: convert the file)
	END
	refute_contains "$errors" $'\r'
	chmod -x "$file"
	run_tunnel -c "$file" 8080
	assert_equal "$ended" 'exit 126'
	assert_contains "$errors" 'chmod +x'
}

@test "a cloudflared that can't be run, nor read: nothing is made up about what it is" {
	use_others
	printf '\177nothing\0that\1runs\n' >"$others/garbage"
	chmod 111 "$others/garbage"
	start_program "${as_first[@]}" "$TUNNEL" -c "$others/garbage" 8080
	assert_exit 126
	assert_equal "$(tail -n 1 "$err")" "tunnel: cannot run $others/garbage: Exec format error"
}

@test "a cloudflared whose loader is missing, as another libc's: said, 126" {
	need gcc
	echo 'int main(void) { return 0; }' >"$TMPDIR/main.c"
	gcc -Wl,--dynamic-linker=/no/such/loader -o "$TMPDIR/other" "$TMPDIR/main.c"
	"$TMPDIR/other" 2>/dev/null && skip 'it needs no loader'
	run_tunnel -c "$TMPDIR/other" 8080
	assert_equal "$ended" 'exit 126'
	assert_match "$errors" "tunnel: cannot run $TMPDIR/other: its loader [^
]*is missing: get a build for this libc"
	# The same for a command, which nobody can tell before.
	run_tunnel 8080 "$TMPDIR/other"
	assert_equal "$ended" 'exit 126'
	assert_contains "$errors" "cannot run $TMPDIR/other: its loader"
}

@test "a cloudflared that isn't executable, and no other: said, with what to do" {
	local directory
	none_installed
	unset CLOUDFLARED HOME
	cd "$TMPDIR"
	mkdir \~ directory
	touch cloudflared \~/cloudflared directory/cloudflared
	# A ~ in PATH is only a name, and nothing is the current directory.
	for directory in "$TMPDIR/directory" \~ ''; do
		# shellcheck disable=SC2123 # that it finds nothing else is the point
		PATH=$TMPDIR/none:$directory start_tunnel 8080
		assert_exit 127
		assert_match "$(<"$err")" "tunnel: cloudflared is there, but not executable: chmod \\+x [^
]*${directory}[^
]*cloudflared"
	done
}

@test "a cloudflared on a file system that is mounted noexec: said, since chmod +x is no help" {
	local arguments
	none_installed
	use_mounts
	mkdir "$TMPDIR/place"
	STAND_IN=$CLOUDFLARED
	unset CLOUDFLARED
	PATH=$TMPDIR/place:$PATH
	for arguments in "-c $TMPDIR/place/cloudflared" ''; do
		# shellcheck disable=SC2016,SC2086 # the shell's to expand; words
		start_mounted noexec "$TMPDIR/place" sh -c 'cp "$0" "$TMPDIR/place/cloudflared" && exec "$@"' \
			"$STAND_IN" "$TUNNEL" $arguments 8080
		await_exit
		assert_match "$ended" 'exit 12[67]'
		assert_contains "$(<"$err")" noexec
	done
}

@test "a path that is too long, or relative to nothing: said" {
	local long arguments
	long=$(printf '%05000d' 0)
	run_tunnel -c "/$long" 8080
	assert_equal "$ended" 'exit 126'
	assert_match "$errors" "$ENAMETOOLONG"
	run_tunnel -c "$long" 8080
	assert_equal "$ended" 'exit 126'
	assert_match "$errors" "$ENAMETOOLONG"
	run_tunnel 8080 "/$long"
	assert_equal "$ended" 'exit 126'
	assert_match "$errors" "$ENAMETOOLONG"
	# Whatever its beginning leads to.
	long=/$(printf './%.0s' {1..2200})x
	for arguments in "-c $long 8080" "8080 $long"; do
		# shellcheck disable=SC2086 # words
		run_tunnel $arguments
		assert_equal "$ended" 'exit 126'
		assert_match "$errors" "$ENAMETOOLONG"
	done
	long=$(printf '%05000d' 0)
	# Nor does one in PATH that is too long keep the next from being found.
	plant "$TMPDIR/good"
	unset CLOUDFLARED
	PATH=/$long:$TMPDIR/good:$PATH ran "$TMPDIR/good" 8080
	mkdir "$TMPDIR/gone"
	cd "$TMPDIR/gone"
	rmdir "$TMPDIR/gone"
	run_tunnel -c ./cloudflared 8080
	assert_equal "$ended" 'exit 127'
	assert_contains "$errors" 'cannot run ./cloudflared'
}

@test "a named cloudflared that isn't there: which, 127" {
	local file
	echo text >"$TMPDIR/text"
	ln -s nowhere "$TMPDIR/link"
	for file in none none/none text/none link; do
		run_tunnel -c "$TMPDIR/$file" 8080
		assert_equal "$file $ended" "$file exit 127"
		assert_equal "$output" ''
		assert_match "$errors" "tunnel: cannot run $TMPDIR/$file: "
		assert_equal "$(grep -vE '^(cloudflared: )?tunnel: ' "$err")" ''
	done
}

@test "without a HOME, a folder named ~ is none" {
	none_installed
	unset CLOUDFLARED
	cd "$TMPDIR"
	plant \~/bin \~/.local/bin
	# shellcheck disable=SC2123 # that it finds nothing is the point
	HOME='' PATH=$TMPDIR/none start_tunnel 8080
	assert_exit 127
	assert_contains "$(<"$err")" 'cloudflared is not installed'
}

# --- its arguments --------------------------------------------------------------------

@test "it is run as exactly: cloudflared tunnel --url ORIGIN" {
	no_system_configuration
	# None of these is one that cloudflared would load.
	mkdir "$HOME/.cloudflared"
	: >"$HOME/.cloudflared/cert.pem"
	: >"$HOME/.cloudflared/config.json"
	: >"$HOME/config.yml"
	starts https://localhost:8443
	assert_equal "$(cloudflared_arguments "$cloudflared")" \
		$'tunnel\n--url\nhttps://localhost:8443'
	await_url
	assert_equal "$url" "$(cloudflared_url "$cloudflared")"
}

@test "a configuration that would be loaded is kept from it, wherever it lies" {
	local directory file path
	no_system_configuration
	for directory in .cloudflared .cloudflare-warp cloudflare-warp; do
		mkdir "$HOME/$directory"
		for file in config.yml config.yaml; do
			path=$HOME/$directory/$file
			echo 'loglevel: error' >"$path"
			starts $((20001 + number_started))
			assert_equal "$path: $(cloudflared_arguments "$cloudflared" | tr '\n' ' ')" \
				"$path: tunnel --url http://localhost:$((20000 + number_started)) --config /dev/null "
			[ ! -e "$FAKE_DIR/$cloudflared.config" ]
			await_url
			rm "$path"
		done
	done
}

@test "without a HOME, which it would ask the user database for, no configuration is looked for" {
	no_system_configuration
	unset HOME
	starts 8080
	assert_contains "$(cloudflared_arguments "$cloudflared" | xargs)" '--config /dev/null'
	await_url
	HOME='' starts 8081
	assert_contains "$(cloudflared_arguments "$cloudflared" | xargs)" '--config /dev/null'
	await_url
}

# --- its environment ------------------------------------------------------------------

@test "its environment is ours with NO_AUTOUPDATE, TUNNEL_NO_PRECHECKS and a grace period" {
	local ours=(CLOUDFLARED="$CLOUDFLARED" EMPTY= FAKE_DIR="$FAKE_DIR" HOME="$HOME" LC_ALL=C
		PATH="$PATH" TUNNEL_EDGE_IP_VERSION=4 TUNNEL_TRANSPORT_PROTOCOL=http2 TWO=$'a\nb'
		XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR")
	start_program env -i "${ours[@]}" "$TUNNEL" 8080
	await_cloudflared 1
	# PWD and _ may come from a wrapper around the program.
	assert_equal "$(cloudflared_environment "$cloudflared" | grep -v -e '^PWD=' -e '^_=' | sort)" \
		"$(printf '%s\n' "${ours[@]}" NO_AUTOUPDATE=true TUNNEL_GRACE_PERIOD=2.5s \
		TUNNEL_NO_PRECHECKS=true | sort)"
}

@test "its grace period is half a second under -g, at least half of it, at most 3 minutes" {
	local grace period
	while read -r grace period; do
		starts -g "$grace" $((20001 + number_started))
		environment_has "TUNNEL_GRACE_PERIOD=$period"
	done <<-'END'
		3 2.5s
		10 9.5s
		2.25 1.75s
		1 0.5s
		0.8 0.4s
		3.456 2.956s
		0.5 0.25s
		0.25 0.125s
		0 0s
		180.5 180s
		180.6 180s
		181 180s
		86400 180s
	END
}

@test "what the user has set for it stays" {
	export NO_AUTOUPDATE=false TUNNEL_GRACE_PERIOD=30s TUNNEL_LOGFILE=$TMPDIR/log
	starts -g 1 8080
	environment_has NO_AUTOUPDATE=false
	environment_has TUNNEL_GRACE_PERIOD=30s
	environment_has "TUNNEL_LOGFILE=$TMPDIR/log"
	NO_AUTOUPDATE=0 starts 8081
	environment_has NO_AUTOUPDATE=0
	# Nothing is no value.
	NO_AUTOUPDATE='' starts 8082
	environment_has NO_AUTOUPDATE=true
}

@test "what would end it for being empty doesn't reach it" {
	TUNNEL_TRANSPORT_PROTOCOL='' TUNNEL_EDGE_IP_VERSION='' starts 8080
	await_url
	assert_equal "$(cloudflared_environment "$cloudflared" |
		grep -E '^TUNNEL_(TRANSPORT_PROTOCOL|EDGE_IP_VERSION)=')" ''
}

@test "a log level that would hide the URL becomes info, any other stays" {
	local level wanted
	for level in warn error fatal panic info INFO debug; do
		case $level in
		info | INFO | debug) wanted=$level ;;
		*) wanted=info ;;
		esac
		TUNNEL_LOGLEVEL=$level starts $((20001 + number_started))
		environment_has "TUNNEL_LOGLEVEL=$wanted"
		await_url
	done
	starts 8080
	refute_contains "$(cloudflared_environment "$cloudflared")" TUNNEL_LOGLEVEL
}

# --- what it is given beside them -----------------------------------------------------

@test "it has the null device, one pipe to us, and no other descriptor" {
	local options
	for options in '' '-c 0' '-c 2' '-c 0 -c 2'; do
		# shellcheck disable=SC2206 # an option each
		start_options=($options)
		starts -v $((20001 + number_started)) <"$BATS_TEST_FILENAME"
		assert_match "$(cloudflared_descriptors "$cloudflared")" \
			'^0 /dev/null'$'\n''1 (pipe:\[[0-9]+\])'$'\n''2 (pipe:\[[0-9]+\])$'
		assert_equal "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
	done
}

@test "it has none of the descriptors that the caller left open" {
	# shellcheck disable=SC2016 # it is for the other shell
	start_program sh -c 'exec "$0" 8080 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3' "$TUNNEL"
	await_cloudflared 1
	assert_equal "$(cloudflared_descriptors "$cloudflared" | grep -c .)" 3
}

@test "it has none of them on a kernel that can't close all at once, before 5.9" {
	local traced
	[ -d /proc/self/fd ] || skip 'no /proc here'
	trace_with close_range:error=ENOSYS
	# Only this call stops it, not the 65,536 closes that follow.
	"${traced[@]}" --seccomp-bpf -f true || skip 'strace does not know the call'
	CLOUDFLARED=$ROOT/test/helpers/flood
	# shellcheck disable=SC2016 # it is for the other shell
	start_program sh -c 'exec "$@" 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3' sh \
		"${traced[@]}" --seccomp-bpf -f "$TUNNEL" -t 0 8080
	await_url
	await_cloudflared 1
	assert_equal "$(ls "/proc/$cloudflared/fd")" $'0\n1\n2'
}

@test "it has default signal actions and an empty signal mask" {
	local signal
	[ -r /proc/self/status ] || skip 'no /proc here'
	for signal in INT QUIT HUP TERM PIPE CHLD TSTP TTIN TTOU USR1 ALRM CONT; do
		start_options+=(-i "$signal" -b "$signal")
	done
	# No shell, for some of them empty their mask before anything else.
	export CLOUDFLARED=$ROOT/test/helpers/flood
	starts 8080
	# Above 31 the real-time signals begin, which are the C library's.
	assert_equal "$(sed -n 's/^\(SigBlk\|SigIgn\):.*\(.......\)$/\1 \2/p' \
		"/proc/$cloudflared/status")" $'SigBlk 0000000\nSigIgn 0000000'
	# Nothing ends this tunnel but what cannot be ignored.
	kill -s KILL "$pid"
	assert_signal KILL
}

@test "it has a process group of its own in our session" {
	starts 8080
	assert_equal "$(field 4)" "$pid"
	assert_equal "$(field 5)" "$cloudflared"
	[ "$(field 6)" != "$cloudflared" ]
}

@test "a tunnel that was killed takes its cloudflared along" {
	case $(uname) in
	Linux | FreeBSD) ;;
	*) skip 'no parent-death signal here' ;;
	esac
	starts 8080
	await_url
	kill -s KILL "$pid"
	await gone "$cloudflared"
	assert_equal "$(cloudflared_signals "$cloudflared" | head -n 1)" TERM
}

@test "a tunnel that was killed at any moment of its start leaves no cloudflared" {
	local moment
	case $(uname) in
	Linux | FreeBSD) ;;
	*) skip 'no parent-death signal here' ;;
	esac
	export FAKE_MODE=silent
	for moment in 0 .0005 .001 .0015 .002 .0025 .003 .004 .005 .006 .008 .01; do
		start_tunnel 8080
		sleep "$moment"
		kill -s KILL "$pid"
		assert_signal KILL
	done
	await none_left_behind
}
