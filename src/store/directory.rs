//! The directory of a store: found or made, and refused unless it is as private as the secrets in it.
//!
//! It may belong to another user than the one who works in it: root opens a store for a worker without rights (`owner=`). What
//! root does there by name, that user can turn against it. So the directory is open by descriptor for as long as something is
//! done in it, nothing leads out of it, and root has the rights of its owner meanwhile. It is closed afterwards: in a process
//! that changes its root directory, a descriptor leads out.

use std::fs;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::boot::BootId;
use super::entries::{is_made_here, new_name};
use crate::options::Options;
use crate::status::{Error, Result, Status};
use crate::sys::copy_on_write;
use crate::sys::credentials::{self, ActingAs, Ids};
use crate::sys::dir::{walk, Blocked, Dir, Identity, Way};
use crate::sys::files::{self, Access, FileSystem};

/// The user and group of those who have no rights.
const NOBODY: u32 = 65_534;

/// Where a store is and who may reach it.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
    /// The file of the sealing keys.
    pub(crate) key: PathBuf,
    /// True when `key=` named it: then it is the operator's, and never written.
    pub(crate) key_is_foreign: bool,
    /// Tells this boot from earlier ones: without sync, LMDB promises nothing after a power cut. `None` when it cannot be read.
    pub(crate) boot: Option<BootId>,
    /// Which directory it was when the way to it was checked.
    pub(crate) identity: Identity,
}

/// The directory, open, with the rights that one should have in it.
pub(crate) struct OpenDirectory<'d> {
    found: FoundDirectory,
    of: &'d Directory,
    /// The effective user.
    me: u32,
    rights: Option<ActingAs>,
}

/// A directory, and how it was when it was opened.
pub(crate) struct FoundDirectory {
    dir: Dir,
    meta: fs::Metadata,
}

impl Directory {
    /// Checks the directory, making it first when it is missing, and says which one it is.
    pub(crate) fn prepare(path: &Path, options: &Options) -> Result<(Directory, FoundDirectory)> {
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("the path is empty").remedy("give a directory, such as /run/myserver-tls"));
        }
        let path = absolute(path)?;
        let access = access(options)?;
        let way = way(&path, access.uid)?;
        let found = find_or_make(&path, &way, access)?;
        check_directory(&path, &way.resolved, &found, access)?;
        match files::file_system(found.dir.file()).map_err(|e| failed("look at", &path, &e))? {
            FileSystem::Network(kind) => {
                let text = format!("{} is on {kind}, where shared memory does not work", path.display());
                return Err(Error::invalid(text).remedy("use a local directory, such as /run/myserver-tls"));
            }
            FileSystem::Deadly(kind) => return Err(deadly(&path, kind)),
            FileSystem::Overlay | FileSystem::CopyOnWrite | FileSystem::Local => {}
        }
        let directory = Directory {
            key: options.key.clone().unwrap_or_else(|| path.join("key")),
            key_is_foreign: options.key.is_some(),
            boot: BootId::read(),
            identity: Dir::identity(&found.meta),
            access,
            path,
        };
        Ok((directory, found))
    }

    /// A directory that is there already, taken as it is: whoever looks at it has no wishes about its owner and modes.
    pub(crate) fn existing(path: &Path, key: Option<&Path>) -> Result<Directory> {
        let path = absolute(path)?;
        let missing = |e: &io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::new(Status::NotFound, format!("there is no {}", path.display())),
            _ => failed("look at", &path, e),
        };
        let way = walk(&path).map_err(|blocked| match blocked {
            Blocked::System(_, e) => missing(&e),
            blocked => self::blocked(&path, blocked),
        })?;
        let dir =
            way.parent.dir(&way.name).map_err(|e| no_directory(&path, &way, &e).unwrap_or_else(|| missing(&e)))?;
        let meta = dir.metadata().map_err(|e| missing(&e))?;
        way.check(meta.uid()).map_err(|blocked| self::blocked(&path, blocked))?;
        let mut directory = Directory {
            key: key.map_or_else(|| path.join("key"), Path::to_owned),
            key_is_foreign: key.is_some(),
            boot: BootId::read(),
            identity: Dir::identity(&meta),
            // A group of root's says nothing about what its owner may hand on.
            access: Access {
                mode: 0o600,
                uid: Some(meta.uid()),
                gid: Some(meta.gid()).filter(|gid| *gid != 0 || meta.uid() == 0),
                owners_group: files::primary_group(meta.uid()),
            },
            path,
        };
        let control = directory.enter()?.stat("control");
        directory.access.mode = control.map_or(0o600, |control| control.mode() & 0o660);
        Ok(directory)
    }

    /// Opens the directory for as long as something is done in it. Another one in its place must be as private.
    pub(crate) fn enter(&self) -> Result<OpenDirectory<'_>> {
        let mut found = FoundDirectory::new(Dir::open_path(&self.path)).map_err(|e| failed("open", &self.path, &e))?;
        if Dir::identity(&found.meta) != self.identity {
            found = self.find_checked()?;
        }
        self.enter_found(found)
    }

    /// The same with what [`Directory::prepare`] has found. Root has the rights of the owner in it.
    pub(crate) fn enter_found(&self, found: FoundDirectory) -> Result<OpenDirectory<'_>> {
        let (me, meta) = (credentials::effective_user(), &found.meta);
        let is_others = me == 0 && meta.uid() != 0;
        let rights = is_others.then(|| act(owners(meta.uid(), self.access, meta.gid()), &self.path)).transpose()?;
        Ok(OpenDirectory { found, of: self, me, rights })
    }

    fn find_checked(&self) -> Result<FoundDirectory> {
        let way = way(&self.path, self.access.uid)?;
        let found = FoundDirectory::new(way.parent.dir(&way.name)).map_err(|e| failed("open", &self.path, &e))?;
        check_directory(&self.path, &way.resolved, &found, self.access)?;
        Ok(found)
    }

    /// Why the directory would be refused by whoever opens it with owner and modes as they are.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.find_checked().err()
    }
}

