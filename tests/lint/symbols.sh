#!/bin/bash
# SPDX-License-Identifier: MIT
# What leaves the library is one list, told six times: the version script, the library itself, the
# headers, symbols-in-versions, the man pages and the tests.
#     symbols.sh lib/libperf.so.X.Y.Z
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
same() { # what, file
    if ! diff "$dir/map" "$dir/$2" >"$dir/diff"; then
        echo "symbols: lib/libperf.map and $1 differ:" >&2
        sed 's/^/    /' "$dir/diff" >&2
        bad=1
    fi
}
grep -oE '^ +perf_[a-z0-9_]+;' lib/libperf.map | tr -d ' ;' | sort >"$dir/map"
nm -D --defined-only "$1" | awk '$2 != "A" {print $3}' | sed 's/@.*//' | sort >"$dir/library"
cat include/libperf/*.h include/libperf/backend/*.h | tr '\n' ' ' |
    grep -oE 'PERF_API [^;(]*\bperf_[a-z0-9_]+ ?\(' | grep -oE 'perf_[a-z0-9_]+ ?\($' | tr -d ' (' | sort >"$dir/headers"
awk '/^perf_/ {print $1}' lib/symbols-in-versions | sort >"$dir/list"
same "the library" library
same "the headers" headers
same "lib/symbols-in-versions" list
while read -r symbol; do
    grep -qE "^\.Nm $symbol\b" man/*.3 || { echo "symbols: no man page names $symbol" >&2; bad=1; }
    grep -rqw "$symbol" tests --include='*.[ch]' --include='*.cpp' --include='*.sh' ||
        { echo "symbols: no test uses $symbol" >&2; bad=1; }
done <"$dir/map"
grep -hoE '^ +(X\([A-Z]+,|PERF_[A-Z_0-9]+ =)' include/libperf/*.h include/libperf/backend/*.h | sed -E 's/ +X\(([A-Z]+),/PERF_\1/; s/ =//; s/ //g' >"$dir/constants"
while read -r constant; do
    case "$constant" in PERF_E* | PERF_OK | PERF_MISS) grep -q "X(${constant#PERF_}," include/libperf/types.h ||
        grep -q "C($constant)" src/base/constant.c ;;
    *) grep -q "C($constant)" src/base/constant.c ;; esac ||
        { echo "symbols: perf_constant does not know $constant" >&2; bad=1; }
done < <(grep -v PERF_SUGAR_ "$dir/constants") # the inside of macros.h
[ "$bad" = 0 ] || exit 1
echo "ok symbols: $(wc -l <"$dir/map") functions, $(wc -l <"$dir/constants") constants agree everywhere"
