//! Files as a cache inside somebody else's server must treat them: right modes whatever the umask, no descriptor left
//! to inherit, no page of a mapping without a block behind it.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{fchown, PermissionsExt};
use std::ptr;

use super::credentials;
use super::dir::Dir;

/// Who owns what the store creates, and what others may do with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Mode of files, such as `0600`.
    pub(crate) mode: u32,
    /// User to hand files to, when root opens for a worker.
    pub(crate) uid: Option<u32>,
    /// Group to hand files to.
    pub(crate) gid: Option<u32>,
    /// The group of the owner, which gets what root makes when `gid` says nothing.
    pub(crate) owners_group: Option<u32>,
}

impl Access {
    /// The mode of directories: whoever may read files may search and list.
    pub(crate) fn directory_mode(self) -> u32 {
        self.mode | ((self.mode & 0o444) >> 2)
    }

    /// Gives an open file or directory its owner and mode, which the umask may have narrowed.
    pub(crate) fn apply(self, file: &File, directory: bool) -> io::Result<()> {
        // Asked at every file: a process may change its user and keep root's group, which then may give nothing away.
        let gid = self.gid.or_else(|| self.owners_group.filter(|_| credentials::effective_user() == 0));
        if self.uid.is_some() || gid.is_some() {
            fchown(file, self.uid, gid)?;
        }
        let mode = if directory { self.directory_mode() } else { self.mode };
        file.set_permissions(fs::Permissions::from_mode(mode))
    }
}

/// Creates a new file of `len` zero bytes, all of them backed by blocks. An existing file is an error.
pub(crate) fn create_zeroed(dir: &Dir, name: &str, len: usize, access: Access) -> io::Result<File> {
    within_file_limit(len as u64)?;
    let mut file = create(dir, name, access)?;
    let zeros = [0_u8; 4096];
    for at in (0..len).step_by(zeros.len()) {
        file.write_all(&zeros[..zeros.len().min(len - at)])?;
    }
    Ok(file)
}

/// Creates a new, empty file. An existing one, or a symbolic link in its place, is an error.
pub(crate) fn create(dir: &Dir, name: &str, access: Access) -> io::Result<File> {
    let file = dir.create(name, access.mode)?;
    access.apply(&file, false)?;
    Ok(file)
}

/// How another process holds the first byte of a file locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstByte {
    Free,
    Shared,
    Alone,
}

/// Looks at the lock on the first byte of a file. What cannot be told is taken for shared.
///
/// Closing any descriptor of a file drops all locks that this process has on it (fcntl(2)), that of `file` as well.
pub(crate) fn first_byte(file: &File) -> FirstByte {
    match lock_on(file, 0).map(|lock| libc::c_int::from(lock.l_type)) {
        Ok(libc::F_UNLCK) => FirstByte::Free,
        Ok(libc::F_WRLCK) => FirstByte::Alone,
        _ => FirstByte::Shared,
    }
}