impl OpenDirectory<'_> {
    pub(crate) fn access(&self) -> Access {
        self.of.access
    }

    pub(crate) fn path(&self) -> &Path {
        &self.of.path
    }

    pub(crate) fn boot(&self) -> Option<BootId> {
        self.of.boot
    }

    /// A path for LMDB, which opens by path, to a directory in this one. What nobody but this user may change is reached by its
    /// path: /proc takes a fresh process 10 us. What others may change is reached by descriptor.
    pub(crate) fn path_for_lmdb(&self, name: &str, dir: &Dir) -> PathBuf {
        let meta = &self.found.meta;
        let is_ours_alone = self.rights.is_none() && meta.uid() == self.me && meta.mode() & 0o022 == 0;
        let by_descriptor = (!is_ours_alone).then(|| dir.path()).filter(|path| path.exists());
        by_descriptor.unwrap_or_else(|| self.of.path.join(name))
    }

    /// The rights with which LMDB opens. Its open(2) follows a link in the place of a file, which those may put there who may
    /// write the directory of root: it must not be root who follows it.
    pub(crate) fn rights_for_lmdb(&self) -> Result<Option<ActingAs>> {
        let meta = &self.found.meta;
        let is_shared = meta.uid() == 0 && meta.mode() & 0o020 != 0;
        let nobody = Ids { uid: NOBODY, gid: meta.gid() };
        (self.me == 0 && is_shared).then(|| act(nobody, &self.of.path)).transpose()
    }

    /// Before a store is made in it: whether it is one, or empty, and on a file system that can hold one.
    pub(crate) fn check_before_making(&self) -> Result<()> {
        if !is_store_or_empty(self) {
            return Err(not_its_own(self.path()));
        }
        let failed = |e: io::Error| failed("write to", self.path(), &e);
        if files::file_system(self.file()).map_err(failed)? == FileSystem::Overlay
            && copy_on_write::probe(self, &new_name()?).map_err(failed)?
        {
            return Err(deadly(self.path(), "an overlay over a file system with copy on write"));
        }
        Ok(())
    }
}

