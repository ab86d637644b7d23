//! Making room: what has expired leaves with later puts, and when the store is full, what expires first makes room.
//!
//! Key order is expiry order, so both delete from the front. Records outside the time order are met by looking at a
//! few of them at a time, from a place that is as random as the ids. Where several namespaces share a store, the one
//! that has most of it makes room: a flood of one costs the others nothing.

use super::env::{Fault, Next, Write};
use super::id::{expiry_of, time_key, Key, OUTSIDERS, TIMES};
use super::page::GenerationPage;
use super::record::{flags, Header};
use super::usage::UsageChange;
use super::write_lock::WriteGuard;

/// Most entries deleted in one transaction: bounds the pages it needs and the time others wait.
pub(crate) const MOST: usize = 128;
/// Records outside the time order that are looked at per put.
const HAND: usize = 8;
/// Entries deleted between two looks at the page count.
const BATCH: usize = 8;
/// Records of other namespaces than the largest that are passed over per put: 30 µs at the most.
pub(crate) const LOOKS: usize = 1_024;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) expired: usize,
    pub(crate) evicted: usize,
}

/// The deletions of one transaction. The page's hints follow when it has committed.
pub(crate) struct Sweep<'g> {
    page: &'g GenerationPage,
    now: u64,
    horizon: u64,
    swept: Swept,
    oldest: Option<u64>,
    newest: Option<u64>,
    any_outside: Option<bool>,
    pub(crate) usage: UsageChange<'g>,
}

