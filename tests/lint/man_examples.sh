#!/bin/sh
# SPDX-License-Identifier: MIT
# What the documentation shows is real: the examples of the man pages and of README.md compile,
# the prototypes in the pages are those of the headers, and every field of a public struct has its
# paragraph.
#
# A literal block is compiled when the line before it says so:
#     .\" compile: unit     a file of C by itself
#     .\" compile: body     the inside of a function that has a perf_cache *cache
# Of README.md, the ```c and ```cpp blocks that begin with an #include.
set -eu
cc="${CC:-cc} -std=gnu11 -fsyntax-only -Iinclude -Wall -Wextra -Werror -Wno-unused-function"
cxx="${CXX:-c++} -std=c++17 -fsyntax-only -Iinclude -Wall -Wextra -Werror"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# ---- examples ----
for page in man/*.[1-9]; do
    awk -v out="$dir/$(basename "$page")" '
        /^\.\\" compile: / {
            kind = $3
            file = out "." ++n ".c"
            if (kind != "unit" && kind != "body") {
                print FILENAME ":" FNR ": neither unit nor body" > "/dev/stderr"
                exit 1
            }
            if (kind == "body") {
                print "#include <inttypes.h>\n#include <libperf/perf.h>\n#include <stdio.h>" > file
                print "#include <stdlib.h>\n#include <string.h>" > file
                print "int example(perf_cache *cache);\nint example(perf_cache *cache)\n{\n    (void)cache;" > file
            }
            print "#line " FNR + 2 " \"" FILENAME "\"" > file
            next
        }
        kind && /^\.Bd -literal/ { inside = 1; next }
        kind && !inside { print FILENAME ":" FNR ": no literal block" > "/dev/stderr"; exit 1 }
        inside && /^\.Ed/ {
            if (kind == "body") print "return 0;\n}" > file
            kind = inside = ""
            next
        }
        inside { gsub(/\\e/, "\\"); gsub(/\\&/, ""); gsub(/\\-/, "-"); print > file }
    ' "$page"
done
awk -v out="$dir/README" '
    /^```(c|cpp)$/ { lang = substr($0, 4); first = 1; next }
    /^```/ { lang = ""; next }
    lang && first {
        first = 0
        if ($0 !~ /^(\/\/|\/\*|#include)/) { lang = ""; next }
        file = out "." ++n "." lang
        print "#line " FNR " \"README.md\"" > file
    }
    lang { print > file }
' README.md
examples=0
for example in "$dir"/*.c "$dir"/*.cpp; do
    case "$example" in
    *"*"*) continue ;;
    *.c) $cc "$example" ;;
    *) $cxx "$example" ;;
    esac
    examples=$((examples + 1))
done
[ "$examples" -gt 20 ] || { echo "man: only $examples examples; the marks are lost" >&2; exit 1; }

# ---- prototypes: a second declaration that differs is an error ----
echo '#include <libperf/perf.h>' >"$dir/synopsis.c"
for page in man/*.3; do
    awk '
        function arguments(    text, all) {
            text = $0
            while (match(text, /"[^"]*"|[^ ]+/)) {
                word = substr(text, RSTART, RLENGTH)
                gsub(/"/, "", word)
                all = all (all ? ", " : "") word
                text = substr(text, RSTART + RLENGTH)
            }
            return all
        }
        /^\.Sh/ { inside = $2 == "SYNOPSIS" }
        !inside { next }
        /^\.Ft / { sub(/^\.Ft /, ""); gsub(/"/, ""); type = $0 }
        /^\.Fn / && $2 !~ /^PERF_/ {
            name = $2
            sub(/^\.Fn +[^ ]+ */, "")
            print "#line " FNR " \"" FILENAME "\"\n" type " " name "(" arguments() ");"
        }
        /^\.Fo / { name = $2; all = "" }
        /^\.Fa / && name { sub(/^\.Fa /, ""); all = all (all ? ", " : "") arguments() }
        /^\.Fc/ {
            if (name !~ /^PERF_/) print "#line " FNR " \"" FILENAME "\"\n" type " " name "(" all ");"
            name = ""
        }
    ' "$page"
done >>"$dir/synopsis.c"
$cc "$dir/synopsis.c"
prototypes=$(grep -c ');$' "$dir/synopsis.c")
[ "$prototypes" -gt 50 ] || { echo "man: only $prototypes prototypes found" >&2; exit 1; }

# ---- fields and macros ----
bad=0
${CC:-cc} -E -P -Iinclude include/libperf/cache.h | tr '\n' ' ' | sed 's/typedef struct/\n&/g' |
    sed -n 's/^typedef struct perf_[a-z_]* *{\([^}]*\)}.*/\1/p' | tr ';' '\n' |
    sed -e 's/.*(\*\([a-z_]*\))(.*/\1/' -e 's/,/\n/g' | sed -e 's/.*[ *]\([a-z_]*\)$/\1/' |
    grep -xE '[a-z_]+' | sort -u >"$dir/fields"
[ "$(wc -l <"$dir/fields")" -gt 80 ] || { echo "man: the headers' fields are lost" >&2; exit 1; }
while read -r field; do
    grep -qhE "^\.It Fa .*\b$field\b" man/*.3 || { echo "man: no page has field $field" >&2; bad=1; }
done <"$dir/fields"
grep -hoE '^#define PERF_[A-Z0-9_]+' include/libperf/*.h include/libperf/backend/*.h |
    awk '$2 !~ /PERF_SUGAR|PERF_STATUS_ENUM/ {print $2}' | sort -u >"$dir/macros"
while read -r macro; do
    grep -qhE "^\.Nm $macro\b" man/*.3 || grep -qhE "^\.Dv $macro\b" man/libperf-abi.7 ||
        { echo "man: no page names $macro" >&2; bad=1; }
    grep -q "^$macro " lib/symbols-in-versions ||
        { echo "man: lib/symbols-in-versions lacks $macro" >&2; bad=1; }
done <"$dir/macros"
[ "$bad" = 0 ] || exit 1
echo "ok docs: $examples examples compile, $prototypes prototypes and" \
    "$(wc -l <"$dir/fields") fields are those of the headers"
