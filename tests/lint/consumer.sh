#!/bin/bash
# SPDX-License-Identifier: MIT
# A user's view: install, find by pkg-config, build an example against the shared and the static
# library, run both; then uninstall leaves nothing behind.
set -eu
root=$PWD/build/consumer
rm -rf "$root"
$MAKE --no-print-directory -s install prefix="$root" >/dev/null
export PKG_CONFIG_PATH=$root/lib/pkgconfig
cc -std=gnu11 -Wall -Wextra -Werror examples/01_cache.c $(pkg-config --cflags --libs libperf) -o "$root/shared"
LD_LIBRARY_PATH=$root/lib "$root/shared" >/dev/null
cc -std=gnu11 examples/01_cache.c $(pkg-config --cflags libperf) "$root/lib/libperf.a" \
    $(pkg-config --static --libs-only-l libperf | sed 's/-lperf//') -o "$root/static"
"$root/static" >/dev/null
rm "$root/shared" "$root/static"
$MAKE --no-print-directory -s uninstall prefix="$root" >/dev/null
left=$(find "$root" -type f -o -type l)
[ -z "$left" ] || { echo "consumer: uninstall left: $left" >&2; exit 1; }
echo "ok consumer: builds and runs from an installed tree, shared and static"
