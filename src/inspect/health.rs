//! What is looked at when something is wrong with a store: owner, modes, keys, file system, space, limits, readers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Inspect, KeyVerdict, Presence};
use crate::stats::Stats;
use crate::status::{Error, Remedy, Result, Status};
use crate::store::directory::{Directory, OpenDirectory};
use crate::store::entries::{is_generations, is_made_here};
use crate::store::env::version::LmdbVersion;
use crate::store::keys::Keys;
use crate::store::open::BOOT_UNKNOWN;
use crate::sys::dir::Stat;
use crate::sys::files::{self, FileSystem, Room};

/// One thing that was looked at.
pub struct Finding {
    /// What it is.
    pub subject: &'static str,
    /// How it is, in a sentence.
    pub text: String,
    /// Whether it is as it should be, good to know, or in need of something being done.
    pub verdict: Verdict,
}

/// What to think of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Nothing has to be done, but it is good to know.
    Note,
    /// What to do, mostly a line to type.
    Do(String),
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, subject: &'static str, text: impl Into<String>, verdict: Verdict) {
        self.0.push(Finding { subject, text: text.into(), verdict });
    }

    fn fine(&mut self, subject: &'static str, text: impl Into<String>) {
        self.add(subject, text, Verdict::Fine);
    }

    fn note(&mut self, subject: &'static str, text: impl Into<String>) {
        self.add(subject, text, Verdict::Note);
    }

    fn remedy(&mut self, subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(subject, text, Verdict::Do(remedy.into()));
    }

    fn refused(&mut self, subject: &'static str, error: &Error) {
        let remedy = match &error.remedy {
            Some(Remedy::Advice(text) | Remedy::Run(text)) => text,
            None => "see the message",
        };
        self.remedy(subject, &error.detail, remedy);
    }
}

/// What to do about a directory without a store.
const NO_STORE: &str = "give the directory of a store";

/// Looks at everything about the store in `path`. An error only when there is no such directory. In one without a store
/// there is nothing to be mended.
pub fn examine(path: &Path, key: Option<&Path>) -> Result<Vec<Finding>> {
    let dir = Directory::existing(path, key)?;
    let mut findings = Findings(Vec::new());
    let room = {
        let open = dir.enter()?;
        match super::view_control(&open) {
            Ok(control) if control.boot(open.boot()).is_none() => findings.note("boot", BOOT_UNKNOWN),
            Ok(_) => {}
            Err(error) => {
                match super::with_owner(error, path, &path.join("control")) {
                    error if error.status == Status::System => findings.refused("store", &error),
                    error => findings.remedy("store", error.detail, NO_STORE),
                }
                return Ok(findings.0);
            }
        }
        versions(&mut findings);
        directory(&dir, &mut findings);
        contents(&open, &mut findings);
        file_system(&open, &mut findings);
        files::room(open.file()).ok()
    };
    keys(&dir, &mut findings);
    match Inspect::open(path, key) {
        Ok(mut inspect) => store(&mut inspect, room, &mut findings),
        Err(error) => findings.refused("store", &error),
    }
    Ok(findings.0)
}

/// A number and its noun.
fn several(n: usize, noun: &str) -> String {
    match (n, noun.ends_with('s')) {
        (1, _) => format!("1 {noun}"),
        (_, true) => format!("{n} {noun}es"),
        (_, false) => format!("{n} {noun}s"),
    }
}

fn versions(findings: &mut Findings) {
    let lmdb = LmdbVersion::running();
    if let Err(error) = lmdb.check() {
        return findings.refused("versions", &error);
    }
    findings.fine(
        "versions",
        format!(
            "sesscache {}, OpenSSL {} (for {}.x), LMDB {}",
            env!("CARGO_PKG_VERSION"),
            crate::sys::crypto::openssl_version(),
            env!("SESSCACHE_OPENSSL_MAJOR"),
            lmdb,
        ),
    );
}

fn directory(dir: &Directory, findings: &mut Findings) {
    match dir.refusal() {
        Some(error) => findings.refused("directory", &error),
        None => {
            let owner = dir.access.uid.unwrap_or_default();
            findings.fine("directory", format!("{} is private to user {owner}", dir.path.display()));
        }
    }
}

