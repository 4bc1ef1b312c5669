#!/bin/sh
# SPDX-License-Identifier: MIT
# Prints "link page" for each further name of a page, for make install: every function and macro
# has a page of its own name, and most pages describe several.
set -eu
cd "$(dirname "$0")"
for page in *.3; do
    awk -v page="$page" '
        /^\.Sh/ { inside = $2 == "NAME" }
        inside && /^\.Nm/ && $2 ".3" != page { print $2 ".3", page }' "$page"
done
