//! A directory held by its descriptor. Names in it are looked up there and nowhere else: what somebody does to the path
//! meanwhile changes nothing, and no symbolic link is followed.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::c_int;

/// Links that are followed on the way to a directory, as many as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// An open directory. The descriptor gives no more than a place to start from (O_PATH).
pub(crate) struct Dir(File);

/// Tells a directory from others, and from one that got its inode after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Device and inode.
    pub(crate) file: (u64, u64),
    /// When it was made, where the file system keeps that.
    made: Option<SystemTime>,
    owner: u32,
}

/// A name's inode, looked at without following it.
#[derive(Clone, Copy)]
pub(crate) struct Stat(libc::stat);

impl Stat {
    fn is(&self, kind: libc::mode_t) -> bool {
        self.0.st_mode & libc::S_IFMT == kind
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.is(libc::S_IFDIR)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.is(libc::S_IFREG)
    }

    pub(crate) fn is_link(&self) -> bool {
        self.is(libc::S_IFLNK)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.st_size as u64
    }

    pub(crate) fn uid(&self) -> u32 {
        self.0.st_uid
    }

    /// Permission bits.
    pub(crate) fn mode(&self) -> u32 {
        self.0.st_mode & 0o777
    }

    /// Device and inode.
    pub(crate) fn file(&self) -> (u64, u64) {
        (self.0.st_dev, self.0.st_ino)
    }

    /// Time since the last change of the content.
    pub(crate) fn age(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.0.st_mtime).ok()?;
        SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(seconds)).ok()
    }
}

impl Dir {
    fn open_at(at: c_int, name: &CStr, flags: c_int, mode: u32) -> io::Result<File> {
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the name is NUL-terminated; openat touches no other memory.
        match unsafe { libc::openat(at, name.as_ptr(), flags, mode) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: a descriptor that was made a moment ago and that nobody else has.
            fd => Ok(unsafe { File::from_raw_fd(fd) }),
        }
    }

    /// Opens `path` as it stands. Other than [`walk`] it looks at no directory above; for one that was walked to before.
    pub(crate) fn open_path(path: &Path) -> io::Result<Dir> {
        Dir::open_at(libc::AT_FDCWD, &text(path.as_os_str())?, libc::O_PATH | libc::O_DIRECTORY, 0).map(Dir)
    }

    /// Opens a directory in this one.
    pub(crate) fn dir(&self, name: impl AsRef<OsStr>) -> io::Result<Dir> {
        self.open_as(name, libc::O_PATH | libc::O_DIRECTORY, 0).map(Dir)
    }

    fn open_as(&self, name: impl AsRef<OsStr>, flags: c_int, mode: u32) -> io::Result<File> {
        Dir::open_at(self.0.as_raw_fd(), &text(name.as_ref())?, flags, mode)
    }

    /// Opens a regular file for reading and writing.
    pub(crate) fn open(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        regular(self.open_as(name, libc::O_RDWR | libc::O_NONBLOCK, 0)?)
    }

    /// Opens a regular file for reading alone.
    pub(crate) fn open_to_read(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        regular(self.open_as(name, libc::O_RDONLY | libc::O_NONBLOCK, 0)?)
    }

    /// Creates a file. A name that is taken is an error.
    pub(crate) fn create(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        self.open_as(name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, mode)
    }

