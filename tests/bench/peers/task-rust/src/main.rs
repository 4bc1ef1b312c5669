// SPDX-License-Identifier: MIT
// The peers tokio (Runtime::spawn) and rayon (ThreadPool::spawn) of bench-task; the frame is that
// of task_subject.h.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static DONE: AtomicU64 = AtomicU64::new(0);
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn wait_for(count: u64) {
    while DONE.load(Ordering::Acquire) < count {
        std::thread::yield_now();
    }
}

fn measure(tasks: u64, submit: impl Fn(), stamp: impl Fn(Instant)) {
    let warm = tasks / 10;
    for _ in 0..warm {
        submit();
    }
    wait_for(warm);
    let begun = Instant::now();
    for _ in 0..tasks {
        submit();
    }
    let submitted = begun.elapsed();
    wait_for(warm + tasks);
    let ended = begun.elapsed();
    let mut wakes = Vec::new();
    for _ in 0..300 {
        std::thread::sleep(Duration::from_micros(2000));
        BEGUN.store(0, Ordering::Relaxed);
        stamp(Instant::now());
        while BEGUN.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        wakes.push(BEGUN.load(Ordering::Relaxed));
    }
    wakes.sort_unstable();
    println!(
        "{{\"ns\": {:.1}, \"submit_ns\": {:.1}, \"wake_us\": {:.2}}}",
        ended.as_nanos() as f64 / tasks as f64,
        submitted.as_nanos() as f64 / tasks as f64,
        wakes[wakes.len() / 2] as f64 / 1000.0
    );
}

fn empty() {
    DONE.fetch_add(1, Ordering::Relaxed);
}

fn begun(at: Instant) {
    BEGUN.store(at.elapsed().as_nanos().max(1) as u64, Ordering::Release);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let workers: usize = arguments[2].parse().unwrap();
    let tasks: u64 = arguments[3].parse().unwrap();
    if arguments[1] == "tokio" {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .build()
            .unwrap();
        measure(
            tasks,
            || drop(runtime.spawn(async { empty() })),
            |at| drop(runtime.spawn(async move { begun(at) })),
        );
    } else {
        let pool = rayon_core::ThreadPoolBuilder::new()
            .num_threads(workers)
            .build()
            .unwrap();
        measure(tasks, || pool.spawn(empty), |at| pool.spawn(move || begun(at)));
    }
}
