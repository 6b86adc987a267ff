#!/usr/bin/env bats
# The command line: what is taken, what is refused, and how it is said.

# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

# A wrong program could hang where this one ends.
setup_file() {
	export BATS_TEST_TIMEOUT=$((60 * ${TEST_SLOWNESS:-1}))
}

# Whatever is taken ends by itself, with 127 where cloudflared was to be started.
setup() {
	common_setup
	export CLOUDFLARED=$TMPDIR/none
}

# try ARGUMENT...: runs it, quicker than run_tunnel does. Newlines stay in what it printed.
try() {
	status=0
	"$TUNNEL" "$@" >"$TMPDIR/out" 2>"$TMPDIR/err" 3>&- || status=$?
	IFS= read -r -d '' output <"$TMPDIR/out" || :
	IFS= read -r -d '' errors <"$TMPDIR/err" || :
}

assert_tried() {
	[ "$status" = "$1" ] || fail "$(printf '%q ' "${@:2}")exited with $status, not $1: $errors"
}

# refused ARGUMENT...: it is a usage error, said in one clean line and nowhere else.
refused() {
	local LC_ALL=C
	try "$@"
	assert_tried 2 "$@"
	assert_equal "$output" ''
	assert_match "$errors" $'^tunnel: [^[:cntrl:]]+\n$'
}

taken() {
	try "$@"
	assert_tried 127 "$@"
}

@test "-h and --help print every option to standard output" {
	local option help
	try -h
	assert_equal "$status" 0
	assert_equal "$errors" ''
	assert_match "$output" '^usage: tunnel \['
	for option in -a -b -c -g -i -j -k -l -n -r -t -v -w; do
		assert_match "$output" " +$option  .*[a-z]{4}"
	done
	assert_contains "$output" '-h | -V'
	help=$output
	for option in --help '-v --help' '-h 8080'; do
		# shellcheck disable=SC2086 # some are two words
		try $option
		assert_equal "$status $errors" '0 '
		assert_equal "$output" "$help"
	done
}

@test "-V and --version print the version to standard output" {
	local option
	for option in -V --version; do
		try "$option"
		assert_equal "$status $errors" '0 '
		assert_match "$output" $'^tunnel [0-9]+\\.[0-9.]+\n$'
	done
}

@test "an unknown option is refused by its name" {
	local option
	for option in -x -1 -H --verbose --helpme --versions ---help; do
		refused "$option" 8080
		assert_contains "$errors" "${option:0:2}"
	done
	refused -vx 8080
	assert_contains "$errors" -x
	refused -
	# It is an operand, and what follows it is no option.
	refused - -h
}

@test "what is missing is named" {
	local option
	for option in -c -g -t; do
		refused "$option"
		assert_contains "$errors" "$option"
		refused -v"${option#-}"
	done
	for option in '' -b -j -k -r -v -w --; do
		# shellcheck disable=SC2086 # the first is none
		refused $option
		assert_contains "$errors" origin
	done
}

@test "what excludes each other is refused" {
	local arguments
	for arguments in '-b -k' '-b -l' '-k -l' '-l -k' '-bkl' '-l -r' '-l -w' '-l -v' '-k -j' \
		'-k -r' '-k -w' '-l -t 1' '-k -g 1' '-l -c x'; do
		# shellcheck disable=SC2086 # some are two words
		refused $arguments 8080
	done
	for arguments in -b -br -j -i; do
		refused "$arguments" 8080 true
	done
	for arguments in -nw -bi -a -ab -al '-ka 8080'; do
		# shellcheck disable=SC2086 # some are two words
		refused $arguments 8080
	done
	refused -al
	refused -kaj
}

@test "what excludes each other is named, both of them" {
	local first second arguments
	while read -r first second arguments; do
		# shellcheck disable=SC2086 # several words
		refused $arguments
		assert_match "$errors" "${first}[^a-z].*$second|${second}[^a-z].*$first"
	done <<-'END'
		-n -w -nw 8080
		-b -k -bk 8080
		-l -k -lk 8080
		-a -k -a 8080
		-a -k -al
		-i -b -bi 8080
		-t -l -l -t 1 8080
		-i command -i 8080 true
		-j command -j 8080 true
		-b command -b 8080 true
	END
}

