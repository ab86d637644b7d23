//! Sealing records with AES-256-GCM.

use std::sync::Arc;

use super::id::KEY_MAX;
use super::keys::{Keys, SealingKey};
use super::record::{flags, Header, SealedRecord, HEADER, OVERHEAD};
use super::siphash::siphash128;
use crate::sys::crypto::{self, Cipher, NONCE, TAG};

/// What a seal proves besides plaintext and header, so that a record opens nowhere else.
#[derive(Clone, Copy)]
pub(crate) struct AssociatedData<'a> {
    /// The record's key in the tree.
    pub(crate) key: &'a [u8],
    /// The whole hash of its namespace.
    pub(crate) namespace: u64,
}

/// The secret of a session ends before so many bytes of its DER (ssl_asn1.c: SSL_SESSION_ASN1), and no two sessions share it. What
/// follows, certificates above all, would only make the nonce dearer.
const SECRET_WITHIN: usize = 128;
const ASSOCIATED_MAX: usize = HEADER + KEY_MAX + 8;

impl AssociatedData<'_> {
    /// Calls `f` with all that is proven, in one piece: every call into OpenSSL costs as much as a hundred bytes. `None` when
    /// the key is longer than any key.
    fn after<R>(self, header: &[u8; HEADER], f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut bytes = [0; ASSOCIATED_MAX];
        let all = bytes.get_mut(..HEADER + self.key.len() + 8)?;
        let (head, rest) = all.split_first_chunk_mut::<HEADER>()?;
        let (key, namespace) = rest.split_last_chunk_mut::<8>()?;
        *head = *header;
        key.copy_from_slice(self.key);
        *namespace = self.namespace.to_be_bytes();
        Some(f(all))
    }
}

/// Seals and opens for one thread, with cipher contexts that are kept.
pub(crate) struct Sealer {
    keys: Arc<Keys>,
    sealing: Option<Cipher>,
    opening: Vec<Option<Cipher>>,
    /// How many records were sealed, from a random start, per thread and anew after fork. `None` until the first one: a child that
    /// only looks up needs no random bytes.
    count: Option<u128>,
}

impl Sealer {
    /// For a thread that starts.
    pub(crate) fn new(keys: Arc<Keys>) -> Sealer {
        Sealer { opening: keys.all().iter().map(|_| None).collect(), sealing: None, keys, count: None }
    }

    /// For one operation, of a count that goes up with each.
    pub(crate) fn counting_from(keys: Arc<Keys>, count: u128) -> Sealer {
        Sealer { count: Some(count), ..Sealer::new(keys) }
    }

    fn next_count(&mut self) -> Option<[u8; 16]> {
        let last = match self.count {
            Some(last) => last,
            None => {
                let mut start = [0_u8; 16];
                crypto::random(&mut start).then(|| u128::from_le_bytes(start))?
            }
        };
        let next = last.wrapping_add(1);
        self.count = Some(next);
        Some(next.to_le_bytes())
    }

    /// The keys in use.
    pub(crate) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Goes on with other keys.
    pub(crate) fn change(&mut self, keys: Arc<Keys>) {
        *self = Sealer { count: self.count, ..Sealer::new(keys) };
    }

    /// Writes the whole record to `out`, and notes the key in the header.
    pub(crate) fn seal(
        &mut self,
        header: &mut Header,
        associated: AssociatedData<'_>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let count = self.next_count()?;
        let key = self.keys.all().first()?;
        if self.sealing.is_none() {
            self.sealing = Cipher::sealing(&key.secret);
        }
        header.key_number = key.number;
        out.clear();
        out.resize(OVERHEAD + plain.len(), 0);
        let (head, rest) = out.split_first_chunk_mut::<HEADER>()?;
        let (nonce_out, rest) = rest.split_first_chunk_mut::<NONCE>()?;
        let (sealed, tag_out) = rest.split_last_chunk_mut::<TAG>()?;
        header.write(head);
        let cipher = self.sealing.as_mut()?;
        let telling = if header.has(flags::OPAQUE) { plain } else { &plain[..plain.len().min(SECRET_WITHIN)] };
        *tag_out = associated.after(head, |associated| {
            *nonce_out = nonce(key, &count, associated, telling);
            cipher.seal(nonce_out, associated, plain, sealed)
        })??;
        Some(())
    }

    /// Opens a record into `out`; false when no key proves it.
    pub(crate) fn open(
        &mut self,
        record: &SealedRecord<'_>,
        associated: AssociatedData<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        out.resize(record.sealed.len(), 0);
        let opened = record.header_bytes.first_chunk().and_then(|header| {
            associated.after(header, |associated| {
                let numbered = |(key, _): &(&SealingKey, _)| key.number == record.header.key_number;
                self.keys.all().iter().zip(&mut self.opening).filter(numbered).any(|(key, cipher)| {
                    *cipher = cipher.take().or_else(|| Cipher::opening(&key.secret));
                    let cipher = cipher.as_mut();
                    cipher.is_some_and(|cipher| cipher.open(record.nonce, associated, record.sealed, record.tag, out))
                })
            })
        });
        opened == Some(true)
    }
}

/// A nonce that follows from what makes a seal differ from others, under a secret: equal for equal records alone, or by a chance of
/// 1 in 2^96. A counter by itself, or random bytes drawn before, repeat in the copy of a machine that is resumed twice, for
/// records that differ; and so may what the kernel draws then.
fn nonce(key: &SealingKey, count: &[u8; 16], associated: &[u8], plain: &[u8]) -> [u8; NONCE] {
    let keys = [count, associated, plain].into_iter().fold(key.nonces, siphash128);
    let mut nonce = [0; NONCE];
    nonce[..8].copy_from_slice(&keys.0.to_le_bytes());
    nonce[8..].copy_from_slice(&keys.1.to_le_bytes()[..4]);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::store::Store;

    #[test]
    fn a_copy_of_a_machine_seals_with_other_nonces_unless_it_seals_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("store");
        let store = Store::open(&path, &Options::parse("capacity=1MiB").unwrap()).unwrap();
        let keys = Arc::clone(&store.obtain().unwrap().keys);
        let seal = |sealer: &mut Sealer, key: &[u8], plain: &[u8]| {
            let mut record = Vec::new();
            sealer.seal(&mut Header::default(), AssociatedData { key, namespace: 1 }, plain, &mut record).unwrap();
            <[u8; NONCE]>::try_from(&record[HEADER..HEADER + NONCE]).unwrap()
        };
        let mut sealer = Sealer::new(Arc::clone(&keys));
        seal(&mut sealer, b"before", b"the machine is copied");
        let sealed = |key: &[u8], plain: &[u8]| {
            let mut copy = Sealer { count: sealer.count, ..Sealer::new(Arc::clone(&keys)) };
            seal(&mut copy, key, plain)
        };
        let nonce = sealed(b"key", b"one session");
        assert_eq!(nonce, sealed(b"key", b"one session"), "this copy is none");
        assert_ne!(nonce, sealed(b"key", b"two session"));
        assert_ne!(nonce, sealed(b"kez", b"one session"));
        assert_ne!(seal(&mut sealer, b"key", b"one session"), seal(&mut sealer, b"key", b"one session"));
    }
}
