//! Writing: everything slow is done before the write lock; under it, make room, put, commit.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::control::Flushes;
use super::env::{Fault, Txn, Write};
use super::evict::{self, Sweep, Swept};
use super::generation::Generation;
use super::growth::NEEDED;
use super::id::{Key, OUTSIDERS};
use super::record::{flags, Header, OVERHEAD, PLAIN_MAX};
use super::revocation::may_be_stored;
use super::seal::AssociatedData;
use super::thread::{self, ThreadContext};
use super::write_lock::WriteGuard;
use super::writer::sweep_in;
use super::{Namespace, NamespaceHash, RecordKind, Standing, Store};
use crate::log::{self, Topic};
use crate::stats::Counter;
use crate::status::{Error, Result, Status};
use crate::sys::clock;

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
const FULL_FOR: u64 = 2_000;

/// What a record may be written over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Whatever lies under its key.
    Anything,
    /// Nothing but what has expired.
    Expired,
}

impl Store {
    /// Stores a session, unless its login was ended, or the store was flushed since its handshake saw `seen`.
    pub(crate) fn put_session(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        seen: Flushes,
        header: &mut Header,
        der: &[u8],
    ) -> Result<()> {
        self.put(id, namespace, Some(seen), header, der)
    }

    /// Stores an application's own record.
    pub(crate) fn put_opaque(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        header: &mut Header,
        data: &[u8],
    ) -> Result<()> {
        self.put(id, namespace, None, header, data)
    }

    /// Stores a record under its id and counts what came of it; completes the header as the record has it.
    fn put(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        session: Option<Flushes>,
        header: &mut Header,
        plain: &[u8],
    ) -> Result<()> {
        self.maintenance();
        if session.is_some() {
            // Before it is looked at whether the login has ended: a tombstone that is put from here on lasts as long.
            self.control().note_life(u64::from(header.expires.saturating_sub(header.full_handshake)));
        }
        let counter = |done: &Result<()>| match done.as_ref().map_err(|error| error.status) {
            Ok(_) => Counter::Puts,
            Err(Status::NotFound) => Counter::PutsSkipped,
            Err(Status::Busy) => Counter::PutsBusy,
            Err(Status::Full) if plain.len() <= PLAIN_MAX => Counter::PutsFull,
            Err(_) => Counter::PutsFailed,
        };
        let put = thread::with(self, |thread| {
            let done = self.put_uncounted(thread, (id, namespace), session, Over::Anything, header, plain);
            thread.opened.control.counters().add(thread.shard, counter(&done), 1);
            done
        });
        let done = put.unwrap_or_else(|error| {
            let done = Err(error);
            self.control().count(counter(&done), 1);
            done
        });
        match (done, session) {
            (Err(error), Some(seen)) if error.status != Status::NotFound => {
                self.put_in_memory(id, namespace, seen, header, plain).ok_or(error)
            }
            (done, _) => done,
        }
    }

    /// Keeps a session that could not be stored, unless it was ended.
    #[cold]
    fn put_in_memory(
        &self,
        id: &[u8],
        namespace: Namespace<'_>,
        seen: Flushes,
        header: &mut Header,
        plain: &[u8],
    ) -> Option<()> {
        let (local, control) = (self.local.as_ref()?, self.control());
        // Named by the number of flushes before that is looked at: a flush from here on finds it under an old name.
        let key = self.local_key(control, id, namespace)?;
        if !may_be_stored(control, header, seen) {
            return None;
        }
        local.put(&key, header, plain, clock::seconds()).then(|| control.count(Counter::PutsLocal, 1))
    }

