#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs moto and boto3 in the versions of moto.txt, in a virtual environment.
set -eu
cd "$(dirname "$0")/../../.."
what=moto list=tests/support/servers/moto.txt to=build/venv
make_it() {
    python3 -m venv $to
    $to/bin/pip install --disable-pip-version-check --no-compile --no-deps -r $list
}
. tests/support/servers/install.inc