/// The process that holds a POSIX lock on byte `at` of a file: its number, or 0 when it is in another PID namespace.
/// `None` when nobody but this process does.
pub(crate) fn lock_holder(file: &File, at: i64) -> io::Result<Option<i32>> {
    let lock = lock_on(file, at)?;
    Ok((libc::c_int::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}

/// The lock that stands in the way of one on byte `at` of a file.
fn lock_on(file: &File, at: i64) -> io::Result<libc::flock> {
    // SAFETY: zeroed wants a type that may be all-zero: a flock is integers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = at as libc::off_t;
    lock.l_len = 1;
    // SAFETY: F_GETLK wants a flock to read and write, which this function has.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) } {
        0 => Ok(lock),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Device and inode of what a descriptor leads to; `None` when it is closed.
pub(crate) fn identity(descriptor: libc::c_int) -> Option<(u64, u64)> {
    let mut found = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat takes any number as a descriptor, and wants a struct to write to.
    if unsafe { libc::fstat(descriptor, found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: assume_init wants a written struct: fstat succeeded.
    let found = unsafe { found.assume_init() };
    Some((found.st_dev, found.st_ino))
}

/// Bytes by which a file that is in use grows: 70 microseconds on tmpfs, so that no signal that comes less often has it begin anew,
/// and the process is soon back.
pub(crate) const RESERVE_STEP: u64 = 256 << 10;

/// Makes file blocks exist for `[from, to)`, so that no write through a mapping can meet a full disk (SIGBUS).
pub(crate) fn reserve(file: &File, from: u64, to: u64) -> io::Result<()> {
    within_file_limit(to)?;
    reserve_in(file, from, to)
}

/// The same, unless another process is at it; whether it was done.
pub(crate) fn reserve_alone(file: &File, from: u64, to: u64) -> io::Result<bool> {
    within_file_limit(to)?;
    // SAFETY: flock takes any descriptor, and touches no memory.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Ok(false);
    }
    let done = reserve_in(file, from, to);
    // SAFETY: as above.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
    done.map(|()| true)
}

/// Not by posix_fallocate(3): where the kernel cannot reserve, that writes into every block, which others may be using by then.
fn reserve_in(file: &File, from: u64, to: u64) -> io::Result<()> {
    /// Some kernels' tmpfs undoes a step that a signal interrupts.
    const TRIES: usize = 4;
    for left in (0..TRIES).rev() {
        // SAFETY: fallocate takes any numbers, and touches no memory.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, from as libc::off_t, (to - from) as libc::off_t) } == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted || left == 0 {
            return Err(error);
        }
    }
    Ok(())
}

/// Occupies descriptors 0 to 2 for as long as the result lives, so that none of our files becomes the host's stdout.
pub(crate) fn occupy_stdio() -> io::Result<Vec<File>> {
    let mut low = Vec::new();
    // SAFETY: F_GETFD takes any number as a descriptor, and changes nothing.
    if (0..=2).all(|fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1) {
        return Ok(low);
    }
    loop {
        let file = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        if file.as_raw_fd() > 2 {
            return Ok(low);
        }
        low.push(file);
    }
}

/// Room on a file system, for this user, and the number of its kind (statfs(2)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes in all.
    pub(crate) size: u64,
    /// Bytes that this user may still use.
    pub(crate) free: u64,
    /// Its number in linux/magic.h.
    pub(crate) kind: u64,
}

/// Asks statfs(2) for the room.
pub(crate) fn room(directory: &File) -> io::Result<Room> {
    let found = statfs(directory)?;
    let block = found.f_frsize as u64;
    Ok(Room {
        size: found.f_blocks as u64 * block,
        free: found.f_bavail as u64 * block,
        kind: found.f_type as u64 & 0xFFFF_FFFF,
    })
}

/// True when the process may not write a file of `len` bytes: crossing RLIMIT_FSIZE is a signal, not an error.
pub(crate) fn exceeds_file_limit(len: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit wants a struct to write to.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    got == 0 && limit.rlim_cur != libc::RLIM_INFINITY && limit.rlim_cur < len
}

/// Bytes of addresses that this process may still map, and its limit; `None` without a limit.
pub(crate) fn address_space_left() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit wants a struct to write to.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    if got != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    // proc(5): the first number is the size of the program in pages. Where /proc is hidden, the limit alone tells.
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Some((limit.rlim_cur.saturating_sub(pages.saturating_mul(page_size() as u64)), limit.rlim_cur))
}

/// An error where a write up to `len` would be a signal.
pub(crate) fn within_file_limit(len: u64) -> io::Result<()> {
    (!exceeds_file_limit(len)).then_some(()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFBIG))
}

