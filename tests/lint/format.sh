#!/bin/sh
# SPDX-License-Identifier: MIT
# Formats all C and C++ files, or with --check says which are not.
set -eu
files=$(git ls-files -co --exclude-standard '*.c' '*.h' '*.cpp' '*.hpp' '*.cc')
if [ "${1:-}" = --check ]; then
    found=$(clang-format --dry-run -Werror $files 2>&1 | grep -E 'error|warning' | head -n 20 || true)
    [ -z "$found" ] || { echo "$found" >&2; exit 1; }
    echo "ok format: $(echo "$files" | wc -l) files"
else
    clang-format -i $files
fi
