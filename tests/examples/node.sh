#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Node.js module with its locked dependency into the build directory, and
# runs its tests and its example against the built library.
# Usage: node.sh [BUILD_DIR]. PERF_LIBRARY may be set.
# Exit: 0 passed, 77 skipped with a reason, anything else failed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build}
PERF_LIBRARY=${PERF_LIBRARY:-$root/lib/libperf.so.1}
export PERF_LIBRARY

skip()
{
    echo "skipped: $1"
    exit 77
}

command -v node >/dev/null || skip "no node"
command -v npm >/dev/null || skip "no npm"
node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || skip "Node.js is older than 18"
[ -e "$PERF_LIBRARY" ] || { echo "$PERF_LIBRARY is not there: run make first"; exit 1; }

# The tree itself stays clean: node_modules goes into the copy.
work=$build/examples/node
mkdir -p "$work"
cp "$root"/examples/node/*.js "$root"/examples/node/*.json "$work/"
cd "$work"
# Reinstall only when the lock file changed.
if ! cmp -s package-lock.json node_modules/.installed-lock; then
    npm ci --no-audit --no-fund --loglevel=error >npm.log 2>&1 || {
        grep -q -E 'EINTEGRITY|EUSAGE|EJSONPARSE' npm.log && { cat npm.log; exit 1; }
        tail -5 npm.log
        skip "npm could not install koffi (no network?)"
    }
    cp package-lock.json node_modules/.installed-lock
fi
node -e 'require("koffi")' 2>npm.log || {
    tail -3 npm.log
    skip "koffi has no build for this machine"
}

PERF_MODULE=$work/index.js
export PERF_MODULE
node --test "$root/tests/examples/node_test.js"
node "$work/example.js"