    /// Makes a directory.
    pub(crate) fn make_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
        let name = text(name.as_ref())?;
        // SAFETY: the name is NUL-terminated.
        done(unsafe { libc::mkdirat(self.0.as_raw_fd(), name.as_ptr(), mode as libc::mode_t) })
    }

    /// Owner, mode and the rest of the directory itself.
    pub(crate) fn metadata(&self) -> io::Result<fs::Metadata> {
        self.0.metadata()
    }

    /// Looks at a name without following it.
    pub(crate) fn stat(&self, name: impl AsRef<OsStr>) -> io::Result<Stat> {
        let name = text(name.as_ref())?;
        let mut found = MaybeUninit::<libc::stat>::zeroed();
        let (at, flags) = (self.0.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the name is NUL-terminated and the struct is written whole on success.
        done(unsafe { libc::fstatat(at, name.as_ptr(), found.as_mut_ptr(), flags) })?;
        // SAFETY: fstatat succeeded.
        Ok(Stat(unsafe { found.assume_init() }))
    }

    /// Gives a file a second name. One that is taken is an error.
    pub(crate) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to, at) = (text(from.as_ref())?, text(to.as_ref())?, self.0.as_raw_fd());
        // SAFETY: both names are NUL-terminated.
        done(unsafe { libc::linkat(at, from.as_ptr(), at, to.as_ptr(), 0) })
    }

    /// Renames, in the place of what has the name.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to, at) = (text(from.as_ref())?, text(to.as_ref())?, self.0.as_raw_fd());
        // SAFETY: both names are NUL-terminated.
        done(unsafe { libc::renameat(at, from.as_ptr(), at, to.as_ptr()) })
    }

    /// Removes a name that is no directory.
    pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        self.unlink(name.as_ref(), 0)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        self.unlink(name.as_ref(), libc::AT_REMOVEDIR)
    }

    fn unlink(&self, name: &OsStr, flags: c_int) -> io::Result<()> {
        let name = text(name)?;
        // SAFETY: the name is NUL-terminated.
        done(unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), flags) })
    }

    /// The directory open for reading: to list it, or to change its owner and mode.
    pub(crate) fn readable(&self) -> io::Result<File> {
        self.open_as(".", libc::O_RDONLY | libc::O_DIRECTORY, 0)
    }

    /// All names in it but `.` and `..`.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let fd = self.readable()?.into_raw_fd();
        // SAFETY: the descriptor is open and from here on the stream's.
        let stream = unsafe { libc::fdopendir(fd) };
        if stream.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: the stream was not made, so the descriptor is still ours alone.
            drop(unsafe { File::from_raw_fd(fd) });
            return Err(error);
        }
        let mut names = Vec::new();
        loop {
            // SAFETY: the stream is open, and this thread's alone.
            let entry = unsafe { libc::readdir(stream) };
            if entry.is_null() {
                break;
            }
            // SAFETY: readdir's entry stays as it is until the next call.
            let name = unsafe { &raw const (*entry).d_name };
            // SAFETY: d_name ends with a NUL (readdir(3)).
            let name = unsafe { CStr::from_ptr(name.cast()) }.to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        // SAFETY: opened above, closed once.
        unsafe { libc::closedir(stream) };
        Ok(names)
    }

    /// Tells this directory from every other.
    pub(crate) fn identity(meta: &fs::Metadata) -> Identity {
        Identity { file: (meta.dev(), meta.ino()), made: meta.created().ok(), owner: meta.uid() }
    }

    /// The descriptor, to ask about its file system.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// A path that leads to this very directory for as long as it is held, for those who open by path.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

