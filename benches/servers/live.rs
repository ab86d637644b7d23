//! A server's own cache beside sesscache when many sessions live in each: what a resumed connection costs.
//!
//! TLS 1.2 by id, which is one lookup. Only real handshakes fill a server's own cache. The store is filled through the
//! API with records of a session's size, among them real ones. The clients that come back are spread over all that
//! was made, so that neither side answers from what it touched last.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::ssl::SslSession;
use serde_json::{json, Value};
use sesscache::{Cache as Store, Options};

use crate::client::{Client, Tls};
use crate::cost::{typical, Effort};
use crate::instance::Instance;
use crate::machine::{go_on, Result};
use crate::share::Errors;
use crate::subject::{Cache, Site, Subject};
use crate::support::measure::Samples;
use crate::Sites;

/// Clients that come back.
const RETURNING: usize = 400;
/// Bytes of a TLS 1.2 session without client certificate, as a server encodes it.
const RECORD: usize = 140;
/// Times that the workers are replaced.
const ROUNDS: usize = 6;
/// Clients that fill a cache at the same time.
const THREADS: usize = 4;

/// A cache of a server's own and sesscache, with so many live sessions.
pub struct Live {
    pub server: &'static str,
    pub sessions: usize,
    /// The server's own cache, and microseconds of the server per resumed connection with it.
    pub cache: &'static str,
    pub own: f64,
    pub sesscache: f64,
    /// Sessions that the own cache did not have any more.
    pub lost: usize,
    pub errors: Vec<String>,
}

impl Live {
    pub fn ratio(&self) -> f64 {
        self.sesscache / self.own
    }

    pub fn text(&self) -> String {
        let lost = match self.lost {
            0 => String::new(),
            lost => format!("; {} lost {lost} sessions", self.cache),
        };
        format!(
            "{}, {} live sessions: {} {:.1} µs, sesscache {:.1} µs per resumed connection: {:.3} times (target 1.03){lost}",
            self.server,
            self.sessions,
            self.cache,
            self.own,
            self.sesscache,
            self.ratio(),
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "server": self.server,
            "sessions": self.sessions,
            "cache": self.cache,
            "own_us": self.own,
            "sesscache_us": self.sesscache,
            "ratio": self.ratio(),
            "target": 1.03,
            "lost": self.lost,
            "errors": self.errors,
        })
    }
}

/// Fills a server's own cache by `n` handshakes and keeps some of the sessions.
fn fill_own(port: u16, n: usize) -> Result<Vec<SslSession>> {
    let each = n / THREADS;
    let fill = || -> Result<Vec<SslSession>> {
        let client = Client::new(Tls::V12)?;
        let mut kept = Vec::new();
        for i in 0..each {
            go_on()?;
            let session = client.visit(port, None)?.session.ok_or("the server gives no session")?;
            if i % (n / RETURNING).max(1) == 0 {
                kept.push(session);
            }
        }
        Ok(kept)
    };
    let results: Vec<Result<Vec<SslSession>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(fill)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    });
    let mut kept = Vec::new();
    for result in results {
        kept.extend(result?);
    }
    Ok(kept)
}

/// Opens the store of a running server from here.
pub fn open(site: &Site) -> Result<Store> {
    let owner = site.user.as_ref().map_or(String::new(), |user| format!(" owner={user}"));
    let options = Options::parse(&format!("{}{owner}", site.options)).map_err(|error| error.to_string())?;
    Store::open(&site.store, &options).map_err(|error| error.to_string().into())
}

