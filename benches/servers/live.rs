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

/// What was measured with so many live sessions.
pub struct Live {
    pub server: &'static str,
    pub sessions: usize,
    /// Microseconds of the server per resumed connection.
    pub own: f64,
    pub sesscache: f64,
    pub errors: Vec<String>,
}

impl Live {
    pub fn ratio(&self) -> f64 {
        self.sesscache / self.own
    }

    pub fn text(&self) -> String {
        format!(
            "{}, {} live sessions: own cache {:.1} µs, sesscache {:.1} µs per resumed connection: {:.3} times (target 1.03)",
            self.server,
            self.sessions,
            self.own,
            self.sesscache,
            self.ratio()
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "server": self.server,
            "sessions": self.sessions,
            "own_us": self.own,
            "sesscache_us": self.sesscache,
            "ratio": self.ratio(),
            "target": 1.03,
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

/// Measures with `sessions` live sessions on both sides, which take turns.
pub fn measure(subject: &dyn Subject, sites: &mut Sites, sessions: usize, effort: Effort) -> Result<Live> {
    let name = subject.name();
    let mut errors = Errors::default();
    let own = Instance::start(subject, sites.new_site(name, "unused")?, Cache::Own)?;
    let shared = Instance::start(subject, sites.new_site(name, &format!("live-{sessions}"))?, Cache::Sesscache)?;
    let kept = [fill_own(own.site.port, sessions)?, fill_sesscache(&shared.site, sessions)?];
    let mut samples = [Samples::default(), Samples::default()];
    for round in 0..ROUNDS {
        // Where a process happens to lie in memory is worth some percent. Both caches outlive a reload, and new workers
        // draw new lots.
        if round > 0 {
            own.reload()?;
            shared.reload()?;
        }
        own.spread();
        shared.spread();
        for turn in 0..=effort.turns / ROUNDS {
            // Each goes first every other time.
            for i in [turn % 2, 1 - turn % 2] {
                let cost = come_back([&own, &shared][i], &kept[i], turn * effort.block, effort.block, &mut errors)?;
                if turn > 0 {
                    samples[i].0.push(cost);
                }
            }
        }
    }
    if !errors.0.is_empty() {
        errors.0.insert(0, counters(&shared.site)?);
    }
    remove(&shared.site.store);
    let [own, sesscache] = samples.map(|samples| typical(&samples));
    Ok(Live { server: name, sessions, own, sesscache, errors: errors.0 })
}

/// Microseconds per connection of clients that come back one after the other.
fn come_back(
    instance: &Instance,
    sessions: &[SslSession],
    from: usize,
    connections: usize,
    errors: &mut Errors,
) -> Result<f64> {
    let client = Client::new(Tls::V12)?;
    let before = instance.cpu();
    for i in 0..connections {
        go_on()?;
        // 7 is a stride: neighbours in time are neighbours in the store.
        let session = &sessions[(from + i) * 7 % sessions.len()];
        let visit = errors.keep(client.visit(instance.site.port, Some(session)));
        if visit.is_some_and(|visit| !visit.resumed) {
            errors.0.push(format!("{}: a session among many is not resumed", instance.cache.name()));
        }
    }
    Ok((instance.cpu() - before) / connections as f64)
}

/// What the store counted, for those who look for a reason.
fn counters(site: &Site) -> Result<String> {
    let stats = open(site)?.stats().map_err(|error| error.to_string())?;
    let counted = sesscache::COUNTERS.iter().zip(stats.0).filter(|(_, value)| *value > 0);
    let counted: Vec<String> = counted.map(|(row, value)| format!("{} {value}", row.name)).collect();
    Ok(format!("counters of the store: {}", counted.join(", ")))
}

fn remove(store: &Path) {
    // In memory, where the next measurement may want the room.
    let _ = std::fs::remove_dir_all(store);
}
