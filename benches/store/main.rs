//! What the store costs, beside raw LMDB doing the same and beside what else there is, in one run.
//!
//! CPU time per operation, except where wall time is named. The cross product of sizes, sessions and processes would
//! take an hour, so each is varied alone around one point, 140 bytes (a TLS 1.2 session) among 100,000 sessions in one
//! process: all sizes there, all numbers of sessions there, all numbers of processes there. `BENCH_QUICK=1` shows in
//! seconds that everything works, `BENCH_10M=1` adds ten million sessions, `BENCH_DIR` is where the stores lie instead of
//! `/dev/shm`, and `BENCH_ONLY` names the parts to run. Results go to `target/bench/store.json`.

mod counting;
mod density;
mod fork;
mod latency;
mod local;
mod peers;
mod raw;
mod scratch;
mod servers;
mod several;
mod single;
mod subject;
#[path = "../support/mod.rs"]
mod support;

use std::io;

use scratch::Scratch;
use support::rows::{quick, Book};

fn main() -> io::Result<()> {
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(' ').any(|name| name == part);
    let scratch = Scratch::new();
    let mut book = Book::begin("store")?;
    if wanted("operations") {
        let sizes: &[usize] = if quick() { &[140, 6000] } else { &[140, 640, 1400, 6000] };
        for size in sizes {
            single::operations(&mut book, &scratch, *size)?;
        }
    }
    type Part = fn(&mut Book, &Scratch) -> io::Result<()>;
    let parts: [(&str, Part); 7] = [
        ("sessions", single::sessions),
        ("processes", several::processes),
        ("counting", counting::counting),
        ("peers", peers::peers),
        ("latency", latency::latency),
        ("density", density::density),
        ("fork", fork::fork),
    ];
    for (name, part) in parts {
        if wanted(name) {
            scratch.clear();
            part(&mut book, &scratch)?;
        }
    }
    Ok(())
}