/// Puts `n` records of a session's size.
pub fn fill_store(store: &Store, life: Duration, n: usize) -> Result<()> {
    let data = [0_u8; RECORD];
    let expires = (SystemTime::now().duration_since(UNIX_EPOCH)? + life).as_secs() as i64;
    for _ in 0..n {
        let put = || store.issue_id(life).and_then(|id| store.put(&id, &data, expires));
        // A busy machine may keep one waiting past the deadline.
        put().or_else(|_| put()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn fill_sesscache(site: &Site, n: usize) -> Result<Vec<SslSession>> {
    let client = Client::new(Tls::V12)?;
    let store = open(site)?;
    let mut kept = Vec::new();
    for _ in 0..RETURNING.min(n) {
        go_on()?;
        let session = client.visit(site.port, None)?.session.ok_or("the server gives no session")?;
        fill_store(&store, Duration::from_secs(site.timeout), (n / RETURNING).max(1) - 1)?;
        kept.push(session);
    }
    Ok(kept)
}

/// One side of the comparison.
struct Side<'a> {
    instance: Instance<'a>,
    kept: Vec<SslSession>,
    samples: Samples,
    lost: usize,
}

/// Measures with `sessions` live sessions in every cache; they take turns.
pub fn measure(subject: &dyn Subject, sites: &mut Sites, sessions: usize, effort: Effort) -> Result<Vec<Live>> {
    let name = subject.name();
    let rivals: Vec<_> = subject.rivals().into_iter().filter(|rival| sessions <= rival.most).collect();
    if rivals.is_empty() {
        return Ok(Vec::new());
    }
    let mut errors = Errors::default();
    let mut sides = Vec::new();
    for cache in rivals.iter().map(|rival| rival.cache).chain([Cache::Sesscache]) {
        let instance = Instance::start(subject, sites.new_site(name, &format!("live-{name}-{sessions}"))?, cache)?;
        let kept = match cache {
            Cache::Sesscache => fill_sesscache(&instance.site, sessions)?,
            _ => fill_own(instance.site.port, sessions)?,
        };
        sides.push(Side { instance, kept, samples: Samples::default(), lost: 0 });
    }
    let count = sides.len();
    for round in 0..ROUNDS {
        for side in &sides {
            // Where a process happens to lie in memory is worth some percent, and new workers draw new lots. All these
            // caches outlive their workers; httpd's shmcb does not outlive a reload.
            if round > 0 {
                side.instance.kill_workers()?;
            }
            side.instance.spread();
        }
        for turn in 0..=effort.turns / ROUNDS {
            // Another one goes first every time.
            for i in 0..count {
                let side = &mut sides[(i + turn) % count];
                let cost = side.come_back(turn * effort.block, effort.block, &mut errors)?;
                if turn > 0 {
                    side.samples.0.push(cost);
                }
            }
        }
    }
    let ours = sides.pop().expect("sesscache");
    if ours.lost > 0 {
        errors.0.insert(
            0,
            format!("{name}: {} sessions among many are not resumed; {}", ours.lost, counters(&ours.instance.site)?),
        );
    }
    remove(&ours.instance.site.store);
    let live = |side: Side| Live {
        server: name,
        sessions,
        cache: side.instance.cache.name(),
        own: typical(&side.samples),
        sesscache: typical(&ours.samples),
        lost: side.lost,
        errors: std::mem::take(&mut errors.0),
    };
    Ok(sides.into_iter().map(live).collect())
}

impl Side<'_> {
    /// Microseconds per connection of clients that come back one after the other.
    fn come_back(&mut self, from: usize, connections: usize, errors: &mut Errors) -> Result<f64> {
        let client = Client::new(Tls::V12)?;
        let before = self.instance.cpu();
        for i in 0..connections {
            go_on()?;
            // 7 is a stride: neighbours in time are neighbours in the store.
            let session = &self.kept[(from + i) * 7 % self.kept.len()];
            let visit = errors.keep(client.visit(self.instance.site.port, Some(session)));
            self.lost += usize::from(visit.is_some_and(|visit| !visit.resumed));
        }
        Ok((self.instance.cpu() - before) / connections as f64)
    }
}

/// What the store counted, for those who look for a reason.
fn counters(site: &Site) -> Result<String> {
    let stats = open(site)?.stats().map_err(|error| error.to_string())?;
    let counted = sesscache::COUNTERS.iter().zip(stats.values()).filter(|(_, value)| *value > 0);
    let counted: Vec<String> = counted.map(|(row, value)| format!("{} {value}", row.name)).collect();
    Ok(format!("counters of the store: {}", counted.join(", ")))
}

fn remove(store: &Path) {
    // In memory, where the next measurement may want the room.
    let _ = std::fs::remove_dir_all(store);
}