impl<'g> Sweep<'g> {
    /// Begins one, at the moment `now` (microseconds), under the write lock.
    pub(crate) fn begin(locked: &WriteGuard<'g>, now: u64) -> Sweep<'g> {
        let page = locked.page();
        Sweep {
            page,
            now,
            horizon: page.horizon(now),
            swept: Swept::default(),
            oldest: None,
            newest: None,
            any_outside: None,
            usage: UsageChange::new(&page.usage),
        }
    }

    /// The transaction has committed.
    pub(crate) fn committed(self) -> Swept {
        if let Some(micros) = self.oldest {
            self.page.oldest.set(micros);
        }
        if let Some(micros) = self.newest {
            self.page.newest.set(micros / 1_000_000);
        }
        if let Some(any) = self.any_outside {
            self.page.foreign.set(u64::from(any));
        }
        self.usage.apply();
        self.swept
    }

    /// Deletes what has expired in the time order, and what a clock that was ahead has left, up to `most` records in this
    /// transaction. A look at two hints when there is nothing to do.
    pub(crate) fn expire(&mut self, write: &mut Write<'_>, most: usize) -> Result<(), Fault> {
        if self.page.oldest.get() <= self.now {
            self.expire_front(write, most)?;
        }
        if self.page.newest.get() > self.horizon / 1_000_000 {
            self.forget_future(write, most)?;
        }
        Ok(())
    }

    fn expire_front(&mut self, write: &mut Write<'_>, most: usize) -> Result<(), Fault> {
        let mut entries = 0;
        let (now, mut expired, mut oldest) = (self.now, self.swept.expired, u64::MAX);
        let usage = &mut self.usage;
        write.sweep(TIMES, |key, value| {
            let expiry = expiry_of(key).unwrap_or(0);
            // A record goes whole: what follows its head is never looked at on its own.
            if is_head(key) {
                if expiry > now || expired >= most || entries >= 2 * MOST {
                    oldest = expiry;
                    return Next::Stop;
                }
                expired += 1;
            }
            entries += 1;
            usage.delete(key, value);
            Next::Delete
        })?;
        self.swept.expired = expired;
        self.oldest = Some(oldest);
        Ok(())
    }

    /// From the back: what ends beyond the horizon was put while the clock was ahead.
    fn forget_future(&mut self, write: &mut Write<'_>, most: usize) -> Result<(), Fault> {
        let (mut gone, mut last) = (self.swept.expired, 0);
        let usage = &mut self.usage;
        write.sweep_back(|key, value| {
            last = expiry_of(key).unwrap_or(0);
            // Backwards a head comes after what follows it, so a record is done with its head.
            let delete = last > self.horizon && gone < most;
            if delete {
                gone += usize::from(is_head(key));
                usage.delete(key, value);
            }
            delete
        })?;
        self.swept.expired = gone;
        self.newest = Some(last.max(self.horizon));
        Ok(())
    }

    /// Deletes what has expired outside the time order, up to `most` records in this transaction, looking at no more than
    /// `looks`; where it has stopped, if not at the end.
    pub(crate) fn expire_outside(
        &mut self,
        write: &mut Write<'_>,
        from: &[u8],
        most: usize,
        looks: usize,
    ) -> Result<Option<Key>, Fault> {
        let (mut gone, mut looked, mut any) = (self.swept.expired, 0, from > OUTSIDERS);
        let (mut head_gone, mut next) = (false, None);
        let usage = &mut self.usage;
        write.sweep(from, |key, value| {
            // A record goes whole, and stays whole.
            if !is_head(key) && key < TIMES {
                if head_gone {
                    usage.delete(key, value);
                    return Next::Delete;
                }
                return Next::Skip;
            }
            if key >= TIMES || gone >= most || looked >= looks {
                any |= key < TIMES;
                next = Key::read(key).filter(|_| key < TIMES);
                return Next::Stop;
            }
            looked += 1;
            head_gone = Header::read(value).is_some_and(|header| !header.is_alive(self.now, self.horizon));
            if head_gone {
                gone += 1;
                usage.delete(key, value);
                Next::Delete
            } else {
                any = true;
                Next::Skip
            }
        })?;
        self.any_outside = Some(any);
        self.swept.expired = gone;
        Ok(next)
    }

    /// Deletes what expires first until at most `limit` pages are in use, or until [`MOST`] entries are gone. Up to `most`
    /// pages may stay in use when only records of smaller namespaces were met.
    pub(crate) fn make_room(
        &mut self,
        write: &mut Write<'_>,
        (limit, most): (usize, usize),
        near: &Key,
    ) -> Result<(), Fault> {
        let mut entries = 0;
        let mut looks = LOOKS;
        while entries < MOST {
            let used = write.txn().used_pages()?;
            if used <= limit {
                break;
            }
            let of = self.usage.largest().filter(|_| looks > 0);
            if of.is_none() && looks == 0 && used <= most {
                break;
            }
            let outside = if self.page.foreign.is_set() { self.first_outside(write, near, of)? } else { None };
            let bound = outside.as_ref().map_or(u64::MAX, |(_, expiry)| *expiry);
            let mut batch = self.evict_from(write, bound, of, &mut looks)?;
            if batch == 0 {
                if let Some((key, _)) = outside {
                    batch = usize::from(self.delete(write, &key)?);
                    self.swept.evicted += batch;
                }
            }
            if batch == 0 {
                if of.is_none() {
                    break;
                }
                looks = 0;
            }
            entries += batch;
        }
        Ok(())
    }

    /// Deletes a batch of what ends first, and not later than `bound`: of all, or of one row of the usage table.
    fn evict_from(
        &mut self,
        write: &mut Write<'_>,
        bound: u64,
        of: Option<usize>,
        looks: &mut usize,
    ) -> Result<usize, Fault> {
        let start = of.map(|row| time_key(self.usage.first(row)));
        let (mut batch, mut evicted) = (0, 0);
        let (mut delete, mut stopped) = (false, u64::MAX);
        let usage = &mut self.usage;
        write.sweep(start.as_ref().map_or(TIMES, |start| &start[..]), |key, value| {
            if is_head(key) {
                let expiry = expiry_of(key).unwrap_or(0);
                if expiry > bound || batch >= BATCH || (of.is_some() && *looks == 0) {
                    stopped = expiry;
                    return Next::Stop;
                }
                delete = of.is_none_or(|row| self.page.usage.counts(row, value));
                evicted += usize::from(delete);
                *looks -= usize::from(!delete);
            }
            if !delete {
                return Next::Skip;
            }
            batch += 1;
            usage.delete(key, value);
            Next::Delete
        })?;
        if let Some(row) = of {
            usage.set_first(row, stopped);
        }
        self.swept.evicted += evicted;
        Ok(batch)
    }

    /// Of a few records outside the time order, the one that expires first, with its expiry in microseconds.
    fn first_outside(
        &mut self,
        write: &mut Write<'_>,
        near: &Key,
        of: Option<usize>,
    ) -> Result<Option<(Key, u64)>, Fault> {
        let start = if near.expiry().is_none() { near.bytes() } else { OUTSIDERS };
        for from in [start, OUTSIDERS] {
            let mut first: Option<(Key, u64)> = None;
            let mut looked = 0;
            write.txn().walk(from, |key, value| {
                if key >= TIMES || looked == HAND {
                    return false;
                }
                if let (true, Some(key), Some(header)) = (is_head(key), Key::read(key), Header::read(value)) {
                    let expiry = if header.is_alive(self.now, self.horizon) { header.end() } else { 0 };
                    let victim = of.is_none_or(|row| self.page.usage.counts(row, value));
                    let sooner = first.as_ref().is_none_or(|(_, least)| expiry < *least);
                    if victim && sooner && key.bytes() != near.bytes() {
                        first = Some((key, expiry));
                    }
                    looked += 1;
                }
                true
            })?;
            if first.is_some() {
                return Ok(first);
            }
        }
        Ok(None)
    }

    /// Deletes a record with its continuations; false when it was not there.
    pub(crate) fn delete(&mut self, write: &mut Write<'_>, key: &Key) -> Result<bool, Fault> {
        let Some(value) = write.txn().get(key.bytes())? else { return Ok(false) };
        self.usage.delete(key.bytes(), value);
        let continued = Header::read(value).is_some_and(|header| header.has(flags::CONTINUED));
        write.delete(key.bytes())?;
        if continued {
            for n in 1..=u8::MAX {
                let next = key.continuation(n);
                let Some(value) = write.txn().get(next.bytes())? else { break };
                self.usage.delete(next.bytes(), value);
                write.delete(next.bytes())?;
            }
        }
        Ok(true)
    }
}

fn is_head(key: &[u8]) -> bool {
    Key::read(key).is_some_and(|key| key.is_head())
}
