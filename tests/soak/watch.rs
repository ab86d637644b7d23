//! What a user would see over time: one line in ten seconds, a summary, and whether anything grows.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::chaos::Chaos;
use crate::place::Place;
use crate::shared::{Shared, Tally};
use crate::Arguments;

const PAUSE: Duration = Duration::from_secs(10);
/// What a worker has allocated by then is what it needs.
const WARM: Duration = Duration::from_secs(8);
/// Growth of private memory after that, in KiB: fragments of the heap, not more.
const MEMORY: u64 = 4_096;
/// Growth of descriptors after that: a generation more, a connection.
const DESCRIPTORS: u64 = 6;

pub struct Table {
    json: bool,
    begin: Instant,
    next: Instant,
    /// Of a warm worker: private memory in KiB, and descriptors.
    warm: HashMap<u32, (u64, u64)>,
    all: Tally,
    memory: u64,
    descriptors: u64,
}

impl Table {
    pub fn begin(arguments: &Arguments, place: &Place, begin: Instant) -> Table {
        if !arguments.json {
            let fills = if place.is_own { "on a file system of its own" } else { "no mount allowed, so no full one" };
            println!(
                "soak: {} s, {} workers, {} clients, seed {}, {fills}",
                arguments.seconds, arguments.workers, arguments.clients, arguments.seed
            );
            println!("   time  visits resumed  early replays  rude  lost    p50 ms    p99 ms    max ms  anon KiB  fds  events");
        }
        Table {
            json: arguments.json,
            begin,
            next: begin + PAUSE,
            warm: HashMap::new(),
            all: Tally::default(),
            memory: 0,
            descriptors: 0,
        }
    }

    pub fn row_if_due(&mut self, chaos: &Chaos<'_>, shared: &Shared) {
        if Instant::now() >= self.next {
            self.next += PAUSE;
            self.row(chaos, shared);
        }
    }

    pub fn row(&mut self, chaos: &Chaos<'_>, shared: &Shared) {
        self.look_at_workers(chaos, shared);
        let tally = shared.take_tally();
        let events: u64 = shared.events().values().sum();
        self.print(&tally, events, None);
        let all = &mut self.all;
        all.micros.extend(tally.micros);
        all.offered += tally.offered;
        all.resumed += tally.resumed;
        all.early += tally.early;
        all.replays += tally.replays;
        all.rude += tally.rude;
        all.lost += tally.lost;
    }

    fn look_at_workers(&mut self, chaos: &Chaos<'_>, shared: &Shared) {
        (self.memory, self.descriptors) = (0, 0);
        for worker in &chaos.workers {
            let Some((memory, descriptors)) = size(worker.pid()) else { continue };
            self.memory = self.memory.max(memory);
            self.descriptors = self.descriptors.max(descriptors);
            if worker.begin.elapsed() < WARM {
                continue;
            }
            let warm = self.warm.entry(worker.pid()).or_insert((memory, descriptors));
            if memory > warm.0 + MEMORY {
                shared.harm(format!("worker {} grows from {} to {memory} KiB", worker.pid(), warm.0));
                warm.0 = memory;
            }
            if descriptors > warm.1 + DESCRIPTORS {
                shared.harm(format!("worker {} grows from {} to {descriptors} descriptors", worker.pid(), warm.1));
                warm.1 = descriptors;
            }
        }
    }

    fn print(&self, tally: &Tally, events: u64, what: Option<&str>) {
        let mut micros = tally.micros.clone();
        micros.sort_unstable();
        let at = |percent: usize| {
            let last = micros.len().saturating_sub(1);
            micros.get(last * percent / 100).copied().unwrap_or(0) as f64 / 1e3
        };
        let rate = 100.0 * tally.resumed as f64 / tally.offered.max(1) as f64;
        let seconds = self.begin.elapsed().as_secs_f64();
        let (p50, p99, max) = (at(50), at(99), at(100));
        if self.json {
            let row = json!({
                "row": what.unwrap_or("interval"), "seconds": seconds, "visits": micros.len(), "offered": tally.offered,
                "resumed": tally.resumed, "early_data": tally.early, "replays": tally.replays, "rude": tally.rude,
                "lost": tally.lost, "p50_ms": p50, "p99_ms": p99, "max_ms": max, "anon_kib": self.memory,
                "descriptors": self.descriptors, "events": events,
            });
            println!("{row}");
        } else {
            println!(
                "{seconds:>6.0}s {:>7} {rate:>6.1}% {:>6} {:>7} {:>5} {:>5} {p50:>9.2} {p99:>9.2} {max:>9.2} {:>9} {:>4} {events:>7}",
                micros.len(), tally.early, tally.replays, tally.rude, tally.lost, self.memory, self.descriptors
            );
        }
    }

    /// Prints what it came to; how many harms.
    pub fn summary(&mut self, shared: &Shared, counters: &[(&str, u64)], died: u64) -> usize {
        let all = std::mem::take(&mut self.all);
        if all.resumed == 0 {
            shared.harm("not a single session was resumed".to_owned());
        }
        let (events, harms) = (shared.events(), shared.harms());
        self.print(&all, events.values().sum(), Some("summary"));
        if self.json {
            println!(
                "{}",
                json!({
                    "row": "end", "events": events, "died": died, "harms": harms,
                    "counters": counters.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect::<serde_json::Map<_, _>>(),
                })
            );
        } else {
            let events: Vec<String> = events.iter().map(|(name, n)| format!("{n} {name}")).collect();
            println!("events: {}", events.join(", "));
            let counters: Vec<String> = counters.iter().map(|(name, n)| format!("{name} {n}")).collect();
            println!("store: {}", counters.join(", "));
            println!("harms: {}; workers that ended by themselves: {died}", harms.len());
            harms.iter().for_each(|harm| println!("    {harm}"));
        }
        harms.len()
    }
}

/// Private memory in KiB, and descriptors.
fn size(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    let memory = line.split_whitespace().nth(1)?.parse().ok()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some((memory, descriptors))
}