@test "options are those of getopt: bundled, and with an argument attached" {
	taken -vwg2 8080
	taken -t0.25 -vg 1 8080
	taken -bjrvw 8080
	taken -bjnrv 8080
	taken -ijnrv 8080
	taken -nrv 8080 true
	taken -rvw 8080 -- true
	taken -- 8080
	taken -c "$TMPDIR/another" 8080
	assert_contains "$errors" "$TMPDIR/another"
}

@test "an option after the origin is refused, saying that options go before it" {
	local option
	for option in -v -b -h -rv; do
		refused 8080 "$option"
		assert_contains "$errors" 'options go before the origin'
		assert_contains "$errors" "tunnel $option 8080"
		refused -v 8080 "$option" true
	done
	refused 8080 --
	assert_contains "$errors" command
	refused -l 8080 -j
	assert_contains "$errors" "options go before the origin: type tunnel -l -j 8080 ("
	refused -l 8080 8081 -j
	assert_contains "$errors" "options go before the origin: type tunnel -l -j 8080 8081 ("
}

# mended LINE ARGUMENT...: these arguments are refused, and that line is what to type.
mended() {
	local line=$1
	shift
	refused "$@"
	assert_contains "$errors" ": type $line ("
}

@test "what to type instead is the whole command line" {
	mended 'tunnel -v -j 3000' 3000 -v -j
	mended 'tunnel -w 3000 npm run dev' 3000 -w npm run dev
	mended 'tunnel -t 5 -w 3000 npm run -v' 3000 -t 5 -w npm run -v
	mended "tunnel -w 3000 sh -c 'echo; ls'" 3000 -w sh -c 'echo; ls'
	mended "tunnel -v 3000 sh -c 'echo '\\''a b'\\'''" 3000 -v sh -c "echo 'a b'"
	mended 'tunnel -v 3000 run dev' 3000 -v run dev
	mended 'tunnel -c./target 3000' 3000 -c./target
	mended 'tunnel -v a-b:80' a-b:80 -v
	mended 'tunnel -k 3000' --stop=3000
	mended 'tunnel 3000' 3000 --port 4000
	mended 'tunnel -v 3000 -- npm run dev' 3000 -v -- npm run dev
	mended 'tunnel -j -b 3000' --json --background 3000
	mended 'tunnel -v -j 3000' -v --json 3000
	mended 'tunnel -v -j 3000' 3000 -v --json
	mended 'tunnel -v 3000' --port=3000 -v
	mended 'tunnel 3000' -p3000
	mended 'tunnel 3000 npm run dev' --port 3000 npm run dev
	mended 'tunnel 3000 npm run dev' start 3000 npm run dev
	mended 'tunnel -t 5 3000 npm run dev' --timeout 5 3000 npm run dev
	mended 'tunnel -t 5 3000' --timeout=5 3000
	mended 'tunnel -c /opt/cloudflared 3000' --cloudflared /opt/cloudflared 3000
	mended 'tunnel -k 3000' stop 3000
	mended 'tunnel -k 3000 3001' stop 3000 3001
	mended 'tunnel -k -a' stop all
	mended 'tunnel -l 3000' list 3000
	mended 'tunnel -l -j' list --json
	mended 'tunnel -b 8080' --background
	mended 'tunnel -h 8080' 8080 --help
	mended 'tunnel 3000' -port 3000
	mended 'tunnel 3000' -port=3000
	mended 'tunnel -v 3000' -debug 3000
	mended 'tunnel -l' -list
	mended 'tunnel -k 3000' -k stop 3000
	mended 'tunnel -l' -l list
	mended 'tunnel -b -w http://localhost:3000' -b -w localhost:3000/api
	mended 'tunnel -k http://localhost:3000' -k localhost:3000/api
	mended 'tunnel -l http://localhost:3000 4000' -l 3000/api 4000
}

