//! Sessions that could not be stored, in memory that this process shares with the children it forks.
//!
//! They resume as long as the store is away: after chroot(2) or setuid(2), beside a stopped writer, on a full file system. A lookup or
//! a put needs no file, no lock and no system call. The records are sealed as in the store, under a key that is made with the
//! table and lies in no file; what is read torn does not open. A flush ends them all: its number is a part of what names a record.

mod ring;

use std::sync::atomic::Ordering;
use std::sync::Arc;

use self::ring::{Ring, RingEntry};
use super::id::ID;
use super::keys::Keys;
use super::names::NamespaceHash;
use super::record::{self, flags, Header};
use super::seal::{AssociatedData, Sealer};
use super::siphash::siphash;
use crate::status::{Error, Result};
use crate::sys::crypto;
use crate::sys::shared_memory::SharedMemory;

/// A clock that is set back by less than so many seconds costs nobody a session.
const SET_BACK: u64 = 3_600;

/// The table. All processes that inherited it see the same.
pub(crate) struct LocalTable {
    ring: Ring<SharedMemory>,
    keys: Arc<Keys>,
    /// The secret under which records are found.
    secret: (u64, u64),
    size: u64,
}

/// What names a record here: how often the store had been flushed, its id, its namespace.
pub(crate) struct LocalKey {
    bytes: [u8; 8 + ID],
    len: usize,
    namespace: NamespaceHash,
}

/// A record that was found. Its header is not proven before it is opened.
pub(crate) struct LocalRecord<'t> {
    pub(crate) header: Header,
    table: &'t LocalTable,
    place: RingEntry<'t>,
    key: LocalKey,
    record: Vec<u8>,
    /// Wiped when it is dropped.
    plain: Vec<u8>,
}

/// The words beside the ring.
#[derive(Clone, Copy)]
enum Beside {
    /// The second in which the last record expires; 0 when there never was one.
    Until,
    /// The longest life that a record was ever put with, in seconds.
    Longest,
    /// How many records were sealed.
    Sealed,
}

impl LocalKey {
    /// `None` when no session has so long an id.
    pub(crate) fn new(flushes: u64, id: &[u8], namespace: NamespaceHash) -> Option<LocalKey> {
        let mut bytes = [0; 8 + ID];
        let len = 8 + id.len();
        bytes[..8].copy_from_slice(&flushes.to_be_bytes());
        bytes.get_mut(8..len)?.copy_from_slice(id);
        Some(LocalKey { bytes, len, namespace })
    }

    fn hash(&self, (one, two): (u64, u64)) -> u64 {
        siphash(one ^ self.namespace.whole(), two, &self.bytes[..self.len])
    }

    fn associated(&self) -> AssociatedData<'_> {
        AssociatedData { key: &self.bytes[..self.len], namespace: self.namespace.whole() }
    }
}

impl LocalTable {
    /// Maps a table of so many bytes, which exist once they are used.
    pub(crate) fn new(size: u64) -> Result<LocalTable> {
        let failed = |e| Error::system(format_args!("cannot map {size} bytes for local="), &e);
        let memory = SharedMemory::new(size as usize / 8).map_err(|e| failed(e).remedy("give local=off"))?;
        let mut secret = [[0_u8; 8]; 2];
        if !crypto::random(secret.as_flattened_mut()) {
            return Err(Error::no_random());
        }
        let keys = Keys::of_this_process().ok_or_else(Error::no_random)?;
        Ok(LocalTable { ring: Ring::new(memory), keys, secret: secret.map(u64::from_ne_bytes).into(), size })
    }

