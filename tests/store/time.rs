//! Records live to the second, and a wall clock that is set, forward or back, by hours or by years, costs at most the
//! records that it makes look old.

use std::time::{Duration, Instant};

use support::{now, Clock, Data, Random, Scratch, Worker};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;
/// A moment of the year 2027, within a second.
const BEGIN: i64 = 1_800_000_000 * SECOND + 250_000;

fn small(seed: u64) -> Data {
    Data { len: 200, seed }
}

/// Stores a record that lives so many seconds from `now` (microseconds), under an id issued for it or of our own.
fn put(worker: &mut Worker, now: i64, life: i64, own: Option<&[u8]>, data: Data) -> Vec<u8> {
    let id = own.map_or_else(|| worker.issue(Duration::from_secs(life as u64)), <[u8]>::to_vec);
    let stored = worker.put(&id, data, now / SECOND + life);
    assert_eq!(stored, Ok(()), "a record is not stored");
    id
}

fn store_with(name: &str, options: &str) -> (Scratch, Clock, Vec<Worker>) {
    let scratch = Scratch::new(name);
    let clock = Clock::new(&scratch);
    clock.stand(BEGIN);
    let options = format!("deadline=1s {options}");
    let workers = (0..2).map(|_| clock.worker(&scratch.join("store"), &options)).collect();
    (scratch, clock, workers)
}

#[test]
fn a_record_lives_to_the_second() {
    let (_scratch, clock, mut workers) = store_with("second", "");
    for own in [None, Some(&b"an application's id"[..])] {
        for life in [1, 2, 10, 7_200] {
            clock.stand(BEGIN);
            let data = small(life as u64);
            let id = put(&mut workers[0], BEGIN, life, own, data);
            let end = (BEGIN / SECOND + life) * SECOND;
            for (at, readable) in [(end - SECOND, true), (end - 1, true), (end, false), (end + 1, false)] {
                clock.stand(at);
                for worker in &mut workers {
                    let life = format!("of {life} s, {} µs from its end", end - at);
                    assert_eq!(
                        worker.get(&id, data),
                        readable,
                        "a record {life}: found or not, and should be the other"
                    );
                }
            }
            clock.stand(end);
            assert!(!workers[1].take(&id, data), "a record that has expired is handed out for single use");
        }
    }
    assert!(workers[0].stat("misses_expired") > 0, "nobody counts lookups of what has expired");
}

/// To the store an id of the application's own choice is a number like any other, and some read like an id that it gave out
/// long ago.
#[test]
fn a_record_under_an_id_that_reads_like_an_expired_one_is_found() {
    let scratch = Scratch::new("reads-expired");
    let mut worker = Worker::open(&scratch.join("store"), "deadline=1s");
    let id = worker.issue(Duration::from_millis(1));
    std::thread::sleep(Duration::from_millis(50));
    let data = Data { len: 200, seed: 1 };
    worker.put(&id, data, now() + 600).expect("a record that is stored");
    assert!(worker.get(&id, data), "what was stored a moment ago is called expired");
    assert!(worker.take(&id, data), "what was stored a moment ago cannot be taken");
}

#[test]
fn an_issued_id_ends_with_the_life_that_it_was_issued_for() {
    let (_scratch, clock, mut workers) = store_with("life", "");
    let id = workers[0].issue(Duration::from_secs(5));
    workers[0].put(&id, small(1), BEGIN / SECOND + 1_000).expect("a record that is stored");
    clock.stand(BEGIN + 5 * SECOND - 1);
    assert!(workers[1].get(&id, small(1)), "a record is gone before its id ends");
    clock.stand(BEGIN + 5 * SECOND);
    assert!(!workers[1].get(&id, small(1)), "an id is good for longer than it was issued");
}