/// What kind of file system a directory is on: one where shared memory and locks work, one where they are no promise, or none.
///
/// A page of a shared mapping is written to its file now and then, and the next write to it asks the file system again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Reserved blocks stay reserved.
    Local,
    /// Copy on write: reserving is no promise, so the store must not write through the map.
    CopyOnWrite,
    /// Copy on write that asks for a new block at that write: a full disk or quota is SIGBUS, at a page of locks or counters
    /// as well. Refused; the name is for the message.
    Deadly(&'static str),
    /// A file system over another one, which cannot be asked for.
    Overlay,
    /// Another machine may see the file: refused. The name is for the message.
    Network(&'static str),
}

fn statfs(directory: &File) -> io::Result<libc::statfs> {
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: fstatfs takes any number, and wants a struct to write to.
    if unsafe { libc::fstatfs(directory.as_raw_fd(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: assume_init wants a written struct: fstatfs succeeded.
    Ok(unsafe { found.assume_init() })
}

/// Asks statfs(2). The magic numbers are those of statfs(2) and linux/magic.h.
pub(crate) fn file_system(directory: &File) -> io::Result<FileSystem> {
    let found = statfs(directory)?;
    Ok(match found.f_type as u64 & 0xFFFF_FFFF {
        0x6969 => FileSystem::Network("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => FileSystem::Network("SMB"),
        0x0102_1997 => FileSystem::Network("9p"),
        0x6573_5546 => FileSystem::Network("FUSE"),
        0x00C3_6400 => FileSystem::Network("Ceph"),
        0x5346_414F | 0x6B41_4653 => FileSystem::Network("AFS"),
        0x4750_4653 => FileSystem::Network("GPFS"),
        0x0BD0_0BD0 => FileSystem::Network("Lustre"),
        0x2FC1_2FC1 => FileSystem::CopyOnWrite,
        0x9123_683E => FileSystem::Deadly("btrfs"),
        0xCA45_1A4E => FileSystem::Deadly("bcachefs"),
        0x3434 => FileSystem::Deadly("nilfs2"),
        0x794C_7630 => FileSystem::Overlay,
        _ => FileSystem::Local,
    })
}

/// Whether it is on a file system that lives in memory, and so for one boot: tmpfs or ramfs.
pub(crate) fn is_in_memory(directory: &File) -> bool {
    statfs(directory).is_ok_and(|found| matches!(found.f_type as u64 & 0xFFFF_FFFF, 0x0102_1994 | 0x8584_58F6))
}

/// The number of a user given by name or number.
pub(crate) fn user_id(name: &str) -> Option<u32> {
    number_or(name, |name| {
        let entry: libc::passwd = entry(|entry, buffer, found| {
            // SAFETY: getpwnam_r wants a NUL-terminated name, and places to write to, the buffer as long as said.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
        })?;
        Some(entry.pw_uid)
    })
}

/// The group that a user belongs to first; `None` for a number that is no user's.
pub(crate) fn primary_group(user: u32) -> Option<u32> {
    let entry: libc::passwd = entry(|entry, buffer, found| {
        // SAFETY: getpwuid_r wants places to write to, the buffer as long as said.
        unsafe { libc::getpwuid_r(user, entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
    })?;
    Some(entry.pw_gid)
}

/// The number of a group given by name or number.
pub(crate) fn group_id(name: &str) -> Option<u32> {
    number_or(name, |name| {
        let entry: libc::group = entry(|entry, buffer, found| {
            // SAFETY: getgrnam_r wants a NUL-terminated name, and places to write to, the buffer as long as said.
            unsafe { libc::getgrnam_r(name.as_ptr(), entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
        })?;
        Some(entry.gr_gid)
    })
}

fn number_or(name: &str, find: impl FnOnce(&CStr) -> Option<u32>) -> Option<u32> {
    if name.bytes().all(|digit| digit.is_ascii_digit()) {
        // The largest stands for "no change" in chown(2), and is nobody's.
        return name.parse().ok().filter(|number| *number != u32::MAX);
    }
    find(&CString::new(name).ok()?)
}

/// What `find` writes about a user or a group. Its strings are gone: only the numbers are of use.
fn entry<T: Copy>(find: impl FnOnce(*mut T, &mut [u8], &mut *mut T) -> libc::c_int) -> Option<T> {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut entry = MaybeUninit::<T>::zeroed();
    let mut found = ptr::null_mut();
    let code = find(entry.as_mut_ptr(), &mut buffer, &mut found);
    // SAFETY: assume_init wants a valid value: a passwd and a group are integers and pointers, which may be zero.
    (code == 0 && !found.is_null()).then(|| unsafe { entry.assume_init() })
}

/// The page size of this machine.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf takes any number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
