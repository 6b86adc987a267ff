# Completion of tunnel(1) for fish: options, their arguments, the origins of running
# tunnels for -k and -l, and the command after an origin with its own arguments.

# Prints what the words before the cursor leave open: `options` (nothing but options so
# far, none of which stops or lists), `origins`, or `command` and the words of it.
function __tunnel_next
	set -l words (commandline -opc)
	set -e words[1]
	# What fails here is an option whose argument is still to come.
	argparse --stop-nonopt b h j k l r v V w c= g= t= -- $words 2>/dev/null
	or begin
		echo options
		return
	end
	if set -q _flag_k; or set -q _flag_l
		echo origins
	else if not set -q argv[1]
		echo options
	else if not set -q _flag_b; and not set -q _flag_r
		echo command
		string join \n -- $argv[2..]
	end
end

function __tunnel_wants
	contains -- "$argv" (__tunnel_next)[1]
end

function __tunnel_origins
	set -l program (commandline -opc)[1]
	set -l lines (eval $program -l 2>/dev/null </dev/null)
	# 8080 is shorter than localhost:8080, unless somebody has begun to type that.
	string match -q 'l*' -- (commandline -ct)
	or set lines (string replace -r '^localhost:' '' -- $lines)
	string replace -r '\t([^\t]*)\t.*' '\t$1' -- $lines
end

function __tunnel_command
	set -l words (__tunnel_next)
	set -e words[1]
	complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
end

complete -c tunnel -f
complete -c tunnel -n '__tunnel_wants origins' -a '(__tunnel_origins)'
complete -c tunnel -n '__tunnel_wants command' -a '(__tunnel_command)'

complete -c tunnel -n '__tunnel_wants options' -s b -d 'Go to the background once the URL is known'
complete -c tunnel -n '__tunnel_wants options' -s c -r -F -d 'The cloudflared to run'
complete -c tunnel -n '__tunnel_wants options' -s g -x -d 'Seconds between SIGTERM and SIGKILL (3)'
complete -c tunnel -n '__tunnel_wants options' -s h -d 'Print help'
complete -c tunnel -n '__tunnel_wants options' -s j -d 'Print a JSON record instead of the URL'
complete -c tunnel -n '__tunnel_wants options' -s k -d 'Stop the tunnels of these origins'
complete -c tunnel -n '__tunnel_wants options' -s l -d 'List the running tunnels'
complete -c tunnel -n '__tunnel_wants options' -s r -d 'Restart cloudflared when it dies'
complete -c tunnel -n '__tunnel_wants options' -s t -x -d 'Start deadline in seconds, 0 is none (30)'
complete -c tunnel -n '__tunnel_wants options' -s v -d 'Copy the log of cloudflared'
complete -c tunnel -n '__tunnel_wants options' -s V -d 'Print the version'
complete -c tunnel -n '__tunnel_wants options' -s w -d 'Wait until the tunnel works'
