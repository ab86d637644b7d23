//! The clients: some come back, some hang up, some send rubbish, some offer what is not theirs to offer here.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::ffi::{self, must, Connection, Session};
use crate::shared::{Random, Shared};
use crate::tls::{self, Failure};

/// Server names: a session of one must not resume under another.
const NAMES: [&std::ffi::CStr; 3] = [c"one.example", c"two.example", c"three.example"];
/// Visits to a server that was left alone until one has to resume.
const TRIES: usize = 20;

extern "C" {
    fn SSL_SESSION_dup(session: *const ffi::SSL_SESSION) -> *mut ffi::SSL_SESSION;
    fn SSL_SESSION_set1_id(session: *mut ffi::SSL_SESSION, id: *const u8, len: u32) -> libc::c_int;
    fn SSL_SESSION_get_max_early_data(session: *const ffi::SSL_SESSION) -> u32;
}

/// A session to offer, and when it was complete.
struct Held {
    session: Session,
    /// Flushes that had begun by then.
    flushes: u64,
}

/// A client with sessions for every name, of one protocol version.
struct Client<'a> {
    shared: &'a Shared,
    address: SocketAddr,
    ctx: *mut ffi::SSL_CTX,
    tls13: bool,
    held: [Option<Held>; NAMES.len()],
    /// The last session whose early data was accepted.
    spent: Option<(usize, Session)>,
}

/// What the server said of a connection.
struct Answer {
    resumed: bool,
    /// Early data was accepted.
    early: bool,
    session: Session,
}

/// What a visit offers.
#[derive(Clone, Copy)]
struct Offer<'a> {
    session: Option<&'a Session>,
    /// Sends early data.
    early: bool,
}

const NOTHING: Offer<'static> = Offer { session: None, early: false };

fn copy(session: &Session) -> Session {
    // SAFETY: live.
    let copy = unsafe { SSL_SESSION_dup(session.raw()) };
    // SAFETY: NULL or a reference of our own.
    unsafe { Session::adopt(copy) }
}

pub fn visit_until_the_end(shared: &Shared, address: SocketAddr, mut random: Random) {
    let mut clients = [false, true].map(|tls13| Client::new(shared, address, tls13));
    while !shared.has_ended() {
        let client = &mut clients[random.below(2) as usize];
        client.visit(&mut random);
        // Now and then a pause, so that the clients do not fall into step.
        if random.below(8) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(20)));
        }
    }
}

/// After all trouble is over, sessions are made and resumed again.
pub fn comes_back(shared: &Shared, address: SocketAddr) {
    for tls13 in [false, true] {
        let mut client = Client::new(shared, address, tls13);
        let resumed = (0..TRIES).any(|_| {
            let offer = client.held[0].take();
            let offer = offer.as_ref().map(|held| &held.session);
            let answer = client.connect(0, Offer { session: offer, early: false });
            client.keep(0, answer).is_some_and(|(resumed, _)| resumed)
        });
        if !resumed {
            let version = if tls13 { "1.3" } else { "1.2" };
            shared.harm(format!("nothing resumes over TLS {version} after the trouble is over"));
        }
    }
}