impl Deref for OpenDirectory<'_> {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.found.dir
    }
}

impl FoundDirectory {
    fn new(opened: io::Result<Dir>) -> io::Result<FoundDirectory> {
        let dir = opened?;
        Ok(FoundDirectory { meta: dir.metadata()?, dir })
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::system("cannot find the current directory", &e))
}

fn failed(doing: &str, path: &Path, e: &io::Error) -> Error {
    Error::system(format_args!("cannot {doing} {}", path.display()), e)
}

fn deadly(path: &Path, kind: &str) -> Error {
    let why = "where a full disk or quota ends the processes that share memory";
    Error::invalid(format!("{} is on {kind}, {why}", path.display()))
        .remedy("use a directory on tmpfs, such as /run/myserver-tls")
}

/// Ids of the owner of a directory. Root's group is nobody's by its being the directory's.
fn owners(uid: u32, access: Access, group: u32) -> Ids {
    let gid = access.gid.or(access.owners_group);
    Ids { uid, gid: gid.unwrap_or(if group == 0 { NOBODY } else { group }) }
}

fn act(ids: Ids, path: &Path) -> Result<ActingAs> {
    ids.act().map_err(|e| {
        Error::system(
            format_args!(
                "cannot work as user {} in {}, which is that user's (CAP_SETUID and CAP_SETGID)",
                ids.uid,
                path.display()
            ),
            &e,
        )
    })
}

/// The way to a directory, checked: nobody but root, this user and `owner` can change where it leads.
fn way(path: &Path, owner: Option<u32>) -> Result<Way> {
    let way = walk(path).map_err(|reason| blocked(path, reason))?;
    way.check(owner.unwrap_or_else(credentials::effective_user)).map_err(|reason| blocked(path, reason))?;
    Ok(way)
}

fn blocked(path: &Path, reason: Blocked) -> Error {
    let shown = path.display();
    let text = match reason {
        Blocked::System(at, e) if e.kind() == io::ErrorKind::NotFound => {
            let above = path.parent().unwrap_or(path).display();
            return Error::new(Status::System, format!("cannot create {shown}: {} is missing", at.display()))
                .remedy(format!("make {above} first: only the last directory of a path is made"));
        }
        Blocked::System(at, e) => return Error::system(format_args!("cannot reach {shown}: {}", at.display()), &e),
        Blocked::NoName => return not_its_own(path),
        Blocked::Link(at, user) => {
            format!(
                "{} on the way to {shown} is a symbolic link of user {user}, who could lead it anywhere",
                at.display()
            )
        }
        Blocked::Owner(at, user) => format!(
            "{} on the way to {shown} belongs to user {user}, who could put another directory in its place",
            at.display()
        ),
        Blocked::Writable(at) => format!(
            "{} on the way to {shown} is writable by everybody, so anybody could replace what is in it",
            at.display()
        ),
    };
    Error::invalid(text).remedy("use a place whose directories belong to root, such as /run/NAME/tls")
}

/// What stands in the place of a directory, if that is why it does not open.
fn no_directory(path: &Path, way: &Way, e: &io::Error) -> Option<Error> {
    if !matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) {
        return None;
    }
    let shown = path.display();
    Some(match way.parent.stat(&way.name) {
        Ok(found) if found.is_link() => {
            Error::invalid(format!("{shown} is a symbolic link")).remedy("give the directory it points to")
        }
        _ => Error::invalid(format!("{shown} is not a directory")).remedy("give the path of one, or of one to be made"),
    })
}

/// A directory that is made has the sticky bit until it has its owner, which tells it from all that others could put in its
/// place between the two calls: nobody but this user can make one like it.
const UNFINISHED: u32 = 0o1700;

