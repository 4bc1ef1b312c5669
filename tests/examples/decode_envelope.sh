#!/bin/sh
# SPDX-License-Identifier: MIT
# The decoder in Python reads what the library writes: records from a SQLite tier, and the one of the
# manual. Exit: 0 passed, 77 skipped with a reason, anything else failed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
PERF_LIBRARY=${PERF_LIBRARY:-$root/lib/libperf.so.1}
PYTHONDONTWRITEBYTECODE=1
PYTHONPATH=$root/examples/python
export PERF_LIBRARY PYTHONDONTWRITEBYTECODE PYTHONPATH

command -v "$python" >/dev/null || { echo "skipped: no $python"; exit 77; }
"$python" -c 'import ctypes, sqlite3' 2>/dev/null ||
    { echo "skipped: this Python has no ctypes or no sqlite3"; exit 77; }
"$python" -W error "$root/tests/examples/decode_envelope_test.py" "$root/man/libperf-envelope.7"
