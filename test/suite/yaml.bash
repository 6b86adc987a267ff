# shellcheck shell=bash
# For the tests that read YAML.
# shellcheck disable=SC2016 # Ruby expands it

# yaml_as_json FILE >FILE: not in a pipe, where it could skip nothing.
yaml_as_json() {
	if command -v yq >/dev/null && yq . "$1" 2>/dev/null | jq . 2>/dev/null; then
		:
	elif python3 -c 'import yaml' 2>/dev/null; then
		python3 -c 'import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))' <"$1"
	elif command -v ruby >/dev/null; then
		ruby -ryaml -rjson -e 'puts JSON.generate(YAML.load($stdin.read))' <"$1"
	else
		skip 'no reader of YAML here'
	fi
}
