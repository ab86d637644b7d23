//! What fuzzers feed with bytes of their own: every decoder of the library and the C API. A module of the library, whose
//! inside it needs, but only for the library's own tests, which feed the seeds, and under `cfg(fuzzing)`, which
//! cargo-fuzz sets.
//!
//! A target panics when the code under it breaks a promise; the fuzzer and its sanitizer see the rest.

mod calls;
mod damage;
mod pages;
mod pure;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use tempfile::{Builder, TempDir};

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
    ("session", pure::session),
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

/// A directory that goes away with the value. `scripts/fuzz` has them in memory: fuzzing would wear out a disk.
fn scratch() -> TempDir {
    Builder::new()
        .prefix("sesscache-fuzz-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a scratch directory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

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

    replays! { calls control damage gate host_name id keys options record session }
}
