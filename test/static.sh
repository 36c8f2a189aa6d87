#!/bin/sh
# static.sh COMMAND... : runs a command that links a static program, without
# the linker's warnings about functions of libc that need shared libraries at
# run time (user names, host names, dlopen). They are in parts of the engine's
# library that a host never calls. Whatever else is said is shown.
set -u
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$@" >"$out" 2>&1
code=$?
if [ $code = 0 ]; then
	grep -v -e 'in statically linked applications requires at runtime' -e '): in function `' -e '^# github.com/' "$out" >&2
else
	cat "$out" >&2
fi
exit $code