/// Every file belongs to the directory's owner and is as private as the control file, whatever made it. What a store does not
/// make is the operator's to judge.
fn contents(open: &OpenDirectory<'_>, findings: &mut Findings) {
    let access = open.access();
    let shown = open.path().display();
    let mut look = |name: String, is_known: bool, found: Stat| {
        let allowed = if found.is_dir() { access.directory_mode() } else { access.mode };
        let mode = found.mode();
        if !is_known || !(found.is_dir() || found.is_file()) {
            findings.remedy(
                "files",
                format!("{shown}/{name} does not belong to a store"),
                format!("find out what it is: ls -ld {shown}/{name}"),
            );
        } else if Some(found.uid()) != access.uid {
            let owner = access.uid.unwrap_or_default();
            findings.remedy(
                "files",
                format!("{shown}/{name} belongs to user {}, the directory to {owner}", found.uid()),
                format!("chown --no-dereference --reference={shown} {shown}/{name}"),
            );
        } else if mode & !allowed != 0 {
            findings.remedy(
                "files",
                format!("{shown}/{name} is open to others (mode {mode:04o})"),
                format!("chmod {allowed:04o} {shown}/{name}"),
            );
        }
    };
    for name in open.names().unwrap_or_default() {
        let Ok(found) = open.stat(&name) else { continue };
        let text = name.to_string_lossy().into_owned();
        let inner = open.dir(&name).and_then(|dir| Ok((dir.names()?, dir)));
        let is_known = is_made_here(&text);
        look(text.clone(), is_known, found);
        let Some((names, dir)) = inner.ok().filter(|_| is_known) else { continue };
        for inner in names {
            let Ok(found) = dir.stat(&inner) else { continue };
            let inner = inner.to_string_lossy();
            look(format!("{text}/{inner}"), is_generations(&inner), found);
        }
    }
    if !findings.0.iter().any(|finding| finding.subject == "files") {
        findings.fine("files", "owner and modes are right");
    }
}

/// The name of a file system by its number in linux/magic.h.
fn kind(number: u64) -> String {
    match number {
        0x0102_1994 => "tmpfs".to_owned(),
        0x8584_58F6 => "ramfs".to_owned(),
        0xEF53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683E => "btrfs".to_owned(),
        0x2FC1_2FC1 => "zfs".to_owned(),
        0xF2F5_2010 => "f2fs".to_owned(),
        0x794C_7630 => "overlayfs".to_owned(),
        other => format!("a file system of kind {other:#x}"),
    }
}

fn file_system(open: &OpenDirectory<'_>, findings: &mut Findings) {
    const SUBJECT: &str = "file system";
    let (Ok(found), Ok(room)) = (files::file_system(open.file()), files::room(open.file())) else {
        return findings.remedy(SUBJECT, "its kind cannot be found out", format!("stat -f {}", open.path().display()));
    };
    let name = kind(room.kind);
    match found {
        FileSystem::Network(network) => findings.remedy(
            SUBJECT,
            format!("{network}, where shared memory does not work"),
            "use a local directory, such as /run/myserver-tls",
        ),
        FileSystem::Deadly(_) => findings.remedy(
            SUBJECT,
            format!("{name}: when it or a quota is full, processes that use the store die"),
            "use a directory on tmpfs, such as /run/myserver-tls",
        ),
        FileSystem::CopyOnWrite => findings.note(SUBJECT, format!("{name}: writes are slower than on tmpfs")),
        FileSystem::Local if matches!(name.as_str(), "tmpfs" | "ramfs") => {
            findings.fine(SUBJECT, format!("{name}, which never reaches a disk"));
        }
        FileSystem::Local | FileSystem::Overlay => {
            let frozen = "and handshakes wait while it is frozen (fsfreeze, a snapshot)";
            findings.note(SUBJECT, format!("{name}: sealed sessions and their keys reach the disk, {frozen}"))
        }
    }
}

fn keys(dir: &Directory, findings: &mut Findings) {
    match Keys::load(dir) {
        Ok(keys) => findings.fine("keys", format!("{} in {}", several(keys.count(), "key"), dir.key.display())),
        Err(error) => findings.refused("keys", &super::with_owner(error, &dir.path, &dir.key)),
    }
}

fn store(inspect: &mut Inspect, room: Option<Room>, findings: &mut Findings) {
    match inspect.damage() {
        Some(damage) => findings.remedy(
            "store",
            format!("the current generation is damaged: {damage}"),
            "nothing: the next process that uses it begins a new one",
        ),
        None if inspect.generations() == 0 => {
            findings.note("store", "nothing has been stored yet, or nothing since the machine started");
        }
        None => match inspect.stats() {
            Ok(stats) => {
                let sessions = stats.get("sessions").unwrap_or_default() as usize;
                findings.fine("store", format!("{} can be read", several(sessions, "session")));
                resumption(&stats, inspect.recent(&stats), findings);
            }
            Err(error) => findings.refused("store", &error),
        },
    }
    if let Ok(KeyVerdict::Tried(trial, _)) = inspect.key_verdict() {
        if trial.is_failure() {
            let text = format!("the newest {} do not open with these keys", several(trial.failed.into(), "record"));
            findings.remedy("keys", text, "put the old key file back, or let the sessions under it expire");
        }
    }
    space(inspect, room, findings);
    limits(inspect, findings);
    readers(inspect, findings);
}

