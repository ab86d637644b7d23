//! The key file: made, replaced, read, and seen to change. The first of its keys seals, all of them open.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::directory::{check_private, Directory, OpenDirectory};
use super::siphash::{half, name_hash};
use crate::status::{Error, Result, Status};
use crate::sys::clock;
use crate::sys::crypto::{self, KEY};
use crate::sys::files::{self, Access};

/// The file in a store's directory.
const KEY_FILE: &str = "key";

/// Milliseconds for which a look at the file counts, also for a child that begins meanwhile.
const FRESH: u64 = 1_000;

/// Keys that a file may have.
const KEYS_MAX: usize = 16;

/// The keys of one reading of the file.
pub(crate) struct Keys {
    keys: Vec<SealingKey>,
    /// Tells whether the file changed: inode, size, time of change.
    stamp: (u64, u64, i64, i64),
    /// The tick of the last look at the file, by this process or the parent that it has them from.
    looked_at: AtomicU64,
}

/// One of them. Wiped when dropped.
pub(super) struct SealingKey {
    pub(super) secret: [u8; KEY],
    /// Names the key in a record, without showing it.
    pub(super) number: u16,
    /// Under which nonces are made.
    pub(super) nonces: (u64, u64),
}

impl SealingKey {
    /// `None` where OpenSSL has no SHA-256.
    fn new(secret: &[u8; KEY]) -> Option<SealingKey> {
        let mut labelled = [0; KEY + 6];
        labelled[..KEY].copy_from_slice(secret);
        labelled[KEY..].copy_from_slice(b"nonces");
        let derived = crypto::sha256(&labelled);
        crypto::cleanse(&mut labelled);
        let derived = derived?;
        Some(SealingKey { secret: *secret, number: number(secret), nonces: (half(&derived, 0), half(&derived, 8)) })
    }
}

impl Drop for SealingKey {
    fn drop(&mut self) {
        crypto::cleanse(&mut self.secret);
    }
}

/// OpenSSL cannot seal.
pub(crate) fn crypto_is_missing() -> Error {
    Error::new(Status::OpenSsl, "OpenSSL has no AES-256-GCM or no SHA-256, with which sessions are sealed")
        .remedy("this libcrypto needs its default provider or a FIPS module: see openssl.cnf")
}

impl Keys {
    /// One that lies in no file: it opens what this process and its children seal. `None` when there are no random bytes, or
    /// OpenSSL fails.
    pub(super) fn of_this_process() -> Option<Arc<Keys>> {
        let mut secret = [0; KEY];
        let drawn = crypto::random(&mut secret);
        let key = SealingKey::new(&secret);
        crypto::cleanse(&mut secret);
        let keys = vec![key.filter(|_| drawn)?];
        Some(Arc::new(Keys { keys, stamp: (0, 0, 0, 0), looked_at: AtomicU64::new(0) }))
    }

    /// Makes the key file of the store unless it is there.
    pub(crate) fn create(open: &OpenDirectory<'_>) -> Result<()> {
        match open.open_to_read(KEY_FILE) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                write_new_key(open, |from| match open.link(from, KEY_FILE) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    other => other,
                })
            }
            found => Keys::read(&open.path().join(KEY_FILE), open.access(), found).map(drop),
        }
    }

    /// Replaces all keys by a new one: what was sealed before cannot be read any more.
    pub(crate) fn replace(open: &OpenDirectory<'_>) -> Result<()> {
        write_new_key(open, |from| open.rename(from, KEY_FILE))
    }

    /// Reads the file. The operator's, which is never made, is read with this process's own rights, and may lie where the owner
    /// of the directory has none: not while the directory is open.
    pub(crate) fn load(dir: &Directory) -> Result<Arc<Keys>> {
        let path = &dir.key;
        if !dir.key_is_foreign {
            return Keys::read(path, dir.access, dir.enter()?.open_to_read(KEY_FILE));
        }
        let mut options = fs::OpenOptions::new();
        match options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = path.display();
                Err(Error::invalid(format!("key='{key}' is not there")).run(format!("openssl rand -out {key} {KEY}")))
            }
            opened => Keys::read(path, dir.access, opened),
        }
    }

    fn read(path: &Path, access: Access, opened: io::Result<fs::File>) -> Result<Arc<Keys>> {
        let wrong = || {
            let path = path.display();
            Error::invalid(format!("{path} must hold 1 to {KEYS_MAX} keys of {KEY} bytes"))
                .run(format!("openssl rand -out {path} {KEY}"))
        };
        let failed = |e: &io::Error| match e.raw_os_error() {
            // It is no file.
            Some(libc::EINVAL) => wrong(),
            _ => Error::system(format_args!("cannot read the sealing keys in {}", path.display()), e),
        };
        let mut file = opened.map_err(|e| failed(&e))?;
        let meta = file.metadata().map_err(|e| failed(&e))?;
        check_private(path, &meta, access)?;
        let len = meta.len() as usize;
        if !meta.is_file() || len == 0 || len % KEY != 0 || len > KEYS_MAX * KEY {
            return Err(wrong());
        }
        let mut secrets = vec![0_u8; len];
        let read = file.read_exact(&mut secrets).map_err(|e| failed(&e));
        let keys = secrets.chunks_exact(KEY).map(|secret| SealingKey::new(secret.try_into().expect("KEY bytes")));
        let keys: Option<_> = keys.collect();
        crypto::cleanse(&mut secrets);
        read?;
        let keys = keys.ok_or_else(crypto_is_missing)?;
        Ok(Arc::new(Keys { keys, stamp: stamp(&meta), looked_at: AtomicU64::new(clock::ticks()) }))
    }

    /// All of them; the first one seals.
    pub(super) fn all(&self) -> &[SealingKey] {
        &self.keys
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether one of that number is among them.
    pub(crate) fn has(&self, number: u16) -> bool {
        self.keys.iter().any(|key| key.number == number)
    }

    /// Whether somebody has looked at the file a moment ago.
    pub(crate) fn are_fresh(&self) -> bool {
        clock::ticks() < self.looked_at.load(Ordering::Relaxed) + FRESH
    }

    /// Whether the file is no longer the one that was read.
    pub(crate) fn changed(&self, path: &Path) -> bool {
        self.looked_at.store(clock::ticks(), Ordering::Relaxed);
        fs::symlink_metadata(path).is_ok_and(|meta| stamp(&meta) != self.stamp)
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

fn write_new_key(open: &OpenDirectory<'_>, publish: impl Fn(&str) -> io::Result<()>) -> Result<()> {
    let mut secret = [0_u8; KEY + 8];
    if !crypto::random(&mut secret) {
        return Err(Error::no_random());
    }
    let temporary = format!("key.{:016x}", u64::from_ne_bytes(secret[KEY..].try_into().expect("8 bytes")));
    let written = files::within_file_limit(KEY as u64)
        .and_then(|()| files::create(open, &temporary, open.access()))
        .and_then(|mut file| file.write_all(&secret[..KEY]));
    crypto::cleanse(&mut secret);
    let published = written.and_then(|()| publish(&temporary));
    let _ = open.remove(&temporary);
    published.map_err(|e| {
        Error::system(format_args!("cannot write a sealing key to {}/{KEY_FILE}", open.path().display()), &e)
    })
}
