//! What the harness needs of the machine: a scratch directory in memory, a certificate, free ports, patience that ends,
//! and an end in order on Ctrl-C.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process};

/// What went wrong, in words.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_signal: i32) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on Ctrl-C and SIGTERM are an error of whatever is being waited for, so that everything is taken down.
pub fn catch_interrupts() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores to one atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, interrupt as *const () as libc::sighandler_t) };
    }
}

/// An error once the user has interrupted.
pub fn go_on() -> Result<()> {
    match INTERRUPTED.load(Ordering::Relaxed) {
        true => Err("interrupted".into()),
        false => Ok(()),
    }
}

/// Waits until `done` says so; false when that has not happened in time.
pub fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) -> Result<bool> {
    let end = Instant::now() + patience;
    while !done() {
        go_on()?;
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(true)
}

/// A directory in memory where there is one, removed at the end. Others may look into it, so that workers can.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Scratch> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        let path = base.join(format!("sesscache-servers-{}", process::id()));
        fs::create_dir(&path)?;
        let scratch = Scratch(path);
        open_to_all(&scratch.0)?;
        Ok(scratch)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// Lets everybody look into a directory, whatever the umask.
pub fn open_to_all(path: &Path) -> Result<()> {
    set_mode(path, 0o755)
}

/// Sets the permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// A port that nobody listens on at this instant.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// True for root.
pub fn is_root() -> bool {
    // SAFETY: geteuid always succeeds and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Runs a command to its end and returns what it said on both outputs. An error when it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let done =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    match done.status.success() {
        true => Ok(said),
        false => Err(format!("{command:?} ends with {}\n{said}", done.status).into()),
    }
}

/// Certificate and key (ECDSA P-256) in `directory`.
pub fn certificate(directory: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
         -addext basicConstraints=critical,CA:FALSE -keyout"
            .split(' '),
    );
    run(openssl.arg(&key).arg("-out").arg(&certificate))?;
    Ok((certificate, key))
}