/// Whether clients that return resume: over the last minute, or where that had no handshakes since the store was made.
fn resumption(stats: &Stats, recent: Option<(Duration, Stats)>, findings: &mut Findings) {
    const SUBJECT: &str = "resumption";
    let recent = recent.map(|(_, counted)| counted).filter(|counted| counted.handshakes() > 0);
    let (counted, when) =
        recent.as_ref().map_or((stats, "since the store was made"), |recent| (recent, "in the last minute"));
    let Some(rate) = counted.resumption_rate() else {
        return findings.note(SUBJECT, "no handshake has been counted yet");
    };
    let text = format!("{:.1}% of {} handshakes resumed {when}", rate * 100.0, counted.handshakes());
    match counted.hits_refused {
        0 => findings.fine(SUBJECT, text),
        refused => findings.remedy(
            SUBJECT,
            format!("{text}, and OpenSSL refused {refused} sessions that were found"),
            "give all servers that share sessions one SSL_CTX_set_session_id_context, the same in every process",
        ),
    }
}

/// The store reserves its space in steps: what is not yet reserved must be free when it is wanted.
fn space(inspect: &Inspect, room: Option<Room>, findings: &mut Findings) {
    let capacity = inspect.capacity();
    let reserved = inspect.reserved().min(capacity);
    let Some(room) = room else { return };
    let size = |bytes: u64| match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    };
    let (wanted, free) = (size(capacity - reserved), size(room.free));
    if room.free < capacity - reserved {
        findings.remedy(
            "space",
            format!("the store may grow by {wanted}, and {free} of {} are free: sessions leave early", size(room.size)),
            format!("df {}; then make room, or give a smaller capacity=", inspect.path().display()),
        );
    } else {
        findings.fine("space", format!("the store may grow by {wanted}, {free} are free"));
    }
}

/// A process may not write past its RLIMIT_FSIZE, and the data file is as long as the capacity.
fn limits(inspect: &Inspect, findings: &mut Findings) {
    let capacity = inspect.capacity();
    let mut low = Vec::new();
    let mut seen = 0;
    for process in
        inspect.processes().ok().flatten().unwrap_or_default().iter().filter(|p| p.presence == Presence::Here)
    {
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap_or_default();
        let Some(line) = limits.lines().find_map(|line| line.strip_prefix("Max file size")) else { continue };
        seen += 1;
        let soft = line.split_whitespace().next().and_then(|soft| soft.parse::<u64>().ok());
        if soft.is_some_and(|soft| soft < capacity) {
            low.push(process.pid);
        }
    }
    if files::exceeds_file_limit(capacity) {
        low.push(std::process::id() as i32);
    }
    match low.first() {
        Some(pid) => findings.remedy(
            "limits",
            format!("process {pid} may not write files as large as the store (ulimit -f)"),
            format!("prlimit --pid {pid} --fsize=unlimited, and LimitFSIZE=infinity in its unit"),
        ),
        None => {
            let seen = several(seen + 1, "process");
            findings.fine("limits", format!("files may be as large as the store, in {seen}, this one counted"));
        }
    }
}

fn readers(inspect: &Inspect, findings: &mut Findings) {
    let processes = match inspect.processes() {
        Ok(Some(processes)) => processes,
        Ok(None) => {
            let text =
                "unknown: the directory is mounted to be read only, and who has the store open is not to be seen in it";
            return findings.note("readers", text);
        }
        Err(error) => return findings.refused("readers", &error),
    };
    let count = |presence| processes.iter().filter(|process| process.presence == presence).count();
    let slots: usize = processes.iter().map(|process| process.slots).sum();
    let limit = inspect.readers_limit();
    if slots * 10 > limit as usize * 9 {
        findings.remedy(
            "readers",
            format!("{slots} of {limit} slots are taken; without one, lookups wait for writers"),
            "give a larger readers= to sesscache_open",
        );
    } else {
        let attached = processes.len() - count(Presence::Gone);
        let attached = several(attached, "process");
        findings.fine("readers", format!("{attached} attached with {slots} of {limit} slots"));
    }
    if count(Presence::Gone) > 0 {
        findings.note(
            "readers",
            format!(
                "{} ended without giving slots back; a process that looks up frees them within 30 s",
                several(count(Presence::Gone), "process")
            ),
        );
    }
    if count(Presence::Elsewhere) > 0 {
        findings.remedy(
            "PID namespaces",
            format!(
                "{} processes are in another PID namespace; one whose number is taken there has to wait for writers",
                count(Presence::Elsewhere)
            ),
            "let the containers share one: --pid=container:NAME, or shareProcessNamespace: true",
        );
    } else {
        findings.fine("PID namespaces", "all processes attached are in this one");
    }
}
