//! Making room: what has expired leaves with later puts, and when the store is full, what expires first makes room.
//!
//! Key order is expiry order, so both delete from the front. Records outside the time order are met by looking at a
//! few of them at a time, from a place that is as random as the ids.

use super::env::{Fault, Front, Write};
use super::id::{expiry_of, Key, OUTSIDERS, TIMES};
use super::record::Header;

/// Most entries deleted in one transaction: bounds the pages it needs and the time others wait.
pub(crate) const MOST: usize = 128;
/// Records outside the time order that are looked at per put.
const HAND: usize = 8;
/// Entries deleted between two looks at the page count.
const BATCH: usize = 8;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) expired: usize,
    pub(crate) evicted: usize,
    /// Expiry of what is first in time order now, in microseconds; MAX when there is nothing.
    pub(crate) oldest: u64,
}

/// Deletes what has expired in the time order, at most `most` records.
pub(crate) fn expire(write: &mut Write<'_>, now: u64, most: usize) -> Result<Swept, Fault> {
    let mut swept = Swept { oldest: u64::MAX, ..Swept::default() };
    let mut entries = 0;
    write.sweep(TIMES, |key, _| {
        let expiry = expiry_of(key).unwrap_or(0);
        // A record goes whole: what follows its head is never looked at on its own.
        if !is_head(key) {
            entries += 1;
            return Front::Delete;
        }
        if expiry > now || swept.expired >= most || entries >= 2 * MOST {
            swept.oldest = expiry;
            return Front::Stop;
        }
        entries += 1;
        swept.expired += 1;
        Front::Delete
    })?;
    Ok(swept)
}

/// Deletes what has expired outside the time order, at most `most` records, looking at no more than `looks`.
pub(crate) fn expire_outside(
    write: &mut Write<'_>,
    from: &[u8],
    now: u64,
    most: usize,
    looks: usize,
) -> Result<(usize, bool), Fault> {
    let (mut gone, mut looked, mut any) = (0, 0, false);
    let mut head_gone = false;
    write.sweep(from, |key, value| {
        // A record goes whole, and stays whole.
        if !is_head(key) && key < TIMES {
            return if head_gone { Front::Delete } else { Front::Skip };
        }
        if key >= TIMES || gone >= most || looked >= looks {
            any |= key < TIMES;
            return Front::Stop;
        }
        looked += 1;
        match Header::read(value) {
            Some(header) if u64::from(header.expires) * 1_000_000 <= now => {
                gone += 1;
                head_gone = true;
                Front::Delete
            }
            _ => {
                any = true;
                head_gone = false;
                Front::Skip
            }
        }
    })?;
    Ok((gone, any))
}

/// Deletes what expires first until at most `limit` pages are in use, or until [`MOST`] entries are gone.
pub(crate) fn make_room(write: &mut Write<'_>, limit: usize, near: &Key, outsiders: bool) -> Result<Swept, Fault> {
    let mut swept = Swept::default();
    let mut entries = 0;
    while entries < MOST && write.txn().used_pages()? > limit {
        let before = entries;
        let outside = if outsiders { first_outside(write, near)? } else { None };
        let bound = outside.as_ref().map_or(u64::MAX, |(_, expiry)| *expiry);
        let mut batch = 0;
        write.sweep(TIMES, |key, _| {
            let head = is_head(key);
            let first = expiry_of(key).is_some_and(|expiry| expiry <= bound);
            if head && (!first || batch >= BATCH) {
                return Front::Stop;
            }
            batch += 1;
            swept.evicted += usize::from(head);
            Front::Delete
        })?;
        entries += batch;
        if batch == 0 {
            if let Some((key, _)) = outside {
                entries += usize::from(delete(write, &key)?);
                swept.evicted += 1;
            }
        }
        if entries == before {
            break;
        }
    }
    Ok(swept)
}

/// Of a few records outside the time order, the one that expires first, with its expiry in microseconds.
fn first_outside(write: &mut Write<'_>, near: &Key) -> Result<Option<(Key, u64)>, Fault> {
    let start = if near.expiry().is_none() { near.bytes() } else { OUTSIDERS };
    for from in [start, OUTSIDERS] {
        let mut first: Option<(Key, u64)> = None;
        let mut looked = 0;
        write.txn().walk(from, |key, value| {
            if key >= TIMES || looked == HAND {
                return false;
            }
            if let (true, Some(key), Some(header)) = (is_head(key), Key::read(key), Header::read(value)) {
                let expiry = u64::from(header.expires) * 1_000_000;
                if key.bytes() != near.bytes() && first.as_ref().is_none_or(|(_, least)| expiry < *least) {
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
pub(crate) fn delete(write: &mut Write<'_>, key: &Key) -> Result<bool, Fault> {
    let continued = match write.txn().get(key.bytes())? {
        Some(value) => Header::read(value).is_some_and(|header| header.has(super::record::flags::CONTINUED)),
        None => return Ok(false),
    };
    write.delete(key.bytes())?;
    if continued {
        let mut n = 1;
        while write.delete(key.continuation(n).bytes())? {
            n += 1;
        }
    }
    Ok(true)
}

fn is_head(key: &[u8]) -> bool {
    Key::read(key).is_some_and(|key| key.is_head())
}
