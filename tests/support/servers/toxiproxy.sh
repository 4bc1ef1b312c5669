#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds toxiproxy into build/bin, unless it is there. 2.5.0 is the newest that needs no newer Go
# than Debian 12 has.
set -eu
cd "$(dirname "$0")/../../.."
version=v2.5.0
to=build/bin/toxiproxy-$version
[ -x $to ] && exit 0
mkdir -p build/bin
exec 9>build/bin.lock
flock 9
[ -x $to ] && exit 0
echo "libperf: building toxiproxy into build/bin"
make=$(mktemp -d)
trap 'chmod -R u+w "$make"; rm -rf "$make"' EXIT
if ! GOBIN=$make/bin GOPATH=$make/go GOFLAGS=-buildvcs=false CGO_ENABLED=0 \
    go install -ldflags='-s -w' github.com/Shopify/toxiproxy/v2/cmd/server@$version \
    >"$make/log" 2>&1; then
    tail -n 5 "$make/log" >&2
    exit 1
fi
mv "$make/bin/server" $to
