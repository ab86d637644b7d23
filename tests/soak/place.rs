//! Where the store lies: a file system of a few MiB of its own, which can be filled, or a plain directory for those who
//! may not mount.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use support::Scratch;

/// Holds two generations of the largest capacity, and not much more.
const SIZE: &str = "size=14m,mode=0700";

pub struct Place {
    scratch: Scratch,
    root: PathBuf,
    /// Whether it can be filled.
    pub is_own: bool,
}

impl Place {
    /// To be called while the process has one thread.
    pub fn make() -> Place {
        let scratch = Scratch::new("soak");
        let root = scratch.join("file-system");
        fs::create_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        support::set_mode(&root, 0o700);
        let is_own = mount(&root);
        Place { scratch, root, is_own }
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where things lie that are not to be filled up.
    pub fn beside(&self) -> PathBuf {
        self.scratch.join("beside")
    }

    /// What workers say about connections that came to nothing.
    pub fn words(&self) -> PathBuf {
        self.beside().join("words")
    }

    /// Takes all the room that is left, but for so many KiB.
    pub fn fill(&self, but: usize) {
        let Ok(mut file) = fs::File::create(self.root.join("filler")) else { return };
        let piece = vec![0x5A_u8; 64 << 10];
        while file.write_all(&piece).is_ok() {}
        let len = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.set_len(len.saturating_sub((but as u64) << 10));
    }

    pub fn empty(&self) {
        let _ = fs::remove_file(self.root.join("filler"));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_own {
            let path = c_path(&self.root);
            // SAFETY: a NUL-terminated path.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// In a mount namespace of its own: whatever ends this process, the mount goes with the last of its children.
fn mount(root: &Path) -> bool {
    let path = c_path(root);
    // SAFETY: the process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return false;
    }
    let (none, slash) = (std::ptr::null(), c"/".as_ptr());
    // SAFETY: NUL-terminated paths; what this kind of change does not use is NULL.
    if unsafe { libc::mount(none, slash, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) } != 0 {
        return false;
    }
    let (kind, size) = (c"tmpfs", CString::new(SIZE).expect("no NUL"));
    // SAFETY: NUL-terminated strings.
    unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, size.as_ptr().cast()) == 0 }
}