    /// Stores a record. [`Status::Invalid`] also when it may not be written over what is there.
    pub(super) fn put_uncounted(
        self: &Arc<Self>,
        thread: &mut ThreadContext,
        (id, namespace): (&[u8], Namespace<'_>),
        session: Option<Flushes>,
        over: Over,
        header: &mut Header,
        plain: &[u8],
    ) -> Result<()> {
        if plain.len() > PLAIN_MAX {
            let detail = format!("a record holds at most {PLAIN_MAX} bytes, not {}", plain.len());
            return Err(Error::new(Status::Full, detail));
        }
        if thread.opened.standing == Standing::Behind {
            return Err(Error::new(Status::System, "a new generation has begun, and cannot be opened"));
        }
        let kind = if session.is_some() { RecordKind::Session } else { RecordKind::Opaque };
        if session.is_some_and(|seen| !may_be_stored(&thread.opened.control, header, seen)) {
            return Err(Error::new(Status::NotFound, "the session was ended before it was stored"));
        }
        let namespace = thread.opened.namespace_hash(namespace);
        let decoded = thread.opened.decode(id, clock::coarse_micros());
        let key = decoded.key(id, kind, || namespace.half());
        let key = key.ok_or_else(|| Error::invalid("an id has 1 to 255 bytes"))?;
        header.namespace = namespace.half();
        header.flags |= if kind == RecordKind::Opaque { flags::OPAQUE } else { 0 };
        if OVERHEAD + plain.len() > piece(thread.now.generation.env.page) {
            header.flags |= flags::CONTINUED;
        }
        // A session's id is made once; an application may put again what lies in the generation before.
        if header.has(flags::OPAQUE) || key.expiry().is_none() {
            if let Some(before) = thread.before.as_mut() {
                // Or it would come back when the new one goes.
                if self.read(before, |txn| Ok(txn.get(key.bytes())?.is_some()))? {
                    self.delete_if(&before.generation, &key, |_| Ok(true))?;
                }
            }
        }
        let mut record = std::mem::take(&mut thread.record);
        let associated = AssociatedData { key: key.bytes(), namespace: namespace.whole() };
        let done = match thread.sealer.seal(header, associated, plain, &mut record) {
            Some(()) => self.write_record(thread, &key, (header, namespace), over, &record).map_err(Error::from),
            None => Err(Error::new(Status::OpenSsl, "AES-256-GCM failed")),
        };
        thread.record = record;
        done
    }

    fn write_record(
        self: &Arc<Self>,
        thread: &ThreadContext,
        key: &Key,
        header: (&Header, NamespaceHash),
        over: Over,
        record: &[u8],
    ) -> Result<(), Fault> {
        let generation = &thread.now.generation;
        let done = self.with_lock(generation, |locked| put_locked(generation, locked, key, header, over, record));
        let swept = done.inspect_err(|fault| match fault {
            Fault::Full => self.on_full(thread),
            fault => self.note_fault(generation, *fault),
        })?;
        self.full_since.store(0, Ordering::Relaxed);
        for (counter, n) in [(Counter::Evicted, swept.evicted), (Counter::Expired, swept.expired)] {
            if n > 0 {
                thread.opened.control.counters().add(thread.shard, counter, n as u64);
            }
        }
        Ok(())
    }

    /// Removes the record under `id` from everywhere it may be; false when there was none.
    pub(crate) fn remove(self: &Arc<Self>, id: &[u8], namespace: Namespace<'_>) -> Result<bool> {
        self.maintenance();
        let from_memory = self.remove_from_memory(id, namespace);
        let removed = thread::with(self, |thread| {
            let namespace = thread.opened.namespace_hash(namespace).half();
            let decoded = thread.opened.decode(id, clock::coarse_micros());
            let key = |kind| decoded.key(id, kind, || namespace);
            // One of ours lies in time order, whatever it is for.
            let is_outside = |key: &Key| key.expiry().is_none();
            self.remove_all(thread, &[key(RecordKind::Session), key(RecordKind::Opaque).filter(is_outside)])
        });
        // What was in memory was not in the store.
        let removed = removed.and_then(|removed| removed);
        if from_memory {
            Ok(true)
        } else {
            removed
        }
    }

    fn remove_from_memory(&self, id: &[u8], namespace: Namespace<'_>) -> bool {
        let local = self.local.as_ref().filter(|local| local.until() != 0);
        let key = local.and_then(|_| self.local_key(self.control(), id, namespace));
        let removed = local.zip(key).is_some_and(|(local, key)| local.remove(&key));
        if removed {
            self.control().count(Counter::Removes, 1);
        }
        removed
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
                removed |= self.delete_if(generation, key, |_| Ok(true))?;
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
            let (mut gone, mut outside) = (0, Some(OUTSIDERS.to_vec()));
            while gone < most {
                let generation = &thread.now.generation;
                let (batch, mut next) = ((most - gone).min(evict::MOST), None);
                let swept = self.change(generation, |write, sweep| {
                    sweep.expire(write, batch)?;
                    next = match outside.as_ref().filter(|_| generation.page().foreign.is_set()) {
                        Some(from) => sweep.expire_outside(write, from, batch, evict::LOOKS)?,
                        None => None,
                    };
                    Ok(())
                })?;
                gone += swept.expired;
                outside = next.map(|key| key.bytes().to_vec());
                if swept.expired == 0 && outside.is_none() {
                    break;
                }
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
        if since != 0 && now.saturating_sub(since) > FULL_FOR && whole {
            // The pages are there and nobody may reuse them: a reader that is stopped in its snapshot pins them.
            self.full_since.store(0, Ordering::Relaxed);
            self.leave_behind(thread.now.generation.number, "a stopped reader keeps the store full");
        }
    }
}

/// Whether what lies under `key` has not expired.
fn is_alive(txn: &mut Txn, key: &Key, now: u64) -> Result<bool, Fault> {
    Ok(txn.get(key.bytes())?.and_then(Header::read).is_some_and(|header| now < header.end()))
}

fn put_locked(
    generation: &Generation,
    locked: &WriteGuard<'_>,
    key: &Key,
    (header, namespace): (&Header, NamespaceHash),
    over: Over,
    record: &[u8],
) -> Result<Swept, Fault> {
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
            if over == Over::Expired && is_alive(write.txn(), key, now)? {
                return Err(Fault::Taken);
            }
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
    if namespace.whole() != 0 {
        page.note_namespace((namespace.whole(), namespace.half()));
    }
    Ok(swept)
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
    // A file that cannot grow must not be used up to where no transaction begins any more.
    let least = if usable < pages { NEEDED as usize / generation.env.page + 24 } else { 24 };
    let reserve = (usable / 8).max(least).min(usable);
    (usable.saturating_sub(reserve + pieces), usable.saturating_sub(reserve / 2 + pieces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    fn store() -> (Arc<Store>, tempfile::TempDir) {
        let scratch = tempfile::tempdir().unwrap();
        (Store::open(&scratch.path().join("store"), &Options::parse("capacity=4MiB").unwrap()).unwrap(), scratch)
    }

    #[test]
    fn a_sweep_lets_others_write_and_misses_no_record() {
        const LIVE: usize = 2 * evict::LOOKS + 100;
        const EXPIRED: usize = 200;
        let (store, _scratch) = store();
        let now = clock::seconds() as u32;
        for n in 0..LIVE + EXPIRED {
            let expires = if n < LIVE { now + 600 } else { now };
            let mut header = Header { expires, ..Header::default() };
            store.put_opaque(&siphash_of(n), Namespace(""), &mut header, b"").unwrap();
        }
        let generation = Arc::clone(&store.obtain().unwrap().now);
        let left = || thread::with(&store, |thread| thread.now.read(|txn| txn.entries()).unwrap()).unwrap();
        let before = generation.page().taken.get();
        let swept = store.sweep(10_000).unwrap();
        // Puts sweep a little as well.
        assert!(swept > 0 && left() == LIVE + 1, "{swept} swept, {} left", left());
        let writes = generation.page().taken.get() - before;
        assert!(writes > 2, "{LIVE} records are looked at in {writes} writes");
    }

    fn siphash_of(n: usize) -> [u8; 8] {
        super::super::siphash::siphash(1, 2, &n.to_ne_bytes()).to_ne_bytes()
    }

    #[test]
    fn a_session_that_is_too_long_is_counted_and_kept_in_memory() {
        let (store, _scratch) = store();
        let flushes = store.obtain().unwrap().control.flushes();
        let id = store.issue_id(std::time::Duration::from_secs(60)).unwrap();
        let too_long = vec![0; PLAIN_MAX + 1];
        store.put_session(&id, Namespace(""), flushes, &mut Header::default(), &too_long).unwrap();
        let refused = store.put_opaque(b"mine", Namespace(""), &mut Header::default(), &too_long);
        assert_eq!(refused.unwrap_err().status, Status::Full);
        let stats = store.stats().unwrap();
        assert_eq!((stats.puts_failed, stats.puts_local), (2, 1));
    }
}
