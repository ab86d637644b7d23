//! Looking up: copy out, let go of the snapshot, judge by the header, and only then decrypt.

use std::sync::Arc;

use super::env::{Fault, Txn};
use super::id::{Decoded, Key};
use super::record::{self, flags, Header, Record};
use super::seat::{self, Desk, Seat};
use super::write::sweep_in;
use super::{hash_name, name_hash, Namespace, Opened, Store};
use crate::log::{self, Kind};
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

/// What is to become of a record, by its header and tag alone.
pub(crate) enum Judgement<R> {
    /// Open it.
    Open,
    /// It may be returned to nobody who asks like this.
    Refuse(Miss),
    /// The caller has it decoded already.
    Have(R),
}

/// Whether the record stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It may be returned again.
    Peek,
    /// It is deleted in the same transaction that proves it was still there: of all who ask, one gets it.
    Take,
}

/// Hashes names under the store's secret, for a judge.
pub(crate) struct Names<'a>(&'a Opened);

impl Names<'_> {
    /// The hash that a header has for this server name.
    pub(crate) fn server(&self, name: &[u8]) -> u64 {
        name_hash(self.0, "server", name)
    }

    /// The hash that a header has for this namespace.
    pub(crate) fn namespace(&self, namespace: Namespace<'_>) -> u32 {
        namespace_hash(self.0, namespace).1
    }
}

impl Store {
    /// Looks up `id`. `judge` sees the header before anything is decrypted, `open` the plaintext, which is wiped after.
    pub(crate) fn get<R>(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        judge: impl FnOnce(&Header, &[u8; TAG], Names<'_>) -> (Judgement<R>, Use),
        open: impl FnOnce(&Header, &[u8; TAG], &[u8]) -> std::result::Result<R, Miss>,
    ) -> std::result::Result<R, Miss> {
        self.find(|seat, now| locate(seat, id, namespace, now), namespace, judge, open)
    }

    /// Looks up an opaque record.
    pub(crate) fn get_opaque<R>(
        self: &Arc<Self>,
        id: &[u8],
        namespace: Namespace<'_>,
        wanted: Use,
        open: impl FnOnce(&Header, &[u8]) -> R,
    ) -> std::result::Result<R, Miss> {
        let place = |seat: &Seat, now: u64| match seat.opened.mask.decode(id, now, Store::latest(now)) {
            Decoded::Ours(key) => Ok((key, Miss::Absent)),
            other => {
                let absent = if matches!(other, Decoded::Expired) { Miss::Expired } else { Miss::Absent };
                Key::opaque(namespace_hash(&seat.opened, namespace).1, id).map(|key| (key, absent)).ok_or(absent)
            }
        };
        let judge = |header: &Header, _: &[u8; TAG], names: Names<'_>| {
            let mine = header.has(flags::OPAQUE) && header.namespace == names.namespace(namespace);
            (if mine { Judgement::Open } else { Judgement::Refuse(Miss::Namespace) }, wanted)
        };
        self.find(place, namespace, judge, |header, _, plain| Ok(open(header, plain)))
    }