    /// Bytes of the table.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn beside(&self, word: Beside) -> &std::sync::atomic::AtomicU64 {
        self.ring.beside(word as usize)
    }

    /// Until which second anything in it is of use; 0 when there was never anything.
    #[inline]
    pub(crate) fn until(&self) -> u64 {
        self.beside(Beside::Until).load(Ordering::Relaxed)
    }

    /// Keeps a session at the second `now`; completes the header as the record has it. False when it takes more than a
    /// quarter of the table, or OpenSSL cannot seal it.
    pub(crate) fn put(&self, key: &LocalKey, header: &mut Header, plain: &[u8], now: u64) -> bool {
        header.namespace = key.namespace.half();
        header.flags &= !flags::CONTINUED;
        let sealed = self.beside(Beside::Sealed).fetch_add(1, Ordering::Relaxed);
        let mut record = Vec::new();
        let mut sealer = Sealer::counting_from(Arc::clone(&self.keys), u128::from(sealed));
        if sealer.seal(header, key.associated(), plain, &mut record).is_none() {
            return false;
        }
        let end = u64::from(header.expires);
        self.beside(Beside::Longest).fetch_max(end.saturating_sub(now), Ordering::Relaxed);
        let kept = self.ring.keep(key.hash(self.secret), &record);
        self.beside(Beside::Until).fetch_max(end, Ordering::Relaxed);
        kept
    }

    /// Finds a session that is within its time at the moment `now` (microseconds).
    pub(crate) fn find(&self, key: LocalKey, now: u64) -> Option<LocalRecord<'_>> {
        let mut record = Vec::new();
        let place = self.ring.find(key.hash(self.secret), &mut record)?;
        let header = record::parse(&record)?.header;
        let longest = self.beside(Beside::Longest).load(Ordering::Relaxed).saturating_add(SET_BACK);
        let horizon = now.saturating_add(longest.saturating_mul(1_000_000));
        let is_usable = header.is_alive(now, horizon) && self.keys.has(header.key_number);
        is_usable.then_some(LocalRecord { header, table: self, place, key, record, plain: Vec::new() })
    }

    /// Removes what is under this key; whether there was anything.
    pub(crate) fn remove(&self, key: &LocalKey) -> bool {
        self.ring.remove(key.hash(self.secret))
    }
}

impl LocalRecord<'_> {
    /// The namespace under which it was looked up.
    pub(crate) fn namespace(&self) -> NamespaceHash {
        self.key.namespace
    }

    /// Takes it out: of all who take it, in all processes, one succeeds.
    pub(crate) fn take(&self) -> bool {
        self.table.ring.take(self.place)
    }

    /// Decrypts it; `None` when it does not prove itself.
    pub(crate) fn open(&mut self) -> Option<&[u8]> {
        let record = record::parse(&self.record)?;
        let mut sealer = Sealer::new(Arc::clone(&self.table.keys));
        sealer.open(&record, self.key.associated(), &mut self.plain).then_some(&self.plain[..])
    }
}

impl Drop for LocalRecord<'_> {
    fn drop(&mut self) {
        crypto::cleanse(&mut self.plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn a_session_opens_under_its_own_id_flush_and_namespace_and_no_other() {
        let table = LocalTable::new(64 << 10).unwrap();
        let now = clock::seconds();
        let mut header = Header { expires: now as u32 + 60, ..Header::default() };
        let key = |flushes, id: &[u8], namespace| LocalKey::new(flushes, id, NamespaceHash::noted(namespace)).unwrap();
        assert_eq!(table.until(), 0);
        assert!(table.put(&key(7, b"id", 1), &mut header, b"a session", now));
        assert_eq!(table.until(), now + 60);
        let find = |key, now| table.find(key, now * 1_000_000);
        let mut found = find(key(7, b"id", 1), now).unwrap();
        assert_eq!(found.open(), Some(&b"a session"[..]));
        assert!(find(key(8, b"id", 1), now).is_none(), "a flush has not ended it");
        assert!(find(key(7, b"ie", 1), now).is_none() && find(key(7, b"id", 2), now).is_none());
        assert!(find(key(7, b"id", 1), now + 60).is_none(), "it has expired");
        assert!(find(key(7, b"id", 1), now - 2 * SET_BACK).is_none(), "the clock was set back");
        assert!(found.take() && !found.take() && find(key(7, b"id", 1), now).is_none());
        assert!(LocalKey::new(0, &[0; 33], NamespaceHash::default()).is_none());
    }

    #[test]
    fn a_record_that_was_written_over_does_not_open() {
        let table = LocalTable::new(64 << 10).unwrap();
        let now = clock::seconds();
        let mut header = Header { expires: now as u32 + 60, ..Header::default() };
        let key = || LocalKey::new(1, &[1; ID], NamespaceHash::default()).unwrap();
        for at in 0..80 {
            assert!(table.put(&key(), &mut header, b"a session", now));
            let mut found = table.find(key(), now * 1_000_000).unwrap();
            if let Some(byte) = found.record.get_mut(at) {
                *byte ^= 1;
                assert!(found.open().is_none(), "byte {at}");
            }
        }
    }
}
