//! A store whose control page, generation page or key file somebody overwrites, before it is opened and while it is in use.
//! What is lost is lost; nothing crashes, nothing comes back that was not stored, and the next open is well again.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{scratch, Input};
use crate::cache::Cache;
use crate::options::Options;
use crate::status::Status;

const CALLS: usize = 24;
/// So long that no test lives to see the end of a record.
const FOR_EVER: i64 = 4_000_000_000;

/// Does what the input says.
pub(super) fn damage(data: &[u8]) {
    let scratch = scratch();
    let path = scratch.path().join("store");
    // A wait for a damaged mutex is no harm, but a long one is no use here.
    let options = Options::parse("capacity=1MiB readers=16 deadline=0ms").expect("options");
    let mut cache = Some(Cache::open(&path, &options).expect("a new store"));
    let mut input = Input(data);
    for _ in 0..CALLS {
        if input.is_empty() {
            break;
        }
        let op = input.byte();
        let id = [op >> 6; 8];
        match op & 7 {
            0 => overwrite(&path, &mut input),
            1 => replace(&path, &mut input),
            2 => {
                drop(cache.take());
                cache = Cache::open(&path, &options).map_err(|error| settled(&error)).ok();
            }
            3 => drop(cache.as_ref().map(|cache| cache.flush().map_err(|error| settled(&error)))),
            4 | 5 => drop(cache.as_ref().map(|cache| cache.put(&id, &stored(&id, op), FOR_EVER))),
            6 => {
                let found = cache.as_ref().and_then(|cache| cache.get(&id, <[u8]>::to_vec).ok());
                let known = |data: &Vec<u8>| (0..=u8::MAX).any(|op| stored(&id, op) == *data);
                assert!(found.as_ref().is_none_or(known), "a damaged store gives what nobody stored");
            }
            _ => {
                let _ = cache.as_ref().map(|cache| (cache.sweep(4), cache.stats(), cache.remove(&id)));
            }
        }
    }
    drop(cache);
    // Whatever it was: once the files are gone, all is well.
    for file in ["control", "key"] {
        let _ = fs::remove_file(path.join(file));
    }
    let cache = Cache::open(&path, &options).expect("a store without control page and key begins anew");
    cache.put(b"id", b"data", FOR_EVER).expect("a new store takes a record");
    assert_eq!(cache.get(b"id", <[u8]>::to_vec).expect("a new store has its record"), b"data");
}

/// What may lie under an id: a little, or more than a page.
fn stored(id: &[u8], op: u8) -> Vec<u8> {
    vec![id[0] ^ op & 0x30; if op & 8 == 0 { 100 } else { 9_000 }]
}

/// No refusal is a fault inside, and all have a sentence.
fn settled(error: &crate::status::Error) {
    assert!(error.status != Status::Bug && !error.detail.is_empty(), "{error:?}");
}

fn file(path: &Path, which: u8) -> PathBuf {
    match which % 4 {
        0 | 1 => path.join("control"),
        2 => path.join("key"),
        _ => generation(path).unwrap_or_else(|| path.to_owned()).join("gate"),
    }
}

fn generation(path: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.join("gate").is_file()).max()
}

/// Writes over bytes of a file that may be mapped.
fn overwrite(path: &Path, input: &mut Input<'_>) {
    let path = file(path, input.byte());
    let (at, len) = (u64::from(input.u16() % 4096), usize::from(input.byte() % 24));
    let write = |bytes: &[u8]| -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&path)?;
        let at = at.min(file.metadata()?.len().saturating_sub(bytes.len() as u64));
        file.write_all_at(bytes, at)
    };
    // A file that is not there cannot be damaged.
    let _ = write(input.up_to(len));
}

/// Puts another file in the place of one.
fn replace(path: &Path, input: &mut Input<'_>) {
    let path = file(path, input.byte());
    let Ok(mut contents) = fs::read(&path) else { return };
    input.edit(&mut contents);
    let other = path.with_extension("new");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    let made = fs::File::create(&other).and_then(|mut file| {
        file.set_permissions(private)?;
        file.write_all(&contents)
    });
    let _ = made.and_then(|()| fs::rename(&other, &path));
}
