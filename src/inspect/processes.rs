//! Who has the store open: the processes with reader slots, and whether they are there.

use super::Inspect;
use crate::status::Result;
use crate::sys::files;

/// A process with reader slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The number under which it took the slots.
    pub pid: i32,
    /// Its slots.
    pub slots: usize,
    /// Whether it is there.
    pub presence: Presence,
    /// Committed transactions since the oldest snapshot that it holds; `None` when it holds none.
    pub lag: Option<u64>,
}

/// Whether a process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// It is, in another PID namespace.
    Elsewhere,
    /// It is gone and has left its slots behind.
    Gone,
}

impl Inspect {
    /// The processes that have reader slots, but for this one. `None` where they cannot be seen: on a file system that is mounted to be
    /// read only.
    pub fn processes(&self) -> Result<Option<Vec<Process>>> {
        if self.views.iter().any(|view| view.generation.env.is_without_locks()) {
            return Ok(None);
        }
        let me = std::process::id() as i32;
        let mut processes: Vec<Process> = Vec::new();
        for view in &self.views {
            let env = &view.generation.env;
            let last = env.last_transaction();
            for slot in env.slots()?.into_iter().filter(|slot| slot.pid != me) {
                // LMDB has every process lock the byte of its number; 0 stands for one in another PID namespace.
                let presence = match files::lock_holder(&view.locks, i64::from(slot.pid)).unwrap_or(Some(slot.pid)) {
                    None => Presence::Gone,
                    Some(pid) if pid == slot.pid => Presence::Here,
                    Some(_) => Presence::Elsewhere,
                };
                let lag = slot.snapshot.map(|snapshot| last.saturating_sub(snapshot));
                match processes.iter_mut().find(|process| process.pid == slot.pid) {
                    Some(process) => {
                        process.slots += 1;
                        process.lag = process.lag.max(lag);
                        // A process that is there may have a predecessor's slots in the generation before.
                        if presence != Presence::Gone {
                            process.presence = presence;
                        }
                    }
                    None => processes.push(Process { pid: slot.pid, slots: 1, presence, lag }),
                }
            }
        }
        Ok(Some(processes))
    }
}
