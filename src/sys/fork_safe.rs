//! Containers that hold at any instant of a fork: what another thread of the parent was doing to them stands in no
//! child's way.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::clock;
use super::process::incarnation;

/// A lock that a forked child can always take: one that another thread of the parent held at fork(2) counts as free.
///
/// What it guards must therefore be valid between any two instructions of the holder: single words, replaced whole.
pub(crate) struct ForkLock {
    /// Incarnation of the holder, 0 when free.
    holder: AtomicU64,
}

/// Proof of holding a [`ForkLock`]; released on drop.
pub(crate) struct Held<'a>(&'a ForkLock);

impl ForkLock {
    pub(crate) const fn new() -> Self {
        ForkLock { holder: AtomicU64::new(0) }
    }

    /// Waits at most `patience` for the lock.
    pub(crate) fn hold(&self, patience: Duration) -> Option<Held<'_>> {
        let me = incarnation();
        let start = clock::ticks();
        let mut tries = 0_u32;
        loop {
            let seen = self.holder.load(Ordering::Relaxed);
            let free = seen != me;
            if free && self.holder.compare_exchange(seen, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(Held(self));
            }
            tries += 1;
            if tries < 100 {
                std::hint::spin_loop();
            } else if u128::from(clock::ticks() - start) > patience.as_millis() {
                return None;
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.holder.store(0, Ordering::Release);
    }
}

/// A value that is replaced whole and read without a lock, at any instant of a fork. Old values stay until the cell goes:
/// a reader may be in one.
pub(crate) struct RcuCell<T> {
    latest: AtomicPtr<Version<T>>,
}

struct Version<T> {
    value: T,
    /// Keeps the older versions reachable, for the end and for the host's leak check.
    before: *mut Version<T>,
}

// SAFETY: readers only get shared references, writers only move whole values in.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}
// SAFETY: as above; the cell owns its versions.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}

impl<T> RcuCell<T> {
    pub(crate) const fn new() -> Self {
        RcuCell { latest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Makes `value` the latest. For what changes a few times in the life of a process.
    pub(crate) fn set(&self, value: T) {
        let version = Box::into_raw(Box::new(Version { value, before: ptr::null_mut() }));
        let mut before = self.latest.load(Ordering::Acquire);
        loop {
            // SAFETY: from Box::into_raw above, and nobody else has it before the exchange below succeeds.
            unsafe { (*version).before = before };
            match self.latest.compare_exchange(before, version, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                // Another thread was faster: its version is the one before.
                Err(other) => before = other,
            }
        }
    }

    /// The latest value.
    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: the pointer is null or comes from Box::into_raw in `set` and is never freed.
        unsafe { self.latest.load(Ordering::Acquire).as_ref() }.map(|version| &version.value)
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        let mut next = *self.latest.get_mut();
        while !next.is_null() {
            // SAFETY: from Box::into_raw in `set`, on this list alone; readers borrow the cell, so there are none left.
            next = unsafe { Box::from_raw(next) }.before;
        }
    }
}

/// What one process holds of a shared thing: begins empty in a forked child, which keeps the parent's untouched.
pub(crate) struct PerProcess<T: 'static> {
    lock: ForkLock,
    /// One word, so that it is whole at any instant of a fork.
    slot: AtomicPtr<Owned<T>>,
}

struct Owned<T> {
    process: u64,
    value: Arc<T>,
}

// SAFETY: the slot is only followed under the lock; what leaves it are Arcs.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}
// SAFETY: as above; the cell owns what it points to.
unsafe impl<T: Send + Sync> Send for PerProcess<T> {}

/// What a [`PerProcess`] holds when it is looked at.
pub(crate) enum Holding<'a, T> {
    /// Nothing yet.
    Nothing,
    /// This process's own.
    Mine(&'a Arc<T>),
    /// A parent's: whole, because it is replaced whole, but not to be used beyond what memory alone says.
    Inherited(&'a Arc<T>),
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess { lock: ForkLock::new(), slot: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Lets `f` look at what this process holds and say what it is to hold. `None` when another thread is at it for too
    /// long, or when `f` has nothing.
    pub(crate) fn update<E>(
        &self,
        patience: Duration,
        f: impl FnOnce(Holding<'_, T>) -> Result<Arc<T>, E>,
    ) -> Option<Result<Arc<T>, E>> {
        let _held = self.lock.hold(patience)?;
        let process = incarnation();
        // SAFETY: null or from Box::into_raw below; freed only under the lock, after the slot was changed.
        let owned = unsafe { self.slot.load(Ordering::Acquire).as_ref() };
        let (holding, mine) = match owned {
            None => (Holding::Nothing, None),
            Some(owned) if owned.process == process => (Holding::Mine(&owned.value), Some(&owned.value)),
            Some(owned) => (Holding::Inherited(&owned.value), None),
        };
        let value = match f(holding) {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        };
        if !mine.is_some_and(|mine| Arc::ptr_eq(mine, &value)) {
            let next = Box::into_raw(Box::new(Owned { process, value: Arc::clone(&value) }));
            discard(self.slot.swap(next, Ordering::AcqRel));
        }
        Some(Ok(value))
    }

    /// Lets go of it.
    pub(crate) fn clear(&self) {
        if let Some(_held) = self.lock.hold(Duration::from_secs(1)) {
            discard(self.slot.swap(ptr::null_mut(), Ordering::AcqRel));
        }
    }
}

fn discard<T: 'static>(old: *mut Owned<T>) {
    if old.is_null() {
        return;
    }
    // SAFETY: from Box::into_raw, and just taken out of the only slot that had it.
    let old = unsafe { Box::from_raw(old) };
    if old.process != incarnation() {
        keep_inherited(old);
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        discard(*self.slot.get_mut());
    }
}

/// The things of a kind that are alive in this process, found by an identity: no two of them share one.
pub(crate) struct Registry<T: 'static, const N: usize> {
    lock: ForkLock,
    slots: [AtomicPtr<Registration<T>>; N],
}

struct Registration<T> {
    identity: (u64, u64),
    process: u64,
    thing: Weak<T>,
}

// SAFETY: entries are only followed under the lock; what leaves are Arcs.
unsafe impl<T: Send + Sync, const N: usize> Sync for Registry<T, N> {}

impl<T, const N: usize> Registry<T, N> {
    pub(crate) const fn new() -> Self {
        Registry { lock: ForkLock::new(), slots: [const { AtomicPtr::new(ptr::null_mut()) }; N] }
    }

    /// The thing of that identity, made now if there is none. `None` when the registry is full or one is ending for too long.
    pub(crate) fn find_or_make(&self, identity: (u64, u64), make: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let start = clock::ticks();
        loop {
            let held = self.lock.hold(PATIENCE)?;
            let mut free = None;
            let mut ending = false;
            for slot in &self.slots {
                // SAFETY: null or from Box::into_raw below; replaced and freed only under the lock.
                match unsafe { slot.load(Ordering::Acquire).as_ref() } {
                    None => free = free.or(Some(slot)),
                    Some(entry) => match entry.thing.upgrade() {
                        Some(thing) if entry.identity == identity => return Some(thing),
                        Some(_) => {}
                        // Its last owner is about to call `remove`; in a child of a fork at this instant, nobody will.
                        None if entry.process == incarnation() => ending |= entry.identity == identity,
                        None => free = free.or(Some(slot)),
                    },
                }
            }
            if ending {
                drop(held);
                if u128::from(clock::ticks() - start) > PATIENCE.as_millis() {
                    return None;
                }
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            let thing = make();
            let entry = Registration { identity, process: incarnation(), thing: Arc::downgrade(&thing) };
            let old = free?.swap(Box::into_raw(Box::new(entry)), Ordering::AcqRel);
            if !old.is_null() {
                // SAFETY: from Box::into_raw, out of its slot, under the lock.
                drop(unsafe { Box::from_raw(old) });
            }
            return Some(thing);
        }
    }

    /// Takes off the registry what is ending: called at the end of its `Drop`.
    pub(crate) fn remove(&self, identity: (u64, u64)) {
        let Some(_held) = self.lock.hold(Duration::from_secs(1)) else { return };
        for slot in &self.slots {
            // SAFETY: as in `find_or_make`.
            let entry = unsafe { slot.load(Ordering::Acquire).as_ref() };
            if entry.is_some_and(|entry| entry.identity == identity && entry.thing.strong_count() == 0) {
                let old = slot.swap(ptr::null_mut(), Ordering::AcqRel);
                // SAFETY: from Box::into_raw, out of its slot, under the lock.
                drop(unsafe { Box::from_raw(old) });
            }
        }
    }
}

/// What a child inherited and must neither use nor free: kept where it lies.
///
/// Freeing it would reach into the parent (an LMDB transaction, a file lock), and losing the last pointer to it would
/// read as a leak in the host's own leak check.
pub(crate) fn keep_inherited<T: 'static>(value: T) {
    let node =
        Box::into_raw(Box::new(InheritedNode { _value: Box::new(value), next: UnsafeCell::new(ptr::null_mut()) }));
    let mut head = INHERITED.load(Ordering::Acquire);
    loop {
        // SAFETY: the node is not on the list before the exchange below succeeds, so nobody else looks at it.
        let next = unsafe { &*node }.next.get();
        // SAFETY: same; `next` points into that node.
        unsafe { *next = head };
        match INHERITED.compare_exchange_weak(head, node, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(other) => head = other,
        }
    }
}

struct InheritedNode {
    _value: Box<dyn Any>,
    next: UnsafeCell<*mut InheritedNode>,
}

static INHERITED: AtomicPtr<InheritedNode> = AtomicPtr::new(ptr::null_mut());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_not_given_twice() {
        let lock = ForkLock::new();
        let held = lock.hold(Duration::ZERO).expect("free");
        assert!(lock.hold(Duration::from_millis(5)).is_none());
        drop(held);
        assert!(lock.hold(Duration::ZERO).is_some());
    }

    #[test]
    fn a_lock_held_by_another_incarnation_counts_as_free() {
        let lock = ForkLock { holder: AtomicU64::new(u64::MAX) };
        assert!(lock.hold(Duration::ZERO).is_some());
    }
}
