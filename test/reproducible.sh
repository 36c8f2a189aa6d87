#!/bin/sh
# reproducible.sh: builds the tree again in another folder, without the build
# cache's help for our own packages, and compares the three binaries.
set -eu
cd "$(dirname "$0")/.."
other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$other"
# The same commit, so that the version stamped in is the same.
cp -r .git "$other/.git"
make -s -C "$other" build
for b in limpetd limpet-host limpet; do
	cmp "bin/$b" "$other/bin/$b"
	echo "$b: the same bytes ($(stat -c %s "bin/$b"))"
done
