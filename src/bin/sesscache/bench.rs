//! `bench`: what put, get and take cost on this machine and file system. In a store of its own, never in the one named.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sesscache::{Cache, Options};

use crate::arguments::Bench;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::signals::Interrupted;
use crate::units::{bytes, number};

/// Bytes of the scratch store's map per session, with room to spare: nothing is to be evicted.
const ROOM: u64 = 200;

/// What one kind of operation took.
struct Measured {
    name: &'static str,
    median: Duration,
    p99: Duration,
    per_second: f64,
}

pub fn run(arguments: &Bench, json: bool) -> Result<Outcome, Failure> {
    let interrupted = Interrupted::catch().map_err(Failure::system("cannot catch signals"))?;
    let scratch = ScratchStore::beside(&arguments.look.path)?;
    let capacity = (arguments.sessions * (arguments.bytes + ROOM) * 2).div_ceil(1 << 20).clamp(4, 65_536);
    let options = Options::parse(&format!("capacity={capacity}MiB deadline=1s"))?;
    let cache = Cache::open(&scratch.0, &options)?;
    let measured = measure(&cache, arguments, &interrupted)?;
    drop(cache);
    let mut out = Output::new();
    if interrupted.is_set() {
        eprintln!("sesscache: interrupted");
        return Ok(Outcome::Unhealthy);
    }
    if json {
        let rows = measured.iter().map(|row| {
            json!({
                "operation": row.name,
                "median_us": micros(row.median),
                "p99_us": micros(row.p99),
                "per_second": row.per_second.round(),
            })
        });
        out.json_pretty(&json!({
            "sessions": arguments.sessions,
            "bytes": arguments.bytes,
            "operations": rows.collect::<Vec<_>>(),
        }))?;
    } else {
        writeln!(
            out,
            "{} sessions of {}, one process, beside {}",
            number(arguments.sessions),
            bytes(arguments.bytes),
            arguments.look.path.display()
        )?;
        writeln!(out, "{}", out.bold(&format!("{:<8}{:>14}{:>14}{:>16}", "", "median", "p99", "per second")))?;
        for row in &measured {
            let (median, p99) = (micros(row.median), micros(row.p99));
            writeln!(
                out,
                "{:<8}{:>14}{:>14}{:>16}",
                row.name,
                format!("{median:.2} µs"),
                format!("{p99:.2} µs"),
                number(row.per_second.round() as u64)
            )?;
        }
    }
    out.flush()?;
    Ok(Outcome::Fine)
}

fn measure(cache: &Cache, arguments: &Bench, interrupted: &Interrupted) -> Result<Vec<Measured>, Failure> {
    const LIFE: Duration = Duration::from_secs(3_600);
    let n = arguments.sessions as usize;
    let data = vec![0x5A; arguments.bytes as usize];
    let expires = sesscache::inspect::now() as i64 + LIFE.as_secs() as i64;
    let bar = ProgressBar::new(4 * arguments.sessions).with_style(
        ProgressStyle::with_template("{msg:>8} {bar:40} {eta} left").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    // Far enough apart that neighbours in time are not neighbours in turn, and every session has its turn.
    let step = (n / 2 + 1..).find(|step| gcd(*step, n) == 1).unwrap_or(1);
    let in_turn = move |at: usize| at * step % n;

    let mut ids = Vec::with_capacity(n);
    while ids.len() < n && !interrupted.is_set() {
        ids.push(cache.issue_id(LIFE)?);
    }
    let time = |name: &'static str, mut f: Box<dyn FnMut(usize) -> sesscache::Result<()> + '_>| {
        bar.set_message(name);
        let mut took = Vec::with_capacity(n);
        let began = Instant::now();
        for at in 0..n {
            if at % 1_024 == 0 {
                bar.inc(1_024);
                if interrupted.is_set() {
                    break;
                }
            }
            let start = Instant::now();
            f(at)?;
            took.push(start.elapsed());
        }
        let all = began.elapsed();
        took.sort_unstable();
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
        let per_second = took.len() as f64 / all.as_secs_f64().max(f64::MIN_POSITIVE);
        Ok::<_, Failure>(Measured { name, median: at(0.5), p99: at(0.99), per_second })
    };
    let mut absent = [0x77; 32];
    let measured = vec![
        time("put", Box::new(|at| cache.put(&ids[at], &data, expires)))?,
        time("get", Box::new(|at| cache.get(&ids[in_turn(at)], read)))?,
        time(
            "miss",
            Box::new(|at| {
                absent[..8].copy_from_slice(&at.to_be_bytes());
                match cache.get(&absent, |_| ()) {
                    Err(error) if error.status == sesscache::Status::NotFound => Ok(()),
                    other => other,
                }
            }),
        )?,
        time("take", Box::new(|at| cache.take(&ids[in_turn(at)], read)))?,
    ];
    bar.finish_and_clear();
    Ok(measured)
}

/// So that the compiler does not leave out what nobody looks at.
fn read(found: &[u8]) {
    std::hint::black_box(found.len());
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e8).round() / 100.0
}

/// A directory that goes away with the value, on the file system of the store.
struct ScratchStore(PathBuf);

impl ScratchStore {
    fn beside(path: &Path) -> Result<ScratchStore, Failure> {
        let path = std::path::absolute(path).map_err(Failure::system("cannot find the current directory"))?;
        let name = format!("sesscache-bench.{}", std::process::id());
        // The root directory has nothing beside it.
        let scratch = path.parent().unwrap_or(&path).join(name);
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().mode(0o700).create(&scratch);
        made.map_err(Failure::system(format!("cannot create {}", scratch.display())))?;
        Ok(ScratchStore(scratch))
    }
}

impl Drop for ScratchStore {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
