//! Containers that hold at any instant of a fork: what another thread of the parent was doing to them stands in no
//! child's way.

use std::any::Any;
use std::convert::Infallible;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::clock;
use super::process::incarnation;

/// Longest wait for a thread of the same process that is ending something.
const PATIENCE: Duration = Duration::from_secs(1);

/// A lock that a forked child can always take: one that another thread of the parent held at fork(2) counts as free.
///
/// What it guards must therefore be valid between any two instructions of the holder: single words, replaced whole.
pub(crate) struct ForkLock {
    /// Incarnation of the holder, 0 when free.
    holder: AtomicU64,
}

/// Proof of holding a [`ForkLock`]; released on drop.
pub(crate) struct ForkGuard<'a>(&'a ForkLock);

impl ForkLock {
    pub(crate) const fn new() -> Self {
        ForkLock { holder: AtomicU64::new(0) }
    }

    /// Waits at most `patience` for the lock.
    pub(crate) fn hold(&self, patience: Duration) -> Option<ForkGuard<'_>> {
        let me = incarnation();
        let start = clock::ticks();
        let mut tries = 0_u32;
        loop {
            let seen = self.holder.load(Ordering::Relaxed);
            if seen != me && self.holder.compare_exchange(seen, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(ForkGuard(self));
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

impl Drop for ForkGuard<'_> {
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

// SAFETY: threads share values and end those of others, which T: Send + Sync allows; the pointer is atomic.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}
// SAFETY: as above.
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
            // SAFETY: a write wants a live version that nobody else looks at: it was boxed above, and is given away below.
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
        // SAFETY: as_ref wants null or a live version: `set` boxed it, and all of them live as long as the cell, which is borrowed.
        unsafe { self.latest.load(Ordering::Acquire).as_ref() }.map(|version| &version.value)
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        let mut next = *self.latest.get_mut();
        while !next.is_null() {
            // SAFETY: from_raw wants a box that nobody else owns: `set` made it, for this list alone, and no reader borrows the cell.
            next = unsafe { Box::from_raw(next) }.before;
        }
    }
}

/// A value that changes under a [`ForkLock`] alone: one word, so that it is whole at any instant of a fork.
struct Guarded<T>(AtomicPtr<T>);

// SAFETY: threads share the value and end those of others, which T: Send + Sync allows; the pointer is atomic.
unsafe impl<T: Send + Sync> Sync for Guarded<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for Guarded<T> {}

impl<T> Guarded<T> {
    const fn new() -> Self {
        Guarded(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, for one who holds the lock beside it.
    fn get<'a>(&'a self, _held: &'a ForkGuard<'_>) -> Option<&'a T> {
        // SAFETY: as_ref wants null or a value that stays: `replace` boxed it, and ends it only when nobody borrows the lock.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Puts another one in its place, or none; the old one.
    fn replace(&self, _held: &mut ForkGuard<'_>, value: Option<T>) -> Option<Box<T>> {
        let next = value.map_or(ptr::null_mut(), |value| Box::into_raw(Box::new(value)));
        let old = self.0.swap(next, Ordering::AcqRel);
        // SAFETY: from_raw wants a box that nobody else owns: made above, at another call, and just taken out of its only place.
        (!old.is_null()).then(|| unsafe { Box::from_raw(old) })
    }
}

/// What one process holds of a shared thing: begins empty in a forked child, which keeps the parent's untouched.
pub(crate) struct PerProcess<T: Send + Sync + 'static> {
    lock: ForkLock,
    slot: Guarded<Owned<T>>,
}

struct Owned<T> {
    process: u64,
    value: Arc<T>,
}

/// What a [`PerProcess`] holds when it is looked at.
pub(crate) enum Holding<'a, T> {
    /// Nothing yet.
    Nothing,
    /// This process's own.
    Mine(&'a Arc<T>),
    /// A parent's: whole, because it is replaced whole, but not to be used beyond what memory alone says.
    Inherited(&'a Arc<T>),
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess { lock: ForkLock::new(), slot: Guarded::new() }
    }

    /// Lets `f` look at what this process holds and say what it is to hold. `None` when another thread is at it for too
    /// long.
    pub(crate) fn update<E>(
        &self,
        patience: Duration,
        f: impl FnOnce(Holding<'_, T>) -> Result<Arc<T>, E>,
    ) -> Option<Result<Arc<T>, E>> {
        let mut held = self.lock.hold(patience)?;
        let process = incarnation();
        let owned = self.slot.get(&held);
        let done = f(match owned {
            None => Holding::Nothing,
            Some(owned) if owned.process == process => Holding::Mine(&owned.value),
            Some(owned) => Holding::Inherited(&owned.value),
        });
        if let Ok(value) = &done {
            if !owned.is_some_and(|owned| owned.process == process && Arc::ptr_eq(&owned.value, value)) {
                discard(self.slot.replace(&mut held, Some(Owned { process, value: Arc::clone(value) })));
            }
        }
        Some(done)
    }

    /// Lets go of it.
    pub(crate) fn clear(&self) {
        if let Some(mut held) = self.lock.hold(PATIENCE) {
            discard(self.slot.replace(&mut held, None));
        }
    }
}

fn discard<T: 'static>(old: Option<Box<Owned<T>>>) {
    if let Some(inherited) = old.filter(|old| old.process != incarnation()) {
        keep_inherited(inherited);
    }
}

impl<T: Send + Sync + 'static> Drop for PerProcess<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The things of a kind that are alive in this process, found by an identity: no two of them share one.
pub(crate) struct Registry<T, const N: usize> {
    lock: ForkLock,
    slots: [Guarded<Registration<T>>; N],
}

struct Registration<T> {
    identity: (u64, u64),
    process: u64,
    thing: Weak<T>,
}

impl<T, const N: usize> Registry<T, N> {
    pub(crate) const fn new() -> Self {
        Registry { lock: ForkLock::new(), slots: [const { Guarded::new() }; N] }
    }