/// The server must go on whatever `jumps` (seconds) the clock makes: what is stored after a jump is found, by the other
/// process as well, and what was stored before it is found or not, and never anything else.
fn jump(options: &str, jumps: &[i64], restart: bool) {
    let (scratch, clock, mut workers) = store_with("jump", options);
    let mut now = BEGIN;
    let mut before: Vec<(Vec<u8>, Data)> = Vec::new();
    for (n, by) in jumps.iter().enumerate() {
        now += by * SECOND;
        if restart {
            workers.clear();
        }
        clock.stand(now);
        if restart {
            workers = (0..2).map(|_| clock.worker(&scratch.join("store"), &format!("deadline=1s {options}"))).collect();
        }
        let mut fresh = Vec::new();
        for i in 0..20 {
            let data = small((n * 100 + i) as u64);
            let own = Random(data.seed).id(20);
            fresh.push((put(&mut workers[i % 2], now, 600, (i % 3 == 0).then_some(&own), data), data));
        }
        for (id, data) in &fresh {
            for worker in &mut workers {
                assert!(worker.get(id, *data), "after the clock was set by {by} s a new record is not found");
            }
        }
        for (id, data) in &before {
            // Fails by itself when it is another record.
            workers[n % 2].get(id, *data);
        }
        before.extend(fresh);
    }
    workers.into_iter().for_each(Worker::finish);
}

const JUMPS: [i64; 12] =
    [0, HOUR, -HOUR, -HOUR, 3 * HOUR, YEAR, -YEAR, 5 * YEAR, -5 * YEAR, -20 * YEAR, 20 * YEAR, 40 * YEAR];

#[test]
fn a_wall_clock_may_be_set_while_servers_run() {
    jump("", &JUMPS, false);
    jump("guard=on", &JUMPS, false);
}

#[test]
fn a_wall_clock_may_be_set_while_no_server_runs() {
    jump("", &JUMPS, true);
}

#[test]
fn a_wall_clock_set_back_brings_nothing_back() {
    let (_scratch, clock, mut workers) = store_with("back", "");
    let id = put(&mut workers[0], BEGIN, 100, None, small(1));
    let taken = put(&mut workers[0], BEGIN, 100, Some(b"to be taken"), small(2));
    assert!(workers[1].take(&taken, small(2)));
    clock.stand(BEGIN + HOUR * SECOND);
    assert!(!workers[1].get(&id, small(1)));
    workers[1].ask("flush").expect("a flush");
    clock.stand(BEGIN - HOUR * SECOND);
    for worker in &mut workers {
        assert!(!worker.get(&id, small(1)), "a flushed record is back");
        assert!(!worker.get(&taken, small(2)), "a record that was handed out for the only time is back");
    }
}

#[test]
fn after_a_clock_that_was_years_ahead_a_full_store_keeps_the_new_records() {
    for options in ["capacity=1MiB", "capacity=1MiB guard=on"] {
        let (_scratch, clock, mut workers) = store_with("ahead", options);
        let ahead = BEGIN + YEAR * SECOND;
        clock.stand(ahead);
        for seed in 0..5_000 {
            put(&mut workers[0], ahead, 7_200, None, small(seed));
        }
        let held = workers[0].stat("sessions");
        assert!(workers[0].stat("evicted") > 0, "a store of 1 MiB is never full");
        clock.stand(BEGIN);
        let new: Vec<_> =
            (0..1_000).map(|seed| (put(&mut workers[1], BEGIN, 7_200, None, small(seed)), seed)).collect();
        let found = new.iter().filter(|(id, seed)| workers[0].get(id, small(*seed))).count();
        assert_eq!(
            found, 1_000,
            "{options}: of 1000 new records only {found} are kept beside {held} of the wrong time"
        );
        assert_eq!(workers[0].stat("sessions"), 1_000, "{options}: what was stored under the wrong time stays");
    }
}

#[test]
fn a_record_of_a_clock_that_was_ahead_resumes_nobody() {
    let (_scratch, clock, mut workers) = store_with("outlives", "");
    let ahead = BEGIN + 10 * HOUR * SECOND;
    clock.stand(ahead);
    let ids = [None, Some(&b"an application's id"[..])].map(|own| put(&mut workers[0], ahead, 600, own, small(1)));
    for (back, readable) in [(0, true), (HOUR / 2, true), (2 * HOUR, false), (10 * HOUR, false)] {
        clock.stand(ahead - back * SECOND);
        for id in &ids {
            let found = workers[1].get(id, small(1));
            assert_eq!(
                found, readable,
                "the clock was set back by {back} s: a record of 600 s is found or not, wrongly"
            );
        }
    }
}

