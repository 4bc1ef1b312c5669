#!/bin/bash
# SPDX-License-Identifier: MIT
# The pool with a real PostgreSQL that is started here: queries by many threads; kill -9 and a new
# start, an orderly restart, and connections ended by the server, while the program goes on. And the
# program without a server.
# Environment: OUT, the build directory of the variant (default build/release).
# Exit: 0 passed, 77 skipped with a reason, anything else failed.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
out=${OUT:-build/release}
case $out in
/*) program=$out/examples/postgres_pool ;;
*) program=$root/$out/examples/postgres_pool ;;
esac

skip() { echo "skipped: $1"; exit 77; }
fail() {
    echo "failed: $1"
    tail -n 20 "$dir"/out "$dir"/log 2>/dev/null
    exit 1
}

pkg-config --exists libpq || skip "libpq is not installed"
[ -x "$program" ] || { echo "$program is not there: run make $out/examples/postgres_pool first"; exit 1; }
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb || echo /none/initdb)")
[ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] || skip "no PostgreSQL server"

# It refuses to run as root.
as=
if [ "$(id -u)" = 0 ]; then
    command -v runuser >/dev/null || skip "root, and no runuser"
    as="runuser -u nobody --"
fi

dir=$(mktemp -d) || exit 1
postmaster=
pid=
finish() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null
    [ -z "$postmaster" ] || kill -QUIT "$postmaster" 2>/dev/null
    wait
    rm -rf "$dir"
}
trap finish EXIT
mkdir "$dir/pg"
[ -z "$as" ] || chown nobody "$dir/pg"
chmod 711 "$dir"
cd /
unset PGHOST PGPORT PGUSER PGDATABASE PGSERVICE PGPASSWORD || true

$as "$bin/initdb" -D "$dir/pg/data" -U postgres -A trust -E UTF8 --locale=C -N >"$dir/log" 2>&1 ||
    fail "initdb"

# Only a Unix socket, in a directory of its own: no port to be taken by somebody else.
start() {
    $as "$bin/postgres" -D "$dir/pg/data" -k "$dir/pg" -F -c listen_addresses= \
        -c max_connections=30 >>"$dir/log" 2>&1 &
    local before=$postmaster # its file may still be there
    for _ in $(seq 300); do
        postmaster=$(sed -n 1p "$dir/pg/data/postmaster.pid" 2>/dev/null)
        [ "$postmaster" != "$before" ] &&
            grep -q '^ready' "$dir/pg/data/postmaster.pid" 2>/dev/null && return
        sleep 0.1
    done
    fail "the server does not start"
}

wait_for() { # pattern, how often it must be there by now
    for _ in $(seq 200); do
        [ "$(grep -c "$1" "$dir/out")" -ge "$2" ] && return
        kill -0 "$pid" 2>/dev/null || fail "the program ended before '$1'"
        sleep 0.05
    done
    fail "no '$1' ($2 times)"
}

conninfo="host=$dir/pg user=postgres dbname=postgres"

# Nobody there.
"$program" "$conninfo" >"$dir/out" 2>&1 || fail "exit code without a server"
grep -q 'No PostgreSQL answers' "$dir/out" || fail "it does not explain"

start
"$program" "$conninfo" >"$dir/out" 2>&1 || fail "queries"
grep -q '4000 queries worked, 0 failed, 0 wrong' "$dir/out" || fail "not all queries worked"
opened=$(sed -n 's/.*opened \([0-9]*\).*/\1/p' "$dir/out")
[ "$opened" -le 4 ] || fail "$opened connections for max_size 4"

"$program" "$conninfo" 60 >"$dir/out" 2>&1 &
pid=$!
wait_for '^PERF_OK' 1

# The server is killed: broken connections first, then nobody to open others.
kill -9 "$postmaster"
wait_for '^PERF_EUNAVAILABLE' 1
oks=$(grep -c '^PERF_OK' "$dir/out")
# Its children see that it is gone, and let go of the data.
for _ in $(seq 100); do
    $as "$bin/pg_ctl" -D "$dir/pg/data" status >/dev/null 2>&1 || break
    sleep 0.05
done
start
wait_for '^PERF_OK' $((oks + 1))

# All connections are ended by the server, which stays: there is another for each.
aways=$(grep -c '^PERF_EUNAVAILABLE' "$dir/out")
opened() { "$bin/psql" -X -At "$conninfo" -c \
    "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'"; }
ended=$("$bin/psql" -X -At "$conninfo" -c "SELECT count(pg_terminate_backend(pid))
    FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'")
[ "$ended" -ge 1 ] || fail "no connection to end"
sleep 1
[ "$(opened)" -ge 1 ] || fail "no connection after all were ended"
[ "$(grep -c '^PERF_EUNAVAILABLE' "$dir/out")" = "$aways" ] || fail "unavailable, with a server there"

# An orderly restart.
oks=$(grep -c '^PERF_OK' "$dir/out")
kill -INT "$postmaster"
wait_for '^PERF_EUNAVAILABLE' $((aways + 1))
start
wait_for '^PERF_OK' $((oks + 1))

# What callers were told, all in all.
kill "$pid"
wait "$pid" 2>/dev/null
pid=
others=$(grep '^PERF_' "$dir/out" | cut -d: -f1 | sort -u | grep -vxE 'PERF_OK|PERF_EIO|PERF_EUNAVAILABLE')
[ -z "$others" ] || fail "callers were told $others"

"$program" "$conninfo" 0.5 >"$dir/out" 2>&1 || fail "half a second"
grep -q '^at the end: PERF_OK, [0-9]* worked, 0 failed, 0 wrong' "$dir/out" || fail "at the end"
echo "ok postgres: killed, restarted, disconnected; every caller was told right"