    fn find<R>(
        self: &Arc<Self>,
        place: impl FnOnce(&Seat, u64) -> std::result::Result<(Key, Miss), Miss>,
        namespace: Namespace<'_>,
        judge: impl FnOnce(&Header, &[u8; TAG], Names<'_>) -> (Judgement<R>, Use),
        open: impl FnOnce(&Header, &[u8; TAG], &[u8]) -> std::result::Result<R, Miss>,
    ) -> std::result::Result<R, Miss> {
        self.upkeep();
        let found = seat::with(self, |seat| {
            let now = clock::coarse_micros();
            let found = place(seat, now).and_then(|(key, absent)| {
                let found = self.find_at(seat, &key, now, namespace, judge, open);
                found.map_err(|miss| if miss == Miss::Absent { absent } else { miss })
            });
            let counter = found.as_ref().map_or_else(|miss| miss.counter(), |_| Counter::Hits);
            seat.opened.control.count(seat.shard, counter, 1);
            found
        });
        found.unwrap_or(Err(Miss::Unavailable))
    }

    fn find_at<R>(
        &self,
        seat: &mut Seat,
        key: &Key,
        now: u64,
        namespace: Namespace<'_>,
        judge: impl FnOnce(&Header, &[u8; TAG], Names<'_>) -> (Judgement<R>, Use),
        open: impl FnOnce(&Header, &[u8; TAG], &[u8]) -> std::result::Result<R, Miss>,
    ) -> std::result::Result<R, Miss> {
        let in_before = if self.copy_out(&mut seat.now, key, &mut seat.record)? {
            false
        } else {
            let before = seat.before.as_mut().ok_or(Miss::Absent)?;
            if !self.copy_out(before, key, &mut seat.record)? {
                return Err(Miss::Absent);
            }
            true
        };
        let desk = if in_before { seat.before.as_ref() } else { Some(&seat.now) };
        let horizon = desk.map_or(u64::MAX, |desk| desk.generation.gate.horizon(now));
        let bytes = std::mem::take(&mut seat.record);
        let result = (|| {
            let record = record::parse(&bytes).ok_or(Miss::Damaged)?;
            if !record.header.is_alive(now, horizon) {
                return Err(Miss::Expired);
            }
            let (judgement, wanted) = judge(&record.header, record.tag, Names(&seat.opened));
            if let Judgement::Refuse(miss) = judgement {
                return Err(miss);
            }
            if wanted == Use::Take {
                let desk = if in_before { seat.before.as_ref() } else { Some(&seat.now) };
                self.take_away(desk.ok_or(Miss::Absent)?, key, &bytes)?;
                seat.opened.control.count(seat.shard, Counter::Takes, 1);
            }
            match judgement {
                Judgement::Have(have) => Ok(have),
                _ => self.open_record(seat, key, &record, namespace, open),
            }
        })();
        seat.record = bytes;
        result
    }

    fn open_record<R>(
        &self,
        seat: &mut Seat,
        key: &Key,
        record: &Record<'_>,
        namespace: Namespace<'_>,
        open: impl FnOnce(&Header, &[u8; TAG], &[u8]) -> std::result::Result<R, Miss>,
    ) -> std::result::Result<R, Miss> {
        let (wide, _) = namespace_hash(&seat.opened, namespace);
        let opened = seat.sealer.open(record, (key.bytes(), wide), &mut seat.plain);
        let result = if opened { open(&record.header, record.tag, &seat.plain) } else { Err(Miss::Damaged) };
        if matches!(result, Err(Miss::Damaged)) {
            self.log.say(Kind::Damage, log::WARNING, || {
                "a session did not open: it is damaged, or its sealing key is gone".to_owned()
            });
        }
        result
    }

    /// Copies a whole record out of a snapshot; false when there is none.
    fn copy_out(&self, desk: &mut Desk, key: &Key, out: &mut Vec<u8>) -> std::result::Result<bool, Miss> {
        self.read(desk, |txn| copy_record(txn, key, out)).map_err(|fault| self.unavailable(desk, fault))
    }

    /// Reads a snapshot; without a reader slot, behind the gate. `f` may run again from the start.
    pub(super) fn read<T>(
        &self,
        desk: &mut Desk,
        mut f: impl FnMut(&mut Txn) -> std::result::Result<T, Fault>,
    ) -> std::result::Result<T, Fault> {
        let read = match desk.read(&mut f) {
            // LMDB publishes a reader before it has the root: two commits in between can look like a missing page.
            Ok(Err(Fault::Damaged(_))) => desk.read(&mut f),
            other => other,
        };
        match read.and_then(|done| done) {
            Err(fault @ (Fault::PidClash | Fault::ReadersFull | Fault::SlotsHeld { .. })) => {
                self.note_fault(&desk.generation, fault);
                let inside = self.enter(&desk.generation).map_err(|_| Fault::Shut)?;
                desk.generation.env.read_exclusively(&inside, f).and_then(|done| done)
            }
            done => done,
        }
    }

    fn unavailable(&self, desk: &Desk, fault: Fault) -> Miss {
        self.note_fault(&desk.generation, fault);
        Miss::Unavailable
    }

    /// Deletes what was read, if it is still the same. Only one of all takers succeeds.
    fn take_away(&self, desk: &Desk, key: &Key, seen: &[u8]) -> std::result::Result<(), Miss> {
        let generation = &desk.generation;
        let inside = self.enter(generation).map_err(|_| Miss::Unavailable)?;
        self.with_room(generation).map_err(|_| Miss::Unavailable)?;
        let mut gone = false;
        let taken = sweep_in(generation, &inside, clock::coarse_micros(), |write, sweep| {
            let same = if Header::read(seen).is_some_and(|header| header.has(flags::CONTINUED)) {
                let mut current = Vec::with_capacity(seen.len());
                copy_record(write.txn(), key, &mut current)? && current == seen
            } else {
                write.txn().get(key.bytes())? == Some(seen)
            };
            gone = same && sweep.delete(write, key)?;
            Ok(())
        });
        drop(inside);
        taken.map_err(|fault| self.unavailable(desk, fault))?;
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
            let keys = seat::with(self, |seat| {
                let start = Key::opaque_start(namespace_hash(&seat.opened, namespace).1);
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
                let walked = self.read(&mut seat.now, &mut collect);
                walked.map(|()| keys).map_err(|fault| Error::new(Status::System, fault.text()))
            })??;
            let Some(last) = keys.last().copied() else { return Ok(()) };
            for key in &keys {
                let Some(id) = key.foreign_id() else { continue };
                let copied =
                    self.get_opaque(id, namespace, Use::Peek, |header, plain| (plain.to_vec(), header.expires));
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
pub(super) fn namespace_hash(opened: &Opened, namespace: Namespace<'_>) -> (u64, u32) {
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

/// Where `id` lies, if this store may have it at all, and what it is when nothing lies there. One of some 600,000 ids made
/// elsewhere reads like one of ours that has expired, so those are looked up as well.
pub(super) fn locate(
    seat: &Seat,
    id: &[u8],
    namespace: Namespace<'_>,
    now: u64,
) -> std::result::Result<(Key, Miss), Miss> {
    let (absent, otherwise) = match seat.opened.mask.decode(id, now, Store::latest(now)) {
        Decoded::Ours(key) => return Ok((key, Miss::Absent)),
        Decoded::Expired => (Miss::Expired, Miss::Expired),
        Decoded::Foreign => (Miss::Absent, Miss::Foreign),
    };
    let any = seat.now.generation.gate.has_foreign()
        || seat.before.as_ref().is_some_and(|desk| desk.generation.gate.has_foreign());
    let key = if any { Key::foreign(namespace_hash(&seat.opened, namespace).1, id) } else { None };
    key.map(|key| (key, absent)).ok_or(otherwise)
}

pub(super) fn copy_record(txn: &mut Txn, key: &Key, out: &mut Vec<u8>) -> std::result::Result<bool, Fault> {
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
