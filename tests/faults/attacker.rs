//! What somebody does in his directory to have root do it elsewhere.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::io::{BufRead, Read};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A generation's name with another number.
pub fn numbered(name: &str, change: impl FnOnce(u64) -> u64) -> String {
    let (head, number) = name.rsplit_once('-').expect("a generation's name");
    format!("{head}-{:x}", change(u64::from_str_radix(number, 16).expect("a generation's number")))
}

/// For as many lines as come: links with the names of what is cleared away, all of them old.
pub fn link_old_names(store: &Path, victim: &Path) {
    println!("ready");
    for _ in std::io::stdin().lock().lines() {
        let all = names(store);
        let generation = all.iter().find(|name| name.starts_with('v')).expect("a generation");
        let names = [
            numbered(generation, |n| n - 1),
            numbered(generation, |n| n - 2),
            "new-0123456789abcdef".to_owned(),
            "control.0123456789abcdef".to_owned(),
            "key.0123456789abcdef".to_owned(),
        ];
        for name in &names {
            let link = store.join(name);
            let _ = fs::remove_file(&link);
            symlink(victim, &link).expect("a link");
            let link = CString::new(link.as_os_str().as_bytes()).expect("no NUL");
            let long_ago = libc::timespec { tv_sec: 1_000_000, tv_nsec: 0 };
            // SAFETY: the path is NUL-terminated, and there are two times.
            let set = unsafe {
                libc::utimensat(libc::AT_FDCWD, link.as_ptr(), [long_ago; 2].as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
            };
            assert_eq!(set, 0, "a link does not become old");
        }
        println!("linked {}", names.len());
    }
}

/// New names in a directory, as they appear.
struct Watch(fs::File);

impl Watch {
    fn new() -> Watch {
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
        assert!(fd >= 0, "inotify: {}", std::io::Error::last_os_error());
        // SAFETY: made a moment ago, and nobody else has it.
        Watch(unsafe { fs::File::from_raw_fd(fd) })
    }

    fn add(&self, directory: &Path) -> i32 {
        use std::os::fd::AsRawFd;
        let path = CString::new(directory.as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: the path is NUL-terminated.
        unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), libc::IN_CREATE | libc::IN_MOVED_TO) }
    }

    /// Watch and name of each event.
    fn wait(&mut self) -> Vec<(i32, OsString)> {
        let mut buffer = [0_u8; 4096];
        let got = self.0.read(&mut buffer).expect("events");
        let mut events = Vec::new();
        let mut at = 0;
        while at < got {
            let word = |from: usize| u32::from_ne_bytes(buffer[from..from + 4].try_into().expect("4 bytes"));
            let (watch, len) = (word(at) as i32, word(at + 12) as usize);
            let name = buffer[at + 16..at + 16 + len].split(|byte| *byte == 0).next().unwrap_or_default();
            events.push((watch, OsString::from_vec(name.to_vec())));
            at += 16 + len;
        }
        events
    }
}

/// Puts each in the place of the other, at once.
pub fn exchange(one: &Path, other: &Path) -> bool {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let (one, other) = (text(one), text(other));
    // SAFETY: both paths are NUL-terminated.
    let code = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    code == 0
}

/// Exchanges what appears for a link that leads outside, until he is killed. `what` says which names.
pub fn exchange_all(store: &Path, victim: &Path, what: &str) {
    let trap = store.with_file_name("place-of-traps");
    let _ = fs::create_dir(&trap);
    let trap = if trap.is_dir() { trap.join("trap") } else { store.join("trap") };
    let empty = victim.with_file_name("empty");
    let mut watch = Watch::new();
    let above = store.parent().expect("a directory above");
    let here = if what == "directory" { watch.add(above) } else { watch.add(store) };
    assert!(here >= 0, "the directory cannot be watched");
    let mut inner: BTreeMap<i32, PathBuf> = BTreeMap::new();
    let set = |target: &Path| {
        let _ = fs::remove_file(&trap).or_else(|_| fs::remove_dir_all(&trap));
        let _ = symlink(target, &trap);
    };
    let mut turn = 0_usize;
    let targets = [&empty, victim];
    set(&empty);
    println!("ready");
    loop {
        for (watched, name) in watch.wait() {
            let text = name.to_string_lossy();
            let path = match inner.get(&watched) {
                Some(directory) => directory.join(&name),
                None if what == "directory" => above.join(&name),
                None => store.join(&name),
            };
            let wanted = match what {
                "directory" => path == store,
                "construction" => text.starts_with("new-"),
                "generation" => text.starts_with('v'),
                "files" => watched != here || text.starts_with("control.") || text.starts_with("key."),
                other => panic!("nothing is called {other}"),
            };
            if wanted && exchange(&path, &trap) {
                turn += 1;
                let target = targets[turn % 2];
                set(&if what == "files" {
                    target.join(if turn % 4 < 2 { "data.mdb" } else { "lock.mdb" })
                } else {
                    target.to_owned()
                });
            } else if what == "files" && watched == here && path.is_dir() {
                inner.insert(watch.add(&path), path);
            }
        }
    }
}

/// Exchanges the lock file of the generation that is there for a link to what is not there, until he is killed.
pub fn exchange_without_end(store: &Path, victim: &Path) {
    let generation = names(store).into_iter().find(|name| name.starts_with('v')).expect("a generation");
    let (lock, trap) = (store.join(&generation).join("lock.mdb"), store.join(&generation).join("trap"));
    symlink(victim.with_file_name("empty").join("made"), &trap).expect("a link");
    println!("ready");
    while exchange(&lock, &trap) {}
}
