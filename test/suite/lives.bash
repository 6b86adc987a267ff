# What tests of -r have in common that run several tunnels at once.

# scripts COMMANDS: one for several tunnels, each of which has its $KIND, $starts of it and $life,
# their number.
scripts() {
	# shellcheck disable=SC2016 # it is for the script
	scripted 'starts=$FAKE_DIR/$KIND.starts; echo $$ >>"$starts"; life=$(($(wc -l <"$starts")))
		'"$1"
}
