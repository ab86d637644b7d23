//! Writing: everything slow is done before the write lock; under it, make room, put, commit.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::env::{Fault, Write};
use super::evict::{self, Sweep, Swept};
use super::generation::Generation;
use super::id::{Key, OUTSIDERS};
use super::lookup::{key_of, namespace_hash};
use super::record::{flags, Header, OVERHEAD, PLAIN_MAX};
use super::thread::{self, Snapshot, ThreadContext};
use super::write_lock::WriteGuard;
use super::writer::sweep_in;
use super::{Namespace, RecordKind, Store};
use crate::log::{self, Topic};
use crate::stats::Counter;
use crate::status::{Error, Result, Status};
use crate::sys::clock;
use crate::sys::crypto::TAG;

/// Largest value in one piece: with its page header it fills one overflow page. Larger records are continued under the
/// next keys, so that every allocation is a single page and no free space is ever too scattered.
const fn piece(page: usize) -> usize {
    page - 16
}

/// Expired records deleted along with a put.
const EXPIRE_PER_PUT: usize = 16;
/// Records outside the time order that a put beside them looks at. Each is likely not in the processor's cache. With four,
/// one in four of those there has expired when as many expire as are put.
const LOOKS_PER_PUT: usize = 4;
/// So long puts may fail for lack of room before a new generation begins, in milliseconds.
const STARVED: u64 = 2_000;

impl Store {
    /// Stores a record under its id; completes the header as the record has it, and says the record's tag.
    pub(crate) fn put(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        kind: RecordKind,
        header: &mut Header,
        plain: &[u8],
    ) -> Result<[u8; TAG]> {
        if plain.len() > PLAIN_MAX {
            return Err(Error::new(
                Status::Full,
                format!("a record holds at most {PLAIN_MAX} bytes, not {}", plain.len()),
            ));
        }
        self.maintenance();
        thread::with(self, |thread| {
            let (wide, narrow) = namespace_hash(&thread.opened, namespace);
            let key = key_of(thread, id, narrow, kind, clock::coarse_micros())
                .ok_or_else(|| Error::invalid("an id has 1 to 255 bytes"))?;
            header.namespace = narrow;
            header.flags |= if kind == RecordKind::Opaque { flags::OPAQUE } else { 0 };
            if OVERHEAD + plain.len() > piece(thread.now.generation.env.page) {
                header.flags |= flags::CONTINUED;
            }
            // A session's id is made once; an application may put again what lies in the generation before.
            if header.has(flags::OPAQUE) || key.expiry().is_none() {
                if let Some(before) = thread.before.as_mut() {
                    self.replace_in(before, &key)?;
                }
            }
            let mut record = std::mem::take(&mut thread.record);
            let sealed = thread.sealer.seal(header, (key.bytes(), wide), plain, &mut record);
            let done = match sealed {
                Some(tag) => self.write_record(thread, &key, (header, wide), &record).map(|()| tag),
                None => Err((Counter::PutsFailed, Error::new(Status::OpenSsl, "AES-256-GCM failed"))),
            };
            thread.record = record;
            let counter = match &done {
                Ok(_) => Counter::Puts,
                Err((counter, _)) => *counter,
            };
            thread.opened.control.counters().add(thread.shard, counter, 1);
            done.map_err(|(_, error)| error)
        })?
    }

    /// Deletes an older record of the same key, so that it does not come back when the new one goes.
    fn replace_in(&self, before: &mut Snapshot, key: &Key) -> Result<()> {
        let failed = |fault: Fault| Error::new(Status::System, fault.text());
        if !self.read(before, |txn| txn.get(key.bytes()).map(|found| found.is_some())).map_err(failed)? {
            return Ok(());
        }
        let generation = &before.generation;
        let locked = self.lock(generation)?;
        self.with_room(generation).map_err(failed)?;
        delete(generation, &locked, key).map_err(failed).map(|_| ())
    }

