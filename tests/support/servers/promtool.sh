#!/bin/sh
# SPDX-License-Identifier: MIT
# Takes promtool out of Debian's package of Prometheus (19 MB to fetch), without installing a service.
set -eu
cd "$(dirname "$0")/../../.."
what=promtool list=tests/support/servers/promtool.txt to=build/promtool
command -v promtool >/dev/null 2>&1 && exit 0
fetch() { apt-get download -q "$(cat "$OLDPWD/$list")"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
make_it() {
    cd "$to"
    fetch || { as_root apt-get update -q && fetch; }
    dpkg -x ./*.deb root
    mv root/usr/bin/promtool .
    rm -rf root ./*.deb
}
. tests/support/servers/install.inc
