//! Looking up: copy out, let go of the snapshot, look at the header, and only then decrypt.

use std::sync::Arc;

use super::control::Control;
use super::env::{Fault, Txn};
use super::found::{copy_record, Found, FoundIn, Miss, Stored};
use super::id::{DecodedId, Key};
use super::local::{LocalKey, LocalTable};
use super::names::{LazyNamespace, NamespaceHash};
use super::record::{self, flags, Header, RecordKind};
use super::thread::{self, Snapshot, ThreadContext};
use super::{Namespace, Store};
use crate::log;
use crate::stats::Counter;
use crate::status::Result;
use crate::sys::clock;

impl Store {
    /// Looks up `id`, and lets `f` say what becomes of the record: whether it may be returned, is taken, is opened.
    pub(crate) fn lookup<R>(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        kind: RecordKind,
        mut f: impl FnMut(&mut Found<'_>) -> Result<R, Miss>,
    ) -> Result<R, Miss> {
        self.maintenance();
        let mut is_final = false;
        let done = thread::with(self, |thread| {
            let done = self.find(thread, id, namespace, kind, |found| {
                is_final = true;
                f(found)
            });
            if done.is_err() && !is_final && self.may_be_in_memory(kind) {
                return done;
            }
            is_final = true;
            if matches!(done, Err(Miss::Damaged)) {
                self.log.say(log::Topic::Damage, log::WARNING, || {
                    "a session did not open: it is damaged, or its sealing key is gone".to_owned()
                });
            }
            let counter = done.as_ref().map_or_else(|miss| miss.counter(), |_| Counter::Hits);
            thread.opened.control.counters().add(thread.shard, counter, 1);
            done
        });
        match done {
            Ok(done) if is_final => done,
            Ok(missed) => self.lookup_in_memory(missed, id, namespace, kind, f),
            Err(_) => self.lookup_in_memory(Err(Miss::Unavailable), id, namespace, kind, f),
        }
    }

    #[inline]
    fn may_be_in_memory(&self, kind: RecordKind) -> bool {
        let until = self.local.as_ref().map_or(0, LocalTable::until);
        until != 0 && kind == RecordKind::Session && clock::seconds() < until
    }

    /// Looks up among the sessions that could not be stored, where the store has none.
    #[cold]
    fn lookup_in_memory<R>(
        &self,
        missed: Result<R, Miss>,
        id: &[u8],
        namespace: Namespace<'_>,
        kind: RecordKind,
        mut f: impl FnMut(&mut Found<'_>) -> Result<R, Miss>,
    ) -> Result<R, Miss> {
        let control = self.control();
        let local = self.local.as_ref().filter(|_| self.may_be_in_memory(kind));
        let key = local.and_then(|_| self.local_key(control, id, namespace));
        let found = local.zip(key).and_then(|(local, key)| local.find(key, clock::micros()));
        let done = match found {
            Some(record) => {
                let mut found = Found { header: record.header, place: FoundIn::Memory { record, control } };
                f(&mut found).inspect(|_| control.count(Counter::HitsLocal, 1))
            }
            None => missed,
        };
        control.count(done.as_ref().map_or_else(|miss| miss.counter(), |_| Counter::Hits), 1);
        done
    }

    /// What names a session among those that could not be stored.
    pub(super) fn local_key(&self, control: &Control, id: &[u8], namespace: Namespace<'_>) -> Option<LocalKey> {
        LocalKey::new(control.flush_number(), id, NamespaceHash::of(&control.names, namespace))
    }

    /// Calls `open` with an application's own record, and deletes it first if it is to be taken.
    pub(crate) fn get_opaque<R>(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        take: bool,
        open: impl FnOnce(&Header, &[u8]) -> R,
    ) -> Result<R, Miss> {
        let mut open = Some(open);
        self.lookup(id, namespace, RecordKind::Opaque, |found| {
            if !found.header.has(flags::OPAQUE) || !found.is_of_namespace() {
                return Err(Miss::Namespace);
            }
            if take {
                found.take()?;
            }
            let header = found.header;
            let open = open.take().ok_or(Miss::Absent)?;
            found.open().map(|plain| open(&header, plain))
        })
    }

    pub(super) fn find<R>(
        &self,
        thread: &mut ThreadContext,
        id: &[u8],
        namespace: Namespace<'_>,
        kind: RecordKind,
        f: impl FnOnce(&mut Found<'_>) -> Result<R, Miss>,
    ) -> Result<R, Miss> {
        let now = clock::coarse_micros();
        let namespace = LazyNamespace::new(namespace);
        let (key, absent) = locate(thread, id, kind, &namespace, now)?;
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
        if !thread.sealer.keys().has(header.key_number) {
            return Err(Miss::Damaged);
        }
        let stored = Stored { key: &key, namespace: &namespace, in_before, store: self, thread };
        let mut found = Found { header, place: FoundIn::Store(stored) };
        f(&mut found)
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
        match snapshot.read(&mut f) {
            Err(fault @ (Fault::PidClash | Fault::ReadersFull | Fault::SlotsHeld { .. })) => {
                self.note_fault(&snapshot.generation, fault);
                let locked = self.lock(&snapshot.generation)?;
                snapshot.generation.env.read_exclusively(&locked, f)
            }
            done => done,
        }
    }

    pub(super) fn unavailable(&self, snapshot: &Snapshot, fault: Fault) -> Miss {
        self.note_fault(&snapshot.generation, fault);
        Miss::Unavailable
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
                let start = Key::opaque_start(thread.opened.namespace_hash(namespace).half());
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
                self.read(&mut thread.now, &mut collect).map(|()| keys)
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

/// Where `id` lies, if this store may have it at all, and what it is when nothing lies there. What an application puts under an id
/// of ours past its time lies outside the time order. An id that cannot be there has cost no hash of the namespace.
fn locate(
    thread: &ThreadContext,
    id: &[u8],
    kind: RecordKind,
    namespace: &LazyNamespace<'_>,
    now: u64,
) -> Result<(Key, Miss), Miss> {
    let decoded = thread.opened.decode(id, now);
    let (absent, otherwise) = match (&decoded, kind) {
        (DecodedId::Expired, _) => (Miss::Expired, Miss::Expired),
        (DecodedId::Foreign, RecordKind::Session) => (Miss::Absent, Miss::Foreign),
        (DecodedId::Ours(_), _) | (DecodedId::Foreign, RecordKind::Opaque) => (Miss::Absent, Miss::Absent),
    };
    if !matches!(decoded, DecodedId::Ours(_)) && !has_foreign(thread) {
        return Err(otherwise);
    }
    let key = decoded.key(id, kind, || namespace.hash(&thread.opened.control.names).half());
    key.map(|key| (key, absent)).ok_or(otherwise)
}

fn has_foreign(thread: &ThreadContext) -> bool {
    let before = thread.before.as_ref();
    thread.now.generation.page().foreign.is_set()
        || before.is_some_and(|snapshot| snapshot.generation.page().foreign.is_set())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_forged_id_costs_no_hash_of_the_namespace() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store");
        let store = Store::open(&path, &Options::parse("capacity=1MiB").unwrap()).unwrap();
        let is_hashed = |id: &[u8]| {
            let namespace = LazyNamespace::new(Namespace("shop"));
            let located = thread::with(&store, |thread| {
                locate(thread, id, RecordKind::Session, &namespace, clock::coarse_micros()).is_ok()
            });
            (located.unwrap(), namespace.hash.get().is_some())
        };
        assert_eq!(is_hashed(&[7; 32]), (false, false));
        let mut header = Header { expires: u32::MAX, ..Header::default() };
        store.put_opaque(b"made elsewhere", Namespace("shop"), &mut header, b"plain").unwrap();
        assert_eq!(is_hashed(&[7; 32]), (true, true), "an id made elsewhere is looked for without its namespace");
    }
}