    fn write_record(
        self: &Arc<Self>,
        thread: &ThreadContext,
        key: &Key,
        header: (&Header, u64),
        record: &[u8],
    ) -> Result<(), (Counter, Error)> {
        let generation = &thread.now.generation;
        let locked = self.lock(generation).map_err(|error| {
            if error.status == Status::Busy {
                (Counter::PutsBusy, error)
            } else {
                (Counter::PutsFailed, error)
            }
        })?;
        let done = self.put_locked(generation, &locked, key, header, record);
        drop(locked);
        match done {
            Ok(swept) => {
                self.full_since.store(0, Ordering::Relaxed);
                for (counter, n) in [(Counter::Evicted, swept.evicted), (Counter::Expired, swept.expired)] {
                    if n > 0 {
                        thread.opened.control.counters().add(thread.shard, counter, n as u64);
                    }
                }
                Ok(())
            }
            Err(Fault::Full) => {
                self.on_full(thread);
                Err((Counter::PutsFull, Error::new(Status::Full, "no room could be made in the store")))
            }
            Err(fault) => {
                self.note_fault(generation, fault);
                Err((Counter::PutsFailed, Error::new(Status::System, fault.text())))
            }
        }
    }

    fn put_locked(
        &self,
        generation: &Generation,
        locked: &WriteGuard<'_>,
        key: &Key,
        (header, namespace): (&Header, u64),
        record: &[u8],
    ) -> Result<Swept, Fault> {
        self.with_room(generation)?;
        let (env, page) = (&generation.env, generation.page());
        let now = clock::coarse_micros();
        let seconds = u64::from(header.expires);
        page.note_life(seconds.max(key.expiry().unwrap_or(0) / 1_000_000).saturating_sub(now / 1_000_000));
        let pieces = record.len().div_ceil(piece(env.page));
        let room = room(generation, pieces + 1);
        let outside = key.expiry().is_none();
        let put = |write: &mut Write<'_>, sweep: &mut Sweep<'_>| {
            sweep.expire(write, EXPIRE_PER_PUT)?;
            if outside {
                sweep.expire_outside(write, key.bytes(), EXPIRE_PER_PUT, LOOKS_PER_PUT)?;
            }
            sweep.make_room(write, room, key)?;
            let (first, rest) = record.split_at(record.len().min(piece(env.page)));
            // A new id is the last key, unless another process was faster or it is outside the time order. A record that
            // replaces one goes after the old one is deleted: a shorter one must leave no continuation behind.
            let appended = !outside && write.append(key.bytes(), first)?;
            if !appended && !write.insert(key.bytes(), first)? {
                sweep.delete(write, key)?;
                write.put(key.bytes(), first)?;
            }
            sweep.usage.put(header.namespace, key.bytes(), first);
            for (n, bytes) in rest.chunks(piece(env.page)).enumerate() {
                let key = key.continuation(n as u8 + 1);
                write.put(key.bytes(), bytes)?;
                sweep.usage.put(header.namespace, key.bytes(), bytes);
            }
            Ok(())
        };
        let swept = match sweep_in(generation, locked, now, put) {
            // Room as counted was not room as LMDB finds it: free a leaf's worth first, in a transaction of its own.
            Err(Fault::Full) => {
                let freed = sweep_in(generation, locked, now, |write, sweep| {
                    let less = write.txn().used_pages()?.saturating_sub(pieces + 8);
                    sweep.make_room(write, (less, less), key)
                })?;
                let mut swept = sweep_in(generation, locked, now, put)?;
                swept.evicted += freed.evicted;
                swept
            }
            other => other?,
        };
        if outside {
            page.foreign.set(1);
        }
        page.note_put(key.expiry().unwrap_or(u64::MAX), seconds);
        if namespace != 0 {
            page.note_namespace((namespace, header.namespace));
        }
        Ok(swept)
    }

    /// Removes the record under `id` from everywhere it may be; false when there was none.
    pub(crate) fn remove(self: &Arc<Self>, id: &[u8], namespace: Namespace<'_>) -> Result<bool> {
        self.maintenance();
        thread::with(self, |thread| {
            let now = clock::coarse_micros();
            let (_, narrow) = namespace_hash(&thread.opened, namespace);
            let session = super::lookup::locate(thread, id, narrow, RecordKind::Session, now).ok().map(|(key, _)| key);
            self.remove_all(thread, &[session, Key::opaque(narrow, id)])
        })?
    }

