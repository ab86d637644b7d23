//! Ids on the wire: never the same twice, whichever process makes them, and nothing in them that tells when a session was
//! made or by whom. TLS 1.3 hides the age of a ticket from observers on purpose.

use std::collections::HashSet;
use std::time::Duration;

use support::{hex, open, unhex, Scratch, Worker};

const PROCESSES: usize = 4;
const EACH: usize = 250_000;
const PER_LINE: usize = 1_000;

support::roles!(work: "issue");

fn work(role: &str, arguments: &[String]) {
    assert_eq!(role, "issue");
    let cache = open(arguments[0].as_ref(), "");
    for _line in 0..EACH / PER_LINE {
        let mut line = Vec::with_capacity(32 * PER_LINE);
        for n in 0..PER_LINE {
            // Two lives that differ by a year, in turn.
            let life = if n % 2 == 0 { 60 } else { 365 * 86_400 };
            line.extend(cache.issue_id(Duration::from_secs(life)).expect("an id"));
        }
        println!("{}", hex(&line));
    }
}

/// Six standard deviations of so many throws of a fair coin.
fn slack(throws: usize) -> f64 {
    6.0 * (throws as f64).sqrt() / 2.0
}

#[test]
fn a_million_ids_of_four_processes_differ_and_do_not_show_their_time() {
    let scratch = Scratch::new("ids");
    let path = scratch.join("store");
    let path = path.to_str().expect("UTF-8");
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| Worker::start("issue", &[path])).collect();
    let mut ids = vec![Vec::new(); PROCESSES];
    for (ids, worker) in ids.iter_mut().zip(&mut workers) {
        for _line in 0..EACH / PER_LINE {
            let line = unhex(&worker.hear());
            ids.extend(line.chunks_exact(32).map(|id| <[u8; 32]>::try_from(id).expect("32 bytes")));
        }
    }
    let all: HashSet<&[u8; 32]> = ids.iter().flatten().collect();
    assert_eq!(all.len(), PROCESSES * EACH, "an id was issued twice");

    // Every bit is set in half of the ids, of sessions that end in a minute and of those that end in a year alike.
    let mut ones = [[0_u32; 256]; 2];
    for (n, id) in ids.iter().flat_map(|ids| ids.iter().enumerate()) {
        for (bit, count) in ones[n % 2].iter_mut().enumerate() {
            *count += u32::from(id[bit / 8] >> (bit % 8) & 1);
        }
    }
    let half = PROCESSES * EACH / 2;
    for (life, ones) in ["a minute", "a year"].iter().zip(ones) {
        for (bit, count) in ones.into_iter().enumerate() {
            let off = (f64::from(count) - half as f64 / 2.0).abs();
            assert!(off < slack(half), "bit {bit} is set in {count} of {half} ids of sessions that live {life}");
        }
    }
    // An id is greater than the one before in half of all cases: their order says nothing of the order of their making. In
    // the store, where the mask is taken off, it would be all of them.
    let rising = ids.iter().flat_map(|ids| ids.chunks_exact(2).zip(ids[2..].chunks_exact(2)));
    let greater = rising.filter(|(first, second)| first[0] < second[0]).count();
    let pairs = PROCESSES * (EACH / 2 - 1);
    let off = (greater as f64 - pairs as f64 / 2.0).abs();
    assert!(off < slack(pairs), "{greater} of {pairs} ids are greater than the one before");
    // Neighbours that were issued within the same microsecond have no more bits in common than any two.
    let common: u32 = ids
        .iter()
        .flat_map(|ids| ids.windows(2))
        .take(200_000)
        .map(|pair| pair[0].iter().zip(&pair[1]).map(|(a, b)| (a ^ b).count_zeros()).sum::<u32>())
        .sum();
    let bits = 200_000 * 256;
    let off = (f64::from(common) - bits as f64 / 2.0).abs();
    assert!(off < slack(bits), "ids issued one after the other have {common} of {bits} bits in common");
    workers.into_iter().for_each(Worker::finish);
}
