//! The files that a store reads before it trusts them: the control page, the page of a generation, the key file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{scratch, Input};
use crate::options::Options;
use crate::stats::Counter;
use crate::store::boot::BootId;
use crate::store::control::{Control, Current, Shape, Unusable};
use crate::store::directory::Directory;
use crate::store::keys::Keys;
use crate::store::record::{self, Header};
use crate::store::seal::{AssociatedData, Sealer};
use crate::store::siphash::siphash;
use crate::store::write_lock::WriteLock;
use crate::sys::crypto::KEY;
use crate::sys::dir::Dir;
use crate::sys::files::Access;

const SHAPE: Shape = Shape { capacity: 1 << 20, readers: 16, guard: false };
const ACCESS: Access = Access { mode: 0o600, uid: None, gid: None, owners_group: None };

/// A directory with one file in it, which every input overwrites.
struct Page {
    scratch: TempDir,
    name: &'static str,
    whole: Vec<u8>,
}

impl Page {
    fn new(name: &'static str, make: impl FnOnce(&Path)) -> Page {
        let scratch = scratch();
        make(scratch.path());
        let whole = fs::read(scratch.path().join(name)).expect("a whole file");
        Page { scratch, name, whole }
    }

    /// Writes what the input makes of the whole file. `fix` sets the checksum anew, if the input says so: no fuzzer
    /// would guess it.
    fn write(&self, input: &mut Input<'_>, fix: impl FnOnce(&mut [u8])) {
        let mut contents = self.whole.clone();
        let fixed = input.byte() & 1 == 1;
        input.edit(&mut contents);
        if fixed {
            fix(&mut contents);
        }
        fs::write(self.scratch.path().join(self.name), contents).expect("write the page");
    }
}

/// Any file is a control page that can be worked with, or is refused.
pub(super) fn control(data: &[u8]) {
    thread_local!(static PAGE: Page = Page::new("control", |directory| {
        let directory = Directory::existing(directory, None).expect("a directory");
        let open = directory.enter().expect("a directory");
        Control::create(&open, SHAPE).expect("a control page");
        assert!(Control::open(&open).is_ok(), "a control page that nobody touched is refused");
    }));
    PAGE.with(|page| {
        let mut input = Input(data);
        // The checksum stands behind the 72 bytes that it is of.
        page.write(&mut input, |contents| {
            if let Some((fixed, rest)) = contents.split_first_chunk_mut::<72>() {
                let check = siphash(0, 0, fixed).to_ne_bytes();
                rest.iter_mut().zip(check).for_each(|(to, from)| *to = from);
            }
        });
        let directory = Directory::existing(page.scratch.path(), None).expect("a directory");
        let open = directory.enter().expect("a directory");
        let control = match Control::open(&open) {
            Ok(control) => control,
            Err(Unusable::Missing | Unusable::System(_)) => panic!("a file that is there cannot be opened"),
            Err(Unusable::Damaged | Unusable::Format(_) | Unusable::Platform) => return,
        };
        assert!(control.wanted().is_sane(), "a store of an impossible shape would be made");
        assert!(control.is_current_file(&open));
        let (epoch, from) = (control.epoch(), control.current());
        let to = Current { number: from.number.wrapping_add(1) & (u64::MAX >> 1), keep: !from.keep };
        assert!(control.switch(from, to) && control.current() == to && !control.switch(from, to));
        assert_ne!(control.epoch(), epoch, "nobody looks for the new generation");
        let shard = control.shard();
        let before = control.counters().total();
        control.counters().add(shard, Counter::Hits, 3);
        let after = control.counters().total();
        assert_eq!(after[Counter::Hits as usize], before[Counter::Hits as usize].wrapping_add(3));
        control.reader_check_is_due(u64::from(input.u16()));
        control.want(SHAPE);
        assert_eq!(control.wanted(), SHAPE);
    });
}

/// Any file is the page of a generation with a lock that opens again, or is refused.
pub(super) fn gate(data: &[u8]) {
    thread_local!(static PAGE: Page = Page::new("gate", |directory| {
        let directory = Dir::open_path(directory).expect("a directory");
        WriteLock::create(&directory, SHAPE, BootId::read(), SHAPE.capacity, ACCESS).expect("a page");
        assert!(matches!(WriteLock::open(&directory), Ok(Some(_))), "a page that nobody touched is refused");
    }));
    PAGE.with(|page| {
        let mut input = Input(data);
        page.write(&mut input, |contents| {
            if contents.len() >= 40 {
                // As the page has it: magic, capacity, readers, guard.
                let guard = u64::from_ne_bytes(contents[24..32].try_into().expect("8 bytes")) != 0;
                let mut of = [0; 24];
                of[..8].copy_from_slice(&contents[..8]);
                of[8..16].copy_from_slice(&contents[16..24]);
                of[16..20].copy_from_slice(&contents[12..16]);
                of[20] = u8::from(guard);
                contents[32..40].copy_from_slice(&siphash(0, 0, &of).to_ne_bytes());
            }
        });
        let directory = Dir::open_path(page.scratch.path()).expect("a directory");
        let Ok(found) = WriteLock::open(&directory) else { panic!("a file that is there cannot be opened") };
        let Some(lock) = found else { return };
        let noted = lock.page();
        assert!(noted.shape().is_sane(), "a generation of an impossible shape would be opened");
        let deadline = Duration::from_millis(u64::from(input.byte() & 1));
        if let Ok(locked) = lock.acquire(deadline) {
            noted.note_put(input.u64(), u64::from(input.u32()));
            drop(locked);
            assert!(lock.acquire(deadline).is_ok(), "the lock does not open again");
        }
        let (reserved, foreign) = (input.u64(), u64::from(input.byte() & 1));
        noted.reserved.set(reserved);
        noted.foreign.set(foreign);
        assert_eq!((noted.reserved.get(), noted.foreign.get()), (reserved, foreign));
        let _ = (noted.newest.get(), noted.oldest.get());
    });
}

/// Any file is 1 to 16 keys, or is refused; what the first seals opens.
pub(super) fn keys(data: &[u8]) {
    thread_local!(static PLACE: (TempDir, Directory) = {
        let scratch = scratch();
        let (dir, found) = Directory::prepare(scratch.path(), &Options::default()).expect("a directory");
        dir.enter_found(found).and_then(|open| Keys::create(&open)).expect("a key");
        (scratch, dir)
    });
    PLACE.with(|(_, dir)| {
        fs::write(&dir.key, data).expect("write the key file");
        let loaded = Keys::load(dir);
        let acceptable = !data.is_empty() && data.len() % KEY == 0 && data.len() <= 16 * KEY;
        assert_eq!(loaded.is_ok(), acceptable, "{} bytes of keys", data.len());
        let Ok(loaded) = loaded else { return };
        let mut sealer = Sealer::new(loaded);
        let (mut sealed, mut out) = (Vec::new(), Vec::new());
        sealer
            .seal(&mut Header::default(), AssociatedData { key: b"key", namespace: 7 }, data, &mut sealed)
            .expect("sealing");
        let record = record::parse(&sealed).expect("a record");
        assert!(
            sealer.open(&record, AssociatedData { key: b"key", namespace: 7 }, &mut out) && out == data,
            "what the first key sealed does not open"
        );
    });
}
