//! Handshakes over loopback connections: the server is another process, and its CPU is what the kernel says it used,
//! system calls and SSL_free included.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::context::{Context, People, Setting};
use crate::ffi::{self, must, Connection, Session};
use crate::lanes::{self, Caches, Lane};
use crate::memory::{in_child, made_elsewhere, median, target, wait, Case};
use crate::support::rows::{Book, Row};

/// Turns that each lane has after the first.
const TURNS: usize = 20;
/// Longest wait for a byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server process of one lane, and its client in this one.
struct Pair {
    lane: Lane,
    child: libc::pid_t,
    /// Carries numbers of connections to the server, and nanoseconds back.
    control: UnixStream,
    address: std::net::SocketAddr,
    client: Context,
    offer: Option<Session>,
    /// CPU of the server per handshake, turn by turn, in microseconds.
    used: Vec<f64>,
}

impl Pair {
    fn start(lane: Lane, case: Case, setting: Setting, people: &People, caches: &Caches) -> io::Result<Pair> {
        let (server, client) = (lane.server(setting, people, caches), Context::client(setting, people));
        let offer = (case != Case::Full && lane.is_shared()).then(|| made_elsewhere(&server, &client));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (control, theirs) = UnixStream::pair()?;
        control.set_read_timeout(Some(PATIENCE))?;
        let child = in_child(|| serve(&listener, theirs, &server, case).expect("a server on the loopback interface"));
        let mut pair = Pair { lane, child, control, address, client, offer, used: Vec::new() };
        if case != Case::Full && pair.offer.is_none() {
            // The other lanes need the session in the server's own process.
            pair.order(1)?;
            pair.offer = Some(pair.connect(false)?);
            pair.result()?;
        }
        Ok(pair)
    }

    fn order(&mut self, connections: u64) -> io::Result<()> {
        self.control.write_all(&connections.to_ne_bytes())
    }

    fn result(&mut self) -> io::Result<u64> {
        let mut answer = [0; 8];
        self.control.read_exact(&mut answer)?;
        Ok(u64::from_ne_bytes(answer))
    }

    fn connect(&self, resumes: bool) -> io::Result<Session> {
        let stream = TcpStream::connect(self.address)?;
        prepare(&stream)?;
        let end = self.client.connect(self.offer.as_ref());
        attach(&end, &stream);
        assert!(end.step(), "a handshake over the loopback interface does not come to its end");
        // Comes after the tickets.
        must("the server's greeting", end.read() == 1);
        assert_eq!(end.resumed(), resumes, "{}: a handshake is not what it should be", self.lane.name());
        let session = end.session();
        end.closed();
        Ok(session)
    }

    fn turn(&mut self, case: Case, connections: usize) -> io::Result<()> {
        self.order(connections as u64)?;
        for _ in 0..connections {
            let session = self.connect(case != Case::Full)?;
            if case == Case::Chain {
                self.offer = Some(session);
            }
        }
        let nanoseconds = self.result()?;
        self.used.push(nanoseconds as f64 / connections as f64 / 1e3);
        Ok(())
    }

    fn stop(mut self) -> io::Result<Vec<f64>> {
        self.order(0)?;
        wait(self.child);
        Ok(self.used)
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn attach(end: &Connection, stream: &TcpStream) {
    // SAFETY: live; the descriptor is open for longer than the connection, which does not close it.
    must("SSL_set_fd", unsafe { ffi::SSL_set_fd(end.0, stream.as_raw_fd()) } == 1);
}

/// Answers as many connections as it is told, says what CPU that took, and ends when told none.
fn serve(listener: &TcpListener, mut control: UnixStream, server: &Context, case: Case) -> io::Result<()> {
    control.set_read_timeout(Some(PATIENCE))?;
    lanes::follow(true);
    loop {
        let mut order = [0; 8];
        control.read_exact(&mut order)?;
        let connections = u64::from_ne_bytes(order);
        if connections == 0 {
            return Ok(());
        }
        let before = cpu();
        for _ in 0..connections {
            let (stream, _) = listener.accept()?;
            prepare(&stream)?;
            let end = server.accept();
            attach(&end, &stream);
            assert!(end.step(), "a handshake over the loopback interface does not come to its end");
            // SAFETY: live; writes one byte.
            must("SSL_write", unsafe { ffi::SSL_write(end.0, c"!".as_ptr().cast(), 1) } == 1);
            end.closed();
        }
        control.write_all(&(cpu() - before).to_ne_bytes())?;
        lanes::follow(case == Case::Chain);
        lanes::tidy();
    }
}

/// Nanoseconds of CPU that this process has used, in user and kernel mode.
fn cpu() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: writes the struct whole.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: written above, and zeroed is valid as well.
    let usage = unsafe { usage.assume_init() };
    let nanoseconds = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime)
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
    lanes::forget();
    let mut pairs = Vec::new();
    for lane in Lane::ALL {
        pairs.push(Pair::start(lane, case, setting, people, caches)?);
    }
    for turn in 0..=TURNS {
        for pair in &mut pairs {
            pair.turn(case, handshakes.div_ceil(TURNS))?;
            // The first turn is for the caches to fill, those of the processor included.
            if turn == 0 {
                pair.used.clear();
            }
        }
    }
    let mut floor = 0.0;
    for pair in pairs {
        let lane = pair.lane;
        let middle = median(&mut pair.stop()?);
        let row = Row::new("handshake", case.name(setting), "µs")
            .param("version", setting.version())
            .param("key", setting.server.name())
            .param("client", setting.client_name())
            .param("cache", lane.name())
            .param("transport", "loopback")
            .figure(middle, None);
        if lane == Lane::PassThrough {
            floor = middle;
            book.add(row)?;
            continue;
        }
        let row = row.against("pass-through", floor);
        book.add(match target(lane, case, setting) {
            Some(limit) => row.ratio_at_most(limit),
            None => row,
        })?;
    }
    Ok(())
}
