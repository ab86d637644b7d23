//! Handshakes over memory BIOs, both ends in one thread: only the server's steps are timed.

use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::time::Instant;
use std::{fs, io};

use crate::context::{join, Context, People, Setting};
use crate::ffi::Session;
use crate::instructions::counted;
use crate::lanes::{self, Caches, Lane};
use crate::support::rows::{Book, Row};

/// Handshakes of one lane before the next has its turn: drift of the machine hits all of them alike.
const BATCH: usize = 5;

/// Which handshakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Full,
    /// One session is offered again and again.
    Again,
    /// TLS 1.3: the ticket offered is always the newest, and offered once.
    Chain,
}

impl Case {
    pub fn name(self, setting: Setting) -> &'static str {
        match self {
            Case::Full => "full",
            Case::Again if setting.tls13 => "resumed, one ticket many times",
            Case::Again => "resumed",
            Case::Chain => "resumed, each ticket once",
        }
    }
}

/// One handshake as it went.
pub struct Shaken {
    /// Nanoseconds in the server's SSL_do_handshake, tickets included.
    pub steps: u64,
    /// The same with the server's SSL_new and SSL_free.
    pub whole: u64,
    pub resumed: bool,
    /// What the client may offer next.
    pub next: Session,
}

/// One handshake, in which the client offers a session or none.
pub fn shake(server: &Context, client: &Context, offer: Option<&Session>) -> Shaken {
    let there = client.connect(offer);
    let start = Instant::now();
    let here = counted(|| server.accept());
    let mut whole = start.elapsed();
    join(&here, &there);
    let mut steps = std::time::Duration::ZERO;
    let (mut client_done, mut server_done) = (false, false);
    for _ in 0..8 {
        client_done = client_done || there.step();
        if !server_done {
            let start = Instant::now();
            server_done = counted(|| here.step());
            steps += start.elapsed();
        }
        if client_done && server_done {
            break;
        }
    }
    assert!(client_done && server_done, "a handshake does not come to its end");
    there.read();
    let (resumed, next) = (here.resumed(), there.session());
    there.closed();
    here.closed();
    let start = Instant::now();
    counted(|| drop(here));
    whole += steps + start.elapsed();
    Shaken { steps: steps.as_nanos() as u64, whole: whole.as_nanos() as u64, resumed, next }
}

/// The client's session of a full handshake in another process, which has ended.
pub fn made_elsewhere(server: &Context, client: &Context) -> Session {
    let mut ends = [0; 2];
    // SAFETY: writes two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0, "{}", io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else closes.
    let mut from = unsafe { fs::File::from_raw_fd(ends[0]) };
    // SAFETY: same.
    let mut to = unsafe { fs::File::from_raw_fd(ends[1]) };
    let child = in_child(|| {
        let mut der = Vec::new();
        let made = shake(server, client, None).next;
        // SAFETY: a live session.
        unsafe { crate::ffi::write_der(made.raw(), &mut der) };
        to.write_all(&der).expect("a pipe to the parent");
    });
    drop(to);
    let mut der = Vec::new();
    from.read_to_end(&mut der).expect("a pipe from the child");
    wait(child);
    Session::from_der(&der)
}

/// What the client is to offer first: a session of another process, where the lane can resume that.
pub fn first_offer(lane: Lane, case: Case, server: &Context, client: &Context) -> Option<Session> {
    match case {
        Case::Full => None,
        _ if lane.is_shared() => Some(made_elsewhere(server, client)),
        _ => Some(shake(server, client, None).next),
    }
}

/// Runs `f` in a forked child, whose number is returned.
pub fn in_child(f: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the benchmark has one thread.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", io::Error::last_os_error());
    if child == 0 {
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_ok();
        // SAFETY: ends the child without running what the parent has registered.
        unsafe { libc::_exit(i32::from(!worked)) };
    }
    child
}

/// Waits for a child, which must have succeeded.
pub fn wait(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: a child of this process; the status goes to a local.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert!(waited == child && status == 0, "a child of the benchmark failed");
}

/// One lane at work.
pub struct Runner {
    lane: Lane,
    server: Context,
    client: Context,
    offer: Option<Session>,
    steps: Vec<f64>,
    whole: Vec<f64>,
}

impl Runner {
    pub fn new(lane: Lane, case: Case, setting: Setting, people: &People, caches: &Caches) -> Runner {
        let (server, client) = (lane.server(setting, people, caches), Context::client(setting, people));
        let offer = first_offer(lane, case, &server, &client);
        Runner { lane, server, client, offer, steps: Vec::new(), whole: Vec::new() }
    }

    pub fn once(&mut self, case: Case) {
        let shaken = shake(&self.server, &self.client, self.offer.as_ref());
        let expected = case != Case::Full;
        assert_eq!(shaken.resumed, expected, "{}: a handshake is not what it should be", self.lane.name());
        self.steps.push(shaken.steps as f64 / 1e3);
        self.whole.push(shaken.whole as f64 / 1e3);
        if case == Case::Chain {
            self.offer = Some(shaken.next);
        }
    }
}

/// Measures all lanes in turns.
pub fn measure(
    book: &mut Book,
    case: Case,
    setting: Setting,
    people: &People,
    caches: &Caches,
    handshakes: usize,
) -> io::Result<()> {
    lanes::follow(true);
    let mut runners = Lane::ALL.map(|lane| Runner::new(lane, case, setting, people, caches));
    lanes::follow(case == Case::Chain);
    for round in 0..handshakes.div_ceil(BATCH) + 1 {
        for runner in &mut runners {
            (0..BATCH).for_each(|_| runner.once(case));
            lanes::tidy();
            // The first round is for the caches to fill, those of the processor included.
            if round == 0 {
                runner.steps.clear();
                runner.whole.clear();
            }
        }
    }
    let floor = (median(&mut runners[0].steps), median(&mut runners[0].whole));
    for runner in &mut runners {
        let (steps, whole) = (median(&mut runner.steps), median(&mut runner.whole));
        let row = Row::new("handshake", case.name(setting), "µs")
            .param("version", setting.version())
            .param("key", setting.server.name())
            .param("client", setting.client_name())
            .param("cache", runner.lane.name())
            .param("transport", "memory")
            .figure(steps, Some(percentile(&mut runner.steps, 0.99)))
            .more("with SSL_new and SSL_free", whole)
            .more("ratio of that", whole / floor.1);
        let row = if runner.lane == Lane::PassThrough { row } else { row.against("pass-through", floor.0) };
        book.add(match target(runner.lane, case, setting) {
            Some(limit) => row.ratio_at_most(limit),
            None => row,
        })?;
    }
    lanes::forget();
    Ok(())
}

/// The greatest ratio to the pass-through that sesscache may show.
pub fn target(lane: Lane, case: Case, setting: Setting) -> Option<f64> {
    match setting {
        _ if lane != Lane::Sesscache || case == Case::Full => None,
        Setting { client: Some(_), .. } => Some(1.2),
        Setting { tls13: true, .. } => Some(1.05),
        Setting { tls13: false, .. } => Some(1.16),
    }
}

/// The middle value.
pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}

fn percentile(values: &mut [f64], part: f64) -> f64 {
    let at = ((values.len() - 1) as f64 * part).round() as usize;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}
