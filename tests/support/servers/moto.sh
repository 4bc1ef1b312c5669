#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs moto and boto3 into build/venv, in the versions of moto.txt, unless they are there.
set -eu
cd "$(dirname "$0")/../../.."
list=tests/support/servers/moto.txt
installed() { cmp -s $list build/venv/installed.txt; }
installed && exit 0
mkdir -p build
exec 9>build/venv.lock
flock 9
installed && exit 0
echo "libperf: installing moto into build/venv"
rm -rf build/venv
python3 -m venv build/venv
build/venv/bin/pip install -q --disable-pip-version-check --no-compile --no-deps -r $list
cp $list build/venv/installed.txt
