#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Python package into the build directory, and runs its tests and its
# example against the built library.
# Usage: python.sh [BUILD_DIR]. PERF_LIBRARY and PYTHON may be set.
# Exit: 0 passed, 77 skipped with a reason, anything else failed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build}
python=${PYTHON:-python3}
PERF_LIBRARY=${PERF_LIBRARY:-$root/lib/libperf.so.1}
PERF_BUILD=$build
export PERF_LIBRARY PERF_BUILD

skip()
{
    echo "skipped: $1"
    exit 77
}

command -v "$python" >/dev/null || skip "no $python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || skip "Python is older than 3.9"
"$python" -c 'import ctypes' 2>/dev/null || skip "this Python has no ctypes"
[ -e "$PERF_LIBRARY" ] || { echo "$PERF_LIBRARY is not there: run make first"; exit 1; }

# From a copy, since installing writes beside its sources.
work=$build/examples/python
rm -rf "$work"
mkdir -p "$work/site"
cp -R "$root/examples/python" "$work/source"
find "$work/source" -name __pycache__ -prune -exec rm -rf {} +
if "$python" -m pip install --quiet --no-index --no-deps --no-build-isolation \
    --disable-pip-version-check --root-user-action=ignore --target "$work/site" \
    "$work/source" >"$work/pip.log" 2>&1; then
    echo "installed by pip into $work/site"
else
    cp -R "$work/source/perf_cache" "$work/site/"
    echo "pip or setuptools is not here; copied into $work/site"
fi
PYTHONPATH=$work/site
PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE

cd "$work"
"$python" -W error "$root/tests/examples/python_test.py"
"$python" -W error "$root/examples/python/example.py"
"$python" -W error "$root/examples/python/worker.py"
