// SPDX-License-Identifier: MIT
//
// The peer of bench-redis in Rust: fred on one connection, called by tasks that wait.
//
//     peer-redis-rust PORT TASKS MILLISECONDS
use fred::prelude::*;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: u32 = 10000;
const BUCKETS: usize = 40000; // of 100 ns

fn splitmix64(x: u64) -> u64 {
    let mut x = x.wrapping_add(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d049bb133111eb);
    x ^ (x >> 31)
}

fn key(i: u32) -> String {
    format!("key:{:012}", i)
}

fn value(i: u32) -> Vec<u8> {
    let mut v = vec![b'v'; 64];
    v[..4].copy_from_slice(&i.to_le_bytes());
    v
}

fn cpu() -> f64 {
    let mut u: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut u) };
    (u.ru_utime.tv_sec + u.ru_stime.tv_sec) as f64 * 1e6
        + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) as f64
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().collect();
    let tasks: usize = args[2].parse().unwrap();
    let ms: u64 = args[3].parse().unwrap();
    let config = Config::from_url(&format!("redis://127.0.0.1:{}", args[1]))?;
    let client = Builder::from_config(config).build()?;
    client.init().await?;
    for i in 0..KEYS {
        let _: () = client.set(key(i), value(i).as_slice(), None, None, false).await?;
    }
    let phase = Arc::new(AtomicI32::new(0));
    let mut handles = Vec::new();
    for t in 0..tasks {
        let (client, phase) = (client.clone(), phase.clone());
        handles.push(tokio::spawn(async move {
            let (mut count, mut wrong, mut hist) = (0u64, 0u64, vec![0u32; BUCKETS]);
            let mut random = t as u64 + 1;
            let mut last = Instant::now();
            loop {
                let p = phase.load(Ordering::Relaxed);
                if p == 2 {
                    return (count, wrong, hist);
                }
                random = splitmix64(random);
                let i = (random >> 33) as u32 % KEYS;
                let wanted = value(i);
                if random & 1 == 1 {
                    let done: Result<(), Error> =
                        client.set(key(i), wanted.as_slice(), None, None, false).await;
                    wrong += done.is_err() as u64;
                } else {
                    let got: Result<Vec<u8>, Error> = client.get(key(i)).await;
                    wrong += (got.ok() != Some(wanted)) as u64;
                }
                let now = Instant::now();
                let b = (now - last).as_nanos() as usize / 100;
                last = now;
                if p == 1 {
                    count += 1;
                    hist[b.min(BUCKETS - 1)] += 1;
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(ms / 10)).await;
    phase.store(1, Ordering::Relaxed);
    let (begun, before) = (Instant::now(), cpu());
    tokio::time::sleep(Duration::from_millis(ms)).await;
    phase.store(2, Ordering::Relaxed);
    let took = begun.elapsed().as_secs_f64();
    let used = cpu() - before;
    let (mut total, mut bad, mut all) = (0u64, 0u64, vec![0u64; BUCKETS]);
    for handle in handles {
        let (count, wrong, hist) = handle.await.unwrap();
        total += count;
        bad += wrong;
        for (sum, n) in all.iter_mut().zip(hist) {
            *sum += n as u64;
        }
    }
    let (mut seen, mut p50, mut p99) = (0u64, 0.0, 0.0);
    for (b, n) in all.iter().enumerate() {
        seen += n;
        if p50 == 0.0 && seen * 2 >= total {
            p50 = (b + 1) as f64 / 10.0;
        }
        if p99 == 0.0 && seen * 100 >= total * 99 {
            p99 = (b + 1) as f64 / 10.0;
        }
    }
    println!(
        "{{\"ops_s\": {:.0}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"cpu_us\": {:.2}, \"wrong\": {}}}",
        total as f64 / took, p50, p99, used / total as f64, bad
    );
    Ok(())
}
