//! The first words of a control file: they say what it is, and have its secrets.

use std::sync::atomic::{AtomicU32, AtomicU8, Ordering};

use super::{Unusable, FORMAT, MAGIC, SIZE};
use crate::store::entries::platform;
use crate::store::siphash::siphash;
use crate::sys::shared_page::Word;

/// What never changes in the life of a control file.
#[repr(C)]
pub(super) struct Superblock {
    magic: Word,
    format: AtomicU32,
    size: AtomicU32,
    /// Microseconds since 1970.
    pub(super) created: Word,
    /// Architecture, C library and page size: processes that differ in these cannot share mutexes or maps.
    platform: Word,
    /// Secret under which ids are made.
    pub(super) mask: [AtomicU8; 16],
    /// Secret under which names are hashed.
    pub(super) names: [AtomicU8; 16],
    /// Tells the ids made here from those of other stores under the same secrets. As old as the file: of ids that an earlier one has
    /// made nothing is left here.
    pub(super) site: Word,
    /// Of all the above: tells a damaged page from a whole one.
    check: Word,
}

impl Superblock {
    pub(super) fn init(&self, created: u64, mask: &[u8; 16], names: &[u8; 16], site: u32) {
        self.magic.set(u64::from_ne_bytes(MAGIC));
        self.format.store(FORMAT, Ordering::Relaxed);
        self.size.store(SIZE as u32, Ordering::Relaxed);
        self.created.set(created);
        self.platform.set(platform_hash());
        self.mask.iter().zip(mask).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
        self.names.iter().zip(names).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
        self.site.set(site.into());
        self.check.set(self.checksum());
    }

    fn checksum(&self) -> u64 {
        let fields: [&[u8]; 8] = [
            &self.magic.get().to_ne_bytes(),
            &self.format.load(Ordering::Relaxed).to_ne_bytes(),
            &self.size.load(Ordering::Relaxed).to_ne_bytes(),
            &self.created.get().to_ne_bytes(),
            &self.platform.get().to_ne_bytes(),
            &bytes(&self.mask),
            &bytes(&self.names),
            &self.site.get().to_ne_bytes(),
        ];
        siphash(0, 0, &fields.concat())
    }

    pub(super) fn verify(&self) -> Result<(), Unusable> {
        let format = self.format.load(Ordering::Relaxed);
        let size = self.size.load(Ordering::Relaxed) as usize;
        if self.magic.get() != u64::from_ne_bytes(MAGIC) || self.check.get() != self.checksum() || size != SIZE {
            Err(Unusable::Damaged)
        } else if format != FORMAT {
            Err(Unusable::Format(format))
        } else if self.platform.get() != platform_hash() {
            Err(Unusable::Platform)
        } else {
            Ok(())
        }
    }
}

pub(super) fn bytes(of: &[AtomicU8; 16]) -> [u8; 16] {
    of.each_ref().map(|byte| byte.load(Ordering::Relaxed))
}

fn platform_hash() -> u64 {
    siphash(0, 0, platform().as_bytes())
}
