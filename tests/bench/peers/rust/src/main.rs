// SPDX-License-Identifier: MIT
//! The peers quick_cache and moka (sync): the same protocol, keys, values and loops as
//! subject.h. Values are stored inline and cloned out, the cheapest these crates offer for 64
//! bytes; both hash with ahash, quick_cache's own default (moka's default SipHash is slower).

use std::hint::black_box;
use std::io::{stdin, stdout, BufRead, Write};
use std::sync::Barrier;
use std::time::Instant;

const BATCH: usize = 64;
const SET_BIT: u32 = 0x8000_0000;

type Key = [u64; 2];
type Value = [u64; 8];

trait Subject: Sync {
    fn get(&self, key: &Key) -> Option<Value>;
    fn set(&self, key: Key, value: Value);
    /// Finishes the housekeeping that the crate left for later.
    fn settle(&self) {}
}

type QuickCache =
    quick_cache::sync::Cache<Key, Value, quick_cache::UnitWeighter, ahash::RandomState>;

impl Subject for QuickCache {
    fn get(&self, key: &Key) -> Option<Value> {
        QuickCache::get(self, key)
    }
    fn set(&self, key: Key, value: Value) {
        self.insert(key, value);
    }
}

type Moka = moka::sync::Cache<Key, Value, ahash::RandomState>;

impl Subject for Moka {
    fn get(&self, key: &Key) -> Option<Value> {
        Moka::get(self, key)
    }
    fn set(&self, key: Key, value: Value) {
        self.insert(key, value);
    }
    fn settle(&self) {
        self.run_pending_tasks();
    }
}

fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn make_key(i: u32) -> Key {
    [
        splitmix64(i.into()),
        splitmix64(u64::from(i) + 0x1_0000_0000),
    ]
}

fn make_value(key: &Key) -> Value {
    let mut value = [key[0]; 8];
    for (i, word) in value.iter_mut().enumerate().skip(1) {
        *word = key[1].wrapping_add(i as u64);
    }
    value
}

struct Bench {
    kind: String,
    stream: Vec<u32>,
    keys: u32,
    ops: usize,
}

#[derive(Default)]
struct Count {
    gets: u64,
    hits: u64,
    wrong: u64,
    checksum: u64,
}

impl Count {
    fn add(&mut self, key: &Key, found: Option<&Value>) {
        self.gets += 1;
        if let Some(value) = found {
            self.hits += 1;
            self.wrong += u64::from(value[0] != key[0] || value[7] != key[1].wrapping_add(7));
            self.checksum = self.checksum.wrapping_add(value[0]).wrapping_add(value[7]);
        }
    }
}

/// Copies a value into the caller's buffer, as every subject must.
fn copy_out<S: Subject>(cache: &S, key: &Key, out: &mut Value) -> bool {
    match cache.get(key) {
        Some(value) => {
            *out = value;
            true
        }
        None => false,
    }
}

fn work<S: Subject>(b: &Bench, cache: &S, mut at: usize) -> Count {
    let mut next = || {
        let access = b.stream[at];
        at = if at + 1 == b.stream.len() { 0 } else { at + 1 };
        access
    };
    let mut count = Count::default();
    let mut out = [0; 8];
    match b.kind.as_str() {
        "batch" => {
            let mut keys = [[0; 2]; BATCH];
            let mut outs = [[0; 8]; BATCH];
            let mut found = [false; BATCH];
            for _ in 0..b.ops.div_ceil(BATCH) {
                keys.fill_with(|| make_key(next()));
                for i in 0..BATCH {
                    found[i] = copy_out(cache, &keys[i], &mut outs[i]);
                }
                for i in 0..BATCH {
                    count.add(&keys[i], found[i].then_some(black_box(&outs[i])));
                }
            }
        }
        "mixed" => {
            for _ in 0..b.ops {
                let access = next();
                let key = make_key(access & !SET_BIT);
                if access & SET_BIT != 0 {
                    cache.set(key, make_value(&key));
                } else {
                    let found = copy_out(cache, &key, &mut out);
                    count.add(&key, found.then_some(black_box(&out)));
                }
            }
        }
        _ => {
            for _ in 0..b.ops {
                let key = make_key(next());
                let found = copy_out(cache, &key, &mut out);
                count.add(&key, found.then_some(black_box(&out)));
            }
        }
    }
    count
}

