#!/usr/bin/env bats
# What the Tab key offers in bash, zsh and fish.

# shellcheck disable=SC2016 # what is quoted is for other shells
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck source-path=SCRIPTDIR source=helper.bash
source "$BATS_TEST_DIRNAME/helper.bash"

every='-V -b -c -g -h -j -k -l -r -t -v -w'

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
			repeat $((2000 * ${TEST_SLOWNESS:-1})); do
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
	assert_equal "$("$offers" "tunnel $one some-comm")" some-command
	assert_equal "$("$offers" "tunnel -w -g 1 -c one.file $one some-comm")" some-command
	assert_contains "$("$offers" "tunnel http://localhost:$one some-command one")" one.file
	"$TUNNEL" -k "$one" "127.0.0.1:$two"
	assert_equal "$("$offers" 'tunnel -k ')" ''
}

@test "Tab in bash: options, files, running tunnels, the command" {
	check_offers bash
}

@test "Tab in bash: only what goes together" {
	assert_equal "$(bash_offers 'tunnel -l -')" -j
	assert_equal "$(bash_offers 'tunnel -k -')" ''
	assert_equal "$(bash_offers 'tunnel -b -')" '-b -c -g -j -r -t -v -w'
	assert_equal "$(bash_offers 'tunnel 8080 -')" ''
	assert_equal "$(bash_offers 'tunnel -- -')" ''
	assert_equal "$(bash_offers 'tunnel -c k -')" "$every"
}

@test "Tab in bash: an origin with colons, cut by readline" {
	open_tunnels
	assert_equal "$(bash_offers 'tunnel -k localhost:')" "$one"
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
	assert_equal "$(zsh_offers 'tunnel -w -')" '-b -c -g -j -r -t -v'
	assert_equal "$(zsh_offers 'tunnel -bjr -')" '-c -g -t -v -w'
}

@test "Tab in fish: options, files, running tunnels, the command" {
	need fish
	check_offers fish
}

@test "Tab in fish: running tunnels are shown with their URLs" {
	need fish
	open_tunnels
	assert_contains "$(fish -c 'source $argv[1]; complete -C "tunnel -k "' \
		"$ROOT/completions/tunnel.fish")" "$one"$'\t'"$one_url"
}

@test "the completions know every option that tunnel -h shows" {
	local letter letters
	letters=$("$TUNNEL" -h | sed -n 's/^  -\([a-zA-Z]\) .*/\1/p')
	[ -n "$letters" ] || fail 'no options in tunnel -h'
	for letter in $letters; do
		assert_contains "$every" "-$letter"
	done
}