@test "an origin that an option has taken for its argument is told" {
	refused -t 8080
	assert_contains "$errors" 'an origin is missing: 8080 is the argument of -t'
	# These have taken none: it isn't one, or it isn't a word of its own.
	refused -c ./cloudflared
	assert_contains "$errors" 'an origin is missing, such as 8080 ('
	refused -c:80
	assert_contains "$errors" 'an origin is missing, such as 8080 ('
	refused -k
	assert_contains "$errors" 'an origin is missing, such as 8080, or -a for all'
}

@test "what follows the command is the command's" {
	export CLOUDFLARED=$ROOT/fake-cloudflared.sh
	run_tunnel 8080 printf '%s ' -v --help -- -x
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" '-v --help -- -x '
	run_tunnel 8080 -- printf '%s ' -v --help -- -x
	assert_equal "$ended" 'exit 0'
	assert_equal "$output" '-v --help -- -x '
}

@test "seconds are decimal, 0 to 86400" {
	local option seconds
	for option in -g -t; do
		for seconds in 0 2 0.25 0.0 00 1.000 86400 86400.0 0.000000001; do
			taken "$option" "$seconds" 8080
		done
		for seconds in '' -1 -0 +1 86400.001 86400.0001 86401 99999999999999999999 4294967297 \
			18446744073709551617 1e3 1e-1 0x10 inf nan infinity 1s 2.5s 1m 1,5 1.2.3 . \
			.. 1..2 ' 1' '1 ' $'1\n' $'\t1' 1_0 '1 2' x \$ ½ ١; do
			refused "$option" "$seconds" 8080
			assert_contains "$errors" 86400
		done
	done
}

@test "an origin is what cloudflared is told" {
	local origin url
	cat >"$TMPDIR/cloudflared" <<-'END'
		#!/bin/sh
		echo "$3" >"$FAKE_DIR/origin"
		exit 1
	END
	chmod +x "$TMPDIR/cloudflared"
	while read -r origin url; do
		: >"$FAKE_DIR/origin"
		try -c "$TMPDIR/cloudflared" "$origin"
		assert_tried 1 "$origin"
		assert_equal "$output" ''
		assert_equal "$(<"$FAKE_DIR/origin")" "$url"
	done <<-'END'
		8080 http://localhost:8080
		1 http://localhost:1
		65535 http://localhost:65535
		localhost:8080 http://localhost:8080
		localhost:1 http://localhost:1
		http://8081 http://localhost:8081
		http://localhost:8080 http://localhost:8080
		https://8443 https://localhost:8443
		https://localhost:8443 https://localhost:8443
		127.0.0.2:3000 http://127.0.0.2:3000
		[::1]:3000 http://[::1]:3000
		https://[::1]:3000 https://[::1]:3000
		my-host_1.Example:80 http://my-host_1.Example:80
		https://a.b-c_d:443 https://a.b-c_d:443
		a:80 http://a:80
		:8080 http://localhost:8080
		http://:8080 http://localhost:8080
		8080/ http://localhost:8080
		http://localhost:5173/ http://localhost:5173
		localhost:8080/ http://localhost:8080
		https://127.0.0.1:8443/ https://127.0.0.1:8443
		[::1]:3000/ http://[::1]:3000
		http://localhost http://localhost:80
		http://localhost/ http://localhost:80
		https://localhost https://localhost:443
		https://example.org/ https://example.org:443
		http://[::1] http://[::1]:80
	END
}

@test "a port is 1 to 65535 in plain decimal digits" {
	local port
	for port in 0 00 65536 65616 99999 4294975376 18446744073709559696 \
		99999999999999999999999 8080a a8080 8080. 80.80 0x50 8e1 +80 ' 80' '80 ' \
		$'80\n' $'\n80' 80,81 80-81 '' x ٨٠; do
		refused "$port"
		refused "localhost:$port"
	done
	refused 0
	assert_contains "$errors" '1 to 65535: 0'
	refused 'https://[::1]:65536'
	refused 65536
	assert_contains "$errors" '1 to 65535: 65536'
}

