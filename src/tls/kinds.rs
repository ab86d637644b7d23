//! Kinds of sessions that this process has decoded: decoding DER costs ten times a duplicate, with a certificate a hundred times.
//!
//! Sessions of one kind (cipher, flags, context, names, client certificate) have DER that differs in the secret and two times only.
//! Where all other bytes are those of a session that OpenSSL has decoded, a duplicate of that one is given the secret and the times,
//! by OpenSSL's own setters. A duplicate shares the certificate, which an application may change: only within one login, as it does
//! in OpenSSL's own cache. Never a way around the store: what is decoded here was found there, admitted, and proven by its seal.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use super::der::{self, Holes};
use super::session::{decode_whole, duplicate, is_der_of, NewSession, Session};
use crate::sys::fork_safe::RcuCell;
use crate::sys::process::incarnation;

/// Kinds that were met once are remembered by hash, so many of them at a time: what never comes again, as in a process that
/// answers one connection, is not worth keeping.
const MET: usize = 64;
/// Kinds that are spared once more when room is made, because they were used meanwhile.
const SPARED: usize = 16;

/// The kinds of one cache.
pub(super) struct Kinds {
    limit: usize,
    hasher: RandomState,
    met: [AtomicU64; MET],
    table: RcuCell<OfProcess>,
}

/// Begun anew in a forked child: another thread of the parent may have been changing the table, or using a certificate, at the fork.
struct OfProcess {
    process: u64,
    table: RwLock<Table>,
}

struct Table {
    by_hash: HashMap<u64, Arc<SessionKind>, RandomState>,
    /// The oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

struct SessionKind {
    /// Zero in the holes.
    der: Box<[u8]>,
    holes: Holes,
    /// The lineage of the login that it is for; 0 for all.
    lineage: u64,
    /// Without id, and with zeros for a secret.
    template: Session,
    used: AtomicBool,
}

impl SessionKind {
    /// Memory that a kind takes, measured by mallinfo2(3) with OpenSSL 3.0: 2 KiB without a certificate; 6 with one of a P-256
    /// key, 9 of an RSA key, 23 with one of 6 KB.
    fn size(der: &[u8]) -> usize {
        2_048 + (8 * der.len()).min(3_584 + 3 * der.len())
    }

    /// A kind by the first session of it, which was decoded from this DER; `None` when duplicates of it are not what
    /// decoding makes.
    fn of(der: &[u8], holes: &Holes, lineage: u64, session: &NewSession) -> Option<SessionKind> {
        // What an application's ex_data functions attach to each new session may not bear to be copied.
        if session.as_ref().has_attached() {
            return None;
        }
        let mut template = duplicate(session.as_ref())?;
        // As long as the secret that it replaces, so nothing of that remains.
        let blank = template.as_mut().set_secret(&vec![0; holes.secret.len()]);
        template.as_mut().set_times(1, 1);
        let mut rest: Box<[u8]> = der.into();
        holes.each().for_each(|hole| crate::store::cleanse(&mut rest[hole]));
        let kind = SessionKind {
            der: rest,
            holes: holes.clone(),
            lineage,
            template: template.share(),
            used: AtomicBool::new(false),
        };
        // OpenSSL itself says that nothing is lost: fields that this version does not know, or does not copy, make no kind.
        let proven = blank && is_der_of(kind.fill(der)?.as_ref(), der);
        proven.then_some(kind)
    }

    fn is_of(&self, der: &[u8], holes: &Holes, lineage: u64) -> bool {
        self.lineage == lineage
            && self.holes == *holes
            && self.der.len() == der.len()
            && holes.between(der).eq(holes.between(&self.der))
    }

    /// What decoding this DER of the same kind would make.
    fn fill(&self, der: &[u8]) -> Option<NewSession> {
        let mut session = duplicate(self.template.as_ref())?;
        let (time, timeout) =
            (der::number(&der[self.holes.time.clone()])?, der::number(&der[self.holes.timeout.clone()])?);
        session.as_mut().set_times(time, timeout);
        session.as_mut().set_secret(&der[self.holes.secret.clone()]).then_some(session)
    }

    /// Whether what it lends to duplicates, the certificate, is as it was decoded.
    fn is_untouched(&self) -> bool {
        !self.template.as_ref().has_attached_to_peer()
    }
}

impl Kinds {
    /// A table that takes at most `limit` bytes of memory; 0 turns it off.
    pub(super) fn new(limit: usize) -> Kinds {
        let met = [const { AtomicU64::new(0) }; MET];
        Kinds { limit, hasher: RandomState::new(), met, table: RcuCell::new() }
    }

