//! A machine is suspended for days, in the middle of whatever its processes do. The wall clock has moved on when it wakes, and
//! the monotonic clock has not: what expired meanwhile must not resume, and nothing that waits for a moment may take the days
//! for time that has passed.

use std::path::Path;
use std::time::{Duration, Instant};

use support::{now, open, resume_client, staged, text, Clock, Data, Random, Scratch, Server, Worker, BOTH};

const OPTIONS: &str = "capacity=4MiB deadline=50ms";
const DEADLINE: Duration = Duration::from_millis(50);
/// What a busy machine adds to every wait.
const SCHEDULING: Duration = Duration::from_secs(2);
/// After this a writer that does not move is left behind (STUCK in src/store/write.rs), with some room.
const STUCK: Duration = Duration::from_millis(900);
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const NIGHTS: i64 = 3 * DAY;

/// A put of it takes long enough to be met inside.
const LONG: Data = Data { len: 60_000, seed: 9 };

support::roles!(work: "puts for days");

fn work(role: &str, arguments: &[String]) {
    assert_eq!(role, "puts for days");
    let cache = open(Path::new(&arguments[0]), OPTIONS);
    println!("begins");
    loop {
        let _ = cache.put(b"stopped", &LONG.bytes(), now() + 5 * DAY);
    }
}

fn small(seed: u64) -> Data {
    Data { len: 200, seed }
}

/// A writer that is stopped inside the gate, and since when; others know by their puts.
fn stopped_inside(clock: &Clock, path: &Path) -> (Worker, Instant) {
    let mut writer = Worker::start_with("puts for days", &[text(path)], |command| clock.give_to(command));
    assert_eq!(writer.hear(), "begins");
    for n in 0..400 {
        std::thread::sleep(Duration::from_micros(500 + n * 37 % 1_000));
        let since = Instant::now();
        writer.signal(libc::SIGSTOP);
        let mut other = clock.worker(path, OPTIONS);
        if other.put(b"probe", small(1), now() + 60).is_err() {
            return (writer, since);
        }
        writer.signal(libc::SIGCONT);
    }
    panic!("a process that does nothing but write is never met inside a write");
}

/// One night; false when the machine was too busy to tell a suspended writer from a stopped one.
fn suspend_and_wake() -> bool {
    let scratch = Scratch::new("suspended");
    let clock = Clock::new(&scratch);
    let path = scratch.join("store");
    let mut workers: Vec<Worker> = (0..3).map(|_| clock.worker(&path, OPTIONS)).collect();
    let mut held = Vec::new();
    for seed in 0..60 {
        let life = if seed % 2 == 0 { HOUR } else { 5 * DAY };
        let worker = &mut workers[seed as usize % 3];
        let id = if seed % 4 < 2 { Random(seed).id(32) } else { worker.issue(Duration::from_secs(life as u64)) };
        worker.put(&id, small(seed), now() + life).expect("a record that is stored");
        held.push((id, small(seed), life > NIGHTS));
    }
    let begin = workers[0].stat("generation");
    let (writer, since) = stopped_inside(&clock, &path);

    // All stand still; then the others wake before the writer does.
    workers.iter().for_each(|worker| worker.signal(libc::SIGSTOP));
    clock.run_ahead(NIGHTS);
    workers.iter().for_each(|worker| worker.signal(libc::SIGCONT));
    for worker in &mut workers {
        let asked = Instant::now();
        let put = worker.put(b"woken", small(7), now() + NIGHTS + HOUR);
        if since.elapsed() > STUCK {
            return false;
        }
        let refused = put.expect_err("the night is taken for the time that a writer was stuck: nobody waits for it");
        assert_eq!(refused.status, "Busy", "{refused:?}");
        assert!(
            asked.elapsed() < DEADLINE + support::patience(SCHEDULING),
            "after a night a put waits {:?}",
            asked.elapsed()
        );
    }
    for worker in &mut workers {
        let asked = Instant::now();
        for (id, data, lives) in &held {
            assert_eq!(
                worker.get(id, *data),
                *lives,
                "after three days a record of five is gone, or one of an hour is there"
            );
        }
        assert!(
            asked.elapsed() < support::patience(SCHEDULING),
            "after a night lookups wait for a writer: {:?}",
            asked.elapsed()
        );
    }
    writer.signal(libc::SIGCONT);
    let kept = workers[0].stat("generation");
    if since.elapsed() > STUCK {
        return false;
    }
    assert_eq!(
        kept, begin,
        "the night is taken for the time that a writer was stuck: a generation of sessions is left behind"
    );

    drop(writer);
    let end = Instant::now() + support::patience(Duration::from_secs(20));
    for worker in &mut workers {
        while worker.put(b"woken", small(8), now() + NIGHTS + HOUR).is_err() {
            assert!(Instant::now() < end, "after a night nothing is stored any more");
        }
        assert!(worker.get(b"woken", small(8)), "what is stored after a night is not found");
    }
    assert!(workers[0].stat("misses_expired") > 0, "nobody counts what expired in the night");
    for seed in 100..300 {
        let _ = workers[1].put(&Random(seed).id(32), small(seed), now() + NIGHTS + HOUR);
    }
    assert!(workers[0].stat("expired") > 0, "what expired in the night stays in the store");
    workers.into_iter().for_each(Worker::finish);
    true
}

#[test]
fn a_suspended_machine_wakes_to_its_sessions_and_nobody_waits() {
    assert!((0..10).any(|_| suspend_and_wake()), "this machine is too busy for the test");
}

#[test]
fn a_session_that_expired_while_the_machine_was_suspended_does_not_resume() {
    for (ttl, resumed) in [("1h", 0), ("5d", 1)] {
        let scratch = Scratch::new("suspended-tls");
        let clock = Clock::new(&scratch);
        let mut command = staged("prefork_server");
        clock.give_to(&mut command);
        let options = format!("ttl={ttl}");
        let path = scratch.join("store");
        let server = Server::start_command(command, &["-s", text(&path), "-o", &options]);
        let sessions: Vec<String> =
            BOTH.iter().map(|tls| text(&scratch.join(&format!("{tls:?}"))).to_owned()).collect();
        for (tls, session) in BOTH.iter().zip(&sessions) {
            resume_client(server.port, 1, *tls, &["-o", session]);
            let tally = resume_client(server.port, 1, *tls, &["-i", session, "-o", session]);
            assert_eq!(tally.resumed, 1, "{tls:?}: a session does not resume before the night either");
        }
        clock.run_ahead(NIGHTS);
        for (tls, session) in BOTH.iter().zip(&sessions) {
            let tally = resume_client(server.port, 1, *tls, &["-i", session]);
            assert_eq!(tally.resumed, resumed, "{tls:?}, ttl={ttl}: three days later");
            // And life goes on.
            resume_client(server.port, 1, *tls, &["-o", session]);
            let tally = resume_client(server.port, 1, *tls, &["-i", session]);
            assert_eq!(tally.resumed, 1, "{tls:?}, ttl={ttl}: nothing resumes after a night");
        }
        assert_eq!(server.stop(), "", "the server complains");
    }
}
