#!/bin/sh
# SPDX-License-Identifier: MIT
# What PERF_CACHED and PERF_TASK must refuse does not compile, in C and in C++, and the message says why;
# a compiler too old for macros.h is sent to the functions.
# Exit: 0 passed, anything else failed.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
tried=0

# compiles LANGUAGE SOURCE
compiles()
{
    printf '#include <libperf/perf.h>\nstruct thing { int x; };\n%s\n' "$2" >"$dir/source"
    case $1 in
    c99) compiler="${CC:-cc} -std=c99 -x c" ;;
    c) compiler="${CC:-cc} -std=c11 -x c" ;;
    c++) compiler="${CXX:-c++} -std=c++17 -x c++" ;;
    esac
    $compiler -I"$root/include" -fsyntax-only "$dir/source" >"$dir/log" 2>&1
}

accepts()
{
    compiles "$1" "$2" && return
    echo "does not compile in $1: $2"
    head -n 5 "$dir/log"
    failed=1
}

# refuses LANGUAGE EXPECTED SOURCE
refuses()
{
    tried=$((tried + 1))
    if compiles "$1" "$3"; then
        echo "compiles in $1, but should not: $3"
        failed=1
    elif ! grep -qF "$2" "$dir/log"; then
        echo "the message does not say '$2' in $1: $3"
        head -n 5 "$dir/log"
        failed=1
    fi
}

for language in c c++; do
    accepts $language 'PERF_CACHED(f, struct thing, "n", 1, (int, a)) { out->x = a; return 0; }'
    for type in 'struct thing' 'struct thing *' 'void *' 'long double' 'const unsigned char *'; do
        refuses $language "PERF_CACHED: ($type, a) cannot be part of a key" \
            "PERF_CACHED(f, int, \"n\", 1, ($type, a)) { (void)a; *out = 1; return 0; }"
    done
    refuses $language 'PERF_CACHED: the result (char *)' \
        'PERF_CACHED(f, char *, "n", 1, (int, a)) { (void)a; *out = 0; return 0; }'
    refuses $language 'takes at most 8 arguments' \
        'PERF_CACHED(f, int, "n", 1, (int, a), (int, b), (int, c), (int, d), (int, e), (int, g),
                     (int, h), (int, i), (int, j)) { *out = a; return 0; }'
    refuses $language 'needs a result type, a namespace and' \
        'PERF_CACHED(f, int, "n") { *out = 1; return 0; }'
    accepts $language 'PERF_TASK(f, (struct thing, a), (void *, b), (char *, c)) {
                           return a.x || b || c ? 0 : perf_run_cancelled(run); }
                       int g(perf_executor *e, struct thing t);
                       int g(perf_executor *e, struct thing t) { char c[] = "";
                           return PERF_ASYNC(e, NULL, f, t, NULL, c); }'
    for type in 'unsigned char *' 'const signed char *' 'char **' 'const char *const *'; do
        refuses $language "PERF_TASK: ($type, a) cannot be copied" \
            "PERF_TASK(f, (int, b), ($type, a)) { return a && b; }"
    done
    refuses $language 'takes at most 8 arguments' \
        'PERF_TASK(f, (int, a), (int, b), (int, c), (int, d), (int, e), (int, g), (int, h),
                   (int, i), (int, j)) { return a; }'
    refuses $language 'over-aligned' \
        'struct __attribute__((aligned(64))) wide { int x; };
         PERF_TASK(f, (struct wide, a)) { return a.x; }'
    refuses $language 'over-aligned' \
        'struct __attribute__((aligned(64))) wide { int x; };
         PERF_CACHED(f, struct wide, "n", 1) { out->x = 1; return 0; }'
done
refuses c++ 'must be trivially copyable' \
    'struct text { text(const text &); char *p; };
     PERF_CACHED(f, text, "n", 1) { out->p = 0; return 0; }'
for type in 'text' 'text &' 'const text' 'int &&'; do
    refuses c++ "PERF_TASK: ($type, a) cannot be copied" \
        "struct text { text(const text &); char *p; };
         PERF_TASK(f, ($type, a)) { (void)a; return 0; }"
done
refuses c99 'libperf/cache.h' 'int f(void);'

[ $failed = 0 ] && echo "$tried refusals, each with its reason"
exit $failed