@test "a hostile origin is refused before it gets anywhere" {
	local origin long
	long=$(printf '%0300d' 0 | tr 0 a)
	# shellcheck disable=SC2016 # these are not to be expanded
	for origin in ../x:80 ../../etc/passwd:80 /etc/passwd:80 a/b:80 ./a:80 'a b:80' \
		$'a\nb:80' $'localhost:80\nx' $'\e[31m:80' $'a\tb:80' $'a\177b:80' '$(id):80' \
		'`id`:80' 'a;id:80' 'a|b:80' 'a&b:80' '*:80' '?:80' '~:80' 'a\b:80' "a'b:80" 'a"b:80' \
		'%2e:80' 'a%00b:80' 'a=b:80' 'a,b:80' 'a#b:80' '@:80' user@localhost:80 \
		user:password@localhost:80 http://user@localhost:80 : '' ' ' localhost \
		localhost: http:// http:/localhost:80 //localhost:80 \
		://localhost:80 ftp://localhost:80 file:///etc/passwd unix:/tmp/x:80 \
		xhttp://localhost:80 http://http://localhost:80 http://localhost:80// \
		http://localhost:80/path 3000:3000 http://80:80 localhost:80/path 'localhost:80?x' \
		'localhost:80#x' localhost:80:80 ::1:80 '[::1:80' '::1]:80' '[::1]' \
		'[::1]80' '[::1]:' '[]:80' '[:80' ']:80' '[[::1]]:80' '[::g]:80' '[localhost]:80' \
		'[127.0.0.1]:80' '[1:2:3]:80' '[:::]:80' '[1::2::3]:80' '[::12345]:80' \
		'[1:2:3:4:5:6:7:8:9]:80' '[../x]:80' '[::1/64]:80' 'a[::1]:80' é:80 $'\377:80' \
		"$long:80" "$long" "[$long]:80" "http://$long:80"; do
		refused "$origin"
	done
	refused -l ../x:80
	refused -k ../x:80
	refused -b ../x:80
	refused ../x:80 true
	assert_equal "$(find "$XDG_RUNTIME_DIR" "$TMPDIR" -type f ! -path "$TMPDIR/out" ! -path "$TMPDIR/err")" ''
}

@test "a second wrong origin of -l and -k is refused, too" {
	refused -l 8080 ../x:80
	refused -k 8080 0
}

@test "what people type who know another program: they are told what to type here" {
	local arguments typed
	while IFS='|' read -r arguments typed; do
		# shellcheck disable=SC2086 # several words
		refused $arguments
		assert_contains "$arguments: $errors" ": type $typed ("
	done <<-'END'
		stop 3000|tunnel -k 3000
		kill localhost:3000|tunnel -k localhost:3000
		stop|tunnel -k 8080
		list|tunnel -l
		down 3000|tunnel -k 3000
		ls|tunnel -l
		status|tunnel -l
		start 3000|tunnel 3000
		run 3000|tunnel 3000
		http 3000|tunnel 3000
		help|tunnel -h
		version|tunnel -V
		-p 3000|tunnel 3000
		-p3000|tunnel 3000
		-d 3000|tunnel -b 3000
		--quiet 3000|tunnel 3000
		--port 3000|tunnel 3000
		--port=3000|tunnel 3000
		--port|tunnel 8080
		--url http://localhost:3000|tunnel http://localhost:3000
		--url=http://localhost:3000|tunnel http://localhost:3000
		--all|tunnel -ka
		--background 3000|tunnel -b 3000
		--daemon 3000|tunnel -b 3000
		--detach 3000|tunnel -b 3000
		--cloudflared ./cloudflared 3000|tunnel -c ./cloudflared 3000
		--grace 5 3000|tunnel -g 5 3000
		--timeout 60 3000|tunnel -t 60 3000
		--json 3000|tunnel -j 3000
		--kill 3000|tunnel -k 3000
		--stop 3000|tunnel -k 3000
		--list|tunnel -l
		--now 3000|tunnel -n 3000
		--no-wait 3000|tunnel -n 3000
		--restart 3000|tunnel -r 3000
		--retry 3000|tunnel -r 3000
		--verbose 3000|tunnel -v 3000
		--debug 3000|tunnel -v 3000
		--wait 3000|tunnel -w 3000
		--input 3000|tunnel -i 3000
		3000 --background|tunnel -b 3000
		3000 -v|tunnel -v 3000
		3000 -g 5|tunnel -g 5 3000
		3000 -vc ./cloudflared|tunnel -vc ./cloudflared 3000
		3000 -v true|tunnel -v 3000 true
		3000 4000|tunnel -b 3000; tunnel -b 4000
	END
	refused --por 3000
	refute_contains "$errors" type
	refused --ports 3000
	refute_contains "$errors" type
	refused 3000 ''
	assert_contains "$errors" 'command'
}