    /// Bytes of memory that it takes at most.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The session of some DER and of a login with that lineage, with its id. The bytes were authenticated before.
    pub(super) fn decode(&self, der: &[u8], lineage: u64, id: &[u8]) -> Option<NewSession> {
        let mut session = match Holes::of(der).filter(|_| self.limit > 0) {
            None => decode_whole(der)?,
            Some(holes) => {
                let lineage = if holes.has_peer { lineage } else { 0 };
                let hash = self.hash(der, &holes, lineage);
                match self.find(hash, der, &holes, lineage) {
                    Some(session) => session,
                    None => {
                        let session = decode_whole(der)?;
                        self.keep(hash, der, &holes, lineage, &session);
                        session
                    }
                }
            }
        };
        session.as_mut().set_id(id).then_some(session)
    }

    fn hash(&self, der: &[u8], holes: &Holes, lineage: u64) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(lineage);
        holes.between(der).for_each(|part| hasher.write(part));
        hasher.finish()
    }

    fn table(&self) -> Option<&RwLock<Table>> {
        let process = incarnation();
        let of_process = || self.table.get().filter(|of| of.process == process);
        if of_process().is_none() {
            let by_hash = HashMap::with_hasher(self.hasher.clone());
            let table = Table { by_hash, order: VecDeque::new(), bytes: 0 };
            // Of two threads that come here at once, one loses an empty table.
            self.table.set(OfProcess { process, table: RwLock::new(table) });
        }
        of_process().map(|of| &of.table)
    }

    /// Nobody waits for the table: while somebody changes it, decoding is slower, not wrong.
    fn find(&self, hash: u64, der: &[u8], holes: &Holes, lineage: u64) -> Option<NewSession> {
        let of_process = self.table.get().filter(|of| of.process == incarnation())?;
        let kind = Arc::clone(of_process.table.try_read().ok()?.by_hash.get(&hash)?);
        if !kind.is_of(der, holes, lineage) || !kind.is_untouched() {
            return None;
        }
        if !kind.used.load(Ordering::Relaxed) {
            kind.used.store(true, Ordering::Relaxed);
        }
        kind.fill(der)
    }

    fn keep(&self, hash: u64, der: &[u8], holes: &Holes, lineage: u64, session: &NewSession) {
        let met = &self.met[hash as usize % MET];
        // A certificate costs so much that it is kept at once.
        if met.swap(hash, Ordering::Relaxed) != hash && !session.as_ref().has_peer() {
            return;
        }
        if SessionKind::size(der) > self.limit {
            return;
        }
        let (Some(table), Some(kind)) = (self.table(), SessionKind::of(der, holes, lineage, session)) else { return };
        // Freed when the lock is given back.
        let mut gone = Vec::new();
        let Ok(mut table) = table.try_write() else { return };
        table.insert(hash, Arc::new(kind), self.limit, &mut gone);
        drop(table);
    }
}

impl Table {
    fn insert(&mut self, hash: u64, kind: Arc<SessionKind>, limit: usize, gone: &mut Vec<Arc<SessionKind>>) {
        self.bytes += SessionKind::size(&kind.der);
        match self.by_hash.insert(hash, kind) {
            Some(replaced) => {
                self.bytes -= SessionKind::size(&replaced.der);
                gone.push(replaced);
            }
            None => self.order.push_back(hash),
        }
        let mut spared = 0;
        while self.bytes > limit {
            let Some(oldest) = self.order.pop_front() else { return };
            let used = self.by_hash.get(&oldest).is_some_and(|kind| kind.used.swap(false, Ordering::Relaxed));
            if used && spared < SPARED {
                spared += 1;
                self.order.push_back(oldest);
            } else if let Some(kind) = self.by_hash.remove(&oldest) {
                self.bytes -= SessionKind::size(&kind.der);
                gone.push(kind);
            }
        }
    }
}

/// Looks at the promises of this module and of `der`, with any bytes.
#[cfg(all(feature = "capi", any(test, fuzzing)))]
pub(crate) fn check_promises(bytes: &[u8]) {
    use super::session::{decode, der_of};

    let mut stripped = bytes.to_vec();
    if der::strip(&mut stripped).is_some() {
        let mut again = stripped.clone();
        assert!(der::strip(&mut again).is_some() && again == stripped, "what is stripped has something to strip");
    } else {
        assert!(stripped == bytes, "bytes that are not a session are changed");
    }
    let id = [7; 32];
    let made = |session: Option<NewSession>| session.map(|session| der_of(session.as_ref()));
    for der in [bytes, &stripped] {
        let kinds = Kinds::new(1 << 20);
        let decoded = made(decode(der, &id));
        for turn in 0..3 {
            assert!(made(kinds.decode(der, 1, &id)) == decoded, "turn {turn} of the same bytes makes another session");
        }
        let Some(holes) = Holes::of(der) else { continue };
        let filled = holes.each().map(|hole| hole.len()).sum::<usize>();
        assert_eq!(holes.between(der).map(<[u8]>::len).sum::<usize>() + filled, der.len(), "holes overlap");
        // Another of the kind, or one whose times OpenSSL rejects.
        let mut other = der.to_vec();
        holes.each().for_each(|hole| other[hole].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3) ^ 0x11));
        assert!(made(kinds.decode(&other, 1, &id)) == made(decode(&other, &id)), "a kind makes what decoding does not");
    }
}
