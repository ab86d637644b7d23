//! A record that a lookup has found, in the store or in memory, and why there may be none.

use super::control::{Control, Flushes};
use super::env::{Fault, Txn};
use super::id::Key;
use super::local::LocalRecord;
use super::names::{self, LazyNamespace, NamespaceHash};
use super::record::{self, flags, Header};
use super::seal::AssociatedData;
use super::thread::ThreadContext;
use super::Store;
use crate::stats::Counter;
use crate::sys::clock;

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
    /// Under a cipher that the connection does not allow.
    Cipher,
    /// Ended by `sesscache_forget`.
    Revoked,
    /// Does not open.
    Damaged,
    /// The store could not be asked.
    Unavailable,
}

impl Miss {
    pub(super) fn counter(self) -> Counter {
        match self {
            Miss::Absent => Counter::MissesAbsent,
            Miss::Foreign => Counter::MissesForeign,
            Miss::Expired => Counter::MissesExpired,
            Miss::Protocol => Counter::MissesProtocol,
            Miss::Namespace => Counter::MissesNamespace,
            Miss::ServerName => Counter::MissesServerName,
            Miss::ClientAuth => Counter::MissesClientAuth,
            Miss::Cipher => Counter::MissesCipher,
            Miss::Revoked => Counter::MissesRevoked,
            Miss::Damaged => Counter::MissesDamaged,
            Miss::Unavailable => Counter::MissesUnavailable,
        }
    }
}

/// A record that was found, copied out of the store, and is within its time. Its header is not proven before it is opened.
pub(crate) struct Found<'s> {
    pub(crate) header: Header,
    pub(super) place: FoundIn<'s>,
}

/// Where it was found.
pub(super) enum FoundIn<'s> {
    Store(Stored<'s>),
    Memory { record: LocalRecord<'s>, control: &'s Control },
}

/// A record that lies in the store, copied into the thread's context.
pub(super) struct Stored<'s> {
    pub(super) key: &'s Key,
    /// The caller's.
    pub(super) namespace: &'s LazyNamespace<'s>,
    /// It lies in the generation before.
    pub(super) in_before: bool,
    pub(super) store: &'s Store,
    pub(super) thread: &'s mut ThreadContext,
}

impl Found<'_> {
    fn control(&self) -> &Control {
        match &self.place {
            FoundIn::Store(stored) => &stored.thread.opened.control,
            FoundIn::Memory { control, .. } => control,
        }
    }

    /// Whether it is of the namespace under which it was looked up.
    pub(crate) fn is_of_namespace(&self) -> bool {
        let namespace = match &self.place {
            FoundIn::Store(stored) => stored.namespace_hash(),
            FoundIn::Memory { record, .. } => record.namespace(),
        };
        self.header.namespace == namespace.half()
    }

    /// Whether it was never in the store. Then nobody promises that it is used once in all processes.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.place, FoundIn::Memory { .. })
    }

    /// Whether its login was ended.
    pub(crate) fn is_revoked(&self) -> bool {
        self.control().tombstones().has(self.header.login(), clock::seconds())
    }

    /// How often the store was flushed before this lookup.
    pub(crate) fn flushes(&self) -> Flushes {
        self.control().flushes()
    }

    /// The hash that a header has for this server name.
    pub(crate) fn server_name_hash(&self, name: &[u8]) -> u64 {
        names::server_name_hash(&self.control().names, name)
    }

    /// Deletes it, if it is still the same: of all who take it, in all processes, one succeeds.
    pub(crate) fn take(&mut self) -> Result<(), Miss> {
        match &mut self.place {
            FoundIn::Store(stored) => stored.take(),
            FoundIn::Memory { record, control } => {
                record.take().then(|| control.count(Counter::Takes, 1)).ok_or(Miss::Absent)
            }
        }
    }

    /// Decrypts it. The plaintext is wiped when the lookup ends.
    pub(crate) fn open(&mut self) -> Result<&[u8], Miss> {
        match &mut self.place {
            FoundIn::Store(stored) => stored.open(),
            FoundIn::Memory { record, .. } => record.open().ok_or(Miss::Damaged),
        }
    }
}

impl Stored<'_> {
    fn namespace_hash(&self) -> NamespaceHash {
        self.namespace.hash(&self.thread.opened.control.names)
    }

    fn take(&mut self) -> Result<(), Miss> {
        let ThreadContext { now, before, record, plain, .. } = &mut *self.thread;
        let snapshot = if self.in_before { before.as_ref() } else { Some(&*now) };
        let snapshot = snapshot.ok_or(Miss::Absent)?;
        // It may have been opened already, and what is not there any more writes nothing over it.
        super::cleanse(plain);
        let same = |txn: &mut Txn| Ok(copy_record(txn, self.key, plain)? && plain == record);
        match self.store.delete_if(&snapshot.generation, self.key, same) {
            Ok(true) => self.thread.opened.control.counters().add(self.thread.shard, Counter::Takes, 1),
            Ok(false) => return Err(Miss::Absent),
            Err(fault) => return Err(self.store.unavailable(snapshot, fault)),
        }
        Ok(())
    }

    fn open(&mut self) -> Result<&[u8], Miss> {
        let associated = AssociatedData { key: self.key.bytes(), namespace: self.namespace_hash().whole() };
        let ThreadContext { record, sealer, plain, .. } = &mut *self.thread;
        let record = record::parse(record).ok_or(Miss::Damaged)?;
        let opened = sealer.open(&record, associated, plain);
        opened.then_some(&plain[..]).ok_or(Miss::Damaged)
    }
}

pub(crate) fn copy_record(txn: &mut Txn, key: &Key, out: &mut Vec<u8>) -> Result<bool, Fault> {
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
