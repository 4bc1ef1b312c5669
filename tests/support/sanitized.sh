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

# Two at a time, the last one first: its tests wait for servers most of the time. ASan's runners
# are two processes each already.
at_once=2
[ "$kind" != asan ] || at_once=1
failed=0 running=0
for ((i = $#; i > 0; i--)); do
    if [ "$running" -ge "$at_once" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    check "${!i}" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ "$failed" -eq 0 ] || exit 1
echo "ok $kind: $(find "$logs" -type f | wc -l) programs clean"
