#!/bin/sh
# need.sh COMMAND=PACKAGE... : makes sure that the commands are there, on
# Debian by installing their packages as root. A name with a slash is a file.
set -eu
missing=""
for pair in "$@"; do
	command=${pair%%=*} package=${pair#*=}
	case $command in
	*/*) [ -e "$command" ] || missing="$missing $package" ;;
	*) command -v "$command" >/dev/null 2>&1 || missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "missing on this machine:$missing (on Debian, as root: apt-get install$missing)" >&2
	exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 5 "$log" >&2
	exit 1
fi
rm -f "$log"
