#!/usr/bin/env bats
# What the Tab key offers in bash, zsh and fish.

# shellcheck disable=SC2016 # what is quoted is for other shells
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

every='-V -a -b -c -g -h -i -j -k -l -n -r -t -v -w'

setup() {
	common_setup
	tunnel_in_path
	cd "$TMPDIR" || return
	mkdir directory
	touch one.file
	printf '#!/bin/sh\n' >"$BATS_TEST_TMPDIR/bin/some-command"
	chmod +x "$BATS_TEST_TMPDIR/bin/some-command"
}

# open_tunnels: of localhost:$one and of 127.0.0.1:$two.
open_tunnels() {
	free_port
	one=$port
	start_background "$one"
	one_url=$url
	free_port
	two=$port
	start_background "127.0.0.1:$two"
}

# Each of the three prints what its shell offers at the end of LINE, sorted, on one line;
# in bash without what stands before the last colon, which readline takes for a word.

bash_offers() {
	bash --norc --noprofile -c '
		[ -z "$3" ] || source "$3"
		source "$1/completions/tunnel.bash"
		# As readline cuts it: at blanks, and around any number of colons.
		rest=$2 COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=() COMP_TYPE=9 COMP_KEY=9
		while [[ $rest =~ ^([^:\ ]+|:+|\ +) ]]; do
			[[ ${BASH_REMATCH[1]} == \ * ]] || COMP_WORDS+=("${BASH_REMATCH[1]}")
			rest=${rest#"${BASH_REMATCH[1]}"}
		done
		[[ $2 != *[:\ ] ]] || COMP_WORDS+=("")
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		function=$(complete -p tunnel | sed -n "s/.* -F \([^ ]*\) .*/\1/p")
		"$function" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null
		printf "%s\n" "${COMPREPLY[@]}"' - "$ROOT" "$1" "${2-}" | LC_ALL=C sort -u | tr '\n' ' ' |
		sed 's/ $//'
}

# A zsh at a pseudo-terminal, which writes down all that it is told to offer.
zsh_offers() {
	cat >zshrc <<-'END'
		PROMPT= RPROMPT=
		unset HISTFILE
		fpath=($ROOT/completions $fpath)
		autoload -U compinit && compinit -u -D
		bindkey '^I' complete-word
		zstyle ':completion:*' rehash true
		LISTMAX=10000
		compadd() {
			if (( ${@[1,(i)(-|--)]}[(I)-[a-zA-Z]#[OAD]*] )); then
				builtin compadd "$@"
				return
			fi
			local -a offered
			builtin compadd -O offered "$@"
			[[ -z $offered ]] || print -rl -- $offered >>offered
			builtin compadd "$@"
		}
		offering_ends() { : >offered-all }
		comppostfuncs=(offering_ends)
		: >ready
	END
	rm -f offered offered-all ready
	# The last builtin is what tells zpty that the shell may go.
	ROOT=$ROOT zsh -f -c '
		zmodload zsh/zpty zsh/zselect
		wait_for() {
			repeat $((6000 * ${TEST_SLOWNESS:-1})); do
				zpty -r -t it text
				[[ -e $1 ]] && return
				zselect -t 1
			done
		}
		zpty -b it "TERM=dumb zsh -f -i"
		zpty -w it "source ./zshrc"
		wait_for ready
		zpty -w -n it "$1"$'\''\t'\''
		wait_for offered-all
		zpty -d it' - "$1"
	[ -e offered-all ] || fail 'zsh never came to an end'
	LC_ALL=C sort -u offered 2>/dev/null | tr '\n' ' ' | sed 's/ $//'
}

fish_offers() {
	XDG_CONFIG_HOME=$TMPDIR/config fish -c 'source $argv[1]/completions/tunnel.fish
		complete -C $argv[2]' "$ROOT" "$1" | cut -f 1 | LC_ALL=C sort -u | tr '\n' ' ' |
		sed 's/ $//'
}

# check_offers SHELL: what they have in common.
check_offers() {
	local offers=$1_offers
	open_tunnels
	assert_equal "$("$offers" 'tunnel -')" "$every"
	assert_equal "$("$offers" 'tunnel -c one')" one.file
	assert_equal "$("$offers" 'tunnel -wvc one')" one.file
	assert_equal "$("$offers" 'tunnel -g ')" ''
	assert_equal "$("$offers" 'tunnel -w -t ')" ''
	assert_equal "$("$offers" 'tunnel -k ')" "$(printf '%s\n' "127.0.0.1:$two" "$one" |
		LC_ALL=C sort | tr '\n' ' ' | sed 's/ $//')"
	assert_equal "$("$offers" "tunnel -lj $one")" "$one"
	assert_equal "$("$offers" "tunnel -k $one 127")" "127.0.0.1:$two"
	assert_contains "$("$offers" 'tunnel -k local')" "localhost:$one"
	assert_equal "$("$offers" "tunnel -b $one ")" ''
	assert_equal "$("$offers" "tunnel -ij $one ")" ''
	assert_equal "$("$offers" 'tunnel -ka ')" ''
	assert_equal "$("$offers" 'tunnel -k -')" -a
	assert_equal "$("$offers" 'tunnel -l -')" -j
	assert_equal "$("$offers" "tunnel $one some-comm")" some-command
	assert_equal "$("$offers" "tunnel -w -g 1 -c one.file $one some-comm")" some-command
	assert_equal "$("$offers" "tunnel -r $one -- some-comm")" some-command
	assert_contains "$("$offers" "tunnel http://localhost:$one some-command one")" one.file
	"$TUNNEL" -k "$one" "127.0.0.1:$two"
	assert_equal "$("$offers" 'tunnel -k ')" ''
	check_ports "$offers"
}

# What each of the three that know prints; the others aren't there then.
ports_by() {
	local name
	for name in ss lsof sockstat; do
		{
			echo '#!/bin/sh'
			[ "$name" = "$1" ] || echo 'exit 127'
			printf 'cat <<"END"\n%s\nEND\n' "$2"
		} >"$BATS_TEST_TMPDIR/bin/$name"
		chmod +x "$BATS_TEST_TMPDIR/bin/$name"
	done
}

check_ports() {
	local offers=$1
	serve
	if command -v ss || command -v lsof || command -v sockstat; then
		assert_contains " $("$offers" 'tunnel ') " " $port "
		assert_contains " $("$offers" 'tunnel -wr ') " " $port "
	fi >/dev/null
	ports_by ss 'State  Recv-Q Send-Q   Local Address:Port  Peer Address:PortProcess
LISTEN 0      511          127.0.0.1:5173       0.0.0.0:*    users:(("node",pid=7,fd=18))
LISTEN 0      5              0.0.0.0:8000       0.0.0.0:*    users:(("python3",pid=8,fd=3))
LISTEN 0      128      192.168.1.20:4000       0.0.0.0:*    users:(("other",pid=9,fd=3))
LISTEN 0      4096         127.0.0.1:20241      0.0.0.0:*    users:(("cloudflared",pid=6,fd=3))
LISTEN 0      4096     127.0.0.53%lo:53         0.0.0.0:*
LISTEN 0      4096              [::]:22            [::]:*
LISTEN 0      511                  *:3000             *:*    users:(("node",pid=7,fd=19))
LISTEN 0      5                [::1]:8000          [::]:*    users:(("python3",pid=8,fd=4))'
	assert_equal "$("$offers" 'tunnel ')" '22 3000 5173 8000'
	assert_equal "$("$offers" 'tunnel -w 5')" 5173
	assert_contains "$("$offers" 'tunnel local')" localhost:5173
	assert_equal "$("$offers" 'tunnel -k 5')" ''
	ports_by lsof 'COMMAND  PID USER  FD   TYPE             DEVICE SIZE/OFF NODE NAME
node    4711  me  23u  IPv6 0x1234567890abcdef      0t0  TCP *:3000 (LISTEN)
ruby    4712  me  11u  IPv4 0x1234567890abcdee      0t0  TCP 127.0.0.1:3001 (LISTEN)
ruby    4712  me  12u  IPv6 0x1234567890abcded      0t0  TCP [::1]:3001 (LISTEN)'
	assert_equal "$("$offers" 'tunnel ')" '3000 3001'
	ports_by sockstat 'USER     COMMAND    PID   FD PROTO  LOCAL ADDRESS         FOREIGN ADDRESS
me       node       1234  20 tcp46  *:3000                *:*
root     sendmail   911   3  tcp4   127.0.0.1:25          *:*
root     sshd       900   4  tcp6   fe80::1:22            *:*'
	assert_equal "$("$offers" 'tunnel ')" '25 3000'
	ports_by nothing ''
	assert_equal "$("$offers" 'tunnel ')" ''
}

@test "Tab in bash: options, files, running tunnels, the command" {
	check_offers bash
}

@test "Tab in bash: only what goes together" {
	assert_equal "$(bash_offers 'tunnel -l -')" -j
	assert_equal "$(bash_offers 'tunnel -k -')" -a
	assert_equal "$(bash_offers 'tunnel -a -')" -k
	assert_equal "$(bash_offers 'tunnel -b -')" '-b -c -g -j -n -r -t -v -w'
	assert_equal "$(bash_offers 'tunnel -i -')" '-c -g -i -j -n -r -t -v -w'
	assert_equal "$(bash_offers 'tunnel -w -')" '-b -c -g -i -j -r -t -v -w'
	assert_equal "$(bash_offers 'tunnel 8080 -')" ''
	assert_equal "$(bash_offers 'tunnel -- -')" ''
	assert_equal "$(bash_offers 'tunnel -c k -')" "$every"
}

@test "Tab in bash: an origin with colons, cut by readline" {
	open_tunnels
	assert_equal "$(bash_offers 'tunnel -k localhost:')" "$one"
	ports_by ss 'LISTEN 0  511  127.0.0.1:5173  0.0.0.0:*'
	assert_equal "$(bash_offers 'tunnel localhost:')" 5173
	assert_equal "$(bash_offers 'tunnel -b http://localhost:51')" 5173
	assert_equal "$(bash_offers "tunnel -k localhost:$one 127.0.0.1:")" "$two"
	free_port
	start_background "[::1]:$port"
	assert_equal "$(bash_offers 'tunnel -k [::1')" "1]:$port"
	assert_equal "$(bash_offers 'tunnel -k [::1]:')" "$port"
}

@test "Tab in bash with bash-completion: the command's own arguments" {
	local library=
	for it in /usr/share /usr/local/share /opt/homebrew/share; do
		[ ! -r "$it/bash-completion/bash_completion" ] || library=$it/bash-completion/bash_completion
	done
	[ -n "$library" ] || skip 'no bash-completion here'
	assert_equal "$(bash_offers 'tunnel 8080 some-comm' "$library")" some-command
	assert_equal "$(bash_offers 'tunnel -w http://localhost:8080 complete -A bui' "$library")" \
		"$(bash_offers_for 'complete -A bui' "$library")"
	assert_contains "$(bash_offers 'tunnel -w localhost:8080 timeout --sig' "$library")" --signal
}

# What bash-completion says without tunnel, to compare with.
bash_offers_for() {
	bash --norc --noprofile -c '
		source "$2"
		COMP_WORDS=(x $1) COMP_LINE="x $1" COMP_POINT=$((${#1} + 2)) COMP_CWORD=3
		_command_offset 1
		printf "%s\n" "${COMPREPLY[@]}"' - "$1" "$2" 2>/dev/null | LC_ALL=C sort -u |
		tr '\n' ' ' | sed 's/ $//'
}

@test "Tab in bash at a terminal: tunnel -k localh, Tab, Enter" {
	need tmux
	open_tunnels
	terminal() {
		tmux -u -L "completion-$$" -f /dev/null "$@" 3>&-
	}
	unset TMUX BASH_ENV PROMPT_COMMAND
	export SHELL=/bin/sh PS1='$ ' HISTFILE='' TMUX_TMPDIR=$TMPDIR
	terminal new-session -d -x 100 -y 30 \
		"exec '$ROOT/test/helpers/start' -- bash --norc --noprofile -i"
	shows() {
		[[ $(terminal capture-pane -p) == *"$1"* ]]
	}
	await shows '$'
	terminal send-keys -l "source $ROOT/completions/tunnel.bash; echo loaded"
	terminal send-keys Enter
	await shows $'\nloaded'
	terminal send-keys -l 'tunnel -k localh'
	terminal send-keys Tab
	await shows "tunnel -k localhost:$one"
	terminal send-keys Enter
	await ! holder "localhost:$one"
	terminal kill-server
	assert_contains "$("$TUNNEL" -l)" "127.0.0.1:$two"
}

@test "Tab in zsh: options, files, running tunnels, the command" {
	need zsh
	check_offers zsh
}

@test "Tab in zsh: only what goes together" {
	need zsh
	assert_equal "$(zsh_offers 'tunnel -l -')" -j
	assert_equal "$(zsh_offers 'tunnel -a -')" -k
	assert_equal "$(zsh_offers 'tunnel -w -')" '-b -c -g -i -j -r -t -v'
	assert_equal "$(zsh_offers 'tunnel -bjr -')" '-c -g -n -t -v -w'
}

@test "Tab in fish: options, files, running tunnels, the command" {
	need fish
	check_offers fish
	assert_equal "$(fish_offers 'tunnel -b -t 3 -')" '-c -g -j -n -r -t -v -w'
	assert_equal "$(fish_offers 'tunnel -in -')" '-c -g -j -r -t -v'
}

@test "Tab in fish: running tunnels are shown with their URLs" {
	need fish
	open_tunnels
	assert_contains "$(fish -c 'source $argv[1]; complete -C "tunnel -k "' \
		"$ROOT/completions/tunnel.fish")" "$one"$'\t'"$one_url"
}

@test "Tab in fish: ports are shown with the programs that listen there" {
	need fish
	ports_by lsof 'node    4711  me  23u  IPv6 0x1234567890abcdef      0t0  TCP *:3000 (LISTEN)'
	assert_equal "$(fish -c 'source $argv[1]; complete -C "tunnel "' \
		"$ROOT/completions/tunnel.fish")" $'3000\tnode'
	ports_by ss 'LISTEN 0  511  127.0.0.1:5173  0.0.0.0:*  users:(("vite",pid=7,fd=18))'
	assert_equal "$(fish -c 'source $argv[1]; complete -C "tunnel http://localhost:"' \
		"$ROOT/completions/tunnel.fish")" $'http://localhost:5173\tvite'
}

@test "the completions know every option that tunnel -h shows, and no other" {
	# In two columns; what is indented like an option begins with one.
	assert_equal "$("$TUNNEL" -h | grep -oE '  -[a-zA-Z]  ' | tr -d ' ' | LC_ALL=C sort |
		tr '\n' ' ' | sed 's/ $//')" "$every"
}
