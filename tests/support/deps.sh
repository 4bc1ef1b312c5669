#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs what a target needs from Debian's or Ubuntu's packages, and says so.
#     deps.sh build|test|check
# Does nothing, quickly, when all of it is there. Uses sudo when it is not root.
set -eu

build="gcc g++ pkg-config libc6-dev libsqlite3-dev uthash-dev xz-utils
libcurl4-openssl-dev libssl-dev libcjson-dev libexpat1-dev zlib1g-dev"
test="$build libcriterion-dev python3 nodejs npm"
check="$test clang clang-tidy clang-format abigail-tools mandoc valgrind git"

case "${1:-}" in
build) wanted=$build ;;
test) wanted=$test ;;
check) wanted=$check ;;
*) echo "usage: deps.sh build|test|check" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "libperf: this is not Debian or Ubuntu; install the counterparts of: $wanted" >&2
    exit 0 # whatever is missing will be named by the compiler
fi

# A tool that is on the PATH counts, however it came there.
provided() {
    case "$1" in
    gcc) command -v cc ;;
    g++) command -v c++ ;;
    nodejs) command -v node ;;
    npm | python3 | clang | clang-tidy | clang-format | mandoc | valgrind | git | pkg-config)
        command -v "$1" ;;
    abigail-tools) command -v abidiff ;;
    *) return 1 ;;
    esac >/dev/null 2>&1
}

missing=
for package in $wanted; do
    provided "$package" && continue
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | cut -c1-2)" = ii ] ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo=sudo
    else
        echo "libperf: these packages are missing and cannot be installed without root:" >&2
        echo "    apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
fi
echo "libperf: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "libperf: apt-get could not install them; mend that, or install by hand:" >&2
    echo "    apt-get install -y --no-install-recommends$missing" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