fn text(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn done(code: c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Why a way to a directory cannot be taken.
#[derive(Debug)]
pub(crate) enum Blocked {
    /// The system refused at this place.
    System(PathBuf, io::Error),
    /// A link that belongs to somebody else: he could lead us anywhere.
    Link(PathBuf, u32),
    /// A directory that belongs to somebody else, who may put anything in the place of what is in it.
    Owner(PathBuf, u32),
    /// A directory where everybody may do so.
    Writable(PathBuf),
    /// The path names no entry of a directory.
    NoName,
}

/// A way to a directory: it need not be there.
pub(crate) struct Way {
    /// The directory above.
    pub(crate) parent: Dir,
    /// The name in it.
    pub(crate) name: OsString,
    /// The path without a link.
    pub(crate) resolved: PathBuf,
    /// All directories on the way, with owner and mode.
    above: Vec<(PathBuf, u32, u32)>,
}

/// Goes an absolute path, name by name. Links on the way are followed if they belong to root or to this user: /var/run on
/// Debian is one of root's. The last name is not.
pub(crate) fn walk(path: &Path) -> Result<Way, Blocked> {
    let me = super::credentials::effective_user();
    let name = path.file_name().ok_or(Blocked::NoName)?.to_owned();
    let mut left: VecDeque<OsString> = path.parent().into_iter().flat_map(Path::iter).map(OsStr::to_owned).collect();
    let system = |at: &Path, e: io::Error| Blocked::System(at.to_owned(), e);
    let mut above = Vec::new();
    let mut links = 0;
    let mut here = None;
    let mut at = PathBuf::from("/");
    while let Some(next) = left.pop_front() {
        let to = at.join(&next);
        // An absolute path begins with the root, and so does the target of a link that is one.
        let found = match &here {
            Some(Dir(from)) if next != *"/" => {
                text(&next).and_then(|name| Dir::open_at(from.as_raw_fd(), &name, libc::O_PATH, 0))
            }
            _ => Dir::open_at(libc::AT_FDCWD, c"/", libc::O_PATH, 0),
        };
        let found = found.map_err(|e| system(&to, e))?;
        let meta = found.metadata().map_err(|e| system(&to, e))?;
        if meta.file_type().is_symlink() {
            links += 1;
            if meta.uid() != 0 && meta.uid() != me {
                return Err(Blocked::Link(to, meta.uid()));
            }
            if links > LINKS {
                return Err(system(&to, io::Error::from_raw_os_error(libc::ELOOP)));
            }
            let target = target(&found).map_err(|e| system(&to, e))?;
            for name in target.iter().rev() {
                left.push_front(name.to_owned());
            }
            continue;
        }
        if !meta.is_dir() {
            return Err(system(&to, io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        if next == *".." {
            at.pop();
        } else {
            at = to;
        }
        above.push((at.clone(), meta.uid(), meta.mode()));
        here = Some(Dir(found));
    }
    let parent = here.ok_or(Blocked::NoName)?;
    let resolved = at.join(&name);
    Ok(Way { parent, name, resolved, above })
}

/// Where an open link leads.
fn target(link: &File) -> io::Result<PathBuf> {
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: the empty name stands for the open link itself; there is room for as much as is told.
    let got = unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    buffer.truncate(usize::try_from(got).map_err(|_| io::Error::last_os_error())?);
    Ok(PathBuf::from(OsString::from_vec(buffer)))
}

impl Way {
    /// Whether nobody but root, this user and `owner` may put something else in the place of any directory on the way. Whom
    /// the root directory belongs to may do it in any case: in a user namespace that is root by another number.
    pub(crate) fn check(&self, owner: u32) -> Result<(), Blocked> {
        let me = super::credentials::effective_user();
        let root = self.above.first().map_or(0, |(_, uid, _)| *uid);
        for (path, uid, mode) in &self.above {
            if ![0, root, me, owner].contains(uid) {
                return Err(Blocked::Owner(path.clone(), *uid));
            }
            if mode & 0o002 != 0 && mode & libc::S_ISVTX == 0 {
                return Err(Blocked::Writable(path.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{lchown, symlink, PermissionsExt};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("sesscache-dir-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_of_root_on_the_way_are_followed() {
        let scratch = Scratch::new("links");
        fs::create_dir_all(scratch.0.join("a/b")).unwrap();
        symlink("a", scratch.0.join("relative")).unwrap();
        symlink(scratch.0.join("relative/b"), scratch.0.join("absolute")).unwrap();
        let way = walk(&scratch.0.join("absolute/../b/store")).unwrap();
        assert_eq!(way.resolved, scratch.0.join("a/b/store"));
        way.check(0).unwrap();
        way.parent.make_dir(&way.name, 0o700).unwrap();
        assert!(scratch.0.join("a/b/store").is_dir());
    }

    #[test]
    fn links_in_a_circle_end() {
        let scratch = Scratch::new("circle");
        symlink("two", scratch.0.join("one")).unwrap();
        symlink("one", scratch.0.join("two")).unwrap();
        let blocked = walk(&scratch.0.join("one/store")).err().unwrap();
        assert!(matches!(blocked, Blocked::System(_, e) if e.raw_os_error() == Some(libc::ELOOP)));
    }

    #[test]
    fn links_and_directories_of_others_on_the_way_are_refused() {
        if super::super::credentials::effective_user() != 0 {
            return eprintln!("giving files away needs root: skipped");
        }
        let scratch = Scratch::new("others");
        fs::create_dir(scratch.0.join("his")).unwrap();
        symlink("his", scratch.0.join("link")).unwrap();
        lchown(scratch.0.join("link"), Some(65_534), None).unwrap();
        assert!(matches!(walk(&scratch.0.join("link/store")), Err(Blocked::Link(_, 65_534))));
        lchown(scratch.0.join("his"), Some(65_534), None).unwrap();
        let way = walk(&scratch.0.join("his/store")).unwrap();
        assert!(matches!(way.check(0), Err(Blocked::Owner(_, 65_534))));
        assert!(matches!(way.check(65_533), Err(Blocked::Owner(_, 65_534))));
        way.check(65_534).unwrap();
    }

    #[test]
    fn a_way_through_a_directory_that_everybody_may_write_is_refused() {
        let scratch = Scratch::new("writable");
        let open = scratch.0.join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(walk(&open.join("store")).unwrap().check(0), Err(Blocked::Writable(_))));
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        walk(&open.join("store")).unwrap().check(0).unwrap();
    }

    #[test]
    fn no_name_is_followed() {
        let scratch = Scratch::new("names");
        fs::create_dir(scratch.0.join("outside")).unwrap();
        fs::write(scratch.0.join("outside/file"), "x").unwrap();
        symlink("outside", scratch.0.join("dir")).unwrap();
        symlink("outside/file", scratch.0.join("file")).unwrap();
        symlink("outside/new", scratch.0.join("new")).unwrap();
        let dir = Dir::open_path(&scratch.0).unwrap();
        assert!(dir.dir("dir").is_err() && dir.open("file").is_err() && dir.open_to_read("file").is_err());
        assert!(dir.create("new", 0o600).is_err());
        assert!(!dir.stat("file").unwrap().is_file());
        dir.remove("file").unwrap();
        dir.remove("dir").unwrap();
        let mut names = dir.names().unwrap();
        names.sort();
        assert_eq!(names, ["new", "outside"]);
        assert!(scratch.0.join("outside/file").exists());
    }
}
