//! Sealing: AES-256-GCM under the keys of the key file. The first key seals, all of them open.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::directory::{check_private, Directory};
use super::id::{name_hash, KEY_MAX};
use super::record::{Header, Record, HEADER, OVERHEAD};
use crate::status::{Error, Result, Status};
use crate::sys::crypto::{self, Cipher, KEY, NONCE, TAG};
use crate::sys::files::{self, Access};

/// Most keys that a file may hold.
const KEYS_MAX: usize = 16;

/// The keys of one reading of the file.
pub(crate) struct Keys {
    keys: Vec<Key>,
    /// Tells whether the file changed: inode, size, time of change.
    stamp: (u64, u64, i64, i64),
}

struct Key {
    secret: [u8; KEY],
    /// Names the key in a record, without showing it.
    number: u16,
}

impl Drop for Key {
    fn drop(&mut self) {
        crypto::cleanse(&mut self.secret);
    }
}

impl Keys {
    /// Makes the key file unless it is there, or is the operator's.
    pub(crate) fn create(dir: &Directory) -> Result<()> {
        if dir.key_is_foreign {
            return Keys::load(dir).map(|_| ());
        }
        match fs::symlink_metadata(&dir.key) {
            Ok(_) => Keys::load(dir).map(|_| ()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                write_new_key(&dir.key, dir.access, |from, to| match fs::hard_link(from, to) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    other => other,
                })
            }
            Err(e) => Err(Error::system(format_args!("cannot look at {}", dir.key.display()), &e)),
        }
    }

    /// Puts one new key in the place of all keys: what was sealed before cannot be read any more.
    pub(crate) fn replace(dir: &Directory) -> Result<()> {
        write_new_key(&dir.key, dir.access, |from, to| fs::rename(from, to))
    }

    /// Reads the file.
    pub(crate) fn load(dir: &Directory) -> Result<Arc<Keys>> {
        let path = &dir.key;
        let failed =
            |e: &io::Error| Error::system(format_args!("cannot read the sealing keys in {}", path.display()), e);
        let mut file = fs::OpenOptions::new();
        let mut file = {
            use std::os::unix::fs::OpenOptionsExt;
            file.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(|e| failed(&e))?
        };
        let meta = file.metadata().map_err(|e| failed(&e))?;
        check_private(path, &meta, dir.access)?;
        let len = meta.len() as usize;
        if !meta.is_file() || len == 0 || len % KEY != 0 || len > KEYS_MAX * KEY {
            return Err(Error::new(
                Status::Invalid,
                format!(
                    "{} must hold 1 to {KEYS_MAX} keys of {KEY} bytes; make one with: openssl rand -out {} {KEY}",
                    path.display(),
                    path.display()
                ),
            ));
        }
        let mut secrets = vec![0_u8; len];
        let read = file.read_exact(&mut secrets).map_err(|e| failed(&e));
        let keys = secrets
            .chunks_exact(KEY)
            .map(|secret| Key { secret: secret.try_into().expect("KEY bytes"), number: number(secret) })
            .collect();
        crypto::cleanse(&mut secrets);
        read?;
        Ok(Arc::new(Keys { keys, stamp: stamp(&meta) }))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether the file is no longer the one that was read.
    pub(crate) fn changed(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|meta| stamp(&meta) != self.stamp)
    }
}

/// A hash of one half of the key under the other.
fn number(secret: &[u8]) -> u16 {
    let (half, rest) = secret.split_at(KEY / 2);
    half.first_chunk().map_or(0, |half| name_hash(half, rest)) as u16
}

fn stamp(meta: &fs::Metadata) -> (u64, u64, i64, i64) {
    (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec())
}

fn write_new_key(path: &Path, access: Access, place: impl Fn(&Path, &Path) -> io::Result<()>) -> Result<()> {
    let mut secret = [0_u8; KEY + 8];
    if !crypto::random(&mut secret) {
        return Err(Error::new(Status::System, "the kernel has no random bytes to give"));
    }
    let name = u64::from_ne_bytes(secret[KEY..].try_into().expect("8 bytes"));
    let temporary = path.with_file_name(format!("key.{name:016x}"));
    let allowed = files::within_file_limit(KEY as u64);
    let written =
        allowed.and_then(|()| files::create(&temporary, access)).and_then(|mut file| file.write_all(&secret[..KEY]));
    crypto::cleanse(&mut secret);
    let placed = written.and_then(|()| place(&temporary, path));
    let _ = fs::remove_file(&temporary);
    placed.map_err(|e| Error::system(format_args!("cannot write a sealing key to {}", path.display()), &e))
}

/// What a seal proves besides the plaintext: header, key in the tree, namespace. One piece, because every call into
/// OpenSSL costs as much as a hundred bytes.
struct Aad {
    bytes: [u8; HEADER + KEY_MAX + 8],
    len: usize,
}

impl Aad {
    fn new(header: &[u8; HEADER], (key, namespace): (&[u8], u64)) -> Option<Aad> {
        let mut aad = Aad { bytes: [0; HEADER + KEY_MAX + 8], len: HEADER + key.len() + 8 };
        let (head, rest) = aad.bytes.split_first_chunk_mut::<HEADER>()?;
        *head = *header;
        rest.get_mut(..key.len())?.copy_from_slice(key);
        rest.get_mut(key.len()..key.len() + 8)?.copy_from_slice(&namespace.to_be_bytes());
        Some(aad)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
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
        Sealer { opening: keys.keys.iter().map(|_| None).collect(), sealing: None, keys, nonce: None }
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

    /// Whether these are the keys in use.
    pub(crate) fn uses(&self, keys: &Arc<Keys>) -> bool {
        Arc::ptr_eq(&self.keys, keys)
    }

    /// Whether a key of that number is among the keys.
    pub(crate) fn has_key(&self, number: u16) -> bool {
        self.keys.keys.iter().any(|key| key.number == number)
    }

    /// Goes on with other keys.
    pub(crate) fn change(&mut self, keys: Arc<Keys>) {
        self.sealing = None;
        self.opening = keys.keys.iter().map(|_| None).collect();
        self.keys = keys;
    }

    /// Writes the whole record to `out`, notes the key in the header, and says the tag. `place` is where the record will
    /// lie: key and namespace.
    pub(crate) fn seal(
        &mut self,
        header: &mut Header,
        place: (&[u8], u64),
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<[u8; TAG]> {
        let nonce = self.next_nonce()?;
        let key = self.keys.keys.first()?;
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
        let tag = self.sealing.as_mut()?.seal(&nonce, Aad::new(head, place)?.bytes(), plain, sealed)?;
        *tag_out = tag;
        Some(tag)
    }

    /// Opens a record into `out`; false when no key proves it.
    pub(crate) fn open(&mut self, record: &Record<'_>, place: (&[u8], u64), out: &mut Vec<u8>) -> bool {
        out.clear();
        out.resize(record.sealed.len(), 0);
        let Some(aad) = record.header_bytes.first_chunk().and_then(|header| Aad::new(header, place)) else {
            return false;
        };
        for (key, slot) in self.keys.keys.iter().zip(&mut self.opening) {
            if key.number != record.header.key_number {
                continue;
            }
            if slot.is_none() {
                *slot = Cipher::opening(&key.secret);
            }
            if slot
                .as_mut()
                .is_some_and(|cipher| cipher.open(record.nonce, aad.bytes(), record.sealed, record.tag, out))
            {
                return true;
            }
        }
        false
    }
}
