//! Byte strings under hashes in a ring of shared words: the newest push out the oldest, whatever their sizes.
//!
//! ```text
//! head, words of the user | index: sets of 8 words, each 24 bits of a hash and a place | ring: hash, length, bytes
//! ```
//!
//! A writer moves the head on, and with that every index word that leads to what it is about to write over is void. Then it
//! writes, and puts its own place into the index. So one that is killed at any instant leaves nothing to clean up. One that is
//! stopped there, and goes on when the ring has come round, spoils a string, which who finds it must be able to tell. To take a
//! string is to take its word out of the index: of all who try, in all processes, one succeeds. Nobody ever waits.

use std::ops::Deref;
use std::sync::atomic::{fence, AtomicU64, Ordering};

/// Words of a set of the index: a line of the processor's cache.
const SET: usize = 8;
/// Bits of an index word that say the place, in words of all that was ever written. The others are the hash's.
const PLACE: u64 = (1 << 40) - 1;
/// Words before the bytes of a string: its hash and its length.
const HEAD: usize = 2;
/// Words of the ring for each word of the index. The shortest sealed session takes twice as many, so sets are half full.
const RING_PER_INDEX: usize = 12;
/// A string takes at most this part of the ring.
const LARGEST: usize = 4;

/// See the module's first lines.
pub(super) struct Ring<M> {
    memory: M,
    /// Words of the index.
    index: usize,
}

/// Where a string was found: good for that string alone, and as long as it is there.
#[derive(Clone, Copy)]
pub(super) struct RingEntry<'r> {
    word: &'r AtomicU64,
    entry: u64,
}

impl<M: Deref<Target = [AtomicU64]>> Ring<M> {
    /// Over memory that is all zeros: 4 KiB at least.
    pub(super) fn new(memory: M) -> Ring<M> {
        let index = (memory.len() - SET) / (RING_PER_INDEX + 1) / SET * SET;
        Ring { memory, index }
    }

    /// One of seven words that lie beside the head, for who uses the ring.
    pub(super) fn beside(&self, n: usize) -> &AtomicU64 {
        &self.memory[1..SET][n]
    }

    fn head(&self) -> &AtomicU64 {
        &self.memory[0]
    }

    fn set(&self, hash: u64) -> &[AtomicU64] {
        let first = SET + hash as usize % (self.index / SET) * SET;
        &self.memory[first..first + SET]
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.memory[SET + self.index..]
    }

    /// The words from a place on.
    fn words(&self, place: u64) -> impl Iterator<Item = &AtomicU64> {
        let ring = self.ring();
        ring[(place % ring.len() as u64) as usize..].iter().chain(ring)
    }

    /// How many words ago an index word was given its place; `None` when that is being written over, and when there is none.
    fn age(&self, entry: u64) -> Option<u64> {
        let age = self.head().load(Ordering::Relaxed).wrapping_sub(entry) & PLACE;
        (entry != 0 && age <= self.ring().len() as u64).then_some(age)
    }

    /// The place of an index word, as it was before 40 bits were left of it.
    fn place(&self, entry: u64) -> Option<u64> {
        let head = self.head().load(Ordering::Relaxed);
        self.age(entry).map(|age| head.wrapping_sub(age))
    }

    /// Keeps a string in the place of what was under its hash. False when it is too long, or when others take every word of the
    /// index that would do.
    pub(super) fn keep(&self, hash: u64, bytes: &[u8]) -> bool {
        let words = HEAD + bytes.len().div_ceil(8);
        if words > self.ring().len() / LARGEST {
            return false;
        }
        let place = self.head().fetch_add(words as u64, Ordering::Relaxed);
        // Who reads one of the words below sees afterwards that the head has moved.
        fence(Ordering::Release);
        let content = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        let content = [hash, bytes.len() as u64].into_iter().chain(content);
        self.words(place).zip(content).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        self.remove(hash);
        let entry = hash & !PLACE | place & PLACE;
        // Another process may take the word that was chosen: as many tries as there are words end that.
        (0..SET).any(|_| {
            let seen = self.set(hash).iter().map(|word| (word.load(Ordering::Relaxed), word));
            let oldest = seen.max_by_key(|(entry, _)| self.age(*entry).unwrap_or(u64::MAX));
            oldest.is_some_and(|(seen, word)| {
                word.compare_exchange(seen, entry, Ordering::Release, Ordering::Relaxed).is_ok()
            })
        })
    }

