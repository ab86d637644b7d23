//! Sealing records with AES-256-GCM.

use std::sync::Arc;

use super::id::KEY_MAX;
use super::keys::{Keys, SealingKey};
use super::record::{Header, SealedRecord, HEADER, OVERHEAD};
use crate::sys::crypto::{self, Cipher, NONCE, TAG};

/// What a seal proves besides plaintext and header, so that a record opens nowhere else.
#[derive(Clone, Copy)]
pub(crate) struct AssociatedData<'a> {
    /// The record's key in the tree.
    pub(crate) key: &'a [u8],
    /// The whole hash of its namespace.
    pub(crate) namespace: u64,
}

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

/// Seals and opens for one thread: kept cipher contexts, and a nonce that never repeats.
pub(crate) struct Sealer {
    keys: Arc<Keys>,
    sealing: Option<Cipher>,
    opening: Vec<Option<Cipher>>,
    /// A 96-bit counter from a random start, per thread and anew after fork: a hundred million threads that seal a
    /// million records each meet with a chance of 2^-23 (96 bits less 2 times 27 bits less 20 bits, halved). `None` until
    /// the first record is sealed: a child that only looks up needs no random bytes.
    nonce: Option<u128>,
}

impl Sealer {
    /// For a thread that starts.
    pub(crate) fn new(keys: Arc<Keys>) -> Sealer {
        Sealer { opening: keys.all().iter().map(|_| None).collect(), sealing: None, keys, nonce: None }
    }

    fn next_nonce(&mut self) -> Option<[u8; NONCE]> {
        let last = match self.nonce {
            Some(last) => last,
            None => {
                let mut start = [0_u8; 16];
                crypto::random(&mut start[..NONCE]).then(|| u128::from_le_bytes(start))?
            }
        };
        let next = last.wrapping_add(1);
        self.nonce = Some(next);
        next.to_le_bytes().first_chunk().copied()
    }

    /// The keys in use.
    pub(crate) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Goes on with other keys.
    pub(crate) fn change(&mut self, keys: Arc<Keys>) {
        *self = Sealer { nonce: self.nonce, ..Sealer::new(keys) };
    }

    /// Writes the whole record to `out`, notes the key in the header, and says the tag.
    pub(crate) fn seal(
        &mut self,
        header: &mut Header,
        associated: AssociatedData<'_>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<[u8; TAG]> {
        let nonce = self.next_nonce()?;
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
        *nonce_out = nonce;
        let cipher = self.sealing.as_mut()?;
        *tag_out = associated.after(head, |associated| cipher.seal(&nonce, associated, plain, sealed))??;
        Some(*tag_out)
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