#[test]
fn records_are_stored_under_a_clock_of_1970() {
    let (_scratch, clock, mut workers) = store_with("1970", "capacity=1MiB");
    // A board without a battery begins in 1970 and learns the time later.
    for now in [10 * SECOND, HOUR * SECOND, 9 * YEAR * SECOND, BEGIN] {
        clock.stand(now);
        let own = Random(now as u64).id(24);
        for id in [None, Some(&own[..])] {
            let ids: Vec<_> = (0..5_000).map(|seed| put(&mut workers[0], now, 600, id, small(seed))).collect();
            assert!(
                workers[1].get(&ids[4_999], small(4_999)),
                "{} s after 1970: a new record is not found",
                now / SECOND
            );
        }
    }
}

#[test]
fn puts_delete_expired_records() {
    let (_scratch, clock, mut workers) = store_with("leave", "");
    for seed in 0..1_000 {
        put(&mut workers[0], BEGIN, 10, None, small(seed));
    }
    clock.stand(BEGIN + 11 * SECOND);
    for seed in 0..100 {
        put(&mut workers[1], BEGIN + 11 * SECOND, 10, None, small(seed));
    }
    assert_eq!(workers[0].stat("expired"), 1_000, "later puts do not take expired records along");
    assert_eq!(workers[0].stat("sessions"), 100, "what is in the store is not what was put there last");
}

#[test]
fn puts_delete_expired_records_of_an_applications_own_ids() {
    let (_scratch, clock, mut workers) = store_with("own", "");
    let mut random = Random(11);
    for seed in 0..1_000 {
        // Now and then one so long that it is stored in several pieces.
        let data = Data { len: if seed % 10 == 0 { 10_000 } else { 200 }, seed };
        put(&mut workers[0], BEGIN, 10, Some(&random.id(24)), data);
    }
    clock.stand(BEGIN + 11 * SECOND);
    for seed in 0..1_000 {
        put(&mut workers[1], BEGIN + 11 * SECOND, 10, Some(&random.id(24)), small(seed));
    }
    let expired = workers[0].stat("expired");
    assert!(expired >= 900, "a thousand later puts take {expired} of 1000 expired records along");
    workers[0].ask("sweep 100000").expect("a sweep");
    assert_eq!(workers[0].stat("expired"), 1_000, "a sweep leaves expired records");
    assert_eq!(workers[0].stat("sessions"), 1_000, "parts of expired records stay for good");
}

#[test]
fn lookups_delete_expired_records() {
    let (_scratch, clock, mut workers) = store_with("lookups", "");
    for seed in 0..100 {
        put(&mut workers[0], BEGIN, 10, None, small(seed));
    }
    let id = put(&mut workers[0], BEGIN, 1_000, None, small(0));
    clock.stand(BEGIN + 11 * SECOND);
    let end = Instant::now() + support::patience(Duration::from_secs(10));
    while workers[0].stat("sessions") > 1 {
        assert!(workers[1].get(&id, small(0)), "a record is gone before its time");
        assert!(
            Instant::now() < end,
            "after 10 s of lookups {} records are there, 1 lives",
            workers[0].stat("sessions")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(workers[0].stat("expired"), 100, "nobody counts what expired");
}

#[test]
fn a_record_ends_in_time_under_a_running_clock() {
    let scratch = Scratch::new("running");
    let clock = Clock::new(&scratch);
    clock.run_ahead(5 * HOUR);
    let mut worker = clock.worker(&scratch.join("store"), "");
    let put_at = support::now() + 5 * HOUR;
    let id = put(&mut worker, put_at * SECOND, 2, Some(b"two seconds"), small(1));
    assert!(worker.get(&id, small(1)), "a record of two seconds is gone at once");
    // The end of its last second, and the tick of the coarse clock.
    while support::now() + 5 * HOUR < put_at + 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(!worker.get(&id, small(1)), "a record is there after its end");
}