    /// Copies the string of that hash. Who gets it must be able to tell whether it is whole.
    pub(super) fn find(&self, hash: u64, out: &mut Vec<u8>) -> Option<RingEntry<'_>> {
        self.entries(hash).find(|found| self.copy(*found, hash, out))
    }

    fn entries(&self, hash: u64) -> impl Iterator<Item = RingEntry<'_>> {
        let found = self.set(hash).iter().map(|word| RingEntry { word, entry: word.load(Ordering::Acquire) });
        found.filter(move |found| found.entry & !PLACE == hash & !PLACE)
    }

    fn copy(&self, found: RingEntry<'_>, hash: u64, out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some(place) = self.place(found.entry) else { return false };
        let mut words = self.words(place).map(|word| word.load(Ordering::Relaxed));
        let (Some(its), Some(len)) = (words.next(), words.next().map(|len| len as usize)) else { return false };
        if its != hash || len > self.ring().len() / LARGEST * 8 {
            return false;
        }
        out.extend(words.take(len.div_ceil(8)).flat_map(u64::to_ne_bytes));
        out.truncate(len);
        // As in a seqlock: who had begun to write over one of these words had moved the head before.
        fence(Ordering::Acquire);
        self.age(found.entry).is_some()
    }

    /// Takes out what was found, and wipes it. False when somebody else has.
    pub(super) fn take(&self, found: RingEntry<'_>) -> bool {
        let mine = found.word.compare_exchange(found.entry, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if let Some(place) = self.place(found.entry).filter(|_| mine) {
            let len = self.words(place).nth(1).map_or(0, |len| len.load(Ordering::Relaxed) as usize);
            let words = HEAD + len.div_ceil(8).min(self.ring().len() / LARGEST);
            let mine = |_: &&AtomicU64| self.age(found.entry).is_some();
            self.words(place).take(words).take_while(mine).for_each(|word| word.store(0, Ordering::Relaxed));
        }
        mine
    }

    /// Takes out whatever is under that hash; whether it was there.
    pub(super) fn remove(&self, hash: u64) -> bool {
        let is_its = |found: &RingEntry<'_>| {
            let its = self.place(found.entry).and_then(|place| self.words(place).next());
            its.is_some_and(|its| its.load(Ordering::Relaxed) == hash)
        };
        self.entries(hash).filter(is_its).filter(|found| self.take(*found)).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::DEFAULT_LOCAL;
    use std::sync::atomic::AtomicUsize;

    const WORDS: usize = 1 << 12;

    fn ring() -> Ring<Box<[AtomicU64]>> {
        Ring::new((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    /// As spread as the hashes of ids.
    fn hash(n: u64) -> u64 {
        super::super::super::siphash::siphash(1, 2, &n.to_ne_bytes())
    }

    /// A string of `len` bytes that says what it is, and shows every word that is not its own.
    fn string(n: u64, len: usize) -> Vec<u8> {
        hash(n).to_ne_bytes().into_iter().cycle().take(len).collect()
    }

    fn find(ring: &Ring<Box<[AtomicU64]>>, n: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        ring.find(hash(n), &mut out).map(|_| out)
    }

    #[test]
    fn a_string_of_any_length_comes_back_until_newer_ones_take_its_place() {
        let ring = ring();
        let lengths = [0, 1, 7, 8, 9, 200, 1_500, 6_000];
        for (n, len) in lengths.into_iter().enumerate() {
            assert!(ring.keep(hash(n as u64), &string(n as u64, len)));
            assert_eq!(find(&ring, n as u64), Some(string(n as u64, len)), "{len} bytes");
        }
        assert!(!ring.keep(hash(99), &[0; WORDS * 8 / LARGEST]), "a quarter of the ring for one");
        for n in 100..1_000 {
            assert!(ring.keep(hash(n), &string(n, 180)));
            assert_eq!(find(&ring, n), Some(string(n, 180)));
        }
        assert!((0..8).all(|n| find(&ring, n).is_none()), "what was written over is found");
        let kept = (900..1_000).filter(|n| find(&ring, *n).is_some()).count();
        assert!(kept > 95, "{kept} of the newest 100, in a ring for 150");
    }

    #[test]
    fn the_default_has_room_for_as_many_sessions_as_openssls_own_cache() {
        let ring = Ring::new((0..DEFAULT_LOCAL / 8).map(|_| AtomicU64::new(0)).collect());
        // SSL_SESSION_CACHE_MAX_SIZE_DEFAULT, of records with a server name and a ticket of TLS 1.3.
        let sessions = if cfg!(miri) { 100 } else { 20_480 };
        (0..sessions).for_each(|n| assert!(ring.keep(hash(n), &string(n, 240))));
        let kept = (0..sessions).filter(|n| find(&ring, *n).is_some()).count() as u64;
        assert!(kept * 1_000 >= sessions * 999, "{kept} of {sessions}");
    }

    #[test]
    fn a_string_is_taken_once_and_is_gone_from_memory() {
        let ring = ring();
        ring.keep(hash(1), &string(1, 64));
        ring.keep(hash(1), &string(1, 56));
        let mut out = Vec::new();
        let found = ring.find(hash(1), &mut out).unwrap();
        assert_eq!(out.len(), 56, "the older one was found");
        assert!(ring.take(found) && !ring.take(found) && find(&ring, 1).is_none());
        let word = u64::from_ne_bytes(string(1, 8).try_into().unwrap());
        assert!(ring.memory.iter().all(|at| at.load(Ordering::Relaxed) != word), "it lies in memory");
        ring.keep(hash(2), &string(2, 64));
        assert!(ring.remove(hash(2)) && !ring.remove(hash(2)) && find(&ring, 2).is_none());
    }

    #[test]
    fn a_writer_that_stops_at_any_word_costs_nobody_else_a_string() {
        let ring = ring();
        for n in 0..if cfg!(miri) { 100 } else { 2_000 } {
            ring.keep(hash(n), &string(n, 200));
            // As if it had been killed when it had written some of its words, and before it had any in the index.
            let place = ring.head().fetch_add(20, Ordering::Relaxed);
            ring.words(place).take(n as usize % 20).for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
            assert_eq!(find(&ring, n), Some(string(n, 200)));
            assert!(n < 10 || find(&ring, n - 10).is_some());
        }
    }

    #[test]
    fn threads_find_what_was_kept_whole_and_one_of_them_takes_it() {
        const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };
        let ring = ring();
        let taken: Vec<AtomicUsize> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
        let spoilt = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (ring, taken, spoilt) = (&ring, &taken, &spoilt);
                scope.spawn(move || {
                    let mut out = Vec::new();
                    for n in 0..ROUNDS {
                        if n % 4 == thread {
                            ring.keep(hash(n), &string(n, 100 + n as usize % 300));
                        }
                        let older = n.saturating_sub(2);
                        if let Some(found) = ring.find(hash(older), &mut out) {
                            let whole = out == string(older, 100 + older as usize % 300);
                            spoilt.fetch_add(usize::from(!whole), Ordering::Relaxed);
                            taken[older as usize].fetch_add(usize::from(ring.take(found)), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let most = taken.iter().map(|taken| taken.load(Ordering::Relaxed)).max();
        assert_eq!(most, Some(1), "a string was taken more than once, or none ever");
        // Threads that are off the processor for a round of the ring may spoil some, which the seal tells.
        assert!(spoilt.load(Ordering::Relaxed) < ROUNDS as usize / 100, "{spoilt:?} of {ROUNDS}");
    }
}
