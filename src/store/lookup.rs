//! Looking up: copy out, let go of the snapshot, judge by the header, and only then decrypt.

use std::sync::Arc;

use super::env::{Fault, Txn};
use super::id::{Decoded, Key};
use super::record::{self, flags, Header};
use super::thread::{self, Snapshot, ThreadContext};
use super::writer::sweep_in;
use super::{hash_name, name_hash, Namespace, OpenStore, Store};
use crate::log;
use crate::stats::Counter;
use crate::status::{Error, Result, Status};
use crate::sys::clock;
use crate::sys::crypto::TAG;

/// Why there is no session; each has its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Nothing under this id.
    Absent,
    /// Not an id of this store.
    Foreign,
    /// Past its time.
    Expired,
    /// Made under another protocol version.
    Protocol,
    /// Made in another namespace.
    Namespace,
    /// Made under another server name.
    ServerName,
    /// Made without the client authentication that is demanded now.
    ClientAuth,
    /// Does not open.
    Damaged,
    /// The store could not be asked.
    Unavailable,
}

impl Miss {
    fn counter(self) -> Counter {
        match self {
            Miss::Absent => Counter::MissesAbsent,
            Miss::Foreign => Counter::MissesForeign,
            Miss::Expired => Counter::MissesExpired,
            Miss::Protocol => Counter::MissesProtocol,
            Miss::Namespace => Counter::MissesNamespace,
            Miss::ServerName => Counter::MissesServerName,
            Miss::ClientAuth => Counter::MissesClientAuth,
            Miss::Damaged => Counter::MissesDamaged,
            Miss::Unavailable => Counter::MissesUnavailable,
        }
    }
}

/// What lies under an id: an SSL_SESSION, or an application's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Session,
    Opaque,
}

/// A record that was found, copied out of the store, and is within its time. Its header is not proven before it is opened.
pub(crate) struct Found<'s> {
    pub(crate) header: Header,
    key: &'s Key,
    /// The hash of the caller's namespace, whole and as headers have it.
    namespace: (u64, u32),
    /// It lies in the generation before.
    in_before: bool,
    store: &'s Store,
    thread: &'s mut ThreadContext,
}

impl Found<'_> {
    /// What proves the record, and tells it from every other.
    pub(crate) fn tag(&self) -> [u8; TAG] {
        self.thread.record.last_chunk().copied().unwrap_or_default()
    }

    /// Whether it is of the namespace under which it was looked up.
    pub(crate) fn is_of_namespace(&self) -> bool {
        self.header.namespace == self.namespace.1
    }

    /// The hash that a header has for this server name.
    pub(crate) fn server_name_hash(&self, name: &[u8]) -> u64 {
        name_hash(&self.thread.opened, "server", name)
    }

    /// Deletes it, if it is still the same: of all who take it, in all processes, one succeeds.
    pub(crate) fn take(&mut self) -> Result<(), Miss> {
        let snapshot = if self.in_before { self.thread.before.as_ref() } else { Some(&self.thread.now) };
        self.store.take_away(snapshot.ok_or(Miss::Absent)?, self.key, &self.thread.record)?;
        self.thread.opened.control.counters().add(self.thread.shard, Counter::Takes, 1);
        Ok(())
    }

    /// Decrypts it. The plaintext is wiped when the lookup ends.
    pub(crate) fn open(&mut self) -> Result<&[u8], Miss> {
        let ThreadContext { record, sealer, plain, .. } = &mut *self.thread;
        let record = record::parse(record).ok_or(Miss::Damaged)?;
        let opened = sealer.open(&record, (self.key.bytes(), self.namespace.0), plain);
        opened.then_some(&plain[..]).ok_or(Miss::Damaged)
    }
}

