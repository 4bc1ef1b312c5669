// SPDX-License-Identifier: MIT

//! The Rust pools of bench-pool. The protocol is that of pool_subject.h.
//!
//! r2d2 blocks threads. deadpool and fast_pool are asynchronous: they run as as many tasks in a
//! tokio runtime with a worker thread for each processor, which is how they are meant to be used.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BATCH: u64 = 64;

struct Run {
    threads: usize,
    connections: usize,
    ms: u64,
    hold: Duration,
    phase: AtomicI32,
}

#[derive(Default)]
struct Answer {
    count: u64,
    waits: Vec<u64>,
}

struct Stub(#[allow(dead_code)] Box<u64>);

#[derive(Debug)]
struct Never;
impl std::fmt::Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("never")
    }
}
impl std::error::Error for Never {}
impl From<&str> for Never {
    fn from(_: &str) -> Never {
        Never
    }
}

struct Opener;
impl r2d2::ManageConnection for Opener {
    type Connection = Stub;
    type Error = Never;
    fn connect(&self) -> Result<Stub, Never> {
        Ok(Stub(Box::new(0)))
    }
    fn is_valid(&self, _: &mut Stub) -> Result<(), Never> {
        Ok(())
    }
    fn has_broken(&self, _: &mut Stub) -> bool {
        false
    }
}
impl deadpool::managed::Manager for Opener {
    type Type = Stub;
    type Error = Never;
    async fn create(&self) -> Result<Stub, Never> {
        Ok(Stub(Box::new(0)))
    }
    async fn recycle(
        &self,
        _: &mut Stub,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Never> {
        Ok(())
    }
}
impl fast_pool::Manager for Opener {
    type Connection = Stub;
    type Error = Never;
    async fn connect(&self) -> Result<Stub, Never> {
        Ok(Stub(Box::new(0)))
    }
    async fn check(&self, _: &mut Stub) -> Result<(), Never> {
        Ok(())
    }
}

/// The loop of every subject; $get is an expression that gives a guard.
macro_rules! work {
    ($run:expr, $get:expr, $sleep:expr) => {{
        let mut answer = Answer::default();
        loop {
            let phase = $run.phase.load(Ordering::Relaxed);
            if phase == 2 {
                break answer;
            }
            if !$run.hold.is_zero() {
                let begun = Instant::now();
                let guard = $get;
                if phase == 1 {
                    answer.waits.push(begun.elapsed().as_nanos() as u64);
                }
                $sleep;
                drop(guard);
                continue;
            }
            for _ in 0..BATCH {
                drop($get);
            }
            if phase == 1 {
                answer.count += BATCH;
            }
        }
    }};
}

fn time_it(run: &Run, join: impl FnOnce() -> Vec<Answer>) {
    std::thread::sleep(Duration::from_millis(run.ms) / 10);
    run.phase.store(1, Ordering::Relaxed);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(run.ms));
    run.phase.store(2, Ordering::Relaxed);
    let took = begun.elapsed();
    let answers = join();
    if run.hold.is_zero() {
        let total: u64 = answers.iter().map(|a| a.count).sum();
        println!("{{\"ns\": {:.3}}}", took.as_nanos() as f64 / total as f64);
        return;
    }
    let mut all: Vec<u64> = answers.into_iter().flat_map(|a| a.waits).collect();
    all.sort_unstable();
    let n = all.len();
    println!(
        "{{\"n\": {}, \"mean\": {}, \"p50\": {}, \"p99\": {}, \"p999\": {}, \"max\": {}}}",
        n,
        all.iter().sum::<u64>() / n as u64,
        all[n / 2],
        all[n * 99 / 100],
        all[n * 999 / 1000],
        all[n - 1]
    );
}

fn tasks<F, T>(run: Arc<Run>, make: F)
where
    F: Fn(Arc<Run>) -> T,
    T: std::future::Future<Output = Answer> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let handles: Vec<_> =
        (0..run.threads).map(|_| runtime.spawn(make(run.clone()))).collect();
    time_it(&run, || {
        handles.into_iter().map(|h| runtime.block_on(h).unwrap()).collect()
    });
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let number = |i: usize| a[i].parse::<u64>().unwrap();
    let run = Arc::new(Run {
        threads: number(2) as usize,
        connections: number(3) as usize,
        ms: number(4),
        hold: Duration::from_micros(number(5)),
        phase: AtomicI32::new(0),
    });
    match a[1].as_str() {
        "r2d2" => {
            let pool = r2d2::Pool::builder()
                .max_size(run.connections as u32)
                .test_on_check_out(false)
                .build(Opener)
                .unwrap();
            let answers = Arc::new(Mutex::new(Vec::new()));
            let threads: Vec<_> = (0..run.threads)
                .map(|_| {
                    let (pool, run, answers) = (pool.clone(), run.clone(), answers.clone());
                    std::thread::spawn(move || {
                        let answer =
                            work!(run, pool.get().unwrap(), std::thread::sleep(run.hold));
                        answers.lock().unwrap().push(answer);
                    })
                })
                .collect();
            time_it(&run, || {
                threads.into_iter().for_each(|t| t.join().unwrap());
                std::mem::take(&mut *answers.lock().unwrap())
            });
        }
        "deadpool" => {
            let pool = deadpool::managed::Pool::builder(Opener)
                .max_size(run.connections)
                .build()
                .unwrap();
            tasks(run, move |run| {
                let pool: deadpool::managed::Pool<Opener> = pool.clone();
                async move {
                    work!(run, pool.get().await.ok().unwrap(), tokio::time::sleep(run.hold).await)
                }
            });
        }
        "fast_pool" => {
            let pool = Arc::new(fast_pool::Pool::new(Opener));
            pool.set_max_open(run.connections as u64);
            pool.set_max_idle_conns(run.connections as u64);
            /* Opened one after the other: tasks that ask at once would get more than max_open. */
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
                async {
                    let mut guards = Vec::new();
                    for _ in 0..run.connections {
                        guards.push(pool.get().await.ok().unwrap());
                    }
                },
            );
            tasks(run, move |run| {
                let pool = pool.clone();
                async move {
                    work!(run, pool.get().await.ok().unwrap(), tokio::time::sleep(run.hold).await)
                }
            });
        }
        other => panic!("no such subject: {other}"),
    }
}
