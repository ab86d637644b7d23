//! When a new generation begins while the store is open: at damage, behind a process that is stopped, and at a flush.

use std::sync::Arc;
use std::time::Duration;

use super::control::Current;
use super::env::Fault;
use super::generation::{self, Generation};
use super::keys::Keys;
use super::path_access::PATIENCE;
use super::writer::STUCK;
use super::{OpenStore, Store};
use crate::log::{self, Topic};
use crate::status::Result;

impl Store {
    /// Forgets everything, everywhere, at once, or nothing: what may fail for lack of room is done first. The new key is what makes
    /// unreadable what is left in pages or backups.
    pub(crate) fn flush(self: &Arc<Self>) -> Result<()> {
        let opened = self.obtain()?;
        let control = &opened.control;
        let _way = self.path_access.begin(PATIENCE)?;
        let open = self.dir.enter()?;
        Generation::make(&open, control, control.current().number + 1)?;
        if !self.dir.key_is_foreign {
            Keys::replace(&open)?;
        }
        for former in self.former_controls() {
            former.note_flush();
            former.bump();
        }
        control.note_flush();
        Generation::begin(&open, control, control.current(), false)?;
        // Another process may have begun one at this instant, and kept the old one readable.
        let after = control.current();
        if after.keep {
            control.switch(after, Current { number: after.number, keep: false });
        }
        control.bump();
        generation::clear(&open, control.current());
        Ok(())
    }

    /// The host has closed our descriptors, which daemons do that begin with a session too early.
    #[cold]
    pub(super) fn open_anew(&self, opened: &OpenStore) {
        self.log.say(Topic::Open, log::WARNING, || {
            "the program has closed descriptors of the store: they are opened anew".to_owned()
        });
        opened.retire();
    }

    /// Damage begins a new generation, and so does a process that is stopped in a bad moment; anything else is said once.
    pub(super) fn note_fault(&self, generation: &Generation, fault: Fault) {
        match fault {
            Fault::Damaged(_) => {
                self.log.say(Topic::Damage, log::WARNING, || format!("the store is {}", fault.text()));
                self.give_up(generation.number, "the store is damaged");
            }
            Fault::Full | Fault::LockTimeout | Fault::Taken => {}
            Fault::PidClash | Fault::ReadersFull => self.log.say(Topic::Readers, log::WARNING, || {
                "no reader slot (all taken, or a container's process has the same number): lookups wait for writers; \
                 share the PID namespace, or raise readers="
                    .to_owned()
            }),
            Fault::SlotsHeld { millis } => {
                self.log.say(Topic::Readers, log::WARNING, || format!("{}: lookups wait for writers", fault.text()));
                if millis > STUCK {
                    self.leave_behind(generation.number, "a process is stopped while it takes a reader slot");
                }
            }
            Fault::WriterHeld => {
                self.log.say(Topic::Busy, log::WARNING, || fault.text());
                self.leave_behind(generation.number, "another program holds LMDB's writer lock");
            }
            Fault::Closed => drop(self.obtain().map(|opened| self.open_anew(&opened))),
            fault => self.log.say(Topic::Bug, log::WARNING, || fault.text()),
        }
    }

    /// Begins a new generation, from which the old one is still read.
    pub(super) fn leave_behind(&self, number: u64, why: &str) {
        self.renew_from(number, true, why);
    }

    /// Begins a new generation; the old one is read no more.
    pub(super) fn give_up(&self, number: u64, why: &str) {
        self.renew_from(number, false, why);
    }

    /// Unless somebody already did.
    fn renew_from(&self, number: u64, keep: bool, why: &str) {
        let Ok(opened) = self.obtain() else { return };
        let (control, current) = (&opened.control, opened.control.current());
        if current.number == number {
            self.log.say(Topic::Generation, log::WARNING, || format!("{why}: a new generation begins"));
            let _ = self
                .path_access
                .begin(Duration::ZERO)
                .and_then(|_way| self.dir.enter().and_then(|open| Generation::begin(&open, control, current, keep)));
        } else if !keep && current.keep && current.number == number + 1 {
            control.switch(current, Current { number: current.number, keep: false });
        }
    }
}
