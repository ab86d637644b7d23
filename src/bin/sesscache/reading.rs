//! One reading of a store: every counter, what is worked out from them, and in words what is not as it should be.

use std::path::Path;
use std::time::Duration;

use serde_json::{json, Map, Value};
use sesscache::inspect::{self, Inspect, KeyVerdict, Presence, Process, Record};
use sesscache::{CounterRow, Stats, Unit, COUNTERS, READINGS};

use crate::failure::Failure;
use crate::units::{number, percent, seconds};

/// Committed transactions after which a snapshot is no longer that of a lookup in progress.
const LONG_LOOKUP: u64 = 1_000;

/// Everything about a store at one moment.
pub struct Reading {
    pub path: String,
    pub stats: Stats,
    /// What was counted over about the last minute, and how long that was.
    pub recent: Option<(Duration, Stats)>,
    /// The sessions that expire first and last.
    pub ends: Option<(Record, Record)>,
    /// `None` where they cannot be seen.
    pub processes: Option<Vec<Process>>,
    pub readers_limit: u32,
    pub file_bytes: u64,
    /// Generations that are read.
    pub generations: usize,
    pub damage: Option<String>,
    pub keys: KeyVerdict,
    pub key_file: String,
    /// When counting began, in seconds since 1970.
    pub created: u64,
}

impl Reading {
    pub fn take(inspect: &mut Inspect) -> Result<Reading, Failure> {
        let stats = inspect.stats()?;
        Ok(Reading {
            path: inspect.path().display().to_string(),
            recent: inspect.recent(&stats),
            ends: inspect.ends()?,
            processes: inspect.processes()?,
            readers_limit: inspect.readers_limit(),
            file_bytes: inspect.file_bytes(),
            generations: inspect.generations(),
            damage: inspect.damage().map(str::to_owned),
            keys: inspect.key_verdict()?,
            created: inspect.created(),
            key_file: inspect.key_file().display().to_string(),
            stats,
        })
    }

    /// Opens the store and reads it.
    pub fn of(path: &Path) -> Result<Reading, Failure> {
        Reading::take(&mut Inspect::open(path, None)?)
    }

    /// Whether sessions can be read. A generation that is damaged as a whole is up for nobody.
    pub fn is_up(&self) -> bool {
        self.damage.is_none()
    }

    /// A counter by its name in the table.
    pub fn count(&self, name: &str) -> u64 {
        self.stats.get(name).unwrap_or_default()
    }

    /// The reader slots of some processes; `None` where they cannot be seen.
    pub fn slots(&self, presence: impl Fn(Presence) -> bool) -> Option<usize> {
        let processes = self.processes.as_ref()?;
        Some(processes.iter().filter(|process| presence(process.presence)).map(|process| process.slots).sum())
    }

    /// How many processes are attached; `None` where they cannot be seen.
    pub fn attached(&self) -> Option<usize> {
        let processes = self.processes.as_ref()?;
        Some(processes.iter().filter(|process| process.presence != Presence::Gone).count())
    }

    /// What is worked out, by its name in the table of readings; null where there is nothing to say.
    pub fn worked_out(&self, name: &str) -> Value {
        let expires = |record: &Record| record.header.as_ref().map(|header| header.expires);
        match name {
            "lookups" => self.stats.lookups().into(),
            "hit_rate" => self.stats.hit_rate().into(),
            "handshakes" => self.stats.handshakes().into(),
            "resumption_rate" => self.stats.resumption_rate().into(),
            "expires_first" => self.ends.as_ref().and_then(|(first, _)| expires(first)).into(),
            "expires_last" => self.ends.as_ref().and_then(|(_, last)| expires(last)).into(),
            "processes" => self.attached().into(),
            "readers" => self.slots(|_| true).into(),
            "readers_limit" => self.readers_limit.into(),
            "readers_stale" => self.slots(|presence| presence == Presence::Gone).into(),
            "file_bytes" => self.file_bytes.into(),
            "newest_open" | "newest_unreadable" | "newest_tried" => match (self.keys, name) {
                (KeyVerdict::Tried(trial, _), "newest_open") => trial.opened.into(),
                (KeyVerdict::Tried(trial, _), "newest_unreadable") => trial.failed.into(),
                (KeyVerdict::Tried(_, ago), _) => inspect::now().saturating_sub(ago).into(),
                _ => Value::Null,
            },
            _ => Value::Null,
        }
    }

    /// All of it, under the names of the tables.
    pub fn json(&self) -> Value {
        let mut all = Map::new();
        all.insert("path".into(), self.path.clone().into());
        all.extend(counters(&self.stats, |_| true));
        all.extend(READINGS.iter().map(|row| (row.name.to_owned(), self.worked_out(row.name))));
        let recent = self.recent.as_ref().map(|(time, counted)| {
            let mut recent = Map::new();
            recent.insert("seconds".into(), json!(time.as_secs_f64()));
            recent.extend(counters(counted, |row| row.unit == Unit::Count));
            recent.extend(rates(counted));
            Value::Object(recent)
        });
        all.insert("last_minute".into(), recent.into());
        all.insert("warnings".into(), self.warnings().into());
        all.insert("notes".into(), self.notes().into());
        Value::Object(all)
    }

