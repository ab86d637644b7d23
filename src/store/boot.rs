//! Which boot of the machine it is. Without sync, LMDB promises nothing about a file that was written before the last one.

use std::fs;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first digits of the kernel's boot id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootId(NonZeroU32);

impl BootId {
    /// As the kernel says it. `None` for a process that cannot see it: in a chroot, or under systemd's ProcSubset=pid.
    pub(crate) fn read() -> Option<BootId> {
        // Asked once: a process lives in one boot.
        static READ: AtomicU32 = AtomicU32::new(0);
        BootId::noted(READ.load(Ordering::Relaxed)).or_else(|| {
            let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            let number = u32::from_str_radix(id.get(..8)?, 16).ok()?;
            READ.store(number, Ordering::Relaxed);
            BootId::noted(number)
        })
    }

    /// One that somebody has noted; 0 stands for none.
    pub(crate) fn noted(number: u32) -> Option<BootId> {
        NonZeroU32::new(number).map(BootId)
    }

    /// As it is noted.
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }
}
