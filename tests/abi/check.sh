#!/bin/bash
# SPDX-License-Identifier: MIT
# Compares the shared library's ABI with the recorded baseline (lib/libperf.abi). abidiff's exit code
# is a set of bits: 1 and 2 errors, 4 a change, 8 an incompatible one. Additions ask to be recorded.
#     check.sh lib/libperf.so.X.Y.Z
set -u
abidiff --headers-dir2 include/libperf --suppressions lib/libperf.abignore lib/libperf.abi "$1" >build/abi.txt 2>&1
rc=$?
if [ $((rc & 11)) -ne 0 ]; then
    cat build/abi.txt
    echo "abi: the ABI is broken; restore it, or justify an exception in lib/libperf.abignore" >&2
    exit 1
elif [ $((rc & 4)) -ne 0 ]; then
    cat build/abi.txt
    echo "abi: the ABI has grown; record it with 'make abi'" >&2
    exit 1
fi
# The check itself must be able to fail: without one symbol the library has to be refused.
copy=build/abi-without-one.so
sed 's/ perf_cache_touch;//' lib/libperf.map >build/abi-without-one.map
if cc -shared -Wl,-soname,libperf.so.1 -Wl,--version-script=build/abi-without-one.map -Wl,--whole-archive \
    lib/libperf.a -Wl,--no-whole-archive $(pkg-config --libs sqlite3) -pthread -lm -o $copy 2>build/abi.txt; then
    abidiff --suppressions lib/libperf.abignore lib/libperf.abi $copy >build/abi.txt 2>&1
    [ $(($? & 8)) -ne 0 ] || { echo "abi: a removed symbol goes unnoticed" >&2; exit 1; }
    rm -f $copy
else
    cat build/abi.txt >&2
    exit 1
fi
echo "ok abi: same as lib/libperf.abi; a removed symbol is refused"
