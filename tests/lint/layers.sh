#!/bin/sh
# SPDX-License-Identifier: MIT
# Proves the layering by the includes: a room includes only from its own and lower floors; rooms
# of one floor never include one another; a header is private to its room unless src/README.md
# lists it on a line of its own: - `src/room/header.h`.
set -eu
bad=0
floor() {
    case "$1" in
    base) echo 1 ;; metrics) echo 2 ;; pool) echo 3 ;; net) echo 4 ;; store) echo 5 ;;
    cache | task | monitor) echo 6 ;; service) echo 7 ;; perfctl) echo 8 ;; *) echo 0 ;;
    esac
}
complain() {
    echo "layers: $1" >&2
    bad=1
}
for file in src/*/*.[ch]; do
    room=$(basename "$(dirname "$file")")
    mine=$(floor "$room")
    [ "$mine" -gt 0 ] || complain "$file: room '$room' is on no floor"
    for include in $(sed -n 's/^#include "\([^"]*\)".*/\1/p' "$file"); do
        case "$include" in
        ../*/*)
            other=${include#../}
            header=src/$other
            other=${other%%/*}
            [ -f "$header" ] || complain "$file: no $header"
            [ "$room" != perfctl ] || complain "$file: perfctl uses only the public headers"
            [ "$(floor "$other")" -lt "$mine" ] ||
                complain "$file: $other is not below $room"
            grep -q "\`$header\`" src/README.md ||
                complain "$file: $header is private to $other (src/README.md does not list it)" ;;
        */*) complain "$file: odd path $include" ;;
        *) [ -f "src/$room/$include" ] || complain "$file: no src/$room/$include" ;;
        esac
    done
done
if grep -nE 'TODO|FIXME|XXX' -r src include; then
    complain "loose ends above"
fi
[ "$bad" = 0 ] || exit 1
echo "ok layers: $(ls src/*/*.[ch] | wc -l) files keep to their floors"