fn run<S: Subject>(b: &Bench, cache: &S, run: usize, threads: usize) -> String {
    let barrier = Barrier::new(threads);
    let done: Vec<(Instant, Instant, Count)> = std::thread::scope(|scope| {
        let spawn = |t: usize| {
            let (barrier, b) = (&barrier, &*b);
            scope.spawn(move || {
                let first = (t * (b.stream.len() / threads) + run * b.ops) % b.stream.len();
                barrier.wait();
                let begin = Instant::now();
                let count = work(b, cache, first);
                (begin, Instant::now(), count)
            })
        };
        let workers: Vec<_> = (0..threads).map(spawn).collect();
        workers.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let begin = done.iter().map(|d| d.0).min().unwrap();
    let end = done.iter().map(|d| d.1).max().unwrap();
    let sum = |field: fn(&Count) -> u64| done.iter().fold(0u64, |s, d| s.wrapping_add(field(&d.2)));
    format!(
        "{{\"ns\":{:.3},\"gets\":{},\"hits\":{},\"wrong\":{},\"checksum\":\"{:016x}\"}}",
        (end - begin).as_nanos() as f64 / b.ops as f64,
        sum(|c| c.gets),
        sum(|c| c.hits),
        sum(|c| c.wrong),
        sum(|c| c.checksum)
    )
}

fn rss_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0
}

fn serve<S: Subject>(b: &Bench, open: impl FnOnce() -> S) {
    let before = rss_bytes();
    let cache = open();
    let mut fill = |i: u32| {
        let key = make_key(i);
        cache.set(key, make_value(&key));
    };
    if b.kind == "mixed" {
        b.stream.iter().for_each(|access| fill(access & !SET_BIT));
    } else {
        (0..b.keys).for_each(&mut fill);
    }
    cache.settle();
    let bytes = (rss_bytes() - before) / f64::from(b.keys) - 80.0;
    let say = |line: &str| {
        let mut out = stdout().lock();
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .expect("stdout");
    };
    say("{\"ready\":true}");
    for (n, line) in stdin().lock().lines().enumerate() {
        let line = line.unwrap_or_default();
        let Some(Ok(threads)) = line.strip_prefix("run ").map(str::parse) else {
            break;
        };
        if b.kind == "overhead" {
            say(&format!("{{\"bytes\":{bytes:.2}}}"));
        } else {
            say(&run(b, &cache, n, threads));
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.len() != 7 {
        eprintln!("usage: peer-rust SUBJECT KIND STREAM|- KEYS OPS CAPACITY");
        std::process::exit(2);
    }
    let stream = match args[3].as_str() {
        "-" => Vec::new(),
        path => std::fs::read(path)
            .expect("the stream")
            .chunks_exact(4)
            .map(|c| u32::from_ne_bytes(c.try_into().unwrap()))
            .collect(),
    };
    let number = |i: usize| -> usize { args[i].parse().expect("a number") };
    let b = Bench {
        kind: args[2].clone(),
        stream,
        keys: number(4) as u32,
        ops: number(5),
    };
    let capacity = number(6);
    match args[1].as_str() {
        "quick_cache" => serve(&b, || {
            QuickCache::with(
                capacity,
                capacity as u64,
                quick_cache::UnitWeighter,
                ahash::RandomState::new(),
                Default::default(),
            )
        }),
        "moka" => serve(&b, || {
            moka::sync::CacheBuilder::new(capacity as u64)
                .build_with_hasher(ahash::RandomState::new())
        }),
        other => panic!("no subject {other}"),
    }
}