impl Store {
    /// Looks up `id`, and lets `f` say what becomes of the record: whether it may be returned, is taken, is opened.
    pub(crate) fn lookup<R>(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        kind: Kind,
        f: impl FnOnce(&mut Found<'_>) -> Result<R, Miss>,
    ) -> Result<R, Miss> {
        self.maintenance();
        let done = thread::with(self, |thread| {
            let done = self.find(thread, id, namespace, kind, f);
            if matches!(done, Err(Miss::Damaged)) {
                self.log.say(log::Topic::Damage, log::WARNING, || {
                    "a session did not open: it is damaged, or its sealing key is gone".to_owned()
                });
            }
            let counter = done.as_ref().map_or_else(|miss| miss.counter(), |_| Counter::Hits);
            thread.opened.control.counters().add(thread.shard, counter, 1);
            done
        });
        done.unwrap_or(Err(Miss::Unavailable))
    }

    /// Calls `open` with an application's own record, and deletes it first if it is to be taken.
    pub(crate) fn get_opaque<R>(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        take: bool,
        open: impl FnOnce(&Header, &[u8]) -> R,
    ) -> Result<R, Miss> {
        self.lookup(id, namespace, Kind::Opaque, |found| {
            if !found.header.has(flags::OPAQUE) || !found.is_of_namespace() {
                return Err(Miss::Namespace);
            }
            if take {
                found.take()?;
            }
            let header = found.header;
            found.open().map(|plain| open(&header, plain))
        })
    }

    fn find<R>(
        &self,
        thread: &mut ThreadContext,
        id: &[u8],
        namespace: Namespace<'_>,
        kind: Kind,
        f: impl FnOnce(&mut Found<'_>) -> Result<R, Miss>,
    ) -> Result<R, Miss> {
        let now = clock::coarse_micros();
        let namespace = namespace_hash(&thread.opened, namespace);
        let (key, absent) = locate(thread, id, namespace.1, kind, now)?;
        let mut in_before = false;
        if !self.copy_out(&mut thread.now, &key, &mut thread.record)? {
            in_before = true;
            let before = thread.before.as_mut().ok_or(absent)?;
            if !self.copy_out(before, &key, &mut thread.record)? {
                return Err(absent);
            }
        }
        let snapshot = if in_before { thread.before.as_ref() } else { Some(&thread.now) };
        let horizon = snapshot.map_or(u64::MAX, |snapshot| snapshot.generation.page().horizon(now));
        let header = record::parse(&thread.record).ok_or(Miss::Damaged)?.header;
        if !header.is_alive(now, horizon) {
            return Err(Miss::Expired);
        }
        f(&mut Found { header, key: &key, namespace, in_before, store: self, thread })
    }

    /// Copies a whole record out of a snapshot; false when there is none.
    fn copy_out(&self, snapshot: &mut Snapshot, key: &Key, out: &mut Vec<u8>) -> Result<bool, Miss> {
        self.read(snapshot, |txn| copy_record(txn, key, out)).map_err(|fault| self.unavailable(snapshot, fault))
    }

    /// Reads a snapshot; without a reader slot, under the write lock. `f` may run again from the start.
    pub(super) fn read<T>(
        &self,
        snapshot: &mut Snapshot,
        mut f: impl FnMut(&mut Txn) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let read = match snapshot.read(&mut f) {
            // LMDB publishes a reader before it has the root: two commits in between can look like a missing page.
            Ok(Err(Fault::Damaged(_))) => snapshot.read(&mut f),
            other => other,
        };
        match read.and_then(|done| done) {
            Err(fault @ (Fault::PidClash | Fault::ReadersFull | Fault::SlotsHeld { .. })) => {
                self.note_fault(&snapshot.generation, fault);
                let locked = self.lock(&snapshot.generation).map_err(|_| Fault::LockTimeout)?;
                snapshot.generation.env.read_exclusively(&locked, f).and_then(|done| done)
            }
            done => done,
        }
    }

    fn unavailable(&self, snapshot: &Snapshot, fault: Fault) -> Miss {
        self.note_fault(&snapshot.generation, fault);
        Miss::Unavailable
    }

    /// Deletes what was read, if it is still the same. Only one of all takers succeeds.
    fn take_away(&self, snapshot: &Snapshot, key: &Key, seen: &[u8]) -> Result<(), Miss> {
        let generation = &snapshot.generation;
        let locked = self.lock(generation).map_err(|_| Miss::Unavailable)?;
        self.with_room(generation).map_err(|_| Miss::Unavailable)?;
        let mut gone = false;
        let taken = sweep_in(generation, &locked, clock::coarse_micros(), |write, sweep| {
            let same = if Header::read(seen).is_some_and(|header| header.has(flags::CONTINUED)) {
                let mut current = Vec::with_capacity(seen.len());
                copy_record(write.txn(), key, &mut current)? && current == seen
            } else {
                write.txn().get(key.bytes())? == Some(seen)
            };
            gone = same && sweep.delete(write, key)?;
            Ok(())
        });
        drop(locked);
        taken.map_err(|fault| self.unavailable(snapshot, fault))?;
        if gone {
            Ok(())
        } else {
            Err(Miss::Absent)
        }
    }

    /// Calls `f` with every opaque record of a namespace that has not expired, until it says stop. No snapshot is held
    /// while it runs.
    pub(crate) fn each(
        self: &Arc<Self>,
        namespace: Namespace<'_>,
        mut f: impl FnMut(&[u8], &[u8], u32) -> bool,
    ) -> Result<()> {
        const BATCH: usize = 64;
        let mut from: Option<Key> = None;
        loop {
            let keys = thread::with(self, |thread| {
                let start = Key::opaque_start(namespace_hash(&thread.opened, namespace).1);
                let mut keys = Vec::new();
                let begin = from.unwrap_or(start);
                let mut collect = |txn: &mut Txn| {
                    keys.clear();
                    txn.walk(begin.bytes(), |key, _| {
                        let here = key.starts_with(start.bytes());
                        let key = Key::read(key).filter(|key| here && key.is_head());
                        if let Some(key) = key.filter(|key| from.is_none_or(|from| key.bytes() > from.bytes())) {
                            keys.push(key);
                        }
                        here && keys.len() < BATCH
                    })
                };
                let walked = self.read(&mut thread.now, &mut collect);
                walked.map(|()| keys).map_err(|fault| Error::new(Status::System, fault.text()))
            })??;
            let Some(last) = keys.last().copied() else { return Ok(()) };
            for key in &keys {
                let Some(id) = key.foreign_id() else { continue };
                let copied = self.get_opaque(id, namespace, false, |header, plain| (plain.to_vec(), header.expires));
                if let Ok((mut data, expires)) = copied {
                    let go_on = f(id, &data, expires);
                    super::cleanse(&mut data);
                    if !go_on {
                        return Ok(());
                    }
                }
            }
            from = Some(last);
        }
    }
}

/// The namespace as it stands in seals and in headers: 0 for the empty one.
pub(super) fn namespace_hash(opened: &OpenStore, namespace: Namespace<'_>) -> (u64, u32) {
    hash_namespace(&opened.control.names, namespace)
}

/// The same with the secret of the store's names at hand.
pub(super) fn hash_namespace(secret: &[u8; 16], namespace: Namespace<'_>) -> (u64, u32) {
    if namespace.0.is_empty() {
        return (0, 0);
    }
    let wide = hash_name(secret, "namespace", namespace.0.as_bytes());
    (wide, narrow_hash(wide))
}

/// The half of a namespace's hash that stands in headers; never 0, which is no namespace.
pub(super) fn narrow_hash(wide: u64) -> u32 {
    (wide >> 32) as u32 | 1
}

/// The key under which `id` is put: in time order when it is one of ours, whatever it is for.
pub(super) fn key_of(thread: &ThreadContext, id: &[u8], namespace: u32, kind: Kind, now: u64) -> Option<Key> {
    match (thread.opened.mask.decode(id, now, Store::latest(now)), kind) {
        (Decoded::Ours(key), _) => Some(key),
        (_, Kind::Session) => Key::foreign(namespace, id),
        (_, Kind::Opaque) => Key::opaque(namespace, id),
    }
}

/// Where `id` lies, if this store may have it at all, and what it is when nothing lies there. One of some 600,000 ids made
/// elsewhere reads like one of ours that has expired, so those are looked up as well.
pub(super) fn locate(
    thread: &ThreadContext,
    id: &[u8],
    namespace: u32,
    kind: Kind,
    now: u64,
) -> Result<(Key, Miss), Miss> {
    let (absent, otherwise) = match (thread.opened.mask.decode(id, now, Store::latest(now)), kind) {
        (Decoded::Ours(key), _) => return Ok((key, Miss::Absent)),
        (Decoded::Expired, _) => (Miss::Expired, Miss::Expired),
        (Decoded::Foreign, Kind::Session) => (Miss::Absent, Miss::Foreign),
        (Decoded::Foreign, Kind::Opaque) => (Miss::Absent, Miss::Absent),
    };
    let key = match kind {
        Kind::Opaque => Key::opaque(namespace, id),
        Kind::Session if has_foreign(thread) => Key::foreign(namespace, id),
        Kind::Session => None,
    };
    key.map(|key| (key, absent)).ok_or(otherwise)
}

fn has_foreign(thread: &ThreadContext) -> bool {
    let before = thread.before.as_ref();
    thread.now.generation.page().foreign.is_set()
        || before.is_some_and(|snapshot| snapshot.generation.page().foreign.is_set())
}

pub(super) fn copy_record(txn: &mut Txn, key: &Key, out: &mut Vec<u8>) -> Result<bool, Fault> {
    out.clear();
    match txn.get(key.bytes())? {
        Some(value) => out.extend_from_slice(value),
        None => return Ok(false),
    }
    if Header::read(out).is_some_and(|header| header.has(flags::CONTINUED)) {
        for n in 1..=u8::MAX {
            match txn.get(key.continuation(n).bytes())? {
                Some(value) => out.extend_from_slice(value),
                None => break,
            }
        }
    }
    Ok(true)
}
