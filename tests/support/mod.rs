//! What the integration tests share: the staged library, scratch directories, a certificate, servers, clients, a C
//! compiler. Every wait has a deadline, and everything that a test starts ends with it.
#![allow(dead_code, unused_imports)] // each test program uses a part

mod c;
mod clients;
pub mod install;
pub mod mdoc;
mod process;
mod server;

pub use c::{compile, compile_check, compile_program, program_sources, Compile};
pub use clients::{measure, resume_client, Tally, Tls, Traffic, BOTH};
pub use process::{collect, run, signal, spawn_in_group, Finished};
pub use server::{certificate, Server};

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The staged prefix: `bin`, `include`, `lib`. Named by SESSCACHE_STAGE, or made by `make stage`.
pub fn stage() -> &'static Path {
    static STAGE: OnceLock<PathBuf> = OnceLock::new();
    STAGE.get_or_init(|| {
        if let Some(made) = std::env::var_os("SESSCACHE_STAGE") {
            return PathBuf::from(made);
        }
        let _lock = lock("stage");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the build directory");
        let mut make = Command::new("make");
        make.current_dir(root()).args(["--no-print-directory", "stage"]).env("CARGO_TARGET_DIR", target);
        run(&mut make, Duration::from_secs(900), "")
            .expect_success("`make stage` fails, so there is no library to test");
        target.join("stage")
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
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lock"));
    let file = fs::File::create(&path).expect("a lock file in the build directory");
    // SAFETY: flock takes any descriptor; this one is open.
    let code = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(code, 0, "{}: {}", path.display(), std::io::Error::last_os_error());
    file
}

/// A directory that goes away with the value. Others may look into it, so that a program that has given up root can.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one. The name is only there to be recognised.
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sesscache-{name}-{}-{count}", std::process::id()));
        // What a killed test with the same process id has left behind is not ours to build on.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        set_mode(&path, 0o755);
        Scratch(path)
    }

    /// A path in it, as text for a command line.
    pub fn join(&self, name: &str) -> String {
        text(&self.0.join(name)).to_owned()
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.0);
        if !std::thread::panicking() {
            removed.unwrap_or_else(|e| panic!("{} stays behind: {e}", self.0.display()));
        }
    }
}

/// Sets the permission bits, whatever the umask.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// True for root.
pub fn is_root() -> bool {
    // SAFETY: geteuid always succeeds and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Waits until `done` says so; false when that has not happened in time.
pub fn wait_until(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = std::time::Instant::now() + deadline;
    while !done() {
        if std::time::Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
