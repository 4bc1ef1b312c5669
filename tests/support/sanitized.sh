#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs runners built with a sanitizer, or programs under valgrind; any report is a failure.
#     sanitized.sh asan|tsan|valgrind PROGRAM...
set -u
kind=$1
shift
case "$kind" in
asan) # abort_on_error: Criterion's workers would otherwise swallow a leak
    export ASAN_OPTIONS=abort_on_error=1:detect_leaks=1:allocator_may_return_null=1
    export LSAN_OPTIONS=suppressions=$(dirname "$0")/lsan.supp:print_suppressions=0
    export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
    run() { "$@" --jobs 2; } ;;
tsan)
    export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
    run() { "$@"; } ;;
valgrind)
    run() { valgrind -q --error-exitcode=9 --trace-children=no --leak-check=full \
        --errors-for-leak-kinds=definite "$@"; } ;;
esac
[ "$kind" = valgrind ] || export PERF_STRESS_OPS=${PERF_STRESS_OPS:-100000}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

check() { # program
    local log
    log=$logs/$(basename "$1")
    if ! run "$1" >"$log" 2>&1 || grep -qE 'SUMMARY: .*Sanitizer|WARNING: ThreadSanitizer' "$log"; then
        grep -E -B 3 '^FAILED: |\[(FAIL|CRASH)\]|Assertion Failed' "$log" | head -n 40
        grep -vE '^\[(PASS|RUN )' "$log" | tail -n 60
        echo "FAILED $kind: $1"
        return 1
    fi
}

# ThreadSanitizer's runners are one thread each most of the time: the last one, whose tests wait
# for servers, goes on beside the others.
beside=
if [ "$kind" = tsan ] && [ $# -gt 1 ]; then
    check "${*: -1}" &
    beside=$!
    set -- "${@:1:$#-1}"
fi
failed=0
for program in "$@"; do
    check "$program" || { failed=1; break; }
done
[ -z "$beside" ] || wait "$beside" || failed=1
[ "$failed" -eq 0 ] || exit 1
echo "ok $kind: $(find "$logs" -type f | wc -l) programs clean"
