#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the demo in its quick form: on the machine's index, on a trace, and on hostile package
# files; checks exit codes, the table, the hit rates, and that no temporary file stays behind.
# Environment: OUT, the build directory of the variant (default build/release).
# Exit: 0 passed, 77 skipped with a reason, anything else failed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
out=${OUT:-build/release}
case $out in
/*) demo=$out/demo ;;
*) demo=$root/$out/demo ;;
esac

fail()
{
    echo "failed: $1"
    cat "$work/out" "$work/err"
    exit 1
}

[ -x "$demo" ] || { echo "$demo is not there: run make build/release/demo first"; exit 1; }
[ -e /var/lib/dpkg/status ] || { echo "skipped: no dpkg on this machine"; exit 77; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp"
TMPDIR=$work/tmp
DEMO_QUICK=1
export TMPDIR DEMO_QUICK
unset TRACE DEMO_INDEX || true
cd "$work" # the plot lands below the current directory

run() { "$demo" >out 2>err; }
nothing_left() { [ -z "$(ls -A tmp)" ] || fail "$1 left files in the temporary directory"; }

# The machine's own index: floors are the demo's exit code, and checked here once more.
run || fail "the demo's exit code"
nothing_left "the demo"
for row in '1 without libperf' '2 with libperf' '3 after a restart' '  its first requests' \
    'single flight' '  loads suppressed' 'time saved' 'memory tier' 'sqlite tier'; do
    grep -q "^$row" out || fail "no row '$row'"
done
awk '/^2 with libperf/ { sum = $5 + $6 + $7; hot = $8 }
     /^3 after a restart/ { again = $8 }
     /reduced by/ { reduction = $(NF - 1) }
     END { exit !(sum > 99.9 && sum < 100.1 && hot + 0 >= 95 && again + 0 < 0.01 &&
                  reduction + 0 != 0) }' out || fail "hit rates, or no response time"
grep -q '<svg' build/demo/latency.html || fail "no plot"
! grep -Eq 'src=|href=|url\(|nan|inf' build/demo/latency.html || fail "the plot fetches or has gaps"

# A trace, with and without sizes (49 squares modulo 97); one that is not there.
awk 'BEGIN { for (i = 0; i < 4000; i++) print (i * i) % 97 (i % 2 ? ",512" : "") }' >trace
TRACE=$work/trace run || fail "a trace"
grep -q '(49 keys) of' out || fail "the trace's keys"
if TRACE=$work/none run; then fail "a missing trace was accepted"; fi
nothing_left "a trace"

# Hostile package files: refused or read, with exit code 0 or 1, never a crash.
head -c 300000 /dev/urandom >noise
head -c 200000 /dev/zero | tr '\0' 'a' >long
{
    echo 'Package: a'
    echo 'Depends: a, b | c, , (>= 1), '"$(cat long)"', "; DROP TABLE package; --, e'
    echo 'Installed-Size: 99999999999999999999999999'
    printf '\nPackage: ../../etc\nDepends: a\n\nPackage: b\nProvides: v,,v (= 1)\nDepends: v, a\n'
    printf 'Installed-Size: -5\n\nPackage: %s\n\nPackage: a\nDepends: b\n' "$(cat long)"
    printf 'Package\n:\n\0\0\nPackage: e\nDepends: nowhere'
} >odd
: >empty
for file in noise long odd empty none /dev/null; do
    rc=0
    DEMO_INDEX=$file run || rc=$?
    [ $rc -le 1 ] || fail "exit code $rc for the package file '$file'"
    nothing_left "the package file '$file'"
done
echo "ok demo"
