# Completion of tunnel(1) for fish: options, their arguments, the ports that listen here, the
# origins of running tunnels for -k and -l, and the command after an origin with its own
# arguments.

# Prints what the words before the cursor leave open: `options` (nothing but options so
# far, none of which stops or lists) and the letters that go with these, `stop`, `list`, or
# `command` and the words of it.
function __tunnel_next
	set -l words (commandline -opc)
	set -e words[1]
	# What fails here is an option whose argument is still to come.
	argparse --stop-nonopt a b h i j k l n r v V w c= g= t= -- $words 2>/dev/null
	or begin
		string join \n options c g t
		return
	end
	if set -q _flag_a
		set -q _flag_k
		or echo all
	else if set -q _flag_k
		echo stop
	else if set -q _flag_l
		echo list
	else if not set -q argv[1]
		set -l letters c g j r t v
		set -q _flag_b; or set -q _flag_i; or set -a letters b i
		set -q _flag_n; or set -q _flag_w; or set -a letters n w
		test (count $words) -gt 0; or set -a letters a h k l V
		string join \n options $letters
	else if not set -q _flag_b; and not set -q _flag_i; and not set -q _flag_j
		echo command
		set -e argv[1]
		test "$argv[1]" != --
		or set -e argv[1]
		string join \n -- $argv
	end
end

function __tunnel_wants
	contains -- "$argv" (__tunnel_next)[1]
end

# __tunnel_takes LETTER: such an option goes with those that are there.
function __tunnel_takes
	set -l next (__tunnel_next)
	test "$next[1]" = options; and contains -- $argv $next[2..-1]
end

function __tunnel_origins
	set -l program (commandline -opc)[1]
	set -l lines (eval $program -l 2>/dev/null </dev/null)
	# 8080 is shorter than localhost:8080, unless somebody has begun to type that.
	string match -q 'l*' -- (commandline -ct)
	or set lines (string replace -r '^localhost:' '' -- $lines)
	string replace -r '\t([^\t]*)\t.*' '\t$1' -- $lines
end

# The ports that listen here, of all addresses or the loopback's, and the program if it is told.
# The first word of a line that looks like it is the local address, whichever of the three
# has written it.
function __tunnel_ports
	set -l prefix (string match -r '^(?::|.*(?:localhost|127\.0\.0\.1):)' -- (commandline -ct))
	string match -q 'l*' -- (commandline -ct)
	and set prefix localhost:
	begin
		ss -ltnp
		or lsof -nP -iTCP -sTCP:LISTEN
		or sockstat -lP tcp
	end 2>/dev/null </dev/null | awk -v prefix="$prefix" '
		/cloudflared/ { next }
		{
			for (i = 1; i <= NF; i++)
				if ($i ~ /^(\*|0\.0\.0\.0|127\.0\.0\.1|\[?::1?\]?|\[::ffff:127\.0\.0\.1\]):[0-9]+$/) {
					name = /LISTEN.$/ ? $1 : $5 ~ /^tcp/ ? $2 : ""
					if (match($0, /\(\("[^"]*/))
						name = substr($0, RSTART + 3, RLENGTH - 3)
					sub(/.*:/, "", $i)
					print prefix $i "\t" name
					next
				}
		}' | sort -u
end

function __tunnel_command
	set -l words (__tunnel_next)
	set -e words[1]
	complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
end

complete -c tunnel -f
complete -c tunnel -n '__tunnel_wants options' -a '(__tunnel_ports)'
complete -c tunnel -n '__tunnel_wants stop' -a '(__tunnel_origins)'
complete -c tunnel -n '__tunnel_wants list' -a '(__tunnel_origins)'
complete -c tunnel -n '__tunnel_wants command' -a '(__tunnel_command)'

complete -c tunnel -n '__tunnel_takes a' -s a -d 'Stop every tunnel, with -k'
complete -c tunnel -n '__tunnel_wants stop' -s a -d 'Stop every tunnel'
complete -c tunnel -n '__tunnel_takes b' -s b -d 'Go to the background once the URL works'
complete -c tunnel -n '__tunnel_takes c' -s c -r -F -d 'The cloudflared to run'
complete -c tunnel -n '__tunnel_takes g' -s g -x -d 'Seconds between SIGTERM and SIGKILL (3)'
complete -c tunnel -n '__tunnel_takes h' -s h -d 'Print help'
complete -c tunnel -n '__tunnel_takes i' -s i -d 'End when standard input ends'
complete -c tunnel -n '__tunnel_takes j' -s j -d 'Print a JSON record instead of the URL'
complete -c tunnel -n '__tunnel_wants list' -s j -d 'Print JSON records'
complete -c tunnel -n '__tunnel_takes k' -s k -d 'Stop the tunnels of these origins'
complete -c tunnel -n '__tunnel_wants all' -s k -d 'Stop every tunnel'
complete -c tunnel -n '__tunnel_takes l' -s l -d 'List the running tunnels'
complete -c tunnel -n '__tunnel_takes n' -s n -d 'Print the URL now, working or not'
complete -c tunnel -n '__tunnel_takes r' -s r -d 'Restart when the tunnel dies'
complete -c tunnel -n '__tunnel_takes t' -s t -x -d 'Start deadline in seconds, 0 is none (30)'
complete -c tunnel -n '__tunnel_takes v' -s v -d 'Copy the log of cloudflared'
complete -c tunnel -n '__tunnel_takes V' -s V -d 'Print the version'
complete -c tunnel -n '__tunnel_takes w' -s w -d 'Wait until something listens on the origin, too'
