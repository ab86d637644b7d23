//! The directory of one generation, open: what is looked at in it before LMDB opens its files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::boot::BootId;
use super::super::check::{self, Damage, Expected};
use super::super::control::Shape;
use super::super::directory::OpenDirectory;
use super::super::entries::{generation_name, DATA, LOCK};
use super::super::env::{Env, Fault, Files};
use super::super::page::GenerationPage;
use super::super::pages;
use super::super::write_lock::WriteLock;
use super::{limit_too_low, Broken};
use crate::status::{Error, Status};
use crate::sys::dir::Dir;
use crate::sys::files::{self, FirstByte};

/// A file is not checked again before so many times the check has passed. A server with a process per connection has
/// nobody who keeps its store open, and each process would check it: this way they spend a 400th of the time on it.
const RARELY: u64 = 400;
/// Larger files, by their part in use, are opened without a check.
const CHECKED: u64 = 512 << 20;
/// Longest wait for another process that opens the generation, which takes a tenth of one, in milliseconds.
const OPENING: u32 = 50;
/// Longest wait for writers to leave, so that the file can be checked while nothing moves in it, in milliseconds.
const WRITERS_LEAVE: u32 = 50;

/// See the module's first lines.
pub(super) struct GenerationDir<'o> {
    open: &'o OpenDirectory<'o>,
    name: String,
    dir: Dir,
}