@test "no command line is advised that is refused in its turn: what is wrong with it is told" {
	local arguments words
	while IFS='|' read -r arguments words; do
		# shellcheck disable=SC2086 # several words
		refused $arguments
		assert_contains "$arguments: $errors" ": $words ("
	done <<-'END'
		-k 3000 -j|-j doesn't go with -k
		stop 3000 -v|-v doesn't go with -k
		-lj 3000 stop|-l doesn't go with -k
		3000 -b npm start|-b doesn't go with a command
		--no-wait --wait 3000|-n and -w exclude each other
		--url http://localhost:3000/x|a path cannot be tunnelled, only a whole server: http://localhost:3000/x: type tunnel http://localhost:3000
		--stop localhost:3000/x|a path cannot be tunnelled, only a whole server: localhost:3000/x: type tunnel -k http://localhost:3000
		3000 -x|unknown option: -x
		3000 -vx|unknown option: -vx
		3000 -|unknown option: -
		3000 --x -v|unknown option: --x
		-k 3000 -1|unknown option: -1
		-ka 3000|-ka takes no origin: 3000
		-k 3000 -a|-ka takes no origin: 3000
		-k 3000 --all|-ka takes no origin: 3000
		--all 3000|-ka takes no origin: 3000
		--port 99999|the port must be a number from 1 to 65535: 99999
	END
}

@test "what is wrong with the origin behind a mistake is told in its own words" {
	refused http 3000/path
	assert_contains "$errors" 'a path cannot be tunnelled'
	refused --timeout
	assert_contains "$errors" 'an argument is missing after --timeout'
	refused 3000 -c
	assert_contains "$errors" 'an argument is missing after -c'
}

@test "what is wrong with an origin is told in its own words" {
	local origin words
	while IFS='|' read -r origin words; do
		refused "$origin"
		assert_contains "$origin: $errors" ": $words"
	done <<-END
		|not an origin
		localhost|a port is missing, as in localhost:8080: localhost
		localhost:|a port is missing
		example.org|a port is missing
		[::1]|a port is missing
		[::1]:|a port is missing
		server|not an origin, which is a port or host:port: server
		stopp|not an origin
		0|the port must be a number from 1 to 65535
		65536|the port must be a number from 1 to 65535
		$(printf '%0300d' 0)|the port must be a number from 1 to 65535
		localhost:080|the port must be a number from 1 to 65535
		http://localhost:8080/path|a path cannot be tunnelled, only a whole server: http://localhost:8080/path: type tunnel http://localhost:8080
		3000/?x=y|a path cannot be tunnelled, only a whole server: 3000/?x=y: type tunnel http://localhost:3000
		ftp://localhost:8080|only http and https can be tunnelled
		3000:3000|a host cannot be digits alone: type the port once
		unix:/tmp/server.sock|only http and https can be tunnelled
		http:/localhost:3000|slashes are missing, as in http://localhost:8080: http:/localhost:3000
		HTTPS:localhost:3000|slashes are missing
		http:/localhost|slashes are missing
		http::3000|slashes are missing
		http:/a://b:80|only http and https can be tunnelled
		httpx:80:80|not a host name or address
		10.0.0.1:80:80|not a host name or address
		::1:8080|an IPv6 address goes in brackets
		fe80::1:80|an IPv6 address goes in brackets
		user@localhost:8080|a user name cannot be tunnelled
		http://user:word@localhost:8080|a user name cannot be tunnelled
		a+b:8080|not a host name or address
		.-.:8080|not a host name or address
		$(printf '%0250d' 0 | tr 0 a):8080|not a host name or address
		$(printf '%0300d' 0 | tr 0 a)|not a host name or address
	END
	# What is just short enough is taken.
	taken "$(printf '%0249d' 0 | tr 0 a):8080"
	# A host may have such a name.
	taken http:8080
}
