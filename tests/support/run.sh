#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs test runners, example programs and test scripts, and adds up what they say.
#     OUT=build/release run.sh PROGRAM...
# A runner prints Criterion's summary (or the shim's); any other program counts as one test.
# Exit code 77 of a program means skipped, which is a failure under CI.
set -u
passed=0 failed=0 skipped=0
names=() # of what failed, said again at the end, where it is not lost among other lines
log=$(mktemp)
trap 'rm -f "$log"' EXIT

count_runner() { # from the last summary line in $log
    local line
    line=$(grep -E 'Tested: |[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    case "$line" in
    *Tested:*)
        local tested fail crash skip
        tested=$(sed -E 's/.*Tested: ([0-9]+).*/\1/' <<<"$line")
        fail=$(sed -E 's/.*Failing: ([0-9]+).*/\1/' <<<"$line")
        crash=$(sed -E 's/.*Crashing: ([0-9]+).*/\1/' <<<"$line")
        skip=$(grep -c '^SKIPPED' "$log")
        failed=$((failed + fail + crash)) skipped=$((skipped + skip))
        passed=$((passed + tested - fail - crash)) ;; # skipped ones are not among the tested
    *passed*)
        passed=$((passed + $(sed -E 's/.*\b([0-9]+) passed.*/\1/' <<<"$line")))
        failed=$((failed + $(sed -E 's/.* ([0-9]+) failed.*/\1/' <<<"$line")))
        skipped=$((skipped + $(sed -E 's/.*, ([0-9]+) skipped.*/\1/;t;s/.*/0/' <<<"$line"))) ;;
    *) return 1 ;;
    esac
}

for program in "$@"; do
    began=$SECONDS
    timeout -k 10 "${TEST_TIMEOUT:-900}" "$program" >"$log" 2>&1 # a hang is a failure, too
    rc=$?
    case "$program" in
    */test-*)
        grep -E '\[(----|FAIL|CRASH)\]|^SKIPPED|^FAILED|Synthesis|passed,' "$log" | head -n 40
        before=$failed
        count_runner || { failed=$((failed + 1)); tail -n 20 "$log"; }
        if [ $rc -ne 0 ] && [ "$failed" = "$before" ]; then
            failed=$((failed + 1))
            names+=("$program exited with $rc")
            echo "FAILED: $program exited with $rc"
            tail -n 20 "$log"
        fi
        while read -r name; do
            names+=("$(basename "$program"): $name")
        done < <(grep -E '\[(FAIL|CRASH)\]' "$log" | sed -E 's/.*\] ([^ ]+:[^ ]+).*/\1/')
        echo "$(basename "$program"): $((SECONDS - began)) s" ;;
    *)
        if [ $rc -eq 0 ]; then
            passed=$((passed + 1))
            echo "ok ${program#"${OUT:-build}"/}"
        elif [ $rc -eq 77 ] && [ -z "${CI:-}" ]; then
            skipped=$((skipped + 1))
            echo "SKIPPED: $program: $(tail -n 1 "$log")"
        else
            failed=$((failed + 1))
            names+=("$program exited with $rc")
            echo "FAILED: $program exited with $rc"
            tail -n 20 "$log"
        fi ;;
    esac
done
[ $failed -eq 0 ] || printf 'failed: %s\n' "${names[@]}" | tee -a "${FAILURES:-/dev/null}"
[ -z "${COUNTS:-}" ] || echo "$passed $failed $skipped" >>"$COUNTS"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