    /// Deletes the record that lies under `key`, whichever namespace it is in; false when there was none.
    pub(crate) fn remove_at(self: &Arc<Self>, key: &Key) -> Result<bool> {
        thread::with(self, |thread| self.remove_all(thread, &[Some(*key)]))?
    }

    fn remove_all(&self, thread: &ThreadContext, keys: &[Option<Key>]) -> Result<bool> {
        let mut removed = false;
        for snapshot in [Some(&thread.now), thread.before.as_ref()].into_iter().flatten() {
            let generation = &snapshot.generation;
            for key in keys.iter().flatten() {
                // Outside the time order there may be nothing at all.
                if key.expiry().is_none() && !generation.page().foreign.is_set() {
                    continue;
                }
                let locked = self.lock(generation)?;
                self.with_room(generation).map_err(|fault| Error::new(Status::Full, fault.text()))?;
                removed |=
                    delete(generation, &locked, key).map_err(|fault| Error::new(Status::System, fault.text()))?;
            }
        }
        if removed {
            thread.opened.control.counters().add(thread.shard, Counter::Removes, 1);
        }
        Ok(removed)
    }

    /// Deletes at most `most` expired records; how many it were.
    pub(crate) fn sweep(self: &Arc<Self>, most: usize) -> Result<usize> {
        thread::with(self, |thread| {
            let now = clock::coarse_micros();
            let mut gone = 0;
            while gone < most {
                let generation = &thread.now.generation;
                let locked = self.lock(generation)?;
                self.with_room(generation).map_err(|fault| Error::new(Status::Full, fault.text()))?;
                let batch = (most - gone).min(evict::MOST);
                let swept = sweep_in(generation, &locked, now, |write, sweep| {
                    sweep.expire(write, batch)?;
                    if generation.page().foreign.is_set() {
                        sweep.expire_outside(write, OUTSIDERS, batch, usize::MAX)?;
                    }
                    Ok(())
                });
                let n = swept.map_err(|fault| Error::new(Status::System, fault.text()))?.expired;
                if n == 0 {
                    break;
                }
                gone += n;
            }
            if gone > 0 {
                thread.opened.control.counters().add(thread.shard, Counter::Expired, gone as u64);
            }
            Ok(gone)
        })?
    }

    fn on_full(self: &Arc<Self>, thread: &ThreadContext) {
        let now = clock::ticks();
        let since = self.full_since.load(Ordering::Relaxed);
        if since == 0 {
            self.full_since.store(now, Ordering::Relaxed);
        }
        self.log.say(Topic::Full, log::WARNING, || "no room could be made in the store".to_owned());
        let whole = thread.now.generation.page().reserved.get() >= thread.now.generation.page().shape().capacity;
        if since != 0 && now.saturating_sub(since) > STARVED && whole {
            // The pages are there and nobody may reuse them: a reader that is stopped in its snapshot pins them.
            self.full_since.store(0, Ordering::Relaxed);
            self.leave_behind(thread.now.generation.number, "a stopped reader keeps the store full");
        }
    }
}

/// Deletes a whole record; false when it was not there.
fn delete(generation: &Generation, locked: &WriteGuard<'_>, key: &Key) -> Result<bool, Fault> {
    let mut there = false;
    sweep_in(generation, locked, clock::coarse_micros(), |write, sweep| {
        there = sweep.delete(write, key)?;
        Ok(())
    })?;
    Ok(there)
}

/// Pages that may hold records before one of `pieces` is put, and those that may while records
/// of the largest namespace are searched for. The rest is what LMDB needs to change any page, and what readers pin meanwhile.
fn room(generation: &Generation, pieces: usize) -> (usize, usize) {
    let pages = generation.env.pages;
    let usable = if generation.is_short_of_disk() {
        (generation.page().reserved.get() / generation.env.page as u64) as usize
    } else {
        pages
    };
    let reserve = (usable / 8).max(24).min(usable);
    (usable.saturating_sub(reserve + pieces), usable.saturating_sub(reserve / 2 + pieces))
}
