# shellcheck shell=bash
# Completion of tunnel(1) for bash: options, their arguments, the ports that listen here, the
# origins of running tunnels for -k and -l, and the command after an origin. Works with bash
# 3.2, and without the bash-completion package; with it, the command's own arguments are
# completed as well.

_tunnel() {
	# words: those before the cursor's, which is cur. Bash cuts them at colons; first
	# says where in COMP_WORDS each begins.
	local -a words first
	local i count=0 cur
	for ((i = 1; i <= COMP_CWORD; i++)); do
		if [[ $count -gt 0 && (${COMP_WORDS[i]} == :* || ${COMP_WORDS[i - 1]} == *:) ]]; then
			words[count - 1]+=${COMP_WORDS[i]}
		else
			words[count]=${COMP_WORDS[i]}
			first[count]=$i
			count=$((count + 1))
		fi
	done
	count=$((count - 1))
	cur=${words[count]}
	COMPREPLY=()

	# What the words before it say.
	local options='' argument_of='' operand='' letters
	for ((i = 0; i < count; i++)); do
		if [[ -n $argument_of ]]; then
			argument_of=
		elif [[ ${words[i]} == -- ]]; then
			operand=$((i + 1))
			break
		elif [[ ${words[i]} == -?* ]]; then
			letters=${words[i]#-}
			options+=${letters%%[cgt]*}
			# The last letter takes the next word, one before it the rest of this.
			[[ ${letters#*[cgt]} ]] || argument_of=${letters: -1}
		else
			operand=$i
			break
		fi
	done

	case $argument_of in
	c) _tunnel_files && return ;;
	g | t) return ;;
	esac

	if [[ -z $operand && $cur == -* ]]; then
		case $options in
		*k*a* | *a*k*) ;;
		*k*) _tunnel_reply -a ;;
		*a*) _tunnel_reply -k ;;
		*l*) _tunnel_reply -j ;;
		*[binrvw]*)
			_tunnel_reply -c -g -j -r -t -v
			[[ $options == *i* ]] || _tunnel_reply -b
			[[ $options == *b* ]] || _tunnel_reply -i
			[[ $options == *w* ]] || _tunnel_reply -n
			[[ $options == *n* ]] || _tunnel_reply -w
			;;
		*) _tunnel_reply -a -b -c -g -h -i -j -k -l -n -r -t -v -V -w ;;
		esac
	elif [[ $options == *a* ]]; then
		return
	elif [[ $options == *[kl]* ]]; then
		# shellcheck disable=SC2046 # an origin has no blank
		_tunnel_reply $("$1" -l 2>/dev/null </dev/null | cut -f 1 |
			if [[ $cur == l* ]]; then cat; else sed 's/^localhost://'; fi)
	elif [[ ${operand:-$count} -eq $count ]]; then
		case $cur in
		l*) i=localhost: ;;
		:* | *localhost:* | *127.0.0.1:*) i=${cur%:*}: ;;
		*) i= ;;
		esac
		# shellcheck disable=SC2046 # one word each
		_tunnel_reply $(_tunnel_ports | sed "s,^,$i,")
	elif [[ $operand -lt $count && $options != *[bij]* ]]; then
		[[ ${words[operand + 1]} != -- || $((operand + 1)) -eq $count ]] || operand=$((operand + 1))
		i=${first[operand + 1]}
		if declare -F _comp_command_offset >/dev/null; then
			_comp_command_offset "$i"
		elif declare -F _command_offset >/dev/null; then
			_command_offset "$i"
		elif [[ $operand -eq $((count - 1)) && $cur != */* ]]; then
			while read -r i; do COMPREPLY+=("$i"); done < <(compgen -c -- "$cur")
		else
			_tunnel_files
		fi
	fi
}

# Offers those of these words that go on from cur. What stands before its last colon is
# on the line already.
_tunnel_reply() {
	local word
	for word; do
		[[ $word == "$cur"* ]] || continue
		[[ $COMP_WORDBREAKS != *:* || $cur != *:* ]] || word=${word#"${cur%:*}:"}
		COMPREPLY+=("$word")
	done
}

# Prints the ports that listen here, of all addresses or the loopback's. The first word of a line
# that looks like it is the local address, whichever of the three has written it.
_tunnel_ports() {
	{ ss -ltnp || lsof -nP -iTCP -sTCP:LISTEN || sockstat -lP tcp; } 2>/dev/null </dev/null |
		awk '
		/cloudflared/ { next }
		{
			for (i = 1; i <= NF; i++)
				if ($i ~ /^(\*|0\.0\.0\.0|127\.0\.0\.1|\[?::1?\]?|\[::ffff:127\.0\.0\.1\]):[0-9]+$/) {
					sub(/.*:/, "", $i)
					print $i
					next
				}
		}' | sort -nu
}

_tunnel_files() {
	local file
	compopt -o filenames 2>/dev/null
	while read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur")
}

complete -F _tunnel tunnel
