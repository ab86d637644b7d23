//! What fuzzers feed with bytes of their own: every decoder of the library and the C API. Not part of the library:
//! compiled for its own tests, which feed the seeds, and under `cfg(fuzzing)`, which cargo-fuzz sets.
//!
//! A target panics when the code under it breaks a promise; the fuzzer and its sanitizer see the rest.

mod calls;
mod damage;
mod pages;
mod pure;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

type Target = fn(&[u8]);

/// Every target: its name, which is that of its file in `fuzz/fuzz_targets` and its folder in `fuzz/seeds`.
const TARGETS: &[(&str, Target)] = &[
    ("calls", calls::calls),
    ("control", pages::control),
    ("damage", damage::damage),
    ("gate", pages::gate),
    ("host_name", pure::host_name),
    ("id", pure::id),
    ("keys", pages::keys),
    ("options", pure::options),
    ("record", pure::record),
];

/// Runs one target on one input.
pub fn run(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.unwrap_or_else(|| panic!("there is no target {target}")).1(data);
}

/// The fuzzer's bytes, read off the front; where they end, zeros follow.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.up_to(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn up_to(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes a file's contents: its length now and then, and some bytes at places of the fuzzer's choice.
    fn edit(&mut self, contents: &mut Vec<u8>) {
        if self.byte() & 7 == 7 {
            let len = usize::from(self.u16()) % (contents.len() + 64);
            contents.resize(len, 0xA5);
        }
        for _ in 0..self.byte() % 8 {
            let (at, len) = (usize::from(self.u16()), usize::from(self.byte() % 24));
            let bytes = self.up_to(len);
            if let Some(place) = contents.len().checked_sub(bytes.len()).map(|last| at % (last + 1)) {
                contents[place..place + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

/// A directory of this process and purpose, in memory where there is one: fuzzing would wear out a disk. The next fuzzer
/// removes what killed ones left.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        clear_leftovers(&base);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("sesscache-fuzz-{}-{name}-{count}", process::id()));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&path, private).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn clear_leftovers(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let Some(rest) = name.strip_prefix("sesscache-fuzz-") else { continue };
        let owner = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds every seed of a target, and every cut of each: a fault that a fuzzer found stays mended.
    fn replay(target: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        let mut seeds = 0;
        for entry in entries {
            let path = entry.expect("a seed").path();
            let seed = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(seed.len() <= 4096, "{} is large for a seed", path.display());
            eprintln!("{}", path.display());
            run(target, &seed);
            run(target, &seed[..seed.len() / 2]);
            seeds += 1;
        }
        assert!(seeds >= 3, "{} has {seeds} seeds", directory.display());
    }

    macro_rules! replays {
        ($($name:ident)*) => {
            $(#[test] fn $name() { replay(stringify!($name)); })*

            #[test]
            fn every_target_has_seeds_and_a_fuzzer() {
                let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
                assert_eq!(names, [$(stringify!($name)),*]);
                let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
                for name in names {
                    assert!(files.join(format!("{name}.rs")).is_file(), "cargo fuzz does not know {name}");
                }
            }
        };
    }

    replays! { calls control damage gate host_name id keys options record }
}