impl<'a> Client<'a> {
    fn new(shared: &'a Shared, address: SocketAddr, tls13: bool) -> Client<'a> {
        // SAFETY: no preconditions.
        let method = unsafe { ffi::TLS_client_method() };
        // SAFETY: a static method.
        let ctx = unsafe { ffi::SSL_CTX_new(method) };
        must("SSL_CTX_new", !ctx.is_null());
        let version = if tls13 { ffi::TLS1_3_VERSION } else { ffi::TLS1_2_VERSION };
        // SAFETY: live.
        must("version", unsafe { ffi::SSL_CTX_set_min_proto_version(ctx, version) } == 1);
        // SAFETY: live.
        must("version", unsafe { ffi::SSL_CTX_set_max_proto_version(ctx, version) } == 1);
        Client { shared, address, ctx, tls13, held: [const { None }; NAMES.len()], spent: None }
    }

    fn visit(&mut self, random: &mut Random) {
        let name = random.below(NAMES.len() as u64) as usize;
        match random.below(100) {
            0..=9 => self.hang_up(random),
            10..=14 => self.rubbish(random),
            15..=29 => {
                let answer = self.connect(name, NOTHING);
                self.keep(name, answer);
            }
            30..=36 => self.under_another_name(name),
            37..=44 if !self.tls13 => self.with_a_made_up_id(name, random),
            37..=54 if self.tls13 => self.with_early_data(name),
            55..=60 if self.tls13 => self.replay(),
            _ => self.come_back(name),
        }
    }

    fn come_back(&mut self, name: usize) {
        let Some(held) = self.held[name].take() else {
            let answer = self.connect(name, NOTHING);
            self.keep(name, answer);
            return;
        };
        let flushed = self.shared.flush_done.load(Ordering::SeqCst);
        let answer = self.connect(name, Offer { session: Some(&held.session), early: false });
        if let Some((resumed, _)) = self.keep(name, answer) {
            self.shared.count(|tally| {
                tally.offered += 1;
                tally.resumed += u64::from(resumed);
            });
            if resumed && flushed > held.flushes {
                self.shared.harm("a session resumes that a flush should have ended".to_owned());
            }
        }
    }

    fn under_another_name(&mut self, name: usize) {
        let other = (name + 1) % NAMES.len();
        let Some(held) = self.held[other].take() else { return };
        let answer = self.connect(name, Offer { session: Some(&held.session), early: false });
        if let Some((true, _)) = self.keep(name, answer) {
            self.shared.harm("a session resumes under another server name".to_owned());
        }
        self.held[other] = Some(held);
    }

    fn with_a_made_up_id(&mut self, name: usize, random: &mut Random) {
        let Some(held) = self.held[name].take() else { return };
        let copy = copy(&held.session);
        let id = random.bytes(1 + random.0 % 32);
        // SAFETY: live; copies that many bytes.
        must("an id", unsafe { SSL_SESSION_set1_id(copy.raw(), id.as_ptr(), id.len() as u32) } == 1);
        let answer = self.connect(name, Offer { session: Some(&copy), early: false });
        if let Some((true, _)) = self.keep(name, answer) {
            self.shared.harm("a session resumes under an id that nobody gave out".to_owned());
        }
    }

    fn with_early_data(&mut self, name: usize) {
        // SAFETY: live.
        let allows = |held: &Held| unsafe { SSL_SESSION_get_max_early_data(held.session.raw()) } > 0;
        let Some(held) = self.held[name].take().filter(allows) else { return };
        let answer = self.connect(name, Offer { session: Some(&held.session), early: true });
        if let Some((_, true)) = self.keep(name, answer) {
            self.shared.count(|tally| tally.early += 1);
            self.spent = Some((name, held.session));
        }
    }

    /// Sends the same early data again, as an attacker would: to whichever worker takes the connection.
    fn replay(&mut self) {
        let Some((name, session)) = self.spent.take() else { return };
        let answer = self.connect(name, Offer { session: Some(&session), early: true });
        self.shared.count(|tally| tally.replays += 1);
        if let Some((_, true)) = self.keep(name, answer) {
            self.shared.harm("early data is accepted twice".to_owned());
        }
    }

    /// Leaves in the middle of a handshake.
    fn hang_up(&mut self, random: &mut Random) {
        let Ok(stream) = TcpStream::connect(self.address) else { return };
        self.shared.count(|tally| tally.rude += 1);
        // A copy: OpenSSL takes the client's session for a bad one after this.
        let offer = self.held[0].as_ref().map(|held| copy(&held.session));
        let end = self.end(0, offer.as_ref());
        if random.below(4) > 0 && tls::attach(&end, &stream).is_ok() && stream.set_nonblocking(true).is_ok() {
            // Writes the ClientHello and finds nothing to read yet.
            let _ = tls::handshake(&end);
            std::thread::sleep(Duration::from_micros(random.below(3_000)));
            let _ = tls::handshake(&end);
        }
    }

    fn rubbish(&mut self, random: &mut Random) {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return };
        self.shared.count(|tally| tally.rude += 1);
        let n = random.below(600);
        let mut bytes = random.bytes(n);
        if random.below(2) == 0 && bytes.len() > 9 {
            // The beginning of a ClientHello.
            bytes[..6].copy_from_slice(&[22, 3, 1, 0, (n - 5) as u8, 1]);
        }
        let _ = stream.write_all(&bytes);
    }

