//! The directory of a store: found or made, and refused unless it is as private as the secrets in it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::control::platform;
use crate::options::Options;
use crate::status::{Error, Result, Status};
use crate::sys::files::{self, Access, FileSystem};
use crate::sys::{copy_on_write, crypto};

/// Where a store is and who may reach it.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
    /// The file of the sealing keys.
    pub(crate) key: PathBuf,
    /// True when `key=` named it: then it is the operator's, and never written.
    pub(crate) key_is_foreign: bool,
    /// Tells this boot from earlier ones: without sync, LMDB promises nothing after a power cut.
    boot: String,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

impl Directory {
    /// Checks the directory, making it first when it is missing.
    pub(crate) fn prepare(path: &Path, options: &Options) -> Result<Directory> {
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("the path is empty").remedy("give a directory, such as /run/myserver-tls"));
        }
        let path = std::path::absolute(path).map_err(|e| Error::system("cannot find the current directory", &e))?;
        let access = access(options)?;
        let failed = |doing: &str, e: &io::Error| Error::system(format_args!("cannot {doing} {}", path.display()), e);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                let made = fs::File::open(&path).and_then(|directory| access.apply(&directory, true));
                made.map_err(|e| failed("set owner and mode of", &e))?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // On a read-only file system an existing directory may answer EROFS: the look below tells.
            Err(_) if fs::symlink_metadata(&path).is_ok() => {}
            Err(e) => return Err(failed("create", &e)),
        }
        let meta = fs::symlink_metadata(&path).map_err(|e| failed("look at", &e))?;
        check_directory(&path, &meta, access)?;
        let deadly = |kind: &str| {
            let why = "where a full disk or quota ends the processes that share memory";
            Err(Error::invalid(format!("{} is on {kind}, {why}", path.display()))
                .remedy("use a directory on tmpfs, such as /run/myserver-tls"))
        };
        match files::file_system(&path).map_err(|e| failed("look at", &e))? {
            FileSystem::Network(kind) => {
                let text = format!("{} is on {kind}, where shared memory does not work", path.display());
                return Err(Error::invalid(text).remedy("use a local directory, such as /run/myserver-tls"));
            }
            FileSystem::Deadly(kind) => return deadly(kind),
            // Where a store is already, somebody has tried it out.
            FileSystem::Overlay if fs::symlink_metadata(path.join("control")).is_err() => {
                if copy_on_write::probe(&new_path(&path)?).map_err(|e| failed("write to", &e))? {
                    return deadly("an overlay over a file system with copy on write");
                }
            }
            FileSystem::Overlay | FileSystem::CopyOnWrite | FileSystem::Local => {}
        }
        let key = options.key.clone().unwrap_or_else(|| path.join("key"));
        Ok(Directory {
            key,
            key_is_foreign: options.key.is_some(),
            boot: boot_id(),
            identity: (meta.dev(), meta.ino()),
            access,
            path,
        })
    }

    /// A directory that is there already, taken as it is: whoever looks at it has no wishes about its owner and modes.
    pub(crate) fn existing(path: &Path, key: Option<&Path>) -> Result<Directory> {
        let path = std::path::absolute(path).map_err(|e| Error::system("cannot find the current directory", &e))?;
        let failed = |e: &io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::new(Status::NotFound, format!("there is no {}", path.display())),
            _ => Error::system(format_args!("cannot look at {}", path.display()), e),
        };
        let meta = fs::metadata(&path).map_err(|e| failed(&e))?;
        if !meta.is_dir() {
            return Err(Error::invalid(format!("{} is not a directory", path.display())));
        }
        let mode = fs::metadata(path.join("control")).map_or(0o600, |control| control.mode() & 0o660);
        Ok(Directory {
            key: key.map_or_else(|| path.join("key"), Path::to_owned),
            key_is_foreign: key.is_some(),
            boot: boot_id(),
            identity: (meta.dev(), meta.ino()),
            access: Access { mode, uid: Some(meta.uid()), gid: Some(meta.gid()), owners_group: None },
            path,
        })
    }

    /// Looks again, where files are opened later than the directory was: another one in its place must be as private.
    pub(crate) fn check_again(&self) -> Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(meta) if (meta.dev(), meta.ino()) != self.identity => check_directory(&self.path, &meta, self.access),
            // What is missing or out of reach fails where it is opened.
            _ => Ok(()),
        }
    }

    /// Why the directory would be refused by whoever opens it with owner and modes as they are.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let meta = fs::symlink_metadata(&self.path);
        match meta.map_err(|e| Error::system(format_args!("cannot look at {}", self.path.display()), &e)) {
            Ok(meta) => check_directory(&self.path, &meta, self.access).err(),
            Err(error) => Some(error),
        }
    }

    /// The directory of a generation.
    pub(crate) fn generation(&self, number: u64) -> PathBuf {
        self.path.join(generation_name(&self.boot, number))
    }
}

