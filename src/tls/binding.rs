//! A store with a policy and a set of callbacks: what SSL_CTXs are attached to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::decoded::Decoded;
use super::openssl::{Conn, Trampolines};
use super::policy::Policy;
use super::slots::{self, trampolines, SLOTS};
use crate::options::Options;
use crate::status::{Error, Result, Status};
use crate::store::{thread, Store};

/// See the module's first line.
pub(crate) struct Binding {
    pub(crate) store: Arc<Store>,
    pub(crate) policy: Policy,
    pub(super) decoded: Decoded,
    slot: AtomicUsize,
}

impl Binding {
    /// Takes one of the 64 sets of callbacks.
    pub(crate) fn new(store: Arc<Store>, options: &Options) -> Result<Arc<Binding>> {
        let binding = Arc::new(Binding {
            store,
            policy: Policy::of(options),
            decoded: Decoded::new(options.decoded),
            slot: AtomicUsize::new(SLOTS),
        });
        let slot = slots::claim(Arc::as_ptr(&binding).cast_mut()).ok_or_else(|| {
            Error::new(Status::Full, format!("{SLOTS} caches are open in this process")).remedy("close one first")
        })?;
        binding.slot.store(slot, Ordering::Release);
        Ok(binding)
    }

    pub(super) fn slot(&self) -> usize {
        self.slot.load(Ordering::Acquire)
    }

    /// Seconds from a full handshake to the end of what follows from it.
    pub(super) fn life(&self, conn: Conn<'_>) -> u64 {
        self.policy.ttl.map_or_else(|| conn.ctx().timeout().max(1) as u64, |ttl| ttl.as_secs())
    }

    pub(super) fn trampolines(&self) -> &'static Trampolines {
        trampolines(self.slot())
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if self.slot() < SLOTS {
            slots::release(self.slot());
        }
        // So that the map goes with the last cache of a directory, and not with the thread.
        thread::leave(&self.store);
    }
}
