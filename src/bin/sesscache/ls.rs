//! `ls`: the stores that processes of this host have open, found by the control files that they have mapped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// The first bytes of a control file.
const MAGIC: &[u8; 8] = b"sesscach";

/// A process, and what it calls itself.
struct OpenedBy {
    pid: u32,
    name: String,
}

#[derive(Default)]
struct HostStores {
    /// By directory, and whether its files were deleted since.
    stores: BTreeMap<(String, bool), Vec<OpenedBy>>,
    /// Processes that this user may not look into.
    hidden: usize,
}

pub fn run(json: bool) -> Result<Outcome, Failure> {
    let found = find().map_err(Failure::system("cannot list the processes"))?;
    let mut out = Output::new();
    if !json {
        writeln!(out, "{}", out.bold("store, and the processes that have it open"))?;
    }
    for ((path, deleted), processes) in &found.stores {
        if json {
            let processes = processes.iter().map(|process| json!({ "pid": process.pid, "name": process.name }));
            out.json(&json!({ "path": path, "deleted": deleted, "processes": processes.collect::<Vec<_>>() }))?;
            continue;
        }
        writeln!(out, "{}{}", out.bold(path), if *deleted { "  (deleted)" } else { "" })?;
        for OpenedBy { pid, name } in processes {
            writeln!(out, "    {pid:>8}  {name}")?;
        }
    }
    out.flush()?;
    if found.hidden > 0 {
        eprintln!("sesscache: {} processes of other users could not be looked into; run it as root", found.hidden);
    }
    Ok(Outcome::Fine)
}

fn find() -> std::io::Result<HostStores> {
    let mut found = HostStores::default();
    let me = std::process::id();
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = pids.filter(|pid| *pid != me).collect();
    pids.sort_unstable();
    for pid in pids {
        // One that has ended since is none.
        match fs::read_to_string(format!("/proc/{pid}/maps")) {
            Ok(maps) => stores_in(pid, &maps, &mut found),
            Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => found.hidden += 1,
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Notes the stores that a process has mapped (proc_pid_maps(5)), by their paths in its own root directory.
fn stores_in(pid: u32, maps: &str, found: &mut HostStores) {
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
    for line in maps.lines() {
        let Some(path) = line.find('/').map(|at| &line[at..]) else { continue };
        let (path, deleted) = path.strip_suffix(" (deleted)").map_or((path, false), |path| (path, true));
        let Some(directory) = path.strip_suffix("/control") else { continue };
        if !deleted && !is_control(&PathBuf::from(format!("/proc/{pid}/root{path}"))) {
            continue;
        }
        let processes = found.stores.entry((directory.to_owned(), deleted)).or_default();
        if processes.last().is_none_or(|last| last.pid != pid) {
            processes.push(OpenedBy { pid, name: name() });
        }
    }
}

fn is_control(path: &PathBuf) -> bool {
    let mut start = [0; MAGIC.len()];
    // A user who may not read it may still see who has it mapped.
    File::open(path).map_or(true, |mut file| file.read_exact(&mut start).is_ok() && start == *MAGIC)
}
