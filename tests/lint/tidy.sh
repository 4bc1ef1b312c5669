#!/bin/bash
# SPDX-License-Identifier: MIT
# clang-tidy over the library, two files at a time; .clang-tidy says what and why.
#     tidy.sh FLAGS... -- FILES...
set -u
flags=()
while [ "$1" != -- ]; do
    flags+=("$1")
    shift
done
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! printf '%s\n' "$@" | xargs -P 2 -I FILE clang-tidy --quiet FILE -- -std=gnu11 "${flags[@]}" >"$log" 2>&1; then
    grep -E 'warning:|error:' "$log" | sort -u | head -n 40
    exit 1
fi
echo "ok tidy: $# files"
