#!/bin/sh
# SPDX-License-Identifier: MIT
# Man pages are clean for mandoc, and their examples compile.
set -eu
[ $# -gt 0 ] || { echo "man: there are no pages" >&2; exit 1; }
mandoc -T lint -W warning "$@"
[ ! -x tests/lint/man_examples.sh ] || tests/lint/man_examples.sh
echo "ok man: $# pages"
