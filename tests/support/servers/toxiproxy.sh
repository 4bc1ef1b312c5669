#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds toxiproxy in the version of toxiproxy.txt: the newest that needs no newer Go than Debian 12
# has.
set -eu
cd "$(dirname "$0")/../../.."
what=toxiproxy list=tests/support/servers/toxiproxy.txt to=build/toxiproxy
make_it() {
    GOBIN=$PWD/$to GOFLAGS=-buildvcs=false CGO_ENABLED=0 \
        go install -ldflags='-s -w' "github.com/Shopify/toxiproxy/v2/cmd/server@$(cat $list)"
}
. tests/support/servers/install.inc
