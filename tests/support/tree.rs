//! The source tree, what is built of it, and the staged library.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::run;

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in tests/support")
}

/// The build directory that the tests were built in.
pub fn target() -> &'static Path {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    TARGET.get_or_init(|| {
        let program = std::env::current_exe().expect("the path of this program");
        let tagged = program.ancestors().find(|path| path.join("CACHEDIR.TAG").exists());
        tagged.expect("cargo tags its build directory").to_owned()
    })
}

/// Where tests keep what they build, from one run to the next.
pub fn kept() -> PathBuf {
    let path = target().join("tmp");
    fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path
}

/// cargo hands down to the tests what .cargo/config.toml sets. To cargo 1.85 a build that has it in its environment is another
/// build than one that has not, and everything is compiled anew.
pub fn without_cargos_settings(make: &mut Command) -> &mut Command {
    make.env_remove("LIBLMDB_NO_PKG_CONFIG")
}

/// The staged prefix: `bin`, `include`, `lib`. Named by SESSCACHE_STAGE, or made by `make stage`.
pub fn stage() -> &'static Path {
    static STAGE: OnceLock<PathBuf> = OnceLock::new();
    STAGE.get_or_init(|| {
        if let Some(made) = std::env::var_os("SESSCACHE_STAGE") {
            return PathBuf::from(made);
        }
        let _lock = lock("stage");
        let mut make = Command::new("make");
        make.current_dir(root()).args(["--no-print-directory", "stage"]).env("CARGO_TARGET_DIR", target());
        run(without_cargos_settings(&mut make), Duration::from_secs(900), "")
            .expect_success("`make stage` fails, so there is no library to test");
        target().join("stage")
    })
}

/// A command that finds the staged library. A bare name is one of the staged programs.
pub fn staged(program: impl AsRef<Path>) -> Command {
    let program = program.as_ref();
    let path = if program.components().count() > 1 { program.to_owned() } else { stage().join("bin").join(program) };
    assert!(path.exists(), "{} is missing from the stage; run: make stage", path.display());
    let mut command = Command::new(path);
    command.env("LD_LIBRARY_PATH", stage().join("lib"));
    command
}

/// A lock between test programs, released when the file is closed.
pub fn lock(name: &str) -> fs::File {
    let path = kept().join(format!("{name}.lock"));
    let file = fs::File::create(&path).expect("a lock file in the build directory");
    // SAFETY: flock takes any descriptor; this one is open.
    let code = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(code, 0, "{}: {}", path.display(), std::io::Error::last_os_error());
    file
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
