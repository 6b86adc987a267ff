#!/bin/sh
# A tunnel for as long as this program runs, however it ends: sh program.sh [port]

command -v tunnel >/dev/null || { echo "tunnel is not installed" >&2; exit 127; }
dir=$(mktemp -d) && mkfifo "$dir/in" "$dir/out" || exit
tunnel -ij "${1:-8080}" <"$dir/in" >"$dir/out" 2>"$dir/err" &
exec 3>"$dir/in" # what is started in the background from here on needs 3>&-

if ! read -r record <"$dir/out"; then
	wait "$!"
	code=$?
	echo "no tunnel, status $code: $(tail -n 1 "$dir/err")" >&2
	rm -r "$dir"
	exit "$code"
fi
rm -r "$dir"
url=${record#*'"url":"'} url=${url%%'"'*}

echo "$url"
read -r _ # what the program does

exec 3>&-
wait "$!"
