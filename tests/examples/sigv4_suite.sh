#!/bin/sh
# SPDX-License-Identifier: MIT
# AWS's signing test suite against the built library. Its data is not part of this project:
# SIGV4_SUITE names its folder, default ../shared/sigv4-suite beside the checkout.
# Exit: 0 passed (or not there, under CI), 77 not there, anything else failed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
suite=${SIGV4_SUITE:-$root/../shared/sigv4-suite}
PERF_LIBRARY=${PERF_LIBRARY:-$root/lib/libperf.so.1}
PYTHONDONTWRITEBYTECODE=1
export PERF_LIBRARY PYTHONDONTWRITEBYTECODE

if [ ! -d "$suite" ]; then
    echo "*** sigv4_suite was SKIPPED: $suite is not there; name the suite's folder by SIGV4_SUITE" >&2
    echo "skipped: AWS's signing test suite is not at $suite (SIGV4_SUITE)"
    [ -n "${CI:-}" ] || exit 77
    exit 0
fi
nm -D "$PERF_LIBRARY" | grep -q perf_aws_sign || { echo "skipped: built without AWS"; exit 77; }
"${PYTHON:-python3}" -W error "$root/tests/examples/sigv4_suite.py" "$suite"
