//! What a shared thing keeps for its threads, a value for each: used by its thread alone, and ended with the thing, by whichever
//! thread that is. A thread that sleeps for ever keeps nothing of what others have given up.
//!
//! The places of the values are a list that only grows, and are used again. Single words, so that it is whole at any instant of a
//! fork.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::fork_safe;
use super::process::incarnation;

/// The values of all threads.
pub(crate) struct PerThread<T: Send + 'static> {
    first: AtomicPtr<Place<T>>,
}

struct Place<T> {
    next: *mut Place<T>,
    /// The incarnation whose thread has it; 0 when it is free.
    process: AtomicU64,
    /// Boxed; null when there is none.
    value: AtomicPtr<T>,
}

// SAFETY: a value is used by one thread at a time, as T: Send allows; all else is atomic, or is not written once it is in the list.
unsafe impl<T: Send> Sync for PerThread<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for PerThread<T> {}

/// What has such values.
pub(crate) trait Keeps {
    type Value: Send + 'static;

    fn values(&self) -> &PerThread<Self::Value>;
}

/// A thread's value in an `O`. The pointer makes it stay in its thread.
pub(crate) struct Lease<O: Keeps> {
    owner: Weak<O>,
    place: *const Place<O::Value>,
    process: u64,
}

impl<T: Send + 'static> PerThread<T> {
    pub(crate) const fn new() -> Self {
        PerThread { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// A place for this thread alone.
    fn place(&self, process: u64) -> &Place<T> {
        let mut next = self.first.load(Ordering::Acquire);
        // SAFETY: as_ref wants null or a live place: they are boxed below, and freed with the list, which is borrowed.
        while let Some(place) = unsafe { next.as_ref() } {
            let seen = place.process.load(Ordering::Relaxed);
            let claim = || place.process.compare_exchange(seen, process, Ordering::Acquire, Ordering::Relaxed).is_ok();
            if seen != process && claim() {
                return place;
            }
            next = place.next;
        }
        let new = Place { next: ptr::null_mut(), process: AtomicU64::new(process), value: AtomicPtr::default() };
        let new = Box::into_raw(Box::new(new));
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: a write wants a live place that nobody else looks at: it was boxed above, and is given away below.
            unsafe { (*new).next = first };
            match self.first.compare_exchange(first, new, Ordering::AcqRel, Ordering::Relaxed) {
                // SAFETY: as above: it lives as long as the list.
                Ok(_) => return unsafe { &*new },
                Err(other) => first = other,
            }
        }
    }

    /// Ends all values. Nobody uses one: who does has a reference to the thing, which is ending.
    pub(crate) fn clear(&mut self) {
        let mut next = std::mem::replace(self.first.get_mut(), ptr::null_mut());
        while !next.is_null() {
            // SAFETY: from_raw wants a box that nobody else owns: `place` made it for this list, which nobody else borrows.
            let place = unsafe { Box::from_raw(next) };
            place.end();
            next = place.next;
        }
    }
}

impl<T: Send + 'static> Drop for PerThread<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<T: Send + 'static> Place<T> {
    /// Ends the value; one of a parent process is set aside, because ending it here would reach into the parent.
    fn end(&self) {
        self.put(ptr::null_mut(), self.process.load(Ordering::Relaxed));
    }

    /// Puts a value in the place of one of that process.
    fn put(&self, value: *mut T, process: u64) {
        let old = self.value.swap(value, Ordering::AcqRel);
        if old.is_null() {
            return;
        }
        // SAFETY: from_raw wants a box that nobody else owns: `Lease::new` made it, and this was its only place.
        let old = unsafe { Box::from_raw(old) };
        if process == incarnation() {
            drop(old);
        } else {
            fork_safe::keep_inherited(old);
        }
    }
}

impl<O: Keeps> Lease<O> {
    /// Keeps a value for this thread.
    pub(crate) fn new(owner: &Arc<O>, value: O::Value) -> Lease<O> {
        let process = incarnation();
        let place = owner.values().place(process);
        // What lies in a place that was free or is new is of a parent.
        place.put(Box::into_raw(Box::new(value)), 0);
        Lease { owner: Arc::downgrade(owner), place, process }
    }

    /// Whether it is one in this thing.
    #[inline]
    pub(crate) fn is_of(&self, owner: &Arc<O>) -> bool {
        ptr::eq(self.owner.as_ptr(), Arc::as_ptr(owner))
    }

    /// Whether its value has not ended, and is of this process.
    pub(crate) fn is_alive(&self) -> bool {
        self.process == incarnation() && self.owner.strong_count() > 0
    }

    /// The value in this thing; `None` if it is one in another, or of a parent process.
    #[inline]
    pub(crate) fn value<'v>(&'v mut self, owner: &'v Arc<O>) -> Option<&'v mut O::Value> {
        if !self.is_of(owner) || self.process != incarnation() {
            return None;
        }
        // SAFETY: a reference wants a live place: that of a thing which is alive, as `owner` shows.
        let place = unsafe { &*self.place };
        // SAFETY: as_mut wants null or a value that nobody else looks at: the place is this lease's alone until it is dropped, and
        // the thing ends the value no sooner than `owner` ends.
        unsafe { place.value.load(Ordering::Relaxed).as_mut() }
    }
}

impl<O: Keeps> Drop for Lease<O> {
    fn drop(&mut self) {
        if self.process != incarnation() {
            return;
        }
        let Some(_owner) = self.owner.upgrade() else { return };
        // SAFETY: as in `value`.
        let place = unsafe { &*self.place };
        place.end();
        place.process.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    struct Thing(PerThread<Counted>);
    struct Counted(Arc<AtomicUsize>);

    impl Keeps for Thing {
        type Value = Counted;

        fn values(&self) -> &PerThread<Counted> {
            &self.0
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_value_ends_with_its_thread_or_with_the_thing_whichever_is_first() {
        let ended = Arc::new(AtomicUsize::new(0));
        let thing = Arc::new(Thing(PerThread::new()));
        std::thread::scope(|scope| {
            for _ in 0..10 {
                let use_it = || {
                    let mut lease = Lease::new(&thing, Counted(Arc::clone(&ended)));
                    assert!(lease.value(&thing).is_some() && lease.is_alive());
                };
                scope.spawn(use_it).join().unwrap();
            }
        });
        assert_eq!(ended.load(Ordering::Relaxed), 10);
        let (wake, sleeps) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let (mine, counter) = (Arc::clone(&thing), Arc::clone(&ended));
            scope.spawn(move || {
                let lease = Lease::new(&mine, Counted(counter));
                drop(mine);
                tell.send(()).unwrap();
                sleeps.recv().unwrap();
                assert!(!lease.is_alive());
            });
            told.recv().unwrap();
            drop(thing);
            assert_eq!(ended.load(Ordering::Relaxed), 11, "a thread that sleeps keeps what was given up");
            wake.send(()).unwrap();
        });
        assert_eq!(ended.load(Ordering::Relaxed), 11, "a value ends twice");
    }
}
