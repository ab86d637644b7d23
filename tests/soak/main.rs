//! A TLS server of several processes under everything that may happen to it at once, for as long as one likes.
//!
//! Workers are killed and stopped at random, the file system fills up, the clock jumps, keys rotate, the capacity
//! changes and the store is flushed, while clients come back, hang up, send rubbish, offer other names' sessions and
//! replay early data. Any harm ends it with status 1: a failed handshake, a worker that dies by itself, a session that
//! must not resume, growth of memory or descriptors, a handshake that takes too long.
//!
//! `make soak MINUTES=n`, or `cargo test --release --test soak -- [--seconds n] [--workers n] [--clients n]
//! [--seed n] [--bound-ms n] [--json]`; without arguments, as in `make test`, 20 seconds.

#[path = "../../benches/handshake/ffi.rs"]
#[allow(dead_code)]
mod ffi;
#[path = "../../benches/handshake/pki.rs"]
#[allow(dead_code)]
mod pki;

mod chaos;
mod client;
mod place;
mod shared;
mod tls;
mod watch;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chaos::Chaos;
use place::Place;
use shared::{Random, Shared};
use watch::Table;

/// What the command line says.
pub(crate) struct Arguments {
    pub seconds: u64,
    pub workers: usize,
    pub clients: usize,
    pub seed: u64,
    /// Longest handshake that is no harm: the deadline of 5 ms, and what a busy machine makes of it.
    pub bound: Duration,
    pub json: bool,
}

fn arguments() -> Option<Arguments> {
    let mut found = Arguments {
        seconds: 20,
        workers: 4,
        clients: 6,
        seed: u64::from(std::process::id()),
        bound: support::patience(Duration::from_secs(3)),
        json: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse::<u64>().ok());
            value.unwrap_or_else(|| panic!("{word} takes a number"))
        };
        match word.as_str() {
            "--seconds" => found.seconds = number(),
            "--workers" => found.workers = number().max(2) as usize,
            "--clients" => found.clients = number().max(1) as usize,
            "--seed" => found.seed = number(),
            "--bound-ms" => found.bound = Duration::from_millis(number()),
            "--json" => found.json = true,
            // What cargo says to every test program; a filter that means others means not this one.
            "--nocapture" | "--quiet" | "-q" | "--exact" | "--include-ignored" => {}
            filter if !filter.starts_with('-') && !"soak".contains(filter) => return None,
            filter if !filter.starts_with('-') => {}
            other => panic!("{other} is no argument; see the head of tests/soak/main.rs"),
        }
    }
    Some(found)
}

fn main() {
    if worker::is_one() {
        return worker::work();
    }
    let Some(arguments) = arguments() else { return };
    let place = Place::make();
    let shared = Arc::new(Shared::new(arguments.bound, place.words()));
    let mut chaos = Chaos::begin(&arguments, &place, Arc::clone(&shared));
    let clients: Vec<_> = (0..arguments.clients)
        .map(|n| {
            let (shared, address) = (Arc::clone(&shared), chaos.address());
            let random = Random(arguments.seed ^ (n as u64 + 1) << 32);
            std::thread::spawn(move || client::visit_until_the_end(&shared, address, random))
        })
        .collect();

    let begin = Instant::now();
    let end = begin + Duration::from_secs(arguments.seconds);
    let mut table = Table::begin(&arguments, &place, begin);
    while Instant::now() < end && !shared.is_hopeless() {
        chaos.step(end);
        table.row_if_due(&chaos, &shared);
    }
    chaos.calm();
    shared.end();
    for client in clients {
        if client.join().is_err() {
            shared.harm("a client of the soak panicked".to_owned());
        }
    }
    client::comes_back(&shared, chaos.address());
    table.row(&chaos, &shared);
    let counters = chaos.counters();
    let died = chaos.finish();
    let harms = table.summary(&shared, &counters, died);
    drop(place);
    if harms > 0 {
        std::process::exit(1);
    }
}
