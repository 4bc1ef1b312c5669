#!/bin/sh
# SPDX-License-Identifier: MIT
# Signs random requests with libperf and with botocore, which comes with the test server moto into
# a virtual environment in build/; both must agree in every byte.
# SIGV4_REQUESTS: how many, default 10000. SIGV4_SEED: repeats a run.
# Exit: 0 passed, 77 skipped with a reason, anything else failed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
PERF_LIBRARY=${PERF_LIBRARY:-$root/lib/libperf.so.1}
PYTHONDONTWRITEBYTECODE=1
export PERF_LIBRARY PYTHONDONTWRITEBYTECODE

[ -e "$PERF_LIBRARY" ] || { echo "$PERF_LIBRARY is not there: run make first"; exit 1; }
nm -D "$PERF_LIBRARY" | grep -q perf_aws_sign || { echo "skipped: built without AWS"; exit 77; }
"$root/tests/support/servers/moto.sh" >&2 || { echo "skipped: botocore cannot be installed"; exit 77; }
"$root/build/venv/bin/python" "$root/tests/examples/sigv4_differential.py" \
    "${SIGV4_REQUESTS:-10000}" ${SIGV4_SEED:+"$SIGV4_SEED"}
