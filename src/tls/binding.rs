//! A store with a policy and a set of callbacks: what SSL_CTXs are attached to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::handshakes::Handshakes;
use super::idle;
use super::kinds::Kinds;
use super::notices::Notices;
use super::openssl::{Conn, Trampolines};
use super::policy::Policy;
use super::slots::{self, trampolines, SLOTS};
use crate::options::Options;
use crate::status::{Error, Result, Status};
use crate::store::Store;
use crate::sys::fork_safe::Registry;

/// The bindings of this process. Those of equal stores and policies are one: a server may have an SSL_CTX for each certificate,
/// each reload and each connection.
static BINDINGS: Registry<Binding, SLOTS> = Registry::new();

/// See the module's first line.
pub(crate) struct Binding {
    pub(crate) store: Arc<Store>,
    pub(crate) policy: Policy,
    pub(super) kinds: Kinds,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) notices: Notices,
    slot: AtomicUsize,
    /// One like it ended a moment before it was made.
    pub(super) comes_and_goes: bool,
}

impl Binding {
    /// Finds the binding of this store with this policy, or takes one of the 64 sets of callbacks for it.
    pub(crate) fn new(store: Arc<Store>, options: &Options) -> Result<Arc<Binding>> {
        let make = || {
            let kinds = Kinds::new(options.decoded);
            let policy = Policy::of(options);
            Arc::new(Binding {
                store: Arc::clone(&store),
                comes_and_goes: idle::has_just_ended(name(&store, &policy, kinds.limit())),
                policy,
                kinds,
                handshakes: Arc::default(),
                slot: AtomicUsize::new(SLOTS),
                notices: Notices::default(),
            })
        };
        let full =
            || Error::new(Status::Full, format!("{SLOTS} caches are open in this process")).remedy("close one first");
        let policy = Policy::of(options);
        let binding = BINDINGS.find_or_make(identity(&store, &policy, options.decoded), make).ok_or_else(full)?;
        debug_assert!(binding.policy == policy && Arc::ptr_eq(&binding.store, &store));
        idle::take_back(&binding);
        if binding.slot() == SLOTS {
            let slot = slots::claim(Arc::as_ptr(&binding).cast_mut()).ok_or_else(full)?;
            // Another thread may have found the new binding at the same time.
            if binding.slot.compare_exchange(SLOTS, slot, Ordering::AcqRel, Ordering::Acquire).is_err() {
                slots::release(slot);
            }
        }
        Ok(binding)
    }

    /// Names it also when it has ended.
    pub(super) fn name(&self) -> u64 {
        name(&self.store, &self.policy, self.kinds.limit())
    }

    pub(super) fn slot(&self) -> usize {
        self.slot.load(Ordering::Acquire)
    }

    /// Seconds from a full handshake to the end of what follows from it.
    pub(super) fn life(&self, conn: Conn<'_>) -> u64 {
        let of_ctx = || u64::try_from(conn.ctx().timeout()).ok().filter(|seconds| *seconds > 0);
        self.policy.ttl.map(|ttl| ttl.as_secs()).or_else(of_ctx).unwrap_or_else(|| conn.default_timeout())
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
        BINDINGS.remove(identity(&self.store, &self.policy, self.kinds.limit()));
    }
}

/// Names a binding beyond its end, by 64 bits of SipHash.
fn name(store: &Store, policy: &Policy, decoded: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (store.path(), policy, decoded).hash(&mut hasher);
    hasher.finish()
}

/// Names a binding that lives. The store's address is its own while a binding has it; of the rest, 64 bits of SipHash do.
fn identity(store: &Arc<Store>, policy: &Policy, decoded: usize) -> (u64, u64) {
    let mut hasher = DefaultHasher::new();
    (policy, decoded).hash(&mut hasher);
    (Arc::as_ptr(store) as u64, hasher.finish())
}
