//! The machine that the tests run on: how fast it is, and what they may do there.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The long form of tests that try something at random moments: SESSCACHE_LONG=1, as `make faults` sets it.
pub fn tries(short: u64, long: u64) -> u64 {
    if std::env::var_os("SESSCACHE_LONG").is_some_and(|value| value == "1") {
        long
    } else {
        short
    }
}

/// A wait that is long enough on a usual machine, as long as this one needs: SESSCACHE_TEST_SLOWNESS says how many times
/// slower it is. The programs in tests/c have the same in check.h.
pub fn patience(usual: Duration) -> Duration {
    static SLOWNESS: OnceLock<f64> = OnceLock::new();
    let slowness = SLOWNESS.get_or_init(|| match std::env::var("SESSCACHE_TEST_SLOWNESS") {
        Ok(text) => text.parse().ok().filter(|n| (1.0..=1000.0).contains(n)).unwrap_or_else(|| {
            panic!("SESSCACHE_TEST_SLOWNESS='{text}' is no number from 1 to 1000");
        }),
        Err(_) => 1.0,
    });
    usual.mul_f64(*slowness)
}

/// Waits until `done` says so; false when that has not happened in time.
pub fn wait_until(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience(deadline);
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// True for root.
pub fn is_root() -> bool {
    // SAFETY: geteuid always succeeds and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Says that a part of a test was left out, to whoever runs the tests: past the harness, which keeps to itself what a test
/// prints that passes.
pub fn not_tried(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "not tried: {what}: {why}");
}

/// A command that runs its arguments where they may mount: in namespaces of their own, given as options of unshare(1), a
/// mount namespace among them. `None`, and said, where the kernel does not allow it: it takes CAP_SYS_ADMIN.
pub fn in_namespaces(what: &str, options: &[&str]) -> Option<Command> {
    let mut command = Command::new("unshare");
    command.args(options).args(if is_root() { &[][..] } else { &["-r"] });
    let mut trial = Command::new("unshare");
    trial.args(command.get_args()).args(["mount", "--bind", "/tmp", "/tmp"]);
    let tried = trial.output().expect("unshare of util-linux");
    if !tried.status.success() {
        let said = String::from_utf8_lossy(&tried.stderr);
        not_tried(what, &format!("it takes CAP_SYS_ADMIN: {}", said.trim()));
        return None;
    }
    Some(command)
}

/// Sets the permission bits, whatever the umask.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