    /// What somebody should do something about.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(damage) = &self.damage {
            warnings.push(format!("the store is damaged ({damage}); the next process that uses it begins a new one"));
        }
        warnings.extend(self.key_warning());
        for process in self.processes.iter().flatten() {
            let stuck = process.lag.is_some_and(|lag| lag > LONG_LOOKUP);
            match process.presence {
                Presence::Gone if stuck => warnings.push(format!(
                    "process {} died during a lookup; old pages cannot be reused until its reader slot is freed",
                    process.pid
                )),
                Presence::Here if stuck && is_stopped(process.pid) => warnings.push(format!(
                    "process {} is stopped during a lookup, so old pages cannot be reused; continue or kill it",
                    process.pid
                )),
                _ => {}
            }
        }
        let slots = self.slots(|_| true).unwrap_or_default();
        if slots * 10 > self.readers_limit as usize * 9 {
            warnings.push(format!(
                "{} of {} reader slots are taken; without a slot, a lookup waits for writers: raise readers=",
                number(slots as u64),
                number(self.readers_limit.into())
            ));
        }
        if let Some((_, counted)) = &self.recent {
            for (name, what) in LATELY {
                let n = counted.get(name).unwrap_or_default();
                if n > 0 {
                    warnings.push(format!("in the last minute {} {what}", number(n)));
                }
            }
        }
        warnings
    }

    fn key_warning(&self) -> Option<String> {
        let file = &self.key_file;
        match self.keys {
            KeyVerdict::Missing => Some(format!(
                "the key file {file} is gone: processes that run have the key in memory, and the next to start makes another, with \
                 which nothing opens that is stored"
            )),
            KeyVerdict::Tried(trial, ago) if trial.is_failure() => {
                let when = if ago == 0 { String::new() } else { format!(", tried {} ago", seconds(ago)) };
                Some(format!(
                    "the newest {} sessions do not open with the sealing keys{when}: the key file was replaced; run: sesscache check PATH",
                    trial.failed
                ))
            }
            KeyVerdict::Tried(..) | KeyVerdict::Unknown => None,
        }
    }

    /// What is good to know and needs nothing done.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.generations == 0 && self.damage.is_none() {
            notes.push("no session has been stored yet, or none since the machine started".to_owned());
        }
        if self.generations > 1 {
            notes.push("a new generation has begun; sessions of the previous one still resume".to_owned());
        }
        if self.processes.is_none() {
            notes.push(
                "the directory is mounted to be read only: who has the store open is not to be seen in it".to_owned(),
            );
        }
        let elsewhere =
            self.processes.iter().flatten().filter(|process| process.presence == Presence::Elsewhere).count();
        if elsewhere > 0 {
            notes.push(format!("{elsewhere} of the attached processes run in another PID namespace"));
        }
        let evicted = self.recent.as_ref().and_then(|(_, counted)| counted.get("evicted")).unwrap_or_default();
        if evicted > 0 {
            notes.push(format!(
                "in the last minute {} sessions were evicted before they expired: a larger capacity= would keep them",
                number(evicted)
            ));
        }
        notes
    }

    /// The first and the last to expire, in words.
    pub fn ends_in_words(&self) -> Option<(String, String)> {
        let now = inspect::now();
        let words = |record: &Record| {
            let Some(header) = &record.header else { return "damaged".to_owned() };
            let left = seconds(u64::from(header.expires).saturating_sub(now));
            match header.full_handshake {
                0 => format!("expires in {left}"),
                at => format!("made {} ago, expires in {left}", seconds(now.saturating_sub(at.into()))),
            }
        };
        self.ends.as_ref().map(|(first, last)| (words(first), words(last)))
    }

    /// A rate since the store was made and over the last minute.
    pub fn rates(&self, rate: fn(&Stats) -> Option<f64>) -> (String, String) {
        let recent = self.recent.as_ref().map_or("-".to_owned(), |(_, counted)| percent(rate(counted)));
        (percent(rate(&self.stats)), recent)
    }
}

/// Counters that are above 0 in a healthy store only in the past.
const LATELY: &[(&str, &str)] = &[
    (
        "misses_damaged",
        "sessions could not be opened: they are damaged, or their key is missing; run: sesscache check PATH",
    ),
    ("hits_refused", "sessions were found that OpenSSL refused; run: sesscache doctor PATH"),
    ("misses_unavailable", "lookups failed because the store was unavailable; run: sesscache doctor PATH"),
    ("puts_busy", "sessions were not stored because another process held the write lock past the deadline"),
    ("puts_full", "sessions were not stored because the store had no room; run: sesscache doctor PATH"),
    ("puts_failed", "sessions could not be stored; the server's log says why"),
];

/// The counters of some rows, under their names.
pub fn counters<'s>(stats: &'s Stats, which: fn(&CounterRow) -> bool) -> impl Iterator<Item = (String, Value)> + 's {
    COUNTERS
        .iter()
        .zip(stats.values())
        .filter(move |(row, _)| which(row))
        .map(|(row, n)| (row.name.to_owned(), n.into()))
}

/// What is worked out of counters, under its names in the table of readings.
pub fn rates(stats: &Stats) -> [(String, Value); 4] {
    [
        ("lookups", stats.lookups().into()),
        ("hit_rate", stats.hit_rate().into()),
        ("handshakes", stats.handshakes().into()),
        ("resumption_rate", stats.resumption_rate().into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// Whether a process is stopped by a signal or a debugger (proc(5): state T or t).
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}
