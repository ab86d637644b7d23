//! A value for each thread, which ends with the thread: POSIX's thread-specific data.
//!
//! For a thread_local! with a destructor glibc allocates, and for any of a library that was loaded with dlopen(3) it allocates the
//! thread's copy; where there is no memory it ends the process. pthread_setspecific(3) returns an error instead, and the place
//! of a value has the reserve of `sys::memory`.

use std::cell::{RefCell, UnsafeCell};
use std::ffi::c_void;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// The values of all threads.
pub(crate) struct ThreadSpecific<T: Default + 'static> {
    /// One more than the key; 0 before it is made.
    key: AtomicU64,
    /// The places of the values: a list that only grows, and is used again. What a thread of the parent had stays in it, where the
    /// host's leak checker finds it.
    first: AtomicPtr<ValuePlace<T>>,
}

struct ValuePlace<T> {
    next: *mut ValuePlace<T>,
    is_taken: AtomicBool,
    /// `None` before the first use.
    value: UnsafeCell<RefCell<Option<T>>>,
}

// SAFETY: a value is made, used and dropped by the one thread that has taken its place; all else is atomic, or is not written once
// it is in the list.
unsafe impl<T: Default> Sync for ThreadSpecific<T> {}

impl<T: Default + 'static> ThreadSpecific<T> {
    pub(crate) const fn new() -> Self {
        ThreadSpecific { key: AtomicU64::new(0), first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Makes the key, of which a process has PTHREAD_KEYS_MAX. False when none is left.
    pub(crate) fn prepare(&'static self) -> bool {
        self.made_key().is_some()
    }

    /// Calls `f` with this thread's value. `None` within such a call, and where the thread can have none.
    #[inline]
    pub(crate) fn with<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.value()?.try_borrow_mut().ok()?;
        Some(f(value.get_or_insert_with(T::default)))
    }

    /// The same; where there is none, with one that lasts for the call.
    #[inline]
    pub(crate) fn with_or_temporary<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        match self.value().and_then(|value| value.try_borrow_mut().ok()) {
            Some(mut value) => f(value.get_or_insert_with(T::default)),
            None => f(&mut T::default()),
        }
    }

    /// Ends this thread's value, unless it is in use: for who leaves by exit(3), which ends no thread.
    pub(crate) fn end(&'static self) {
        if let Some(mut value) = self.found().and_then(|value| value.try_borrow_mut().ok()) {
            drop(value.take());
        }
    }

    #[inline]
    fn value(&'static self) -> Option<&'static RefCell<Option<T>>> {
        self.found().or_else(|| self.take_place())
    }

    #[inline]
    fn found(&'static self) -> Option<&'static RefCell<Option<T>>> {
        let key = self.key.load(Ordering::Acquire).checked_sub(1)?;
        // SAFETY: wants a key that exists: `made_key` published it, and it is never deleted.
        let place = unsafe { libc::pthread_getspecific(key as libc::pthread_key_t) }.cast::<ValuePlace<T>>();
        // SAFETY: as_ref wants null or a live place: `take_place` set it, and places are never freed.
        let place = unsafe { place.as_ref() }?;
        // SAFETY: as_ref wants a value that nobody borrows alone: only `end_with_thread` does, when its thread has left all else.
        unsafe { place.value.get().as_ref() }
    }

    #[cold]
    fn take_place(&'static self) -> Option<&'static RefCell<Option<T>>> {
        let key = self.made_key()?;
        let place = self.free_place();
        // SAFETY: wants a key that exists, as in `found`; the pointer is kept for `end_with_thread`, which takes such a place.
        let set = unsafe { libc::pthread_setspecific(key, ptr::from_ref(place).cast()) };
        if set != 0 {
            place.is_taken.store(false, Ordering::Release);
            return None;
        }
        // SAFETY: as in `found`.
        unsafe { place.value.get().as_ref() }
    }

    fn free_place(&'static self) -> &'static ValuePlace<T> {
        let mut next = self.first.load(Ordering::Acquire);
        // SAFETY: as_ref wants null or a live place: they are boxed below, and never freed.
        while let Some(place) = unsafe { next.as_ref() } {
            if !place.is_taken.load(Ordering::Relaxed) && !place.is_taken.swap(true, Ordering::Acquire) {
                return place;
            }
            next = place.next;
        }
        let mut new = Box::new(ValuePlace {
            next: ptr::null_mut(),
            is_taken: AtomicBool::new(true),
            value: UnsafeCell::default(),
        });
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            new.next = first;
            let raw = Box::into_raw(new);
            match self.first.compare_exchange(first, raw, Ordering::AcqRel, Ordering::Relaxed) {
                // SAFETY: a reference wants a live place: it was boxed above and is never freed.
                Ok(_) => return unsafe { &*raw },
                Err(other) => first = other,
            }
            // SAFETY: from_raw wants a box that nobody else owns: it was not given away.
            new = unsafe { Box::from_raw(raw) };
        }
    }

    fn made_key(&'static self) -> Option<libc::pthread_key_t> {
        if let Some(key) = self.key.load(Ordering::Acquire).checked_sub(1) {
            return Some(key as libc::pthread_key_t);
        }
        let mut key = 0;
        // SAFETY: wants room for a key, and a function that lives as long as it: this library is never unloaded (-z nodelete).
        let made = unsafe { libc::pthread_key_create(&mut key, Some(end_with_thread::<T>)) };
        if made != 0 {
            return None;
        }
        match self.key.compare_exchange(0, u64::from(key) + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(key),
            Err(other) => {
                // SAFETY: wants a key that exists and that nobody uses: it was made above, and another thread's is used.
                unsafe { libc::pthread_key_delete(key) };
                Some((other - 1) as libc::pthread_key_t)
            }
        }
    }
}

extern "C" fn end_with_thread<T: Default + 'static>(place: *mut c_void) {
    // SAFETY: as_ref wants null or a live place: it is one that `take_place` has set, under the key of this function.
    let Some(place) = (unsafe { place.cast::<ValuePlace<T>>().as_ref() }) else { return };
    // SAFETY: as_mut wants a value that nobody borrows: it is its thread's, which has left all functions that do, by pthread_exit or
    // longjmp too. What such a one left borrowed is free again.
    let value = unsafe { place.value.get().as_mut() };
    let ended = value.map(std::mem::take);
    let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
    place.is_taken.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    #[derive(Default)]
    struct CountsDrops(usize);

    impl Drop for CountsDrops {
        fn drop(&mut self) {
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_thread_has_a_value_that_ends_with_it_and_leaves_its_place_to_the_next() {
        static VALUES: ThreadSpecific<CountsDrops> = ThreadSpecific::new();
        let count = || VALUES.with(|value| std::mem::replace(&mut value.0, 1));
        for n in 0..10 {
            let seen = std::thread::spawn(move || (count(), count(), VALUES.with(|_| VALUES.with(|_| ()).is_none())));
            assert_eq!(seen.join().unwrap(), (Some(0), Some(1), Some(true)));
            assert_eq!(ENDED.load(Ordering::Relaxed), n + 1);
        }
        assert_eq!(count(), Some(0));
        VALUES.end();
        assert_eq!((ENDED.load(Ordering::Relaxed), count()), (11, Some(0)));
        let first = VALUES.first.load(Ordering::Relaxed);
        // SAFETY: places are never freed.
        assert!(unsafe { (*first).next }.is_null(), "ten threads, one after another, have taken more than one place");
    }
}
