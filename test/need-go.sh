#!/bin/sh
# need-go.sh [GO]: makes sure that the go command is there and not older than
# go.mod asks for. One since 1.21 fetches the version that it is asked for by
# itself, unless it is told not to (GOTOOLCHAIN=local). Nothing is installed:
# what distributions call golang is often too old.
set -eu
go=${1:-go}
wanted=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$(dirname "$0")/../go.mod")
help="Go $wanted or newer is needed: get it from https://go.dev/dl and put its bin folder into PATH"
if ! command -v "$go" >/dev/null 2>&1; then
	echo "there is no go command on this machine. $help" >&2
	exit 1
fi
cd "$(dirname "$0")/.."
if ! found=$("$go" env GOVERSION 2>&1); then
	echo "$go says: $found. $help" >&2
	exit 1
fi
version=${found#go}
major=${version%%.*} rest=${version#*.}
minor=${rest%%[!0-9]*}
case $major$minor in
*[!0-9]* | "") exit 0 ;; # a development version: its builder knows
esac
if [ "$major" -lt "${wanted%.*}" ] || { [ "$major" = "${wanted%.*}" ] && [ "$minor" -lt "${wanted#*.}" ]; }; then
	echo "$(command -v "$go") is Go $version. $help" >&2
	exit 1
fi