fn find_or_make(path: &Path, way: &Way, access: Access) -> Result<FoundDirectory> {
    let open = || FoundDirectory::new(way.parent.dir(&way.name));
    match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let above = way.parent.metadata().map_err(|e| failed("look above", path, &e))?;
            let is_others = credentials::effective_user() == 0 && above.uid() != 0;
            let rights = is_others.then(|| act(owners(above.uid(), access, above.gid()), path)).transpose()?;
            match way.parent.make_dir(&way.name, UNFINISHED) {
                Ok(()) => {}
                // Another process was faster.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed("create", path, &e)),
            }
            let user = if rights.is_some() { above.uid() } else { credentials::effective_user() };
            finish(path, way, open(), user, access)
        }
        // One whose maker was killed, or is about to do the same.
        found => finish(path, way, found, credentials::effective_user(), access),
    }
}

/// Gives a directory that `user` has made a moment ago its owner and mode.
fn finish(
    path: &Path,
    way: &Way,
    found: io::Result<FoundDirectory>,
    user: u32,
    access: Access,
) -> Result<FoundDirectory> {
    let FoundDirectory { dir, meta } =
        found.map_err(|e| no_directory(path, way, &e).unwrap_or_else(|| failed("open", path, &e)))?;
    let is_unfinished = meta.mode() & libc::S_ISVTX != 0 && meta.mode() & 0o077 == 0 && meta.uid() == user;
    if !is_unfinished {
        return Ok(FoundDirectory { dir, meta });
    }
    let finished = dir.names().and_then(|names| match names.is_empty() {
        true => access.apply(&dir.readable()?, true).and_then(|()| FoundDirectory::new(Ok(dir))),
        false => Ok(FoundDirectory { dir, meta }),
    });
    finished.map_err(|e| failed("set owner and mode of", path, &e))
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

fn check_directory(path: &Path, resolved: &Path, found: &FoundDirectory, access: Access) -> Result<()> {
    let (shown, meta) = (path.display(), &found.meta);
    let owner = access.uid.unwrap_or_else(credentials::effective_user);
    let shared_by_group = access.mode & 0o060 != 0;
    let is_owned = meta.uid() == owner || (shared_by_group && meta.uid() == 0);
    let allowed = access.directory_mode();
    let mode = meta.mode() & 0o777;
    if is_owned && mode & !allowed == 0 {
        return Ok(());
    }
    // A command that would harm a directory of others is never said.
    if is_of_the_system(resolved) || !is_store_or_empty(&found.dir) {
        return Err(not_its_own(path));
    }
    let uid = meta.uid();
    Err(match is_owned {
        false => Error::invalid(format!("{shown} belongs to user {uid}, not to {owner}"))
            .run(format!("chown {owner} {shown}, or give owner={uid}")),
        true => Error::invalid(format!("{shown} is open to others (mode {mode:04o})"))
            .run(format!("chmod {allowed:04o} {shown}")),
    })
}

/// The answer to a directory where others have something.
pub(crate) fn not_its_own(path: &Path) -> Error {
    Error::invalid(format!("{} is neither empty nor a store", path.display()))
        .remedy("give it a directory of its own, such as /run/NAME/tls")
}

fn is_store_or_empty(dir: &Dir) -> bool {
    dir.names().is_ok_and(|names| names.iter().all(|name| name.to_str().is_some_and(is_made_here)))
}

/// Directories that are the system's also when they happen to be empty (hier(7)).
fn is_of_the_system(resolved: &Path) -> bool {
    const ALL_IN: [&str; 6] = ["/", "/dev", "/home", "/usr", "/usr/local", "/var"];
    const THESE: [&str; 4] = ["/run/lock", "/run/shm", "/run/systemd", "/run/user"];
    let is_among = |all: &[&str], path: &Path| all.iter().any(|one| Path::new(one) == path);
    is_among(&THESE, resolved) || resolved.parent().is_none_or(|above| is_among(&ALL_IN, above))
}

/// Refuses a file that others may read or change. Used for the keys.
pub(crate) fn check_private(path: &Path, meta: &fs::Metadata, access: Access) -> Result<()> {
    let mode = meta.mode() & 0o777;
    let me = credentials::effective_user();
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

/// The status for a directory whose control file is of another version.
pub(crate) fn other_format(path: &Path, what: &str) -> Error {
    Error::new(Status::Format, format!("{} {what}", path.display()))
        .remedy("stop what uses it and remove the directory, or give another path")
}
