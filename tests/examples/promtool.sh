#!/bin/bash
# SPDX-License-Identifier: MIT
# What an example shows is what Prometheus reads: its own promtool parses it, and finds nothing to
# say against names, units and help.
# Environment: OUT, the build directory of the variant (default build/release).
# Exit: 0 passed, 77 skipped with a reason, anything else failed.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${OUT:-build/release}
case $out in
/*) ;;
*) out=$root/$out ;;
esac
promtool=$(command -v promtool || echo "$root/build/promtool/promtool")
[ -x "$promtool" ] || { echo "skipped: there is no promtool"; exit 77; }
[ -x "$out/examples/13_metrics" ] || { echo "$out/examples/13_metrics is not there"; exit 1; }
text=$("$out/examples/13_metrics" 2>/dev/null) || { echo "failed: the example"; exit 1; }
said=$("$promtool" check metrics 2>&1 <<<"$text") || { echo "failed: $said"; exit 1; }
[ -z "$said" ] || { echo "failed: $said"; exit 1; }
# And it would have said something.
if "$promtool" check metrics >/dev/null 2>&1 <<<"${text/http_requests_total\{/1\{}"; then
    echo "failed: promtool accepts anything"
    exit 1
fi
grep -q '^http_requests_total{status="200"} 3960$' <<<"$text" || { echo "failed: a count"; exit 1; }
echo "promtool agrees"