    fn end(&self, name: usize, offer: Option<&Session>) -> Connection {
        // SAFETY: live.
        let end = unsafe { Connection::new(self.ctx) };
        // SAFETY: live.
        unsafe { ffi::SSL_set_connect_state(end.0) };
        let (command, kind) = (ffi::SSL_CTRL_SET_TLSEXT_HOSTNAME, ffi::TLSEXT_NAMETYPE_host_name);
        // SAFETY: live; copies the name.
        let named = unsafe { ffi::SSL_ctrl(end.0, command, kind.into(), NAMES[name].as_ptr() as *mut libc::c_void) };
        must("server name", named == 1);
        if let Some(session) = offer {
            // SAFETY: live objects; takes a reference of its own.
            must("SSL_set_session", unsafe { ffi::SSL_set_session(end.0, session.raw()) } == 1);
        }
        end
    }

    /// A whole connection of a client that behaves. `None` when a kill of ours cut it off; what else goes wrong is harm.
    fn connect(&self, name: usize, offer: Offer<'_>) -> Option<Answer> {
        let begin = Instant::now();
        let mut port = 0;
        match self.try_connect(name, offer, begin, &mut port) {
            Ok(answer) => Some(answer),
            Err(Failure::Lost(_)) if self.shared.killed_since(begin) => {
                self.shared.count(|tally| tally.lost += 1);
                None
            }
            Err(failure) => {
                let words = self.shared.words_about(port);
                let (version, offers) = (if self.tls13 { "1.3" } else { "1.2" }, offer.session.is_some());
                self.shared.harm(format!(
                    "a handshake of TLS {version} fails after {:?} (offers a session: {offers}, early data: {}): {failure}; workers about it: {words}",
                    begin.elapsed(), offer.early,
                ));
                None
            }
        }
    }

    fn try_connect(&self, name: usize, offer: Offer<'_>, begin: Instant, port: &mut u16) -> Result<Answer, Failure> {
        let lost = |e: std::io::Error| Failure::Lost(e.to_string());
        let stream = TcpStream::connect(self.address).map_err(lost)?;
        *port = stream.local_addr().map_or(0, |address| address.port());
        let end = self.end(name, offer.session);
        tls::attach(&end, &stream).map_err(lost)?;
        if offer.early {
            tls::send_early(&end, b"early")?;
        }
        tls::handshake(&end)?;
        let line = tls::read_line(&end)?;
        let took = begin.elapsed();
        let mut words = line.split(' ').map(|word| word.parse::<u32>().unwrap_or(u32::MAX));
        let mut word = || words.next().unwrap_or(u32::MAX);
        let (pid, resumed, bytes) = (word(), word(), word());
        let early = offer.early && tls::early_was_accepted(&end);
        if (resumed == 1) != end.resumed() || (bytes > 0) != early {
            return Err(Failure::Tls(format!("server and client disagree: '{line}'")));
        }
        if took > self.shared.bound && !self.shared.stopped_since(pid, begin) && !self.shared.killed_since(begin) {
            self.shared.harm(format!("a handshake takes {took:?} in worker {pid}, which was not stopped"));
        }
        self.shared.count(|tally| tally.micros.push(took.as_micros() as u64));
        let session = end.session();
        end.closed();
        Ok(Answer { resumed: resumed == 1, early, session })
    }

    /// Keeps the session for the next visit; whether this one was resumed, and its early data accepted.
    fn keep(&mut self, name: usize, answer: Option<Answer>) -> Option<(bool, bool)> {
        let answer = answer?;
        let flushes = self.shared.flush_begun.load(Ordering::SeqCst);
        self.held[name] = Some(Held { session: answer.session, flushes });
        Some((answer.resumed, answer.early))
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once; sessions have references of their own.
        unsafe { ffi::SSL_CTX_free(self.ctx) };
    }
}
