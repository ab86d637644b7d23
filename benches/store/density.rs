//! How many sessions fit into a MiB of the map: the store is filled until the first one has to make room.

use std::io;

use crate::scratch::Scratch;
use crate::subject::{Id, Ours, Subject};
use crate::support::measure::Random;
use crate::support::processes;
use crate::support::rows::{quick, Book, Row};

/// Handshakes that are under way at the same time: ids come back in another order than they were made in.
const UNDER_WAY: usize = 256;

/// Who fills the store, and how.
struct Filling {
    name: &'static str,
    processes: usize,
    /// Ids made and not yet put, per process; one of them at random is put next.
    under_way: usize,
    /// The target, for TLS 1.2 sessions.
    least: Option<f64>,
}

const FILLINGS: [Filling; 3] = [
    Filling { name: "one writer", processes: 1, under_way: 1, least: Some(4_000.0) },
    Filling { name: "4 writers", processes: 4, under_way: 1, least: Some(3_000.0) },
    Filling { name: "4 writers, 256 handshakes under way", processes: 4, under_way: UNDER_WAY / 4, least: None },
];

/// A TLS 1.2 session without its id, and one with a client certificate.
const SIZES: [usize; 2] = [106, 890];

pub fn density(book: &mut Book, scratch: &Scratch) -> io::Result<()> {
    let mib = if quick() { 8 } else { 64 };
    for size in SIZES {
        for filling in &FILLINGS {
            // Writers that do nothing else get in each other's way for longer than a server would wait.
            let ours = Ours::open_with(&scratch.path("density"), &format!("capacity={mib}MiB deadline=10s"));
            processes::run(filling.processes, 0, |number, start| {
                start.wait();
                fill(&mut ours.inherited(), size, filling.under_way, number);
                Vec::new()
            });
            let row = Row::new("density", filling.name, "per MiB")
                .param("size", size)
                .param("processes", filling.processes)
                .figure(ours.stat("sessions") / mib as f64, None)
                .more("used part of the map", ours.stat("used_bytes") / (mib << 20) as f64);
            book.add(match filling.least.filter(|_| size == SIZES[0]) {
                Some(least) => row.at_least(least),
                None => row,
            })?;
        }
    }
    Ok(())
}

fn fill(ours: &mut Ours, size: usize, under_way: usize, number: usize) {
    let mut random = Random(number as u64);
    let mut value = vec![0; size];
    random.fill(&mut value);
    let mut ids: Vec<Id> = (0..under_way).map(|_| ours.fresh()).collect();
    while ours.stat("evicted") == 0.0 {
        for _ in 0..256 {
            let at = random.below(under_way);
            let id = std::mem::replace(&mut ids[at], ours.fresh());
            ours.put(&id, &value);
        }
    }
}