/// Owner, group and mode by number; refused when there is no such user or group.
pub(super) fn access(options: &Options) -> Result<Access> {
    let named = |option: &str, name: &Option<String>, find: fn(&str) -> Option<u32>| match name {
        None => Ok(None),
        Some(name) => find(name).map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "{option}='{name}': there is no such {}",
                if option == "owner" { "user" } else { "group" }
            ))
        }),
    };
    let uid = named("owner", &options.owner, files::user_id)?;
    let gid = named("group", &options.group, files::group_id)?;
    let owners_group = uid.filter(|_| gid.is_none()).and_then(files::primary_group);
    Ok(Access { mode: options.mode, uid, gid, owners_group })
}

fn check_directory(path: &Path, meta: &fs::Metadata, access: Access) -> Result<()> {
    let shown = path.display();
    if meta.file_type().is_symlink() {
        return Err(Error::invalid(format!("{shown} is a symbolic link")).remedy("give the directory it points to"));
    }
    if !meta.is_dir() {
        let error = Error::invalid(format!("{shown} is not a directory"));
        return Err(error.remedy("give the path of one, or of one to be made"));
    }
    let me = files::effective_user();
    let owner = access.uid.unwrap_or(me);
    let shared_by_group = access.mode & 0o060 != 0;
    if meta.uid() != owner && !(shared_by_group && meta.uid() == 0) {
        let uid = meta.uid();
        return Err(Error::invalid(format!("{shown} belongs to user {uid}, not to {owner}"))
            .run(format!("chown {owner} {shown}, or give owner={uid}")));
    }
    let allowed = access.directory_mode();
    let mode = meta.mode() & 0o777;
    if mode & !allowed != 0 {
        return Err(Error::invalid(format!("{shown} is open to others (mode {mode:04o})"))
            .run(format!("chmod {allowed:04o} {shown}")));
    }
    // Whoever may rename the directory may put another in its place.
    let Some(parent) = path.parent() else { return Ok(()) };
    let above =
        fs::metadata(parent).map_err(|e| Error::system(format_args!("cannot look at {}", parent.display()), &e))?;
    if above.mode() & 0o002 != 0 && above.mode() & libc::S_ISVTX == 0 {
        let parent = parent.display();
        return Err(Error::invalid(format!("{parent} is writable by everybody, so anybody could replace {shown}"))
            .remedy(format!("use another place, or run: chmod o-w {parent}")));
    }
    Ok(())
}

/// Refuses a file that others may read or change. Used for the keys.
pub(crate) fn check_private(path: &Path, meta: &fs::Metadata, access: Access) -> Result<()> {
    let mode = meta.mode() & 0o777;
    let me = files::effective_user();
    if !(meta.uid() == me || meta.uid() == 0 || access.uid == Some(meta.uid())) {
        let path = path.display();
        return Err(Error::invalid(format!("{path} belongs to user {}", meta.uid())).run(format!("chown {me} {path}")));
    }
    if mode & 0o777 & !access.mode & !0o400 != 0 {
        let path = path.display();
        return Err(Error::invalid(format!("{path} is open to others (mode {mode:04o})"))
            .run(format!("chmod {:04o} {path}", access.mode)));
    }
    Ok(())
}

/// A name that nobody has, for what is being made in the directory of a store. What is left of it is cleared away later.
pub(super) fn new_path(directory: &Path) -> Result<PathBuf> {
    let mut random = [0; 8];
    match crypto::random(&mut random) {
        true => Ok(directory.join(format!("new-{:016x}", u64::from_ne_bytes(random)))),
        false => Err(Error::new(Status::System, "the kernel has no random bytes to give")),
    }
}

/// Eight digits of the boot id; the same for all boots where /proc is missing.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    if digits.len() == 8 {
        digits
    } else {
        "00000000".to_owned()
    }
}

/// The status for a directory whose control file is of another version.
pub(crate) fn other_format(path: &Path, what: &str) -> Error {
    Error::new(Status::Format, format!("{} {what}", path.display()))
        .remedy("stop what uses it and remove the directory, or give another path")
}

/// The name of a generation's directory.
fn generation_name(boot: &str, number: u64) -> String {
    format!("v1-{}-{boot}-{number:x}", platform())
}

pub(super) fn generation_number(name: &str) -> Option<u64> {
    let (head, number) = name.rsplit_once('-')?;
    head.starts_with("v1-").then(|| u64::from_str_radix(number, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_known_by_its_name() {
        assert_eq!(generation_number(&generation_name("0badcafe", 0x1234_5678_9abc)), Some(0x1234_5678_9abc));
        assert_eq!(generation_number("control"), None);
        assert_eq!(generation_number("key-1"), None);
    }
}