    /// The thing of that identity, made now if there is none. `None` when the registry is full or one is ending for too long.
    pub(crate) fn find_or_make(&self, identity: (u64, u64), make: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        let made = self.find_or_try(identity, PATIENCE, |_| true, || Ok::<_, Infallible>(make()));
        made.and_then(Result::ok)
    }

    /// The thing of that identity that is `usable`, made now if there is none. `None` when the registry is full, or when one
    /// ends, or another thread is making one, for longer than `patience`.
    pub(crate) fn find_or_try<E>(
        &self,
        identity: (u64, u64),
        patience: Duration,
        usable: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Option<Result<Arc<T>, E>> {
        let start = clock::ticks();
        loop {
            // Let go of after the lock: it may be the last of its thing, which asks for the lock at its end.
            let mut unusable = None;
            let mut held = self.lock.hold(patience)?;
            let mut free = None;
            let mut ending = false;
            for slot in &self.slots {
                let Some(entry) = slot.get(&held) else {
                    free = free.or(Some(slot));
                    continue;
                };
                if entry.identity == identity {
                    match entry.thing.upgrade() {
                        Some(thing) if usable(&thing) => return Some(Ok(thing)),
                        Some(thing) => {
                            unusable = Some(thing);
                            free = Some(slot);
                            break;
                        }
                        None => {}
                    }
                }
                // Of other things no Arc is made: if its last owner let go meanwhile, it would end here, under the lock.
                if entry.thing.strong_count() == 0 {
                    // Its last owner is about to call `remove`; in a child of a fork at this instant, nobody will.
                    match entry.process == incarnation() {
                        true => ending |= entry.identity == identity,
                        false => free = free.or(Some(slot)),
                    }
                }
            }
            if unusable.is_some() || !ending {
                let slot = free?;
                let thing = match make() {
                    Ok(thing) => thing,
                    Err(error) => return Some(Err(error)),
                };
                let entry = Registration { identity, process: incarnation(), thing: Arc::downgrade(&thing) };
                slot.replace(&mut held, Some(entry));
                return Some(Ok(thing));
            }
            drop(held);
            if u128::from(clock::ticks() - start) > patience.as_millis() {
                return None;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// All that are alive. The caller lets go of them, after the lock: one may be the last of its thing.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let Some(held) = self.lock.hold(PATIENCE) else { return Vec::new() };
        self.slots.iter().filter_map(|slot| slot.get(&held)?.thing.upgrade()).collect()
    }

    /// Takes off the registry what is ending: called at the end of its `Drop`.
    pub(crate) fn remove(&self, identity: (u64, u64)) {
        let Some(mut held) = self.lock.hold(PATIENCE) else { return };
        for slot in &self.slots {
            if slot.get(&held).is_some_and(|entry| entry.identity == identity && entry.thing.strong_count() == 0) {
                slot.replace(&mut held, None);
            }
        }
    }
}

/// A few things that lie somewhere until they are taken off, by whoever wants one or needs the room.
pub(crate) struct Shelf<T, const N: usize> {
    lock: ForkLock,
    places: [Guarded<T>; N],
}

impl<T, const N: usize> Shelf<T, N> {
    pub(crate) const fn new() -> Self {
        Shelf { lock: ForkLock::new(), places: [const { Guarded::new() }; N] }
    }

    /// Puts one there; it comes back when there is no room.
    pub(crate) fn put(&self, thing: T) -> Option<T> {
        let Some(mut held) = self.lock.hold(PATIENCE) else { return Some(thing) };
        let Some(free) = self.places.iter().find(|place| place.get(&held).is_none()) else { return Some(thing) };
        free.replace(&mut held, Some(thing));
        None
    }

    /// Takes off those that are meant.
    pub(crate) fn take(&self, mut is_meant: impl FnMut(&T) -> bool) -> [Option<Box<T>>; N] {
        let mut taken = [const { None }; N];
        if let Some(mut held) = self.lock.hold(PATIENCE) {
            for (place, taken) in self.places.iter().zip(&mut taken) {
                if place.get(&held).is_some_and(&mut is_meant) {
                    *taken = place.replace(&mut held, None);
                }
            }
        }
        taken
    }

    pub(crate) fn len(&self) -> usize {
        let held = self.lock.hold(PATIENCE);
        held.map_or(0, |held| self.places.iter().filter(|place| place.get(&held).is_some()).count())
    }
}

/// What a child inherited and must neither use nor free: kept where it lies.
///
/// Freeing it would reach into the parent (an LMDB transaction, a file lock), and losing the last pointer to it would
/// read as a leak in the host's own leak check.
pub(crate) fn keep_inherited<T: 'static>(value: T) {
    static KEPT: RcuCell<Inherited> = RcuCell::new();
    KEPT.set(Inherited { _value: Box::new(value) });
}

struct Inherited {
    _value: Box<dyn Any>,
}

// SAFETY: from another thread nothing is done with what cannot be reached, and the list has no end.
unsafe impl Send for Inherited {}
// SAFETY: as above.
unsafe impl Sync for Inherited {}

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

    #[test]
    fn a_thing_leaves_the_registry_while_others_are_looked_for() {
        static REGISTRY: Registry<Registered, 2> = Registry::new();
        struct Registered((u64, u64));
        impl Drop for Registered {
            fn drop(&mut self) {
                REGISTRY.remove(self.0);
            }
        }
        let find_or_make = |identity| REGISTRY.find_or_make(identity, || Arc::new(Registered(identity)));
        let use_one = |identity| {
            for _ in 0..100_000 {
                let thing = find_or_make(identity);
                assert_eq!(thing.expect("a thing that nobody else has can be made").0, identity);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| use_one((1, 1)));
            use_one((2, 2));
        });
        let two = [(3, 3), (4, 4)].map(find_or_make);
        let start = clock::ticks();
        assert!(find_or_make((5, 5)).is_none(), "there is room for two");
        assert!(clock::ticks() - start < 500, "who finds no room waits for himself");
        assert!(two.iter().all(Option::is_some), "what has ended takes room");
    }
}
