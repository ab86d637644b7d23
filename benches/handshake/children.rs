//! A process per connection: what a whole child takes that answers one resumed handshake, from its fork(2) to its end.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use crate::context::{Context, People, Setting};
use crate::ffi::{self, must, Connection, Session};
use crate::instructions::counted;
use crate::lanes::{self, Caches, Lane};
use crate::memory::{first_offer, in_child, median, Case};
use crate::support::rows::{Book, Row};

/// The lanes that can have a process per connection: their sessions come to a child by inheritance, or from a store.
pub const LANES: [Lane; 4] = [Lane::PassThrough, Lane::Codec, Lane::Sesscache, Lane::Tickets];

/// A server that forks for each connection, and its client, which offers one session again and again.
pub struct Forking {
    lane: Lane,
    server: Context,
    client: Context,
    offer: Option<Session>,
}

impl Forking {
    pub fn new(lane: Lane, setting: Setting, people: &People, caches: &Caches) -> Forking {
        lanes::follow(true);
        let (server, client) = (lane.server(setting, people, caches), Context::client(setting, people));
        let offer = first_offer(lane, Case::Again, &server, &client);
        lanes::follow(false);
        Forking { lane, server, client, offer }
    }

    /// One connection; the number of the child, which has ended, and microseconds of CPU that it used.
    pub fn once(&self) -> io::Result<(libc::pid_t, f64)> {
        let (mine, theirs) = UnixStream::pair()?;
        let child = in_child(|| {
            counted(|| {
                let end = self.server.accept();
                attach(&end, &theirs);
                must("a handshake in a child", end.step());
                // SAFETY: live; writes one byte.
                must("SSL_write", unsafe { ffi::SSL_write(end.0, c"!".as_ptr().cast(), 1) } == 1);
                end.closed();
            });
        });
        drop(theirs);
        let end = self.client.connect(self.offer.as_ref());
        attach(&end, &mine);
        must("a handshake with a child", end.step());
        must("the child's greeting", end.read() == 1);
        assert!(end.resumed(), "{}: a handshake is not what it should be", self.lane.name());
        end.closed();
        Ok((child, ended(child)))
    }
}

fn attach(end: &Connection, stream: &UnixStream) {
    // SAFETY: live; the descriptor is open for longer than the connection, which does not close it.
    must("SSL_set_fd", unsafe { ffi::SSL_set_fd(end.0, stream.as_raw_fd()) } == 1);
}

/// Waits for a child, which must have succeeded; its CPU in microseconds, in user and kernel mode.
fn ended(child: libc::pid_t) -> f64 {
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: a child of this process; status and usage go to locals.
    let waited = unsafe { libc::wait4(child, &mut status, 0, usage.as_mut_ptr()) };
    assert!(waited == child && status == 0, "a child of the benchmark failed");
    // SAFETY: written above, and zeroed is valid as well.
    let usage = unsafe { usage.assume_init() };
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// Measures all lanes in turns.
pub fn measure(
    book: &mut Book,
    setting: Setting,
    people: &People,
    caches: &Caches,
    connections: usize,
) -> io::Result<()> {
    let servers = LANES.map(|lane| Forking::new(lane, setting, people, caches));
    let mut used = LANES.map(|_| Vec::new());
    for round in 0..=connections {
        for (server, used) in servers.iter().zip(&mut used) {
            let (_, micros) = server.once()?;
            if round > 0 {
                used.push(micros);
            }
        }
    }
    let middles = used.map(|mut used| median(&mut used));
    for (lane, middle) in LANES.into_iter().zip(middles) {
        let row = Row::new("handshake", "resumed, a process per connection", "µs")
            .param("version", setting.version())
            .param("key", setting.server.name())
            .param("client", setting.client_name())
            .param("cache", lane.name())
            .param("transport", "socket pair")
            .figure(middle, None);
        let row = if lane == Lane::PassThrough { row } else { row.against("pass-through", middles[0]) };
        book.add(match (lane, setting.client, setting.tls13) {
            (Lane::Sesscache, None, false) => row.ratio_at_most(1.30),
            (Lane::Sesscache, None, true) => row.ratio_at_most(1.20),
            _ => row,
        })?;
    }
    lanes::forget();
    Ok(())
}
