#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Builds the peers of the benchmark into DIR. A peer whose compiler or packages cannot be had is
# named loudly and left out; that is not a failure of the build.
#
# usage: build.sh DIR [cache|pool|aws|redis|task|task-redis|monitor]
set -u
dir=$(mkdir -p "$1" && cd "$1" && pwd) || exit 1
here=$(cd "$(dirname "$0")" && pwd) || exit 1

# attempt NAMES RESULT COMMAND...: runs COMMAND; keeps its output in a log; says what failed.
attempt() {
    names=$1
    result=$2
    shift 2
    log=$dir/$result.log
    if "$@" >"$log" 2>&1; then
        return
    fi
    rm -rf "${dir:?}/$result"
    echo "bench: NOT MEASURED: $names: the build failed; the end of $log:" >&2
    tail -n 5 "$log" | sed 's/^/bench:   /' >&2
}

# With "aws" behind DIR only what bench-aws needs.
aws_go() {
    cd "$here/aws-go" && go build -mod=readonly -trimpath -o "$dir/peer-aws-go" .
}
if [ "${2:-}" = aws ]; then
    attempt 'go-sdk' peer-aws-go aws_go
    exit 0
fi

tbb() {
    target=$dir/peer-tbb
    for source in tbb.cc ../subject.h ../protocol.h; do
        [ "$target" -nt "$here/$source" ] || set -- stale
    done
    [ $# -eq 0 ] || ${CXX:-c++} -std=gnu++17 -O3 -march=native -pthread -o "$target" \
        "$here/tbb.cc" -ltbb
}

rust() {
    cd "$here/rust" && RUSTFLAGS='-C target-cpu=native' \
        cargo build --release --locked --target-dir "$dir/cargo" &&
        cp -f "$dir/cargo/release/peer-rust" "$dir/peer-rust"
}

golang() {
    cd "$here/go" && go build -mod=readonly -trimpath -o "$dir/peer-go" .
}

java() {
    target=$dir/peer-java
    mkdir -p "$target"
    if [ ! "$target/jars" -nt "$here/java/pom.xml" ]; then
        rm -rf "$target/jars"
        mvn -B -q -f "$here/java/pom.xml" \
            org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
            -DoutputDirectory="$target/jars" || return 1
        touch "$target/jars"
    fi
    [ "$target/Peer.class" -nt "$here/java/Peer.java" ] ||
        javac -d "$target" -cp "$target/jars/*" "$here/java/Peer.java"
}

pool_rust() {
    cd "$here/pool-rust" && RUSTFLAGS='-C target-cpu=native' \
        cargo build --release --locked --target-dir "$dir/cargo-pool" &&
        cp -f "$dir/cargo-pool/release/peer-pool-rust" "$dir/peer-pool-rust"
}

pool_go() {
    cd "$here/pool-go" && go build -mod=readonly -trimpath -o "$dir/peer-pool-go" .
}

pool_java() {
    target=$dir/peer-pool-java
    mkdir -p "$target"
    if [ ! "$target/jars" -nt "$here/pool-java/pom.xml" ]; then
        rm -rf "$target/jars"
        mvn -B -q -f "$here/pool-java/pom.xml" \
            org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
            -DoutputDirectory="$target/jars" || return 1
        touch "$target/jars"
    fi
    [ "$target/PoolPeer.class" -nt "$here/pool-java/PoolPeer.java" ] ||
        javac -d "$target" -cp "$target/jars/*" "$here"/pool-java/*.java
}

redis_go() {
    cd "$here/redis-go" && go build -mod=readonly -trimpath -o "$dir/peer-redis-go" .
}

redis_rust() {
    cd "$here/redis-rust" && RUSTFLAGS='-C target-cpu=native' \
        cargo build --release --locked --target-dir "$dir/cargo-redis" &&
        cp -f "$dir/cargo-redis/release/peer-redis-rust" "$dir/peer-redis-rust"
}

task_cc() {
    ${CXX:-c++} -std=gnu++17 -O3 -march=native -pthread -o "$dir/peer-task-cc" "$here/task.cc" \
        -ltbb -luv
}

task_rust() {
    cd "$here/task-rust" && RUSTFLAGS='-C target-cpu=native' \
        cargo build --release --locked --target-dir "$dir/cargo-task" &&
        cp -f "$dir/cargo-task/release/peer-task-rust" "$dir/peer-task-rust"
}

tasks_go() {
    cd "$here/tasks-go" && go build -mod=readonly -trimpath -o "$dir/peer-tasks-go" .
}

tasks_node() {
    target=$dir/peer-tasks-node
    mkdir -p "$target"
    cp "$here"/tasks-node/* "$target"
    cd "$target" && { [ -d node_modules ] || npm ci --no-audit --no-fund --ignore-scripts; }
}

tasks_rq() {
    target=$dir/peer-tasks-rq
    [ -x "$target/bin/python" ] || python3 -m venv "$target" || return 1
    "$target/bin/python" -m pip install -q -r "$here/tasks_rq.txt"
}

# Debian's prometheus-cpp-dev.
monitor_cc() {
    ${CXX:-c++} -std=gnu++17 -O3 -march=native -pthread -o "$dir/peer-monitor-cc" \
        "$here/monitor.cc" -lprometheus-cpp-core
}

case ${2:-cache} in
monitor)
    attempt 'prometheus-cpp' peer-monitor-cc monitor_cc
    exit 0 ;;
task-redis)
    attempt 'asynq' peer-tasks-go tasks_go
    attempt 'BullMQ' peer-tasks-node tasks_node
    attempt 'RQ' peer-tasks-rq tasks_rq
    exit 0 ;;
task)
    attempt 'oneTBB, libuv' peer-task-cc task_cc
    attempt 'tokio, rayon' peer-task-rust task_rust
    exit 0 ;;
redis)
    attempt 'rueidis' peer-redis-go redis_go
    attempt 'fred' peer-redis-rust redis_rust
    exit 0 ;;
pool)
    attempt 'r2d2, deadpool, fast_pool' peer-pool-rust pool_rust
    attempt 'puddle' peer-pool-go pool_go
    attempt 'HikariCP' peer-pool-java pool_java
    exit 0 ;;
esac
attempt 'tbb' peer-tbb tbb
attempt 'quick_cache, moka' peer-rust rust
attempt 'otter, theine' peer-go golang
attempt 'caffeine' peer-java java
exit 0
