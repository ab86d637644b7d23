//! The copy-on-write probe: whether a file system moves a block that is written again, found by writing one twice.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::dir::Dir;

/// linux/fiemap.h: struct fiemap with room for one struct fiemap_extent behind it.
#[repr(C)]
#[derive(Default)]
struct Extents {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    logical: u64,
    physical: u64,
    extent_length: u64,
    extent_reserved: [u64; 2],
    extent_flags: u32,
    more_reserved: [u32; 3],
}

/// linux/fs.h: _IOWR('f', 11, struct fiemap), a struct of 32 bytes without its extents.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
const BLOCK: usize = 4096;

/// Whether it moves a block of a new file. False also where the file system does not say where blocks are: it has no disk
/// below.
pub(crate) fn probe(dir: &Dir, scratch: &str) -> io::Result<bool> {
    let file = dir.create(scratch, 0o600)?;
    let blocks = write(&file, 1).and_then(|first| Ok((first, write(&file, 2)?)));
    let removed = dir.remove(scratch);
    let (first, second) = blocks?;
    removed?;
    Ok(first.is_some() && first != second)
}

/// Writes the block, and says where on the disk it is then.
fn write(file: &File, byte: u8) -> io::Result<Option<u64>> {
    file.write_all_at(&[byte; BLOCK], 0)?;
    file.sync_data()?;
    let mut extents = Extents { length: BLOCK as u64, count: 1, ..Extents::default() };
    // SAFETY: FS_IOC_FIEMAP wants room for `count` extents behind its head: there is room for the one asked for.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &mut extents) };
    Ok((code == 0 && extents.mapped == 1).then_some(extents.physical))
}
