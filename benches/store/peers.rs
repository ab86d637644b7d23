//! The peers: what else shares sessions between processes, or keeps them for one.

use std::io;

use crate::local::{Gdbm, Internal};
use crate::scratch::Scratch;
use crate::servers::{Kind, Server};
use crate::single::{batches, capacity_for, put_batches, SESSIONS, SIZE, WRITES};
use crate::subject::{Id, Ours, Stock, Subject};
use crate::support::measure::{cpu_of, in_turns, wall};
use crate::support::rows::{quick, Book, Row};

/// What others take for the same, beside sesscache in the same minute.
pub fn peers(book: &mut Book, scratch: &Scratch) -> io::Result<()> {
    let sessions = if quick() { SESSIONS / 10 } else { SESSIONS };
    let mut ours = Ours::open(&scratch.path("ours"), capacity_for(sessions, SIZE));
    let mut stock = Stock::fill(&mut ours, sessions, SIZE);
    for kind in [Kind::Redis, Kind::Memcached] {
        let mut server = Server::start(kind, &scratch.directory(kind.name()));
        let pid = server.pid();
        peer(book, (&mut ours, &mut stock), &mut server, kind.name(), Some(pid), Some(10.0))?;
    }
    let mut gdbm = Gdbm::open(&scratch.directory("gdbm"));
    peer(book, (&mut ours, &mut stock), &mut gdbm, "GDBM under flock", None, None)?;
    let mut internal = Internal::open();
    peer(book, (&mut ours, &mut stock), &mut internal, "OpenSSL's own, one process", None, None)
}

fn peer(
    book: &mut Book,
    (ours, stock): (&mut Ours, &mut Stock),
    peer: &mut impl Peer,
    name: &str,
    server: Option<libc::pid_t>,
    behind: Option<f64>,
) -> io::Result<()> {
    let mut theirs = Stock::fill(peer, stock.ids.len(), SIZE);
    // In microseconds per operation: this process, the server, wall.
    let mut rest = [(0.0, 0.0, 0_usize); 2];
    let get = in_turns(|who, samples| {
        let (subject, stock): (&mut dyn Subject, _) = if who == 0 { (ours, &mut *stock) } else { (peer, &mut theirs) };
        let outside = Outside::begin(server);
        for _ in 0..batches() {
            let ids = stock.some(WRITES);
            samples.batch(WRITES, || ids.iter().for_each(|id| assert!(subject.get(id).is_some(), "a hit")));
        }
        if who == 1 {
            outside.end(&mut rest[0], batches() * WRITES);
        }
    });
    let put = in_turns(|who, samples| {
        let value = &stock.value;
        if who == 0 {
            return put_batches(ours, value, samples);
        }
        for _ in 0..batches() {
            let ids: Vec<Id> = (0..WRITES).map(|_| peer.fresh()).collect();
            peer.prepare(&ids);
            let outside = Outside::begin(server);
            samples.batch(WRITES, || ids.iter().for_each(|id| peer.put(id, value)));
            outside.end(&mut rest[1], WRITES);
        }
    });
    for (case, cost, (server_cpu, wall, n)) in [("get", get, rest[0]), ("put", put, rest[1])] {
        let (client, in_server) = (cost[1].median(), server_cpu / n as f64);
        let mut row = Row::new("peers", &format!("{case}, {name}"), "µs")
            .param("size", SIZE)
            .param("sessions", theirs.ids.len())
            .figure(client + in_server, Some(cost[1].p99() + in_server))
            .against("sesscache", cost[0].median());
        if server.is_some() {
            row = row.more("client", client).more("server", in_server);
        }
        row = row.more("wall", wall / n as f64);
        book.add(if let Some(behind) = behind { row.ratio_at_least(behind) } else { row })?;
    }
    Ok(())
}

/// What an operation costs beside this thread's CPU time.
struct Outside {
    server: Option<libc::pid_t>,
    cpu: f64,
    wall: f64,
}

impl Outside {
    fn begin(server: Option<libc::pid_t>) -> Outside {
        Outside { server, cpu: server.map_or(0.0, cpu_of), wall: wall() }
    }

    fn end(self, sum: &mut (f64, f64, usize), n: usize) {
        sum.0 += self.server.map_or(0.0, cpu_of) - self.cpu;
        sum.1 += wall() - self.wall;
        sum.2 += n;
    }
}

/// A peer may have to make objects before it can put them.
pub trait Peer: Subject {
    fn prepare(&mut self, _: &[Id]) {}
}

impl Peer for Server {}
impl Peer for Gdbm {}
impl Peer for Internal {
    fn prepare(&mut self, ids: &[Id]) {
        Internal::prepare(self, ids);
    }
}