impl GenerationDir<'_> {
    pub(super) fn find<'o>(open: &'o OpenDirectory<'o>, number: u64) -> Result<GenerationDir<'o>, Broken> {
        let name = generation_name(number);
        match open.dir(&name) {
            Ok(dir) => Ok(GenerationDir { open, name, dir }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Broken::Gone),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                Err(Broken::Damaged("it is no directory".to_owned()))
            }
            Err(e) => Err(refused(open, &name, &e)),
        }
    }

    pub(super) fn lock(&self, open: fn(&Dir) -> io::Result<Option<WriteLock>>) -> Result<Arc<WriteLock>, Broken> {
        match open(&self.dir) {
            Ok(Some(lock)) if files::exceeds_file_limit(lock.page().shape().capacity) => {
                Err(Broken::Refused(limit_too_low()))
            }
            Ok(Some(lock)) => Ok(Arc::new(lock)),
            Ok(None) => Err(Broken::Damaged("its page is damaged".to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Broken::Gone),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ELOOP)) => {
                Err(Broken::Damaged("its page is no file".to_owned()))
            }
            Err(e) => Err(refused(self.open, &self.name, &e)),
        }
    }

    /// LMDB would create what is missing, and a new lock file for an old data file means two domains of locks.
    pub(super) fn files(&self) -> Result<Files, Broken> {
        let look = |name: &str| match self.dir.stat(name) {
            Ok(found) if found.is_file() && found.len() > 0 => Ok(found.file()),
            Ok(_) => Err(Broken::Damaged(format!("{name} is empty or no file"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Broken::Damaged(format!("{name} is missing"))),
            Err(e) => Err(refused(self.open, &self.name, &e)),
        };
        Ok(Files { data: look(DATA)?, lock: look(LOCK)? })
    }

    /// A generation of an earlier boot is gone. Where nobody could tell the boot when it was made, it is of this one if a
    /// process has it open, or if its file system does not outlive a boot.
    pub(super) fn check_boot(
        &self,
        page: &GenerationPage,
        boot: Option<BootId>,
        note: impl Fn(&GenerationPage, BootId),
    ) -> Result<(), Broken> {
        let Some(boot) = boot else { return Ok(()) };
        let is_of_this = match page.boot() {
            Some(made) => made == boot,
            None => files::is_in_memory(self.dir.file()) || self.usage() != FirstByte::Free,
        };
        if !is_of_this {
            return Err(Broken::Gone);
        }
        if page.boot().is_none() {
            note(page, boot);
        }
        Ok(())
    }

    pub(super) fn open(
        &self,
        page: &GenerationPage,
        files: Files,
        usage: FirstByte,
        open: fn(&Path, Shape, Files) -> Result<Env, Fault>,
    ) -> Result<Env, Broken> {
        if !self.can_be_opened(usage) {
            let what = "a process is stopped while it opens";
            return Err(Broken::Refused(Error::new(Status::Busy, format!("{what} {}", self.shown()))));
        }
        let path = self.open.path_for_lmdb(&self.name, &self.dir);
        let _rights = self.open.rights_for_lmdb().map_err(Broken::Refused)?;
        open(&path, page.shape(), files).map_err(|fault| match fault {
            Fault::Damaged(_) => Broken::Damaged(fault.text()),
            fault => {
                Broken::Refused(Error::new(Status::System, format!("cannot open {}: {}", self.shown(), fault.text())))
            }
        })
    }

    fn shown(&self) -> String {
        format!("{}/{}", self.open.path().display(), self.name)
    }

    /// How other processes have the generation open: LMDB then holds a lock on the first byte of its lock file.
    pub(super) fn usage(&self) -> FirstByte {
        // Closing the descriptor drops this process's own locks. It has none: the environment is not open yet.
        self.dir.open_to_read(LOCK).map_or(FirstByte::Shared, |file| files::first_byte(&file))
    }

    /// Waits until nobody else is about to open the generation as the first: LMDB would wait for him without a deadline.
    fn can_be_opened(&self, mut usage: FirstByte) -> bool {
        for _ in 0..OPENING {
            if usage != FirstByte::Alone {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
            usage = self.usage();
        }
        false
    }

    pub(super) fn is_large(&self, page: &GenerationPage) -> bool {
        let len = || self.dir.stat(DATA).map_or(0, |data| data.len());
        let used = if page.shape().guard { len() } else { page.reserved.get() };
        used > CHECKED
    }

    pub(super) fn inspect(&self, shape: Shape) -> Result<(), Damage> {
        let unreadable = |_| Damage { page: 0, what: "it cannot be read" };
        inspect(&self.dir.open_to_read(DATA).map_err(unreadable)?, shape)
    }

    /// Checks a data file that nobody has open. Who has it open has checked it, or relies on who did. A large one is not
    /// checked: at 0.4 s for a GiB the first session of a server would wait for too long.
    pub(super) fn inspect_unused(&self, lock: &WriteLock, files: Files) -> Result<(), String> {
        let (page, (_, inode)) = (lock.page(), files.data);
        if page.is_trusted(inode) || self.is_large(page) {
            return Ok(());
        }
        let begin = Instant::now();
        if self.inspect(page.shape()).is_ok() {
            page.trust(inode, begin.elapsed().as_millis() as u64 * RARELY);
            return Ok(());
        }
        // Somebody may have opened it since then and moved pages under the eyes of the check: look again with writers held
        // off. Only trying, since a wait in vain would make the puts to come impatient.
        for _ in 0..WRITERS_LEAVE {
            if let Ok(_locked) = lock.acquire(Duration::ZERO) {
                return self.inspect(page.shape()).map_err(|damage| damage.to_string());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It is in use after all.
        Ok(())
    }
}

fn refused(open: &OpenDirectory<'_>, name: &str, e: &io::Error) -> Broken {
    Broken::Refused(Error::system(format_args!("cannot open {}/{name}", open.path().display()), e))
}

/// Reads the whole data file, never through a map: a page that is not there is an error and no signal.
pub(super) fn inspect(file: &File, shape: Shape) -> Result<(), Damage> {
    let page = files::page_size().min(pages::PAGE_MAX);
    let unreadable = |_| Damage { page: 0, what: "it cannot be read" };
    // What is written through the map is as long as the map, and LMDB lengthens in silence what is not. A guarded file may
    // end early: its last pages are free and were never written.
    if !shape.guard && file.metadata().map_err(unreadable)?.len() < shape.capacity {
        return Err(Damage { page: shape.capacity / page as u64 - 1, what: "the file ends before it" });
    }
    check::check(Expected { page, map: shape.capacity }, |number, out| {
        file.read_exact_at(out, number * page as u64).is_ok()
    })?;
    Ok(())
}
