use super::*;
use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

const NOBODY: Ids = Ids { uid: 65_534, gid: 65_534 };

/// What the kernel says about a thread.
fn status(thread: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
    let kept = ["Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "SigBlk:"];
    text.lines().filter(|line| kept.iter().any(|kept| line.starts_with(kept))).map(str::to_owned).collect()
}

fn field(status: &[String], name: &str) -> String {
    status.iter().find(|line| line.starts_with(name)).unwrap().split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// One test at a time: whether the process is dumpable is one thing for all threads. `None` without the right to act.
fn root() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("acting as another user needs root: skipped");
        return None;
    }
    Some(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs it in a child, which may change its ids for good.
fn in_child(run: impl FnOnce() -> bool) {
    // SAFETY: glibc keeps malloc and threads usable in the child.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!matches!(done, Ok(true)))) };
    }
    let mut status = 0;
    // SAFETY: writes one int.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "it fails in the child");
}

#[test]
fn everything_is_as_before_afterwards() {
    let Some(_one) = root() else { return };
    // SAFETY: a flag of this thread.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1) };
    set_groups(&[0, 4, 27]).unwrap();
    let before = status("thread-self");
    let acting = NOBODY.act().unwrap();
    let meanwhile = status("thread-self");
    assert_eq!(field(&meanwhile, "Uid:"), "0 0 0 65534");
    assert_eq!(field(&meanwhile, "Gid:"), "0 0 0 65534");
    assert_eq!(field(&meanwhile, "Groups:"), "");
    let effective = u64::from_str_radix(&field(&meanwhile, "CapEff:"), 16).unwrap();
    assert_eq!(effective & FILE_CAPABILITIES, 0, "file permissions can still be overridden");
    assert_eq!(fs::read("/etc/shadow").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    drop(acting);
    assert_eq!(status("thread-self"), before);
    // SAFETY: prctl answers a number.
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 1, "core dumps are off");
    assert_eq!(death_signal().map(|(signal, _)| signal), Some(libc::SIGUSR1), "the parent's death goes unnoticed");
    fs::read("/etc/shadow").unwrap();
    // SAFETY: a flag of this thread.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

#[test]
fn capabilities_that_were_laid_down_stay_down() {
    let Some(_one) = root() else { return };
    std::thread::spawn(|| {
        let all = Capabilities::get().unwrap();
        let fewer = all.with_effective(all.effective() & !(1 << 1));
        fewer.set().unwrap();
        drop(NOBODY.act().unwrap());
        assert!(Capabilities::get().unwrap() == fewer, "CAP_DAC_OVERRIDE is effective again");
    })
    .join()
    .unwrap();
}

#[test]
fn capabilities_that_securebits_would_keep_are_laid_down() {
    let Some(_one) = root() else { return };
    std::thread::spawn(|| {
        const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
        // SAFETY: securebits are this thread's.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP) }, 0);
        let before = status("thread-self");
        let acting = NOBODY.act().unwrap();
        assert_eq!(fs::read("/etc/shadow").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        drop(acting);
        assert_eq!(status("thread-self"), before);
    })
    .join()
    .unwrap();
}

#[test]
fn the_host_may_change_its_user_in_another_thread_meanwhile() {
    let Some(_one) = root() else { return };
    in_child(|| {
        let acting = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let guard = Ids { uid: 65_533, gid: 65_533 }.act().unwrap();
                acting.store(true, Ordering::Release);
                std::thread::sleep(Duration::from_millis(50));
                let meanwhile = field(&status("thread-self"), "Uid:");
                drop(guard);
                // From here on the signals arrive by which glibc changes all threads.
                insist(|| field(&status("thread-self"), "Uid:") != "0 0 0 0");
                (meanwhile, field(&status("thread-self"), "Uid:"))
            });
            while !acting.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            // A thread that is acting as somebody else changes nothing for the others.
            fs::read("/etc/shadow").unwrap();
            // SAFETY: changes ids alone.
            assert_eq!(unsafe { libc::setgroups(0, ptr::null()) }, 0);
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setuid(NOBODY.uid) }, 0);
            let (meanwhile, afterwards) = other.join().unwrap();
            meanwhile == "0 0 0 65533" && afterwards == "65534 65534 65534 65534"
        })
    });
}

#[test]
fn no_handler_runs_meanwhile() {
    let Some(_one) = root() else { return };
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: c_int) {
        SEEN.store(file_id(SETFSUID, None) + 1, Ordering::Relaxed);
    }
    let handler: extern "C" fn(c_int) = handler;
    // SAFETY: the handler makes one system call and stores a number.
    unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
    let acting = NOBODY.act().unwrap();
    // SAFETY: the signal goes to this thread, which has a handler for it.
    unsafe { libc::raise(libc::SIGUSR2) };
    assert_eq!(SEEN.load(Ordering::Relaxed), 0, "a handler runs with another user's rights");
    drop(acting);
    assert_eq!(SEEN.load(Ordering::Relaxed), 1, "the handler does not run as root afterwards");
}

#[test]
fn several_threads_at_once_leave_the_process_dumpable() {
    let Some(_one) = root() else { return };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| drop(NOBODY.act().unwrap())));
        }
    });
    // SAFETY: prctl answers a number.
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 1);
}

#[test]
fn a_user_without_rights_is_refused_and_unchanged() {
    let Some(_one) = root() else { return };
    std::thread::spawn(|| {
        let none = Capabilities([[0; 3]; 2]);
        none.set().unwrap();
        let before = status("thread-self");
        assert!(NOBODY.act().is_err());
        assert_eq!(status("thread-self"), before);
    })
    .join()
    .unwrap();
}
