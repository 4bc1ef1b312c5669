#!/bin/bash
# SPDX-License-Identifier: MIT
# clang-tidy over the library, two files at a time; .clang-tidy says what and why. The analyzer
# gives up on a function after fewer steps than by default: that found the same on this tree, and
# the default takes five times as long, most of it in a few long functions.
#     tidy.sh FLAGS... -- FILES...
set -u
flags=()
while [ "$1" != -- ]; do
    flags+=("$1")
    shift
done
shift
shorter=()
for option in -Xclang -analyzer-config -Xclang max-nodes=40000; do
    shorter+=("--extra-arg=$option")
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! printf '%s\n' "$@" | xargs -P 2 -I FILE clang-tidy --quiet "${shorter[@]}" FILE -- -std=gnu11 "${flags[@]}" >"$log" 2>&1; then
    grep -E 'warning:|error:' "$log" | sort -u | head -n 40
    exit 1
fi
echo "ok tidy: $# files"
