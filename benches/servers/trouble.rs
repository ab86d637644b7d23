//! A store in trouble: full, damaged, not writable. The server serves every connection, and its log says why no session
//! comes back, or nothing when they do.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use serde_json::{json, Value};

use crate::client::Tls;
use crate::instance::Instance;
use crate::live;
use crate::machine::{is_root, set_mode, Result};
use crate::share::{first_visits, second_visits, Errors, Share};
use crate::subject::{Cache, Subject};
use crate::Sites;

/// What befalls a store.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Full,
    Damaged,
    NotWritable,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Full, Kind::Damaged, Kind::NotWritable];

    fn name(self) -> &'static str {
        match self {
            Kind::Full => "full store",
            Kind::Damaged => "damaged store",
            Kind::NotWritable => "store that the workers may not open",
        }
    }

    /// Whether clients are resumed all the same.
    fn resumes(self) -> bool {
        self != Kind::NotWritable
    }
}

/// What came of it.
pub struct Trouble {
    pub server: &'static str,
    pub kind: &'static str,
    pub share: Share,
    /// What should not have happened.
    pub faults: Vec<String>,
    /// Lines that the log has because of it.
    pub log: Vec<String>,
}

impl Trouble {
    pub fn text(&self) -> String {
        let log = match &self.log[..] {
            [] => "nothing".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        format!(
            "{}, {}: {} of {} resumed, {} errors; in the log: {log}",
            self.server,
            self.kind,
            self.share.resumed,
            self.share.of,
            self.faults.len()
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "server": self.server,
            "trouble": self.kind,
            "resumed": self.share.resumed,
            "of": self.share.of,
            "errors": self.faults,
            "log": self.log,
        })
    }
}

/// Every kind of trouble once.
pub fn measure(subject: &dyn Subject, sites: &mut Sites, clients: usize) -> Result<Vec<Trouble>> {
    Kind::ALL.into_iter().map(|kind| meet(subject, sites, kind, clients)).collect()
}

fn meet(subject: &dyn Subject, sites: &mut Sites, kind: Kind, clients: usize) -> Result<Trouble> {
    let mut site = sites.new_site(subject.name(), &format!("trouble-{}-{}", subject.name(), kind as usize))?;
    site.options = "capacity=1MiB".into();
    let life = Duration::from_secs(site.timeout);
    let mut instance = Instance::start(subject, site, Cache::Sesscache)?;
    let mut errors = Errors::default();
    match kind {
        Kind::Full => {
            let store = live::open(&instance.site)?;
            live::fill_store(&store, life, 10_000)?;
            let stats = store.stats().map_err(|error| error.to_string())?;
            if stats.evicted == 0 {
                return Err("10,000 sessions fit into 1 MiB: the store is not full".into());
            }
            // Records with ids made elsewhere, as httpd's, expire at a whole second. In the second of those above they
            // would be the first to go.
            std::thread::sleep(Duration::from_millis(1_100));
        }
        Kind::Damaged => {
            // LMDB trusts its file while it is open, so this is what a crash of the machine or a bad disk leaves.
            instance.stop()?;
            damage(&instance.site.store)?;
            instance.run()?;
        }
        Kind::NotWritable => {
            instance.stop()?;
            match is_root() {
                true => chown(&instance.site.store, Some(0), Some(0))?,
                false => set_mode(&instance.site.store, 0o000)?,
            }
            instance.run()?;
        }
    }
    let mut share = Share::default();
    for tls in Tls::BOTH {
        let sessions = first_visits(instance.site.port, tls, clients, &mut errors)?;
        let came_back = second_visits(instance.site.port, tls, &sessions, &mut errors)?;
        share = Share { resumed: share.resumed + came_back.resumed, of: share.of + came_back.of };
    }
    instance.stop()?;
    if kind == Kind::NotWritable && !is_root() {
        set_mode(&instance.site.store, 0o700)?;
    }
    let log = instance.complaints();
    let mut faults = errors.0;
    faults.extend(log.iter().filter(|line| !line.contains("sesscache")).cloned());
    // Without tickets in the store a server may hand out stateless ones: then clients are resumed without it.
    if kind.resumes() && share.percent() < 95.0 {
        faults.push(format!("{} of {} resumed", share.resumed, share.of));
    }
    if !kind.resumes() && log.is_empty() {
        faults.push("the log does not say why sessions do not come back".into());
    }
    Ok(Trouble { server: subject.name(), kind: kind.name(), share, faults, log })
}

/// Overwrites what every file of the store has in its middle and at its start.
fn damage(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            damage(&path)?;
        } else {
            let mut bytes = fs::read(&path)?;
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte ^= (i as u8).wrapping_mul(37) | 1;
            }
            fs::write(&path, bytes)?;
        }
    }
    Ok(())
}
