//! What is looked at when something is wrong with a store: owner, modes, keys, file system, space, limits, readers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Inspect, Presence};
use crate::status::{Error, Remedy, Result, Status};
use crate::store::directory::Directory;
use crate::store::env::version::LmdbVersion;
use crate::store::keys::Keys;
use crate::sys::files::{self, FileSystem};

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

/// Looks at everything about the store in `path`. An error only when there is no such directory.
pub fn examine(path: &Path, key: Option<&Path>) -> Result<Vec<Finding>> {
    let dir = Directory::existing(path, key)?;
    let mut findings = Findings(Vec::new());
    versions(&mut findings);
    directory(&dir, &mut findings);
    contents(&dir, &mut findings);
    file_system(&dir, &mut findings);
    keys(&dir, &mut findings);
    match Inspect::open(path, key) {
        Ok(mut inspect) => store(&mut inspect, &mut findings),
        Err(error) if error.status == Status::NotFound => {
            findings.remedy("store", error.detail, "start a server that uses this directory, or give another path");
        }
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

/// Every file belongs to the directory's owner and is as private as the control file, whatever made it.
fn contents(dir: &Directory, findings: &mut Findings) {
    let shown = dir.path.display();
    let mut files = 0;
    let mut look = |path: &Path| {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        files += 1;
        let allowed = if meta.is_dir() { dir.access.directory_mode() } else { dir.access.mode };
        let mode = meta.mode() & 0o777;
        let kind = meta.file_type();
        if kind.is_symlink() || kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
            findings.remedy(
                "files",
                format!("{} is no file of a store", path.display()),
                format!("rm {}", path.display()),
            );
        } else if Some(meta.uid()) != dir.access.uid {
            let owner = dir.access.uid.unwrap_or_default();
            findings.remedy(
                "files",
                format!("{} belongs to user {}, the directory to {owner}", path.display(), meta.uid()),
                format!("chown -R --reference={shown} {shown}"),
            );
        } else if mode & !allowed != 0 {
            findings.remedy(
                "files",
                format!("{} is open to others (mode {mode:04o})", path.display()),
                format!("chmod {allowed:04o} {}", path.display()),
            );
        }
    };
    for entry in fs::read_dir(&dir.path).into_iter().flatten().flatten() {
        look(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                look(&inner.path());
            }
        }
    }
    if files == 0 {
        findings.remedy(
            "files",
            format!("nothing can be seen in {shown}"),
            format!("sudo sesscache doctor {shown}, unless the directory is empty"),
        );
    } else if !findings.0.iter().any(|finding| finding.subject == "files") {
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

fn file_system(dir: &Directory, findings: &mut Findings) {
    const SUBJECT: &str = "file system";
    let path = &dir.path;
    let (Ok(found), Ok(room)) = (files::file_system(path), files::room(path)) else {
        return findings.remedy(SUBJECT, "its kind cannot be found out", format!("stat -f {}", path.display()));
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
            findings.note(SUBJECT, format!("{name}: sealed sessions and their keys reach the disk"))
        }
    }
}

fn keys(dir: &Directory, findings: &mut Findings) {
    match Keys::load(dir) {
        Ok(keys) => findings.fine("keys", format!("{} in {}", several(keys.count(), "key"), dir.key.display())),
        Err(error) => findings.refused("keys", &super::with_owner(error, &dir.path, &dir.key)),
    }
}

fn store(inspect: &mut Inspect, findings: &mut Findings) {
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
            }
            Err(error) => findings.refused("store", &error),
        },
    }
    space(inspect, findings);
    limits(inspect, findings);
    readers(inspect, findings);
}

/// The store reserves its space in steps: what is not yet reserved must be free when it is wanted.
fn space(inspect: &Inspect, findings: &mut Findings) {
    let capacity = inspect.capacity();
    let reserved = inspect.reserved().min(capacity);
    let Ok(room) = files::room(inspect.path()) else { return };
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
    for process in inspect.processes().unwrap_or_default().iter().filter(|p| p.presence == Presence::Here) {
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
        Ok(processes) => processes,
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
