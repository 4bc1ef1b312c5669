#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs what a target needs from Debian's or Ubuntu's packages, and says so.
#     deps.sh build|test|check
# Does nothing, quickly, when all of it is there. Uses sudo when it is not root. For test and check
# it also installs the test servers that Debian does not package, below build/.
set -eu

build="gcc g++ pkg-config libc6-dev libsqlite3-dev uthash-dev xz-utils
libcurl4-openssl-dev libssl-dev libcjson-dev libexpat1-dev zlib1g-dev libhiredis-dev libzstd-dev"
test="$build libcriterion-dev python3 python3-venv nodejs npm ca-certificates openssl
nginx-light postgresql redis-server libpq-dev default-jre-headless golang-go"
check="$test clang clang-tidy clang-format abigail-tools mandoc valgrind git"

case "${1:-}" in
build) wanted=$build ;;
test) wanted=$test ;;
check) wanted=$check ;;
*) echo "usage: deps.sh build|test|check" >&2; exit 2 ;;
esac

# The servers of tests/support/servers, side by side. One that cannot be had is no error here: the
# tests that need it say so.
servers() {
    [ "$1" != build ] || return 0
    for script in "$(dirname "$0")"/servers/*.sh; do
        "$script" || echo "libperf: $script failed; the tests that need it will be skipped" >&2 &
    done
    wait
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "libperf: this is not Debian or Ubuntu; install the counterparts of: $wanted" >&2
    servers "$1"
    exit 0 # whatever is missing will be named by the compiler
fi

# A tool that is on the PATH counts, however it came there.
provided() {
    case "$1" in
    gcc) command -v cc ;;
    g++) command -v c++ ;;
    nodejs) command -v node ;;
    nginx-light) command -v nginx || [ -x /usr/sbin/nginx ] ;;
    postgresql) command -v postgres && command -v initdb && command -v psql ;;
    redis-server) command -v redis-server && command -v redis-cli ;;
    default-jre-headless) command -v java ;;
    golang-go) command -v go ;;
    python3-venv) # slow to ask, so only before the first time
        [ -e "$(dirname "$0")/../../build/venv/installed" ] ||
            python3 -c 'import ensurepip, venv' ;;
    npm | openssl | python3 | clang | clang-tidy | clang-format | mandoc | valgrind | git | pkg-config)
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
if [ -z "$missing" ]; then
    servers "$1"
    exit 0
fi

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

# Tests start servers of their own: what these packages would start as services stays off.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '$sudo rm -f $policy' EXIT
    trap 'exit 1' INT TERM
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
fi
services_off() { # nor at the next boot; those that were there before are left alone
    [ -d /run/systemd/system ] || return 0
    for package in $missing; do
        case "$package" in
        nginx-light) $sudo systemctl --quiet disable nginx.service ;;
        postgresql) $sudo systemctl --quiet disable postgresql.service ;;
        redis-server) $sudo systemctl --quiet disable redis-server.service ;;
        esac
    done
}

if ! { $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "libperf: apt-get could not install them; mend that, or install by hand:" >&2
    echo "    apt-get install -y --no-install-recommends$missing" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
services_off || echo "libperf: nginx, postgresql or redis may start as a service at the next boot" >&2
servers "$1"
