//! `watch`: rates as they happen. A line per interval, or on a terminal a full screen (`screen`).

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use sesscache::inspect::Inspect;
use sesscache::{Stats, Unit};

use crate::arguments::Watch;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::reading::{counters, rates, Reading};
use crate::signals::Interrupted;
use crate::units::{bytes, number, percent, rate};

mod draw;
mod keys;
mod screen;

/// A reading, and what was counted since the one before.
pub struct Step {
    pub reading: Reading,
    pub counted: Stats,
    pub time: Duration,
}

impl Step {
    /// Events per second of a counter.
    pub fn rate(&self, name: &str) -> f64 {
        self.counted.get(name).unwrap_or_default() as f64 / self.seconds()
    }

    /// Lookups per second of ids that this store made.
    pub fn lookups(&self) -> f64 {
        self.counted.lookups() as f64 / self.seconds()
    }

    pub fn seconds(&self) -> f64 {
        self.time.as_secs_f64().max(1e-3)
    }
}

/// Reads a store again and again.
pub struct Watcher {
    inspect: Inspect,
    last: Stats,
    at: Instant,
}

impl Watcher {
    pub fn new(path: &Path) -> Result<Watcher, Failure> {
        let mut inspect = Inspect::open(path, None)?;
        Ok(Watcher { last: inspect.stats()?, inspect, at: Instant::now() })
    }

    /// What has happened since the last step.
    pub fn step(&mut self) -> Result<Step, Failure> {
        self.inspect.refresh()?;
        let reading = Reading::take(&mut self.inspect)?;
        let counted = reading.stats.since(&self.last);
        self.last = reading.stats;
        let time = self.at.elapsed();
        self.at = Instant::now();
        Ok(Step { reading, counted, time })
    }
}

pub fn run(arguments: &Watch, json: bool) -> Result<Outcome, Failure> {
    let interrupted = Interrupted::catch().map_err(Failure::system("cannot catch signals"))?;
    let watcher = Watcher::new(&arguments.look.path)?;
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if is_terminal && !json && arguments.count.is_none() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
    {
        screen::run(watcher, arguments.interval, &interrupted)?;
    } else {
        lines(watcher, arguments, json, &interrupted)?;
    }
    Ok(Outcome::Fine)
}

/// Lines between two headings.
const PAGE: u64 = 20;

fn lines(mut watcher: Watcher, arguments: &Watch, json: bool, interrupted: &Interrupted) -> Result<(), Failure> {
    let mut out = Output::new();
    for n in 0..arguments.count.unwrap_or(u64::MAX) {
        if interrupted.sleep(arguments.interval) {
            break;
        }
        let step = watcher.step()?;
        if json {
            out.json(&as_json(&step))?;
        } else {
            if n % PAGE == 0 {
                writeln!(out, "{}", out.bold(HEADING))?;
            }
            line(&step, &mut out)?;
        }
        out.flush()?;
    }
    Ok(())
}

const HEADING: &str =
    "   resumed    hit rate   lookups/s    puts/s    failed/s   evicted/s   expired/s    sessions    in use";

fn line(step: &Step, out: &mut Output) -> Result<(), Failure> {
    writeln!(
        out,
        "{:>10}  {:>10}  {:>10}  {:>8}  {:>10}  {:>10}  {:>10}  {:>10}  {:>8}",
        percent(step.counted.resumption_rate()),
        percent(step.counted.hit_rate()),
        rate(step.lookups()),
        rate(step.rate("puts")),
        rate(NOT_STORED.iter().map(|name| step.rate(name)).sum()),
        rate(step.rate("evicted")),
        rate(step.rate("expired")),
        number(step.reading.count("sessions")),
        bytes(step.reading.count("used_bytes")),
    )?;
    Ok(())
}

/// Sessions that were to be stored and were not.
pub const NOT_STORED: [&str; 4] = ["puts_skipped", "puts_busy", "puts_full", "puts_failed"];

/// Gauges as they are, counters as what was counted in `seconds`.
fn as_json(step: &Step) -> Value {
    let mut value = json!({ "seconds": step.time.as_secs_f64() });
    if let Value::Object(fields) = &mut value {
        fields.extend(counters(&step.reading.stats, |row| row.unit != Unit::Count));
        fields.extend(counters(&step.counted, |row| row.unit == Unit::Count));
        fields.extend(rates(&step.counted));
    }
    value
}
