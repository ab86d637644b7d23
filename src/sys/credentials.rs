//! File work with another user's rights, by one thread, for a moment.
//!
//! What a privileged process does in a directory of somebody else, he can turn against it: names lead elsewhere, and change
//! under its hands. Done with his rights it gains him nothing.
//!
//! Only the ids that the kernel asks about files change (setfsuid(2)), not the effective user. glibc's setuid(3) in another
//! thread of the host makes every thread call it, and ends the process when one of them may not; signals and ptrace(2) go by
//! the ids that stay. The calls are raw: glibc's setgroups(3) would change all threads of the host.
//!
//! No signal handler runs meanwhile: it would work with these rights, or leave by longjmp and keep them. glibc's own signals
//! wait as well, so that ids which the host changes for all threads are not put back here. A child forked by another thread has
//! that thread's rights.
//!
//! Putting back needs rights that the thread never gave up, and so fails at most for want of a few bytes in the kernel. It is
//! tried again; a thread for which that is in vain goes on with fewer rights than it had.

use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use libc::{c_int, c_long, gid_t, uid_t};

use super::fork_safe::ForkLock;
use super::process;

#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setfsgid as SETFSGID, SYS_setfsuid as SETFSUID, SYS_setgroups as SETGROUPS};
// Where ids once had 16 bits.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{SYS_setfsgid32 as SETFSGID, SYS_setfsuid32 as SETFSUID, SYS_setgroups32 as SETGROUPS};

/// Capabilities that override permissions of files (linux/capability.h: CAP_FS_SET): CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH,
/// FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
const FILE_CAPABILITIES: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;
/// Of these, the one that overrides who may write what (linux/capability.h: CAP_DAC_OVERRIDE).
const DAC_OVERRIDE: u64 = 1 << 1;
/// linux/capability.h: _LINUX_CAPABILITY_VERSION_3.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// Tries to put something back, with a pause after each.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// The effective user.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid has no requirements.
    unsafe { libc::geteuid() }
}

/// Whether this is root that permissions of files hold up: a service manager or a container has taken the right to override
/// them. By what the thread is permitted, which stays while it acts as somebody else.
pub(crate) fn is_root_without_override() -> bool {
    effective_user() == 0 && Capabilities::get().is_ok_and(|mine| mine.permitted() & DAC_OVERRIDE == 0)
}

/// Whose rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: uid_t,
    pub(crate) gid: gid_t,
}

/// While it lives, this thread does its file work with those rights alone.
pub(crate) struct ActingAs {
    uid: uid_t,
    gid: gid_t,
    groups: Vec<gid_t>,
    capabilities: Capabilities,
    /// The signal at the parent's death, which a change of ids takes away, and that parent.
    parent: Option<(c_int, libc::pid_t)>,
    signals: u64,
    /// The rights are this thread's.
    _thread: PhantomData<*mut ()>,
}

impl Ids {
    /// Takes them on. An error, and nothing changed, where the process may not.
    pub(crate) fn act(self) -> io::Result<ActingAs> {
        let groups = groups()?;
        let capabilities = Capabilities::get()?;
        let signals = block_signals()?;
        if !DUMPABLE.enter() {
            set_signals(signals);
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let guard = ActingAs {
            uid: file_id(SETFSUID, None),
            gid: file_id(SETFSGID, None),
            groups,
            capabilities,
            parent: death_signal(),
            signals,
            _thread: PhantomData,
        };
        if !guard.groups.is_empty() {
            set_groups(&[])?;
        }
        // Neither call tells an error.
        file_id(SETFSGID, Some(self.gid));
        file_id(SETFSUID, Some(self.uid));
        if file_id(SETFSGID, None) != self.gid || file_id(SETFSUID, None) != self.uid {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        // The kernel drops them with user 0, unless securebits say otherwise.
        let left = Capabilities::get()?;
        if left.effective() & FILE_CAPABILITIES != 0 {
            left.with_effective(left.effective() & !FILE_CAPABILITIES).set()?;
        }
        Ok(guard)
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        insist(|| {
            file_id(SETFSUID, Some(self.uid));
            file_id(SETFSUID, None) == self.uid
        });
        insist(|| {
            file_id(SETFSGID, Some(self.gid));
            file_id(SETFSGID, None) == self.gid
        });
        insist(|| groups().is_ok_and(|now| now == self.groups) || set_groups(&self.groups).is_ok());
        // With user 0 come all that are permitted, also those that the host had laid down.
        insist(|| Capabilities::get().is_ok_and(|now| now == self.capabilities) || self.capabilities.set().is_ok());
        if let Some((signal, parent)) = self.parent {
            // SAFETY: prctl sets a flag of the calling thread.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
            // SAFETY: getppid cannot fail.
            if unsafe { libc::getppid() } != parent {
                // SAFETY: getpid cannot fail.
                let me = unsafe { libc::getpid() };
                // SAFETY: kill touches no memory: the host has asked for this signal at just that moment.
                unsafe { libc::kill(me, signal) };
            }
        }
        DUMPABLE.leave();
        set_signals(self.signals);
    }
}

fn insist(mut done: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if done() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The id that the kernel goes by with files, before `set` replaces it.
fn file_id(call: c_long, set: Option<u32>) -> u32 {
    // Minus one is no id: the kernel changes nothing and answers.
    // SAFETY: setfsuid and setfsgid take one number and touch no memory.
    unsafe { libc::syscall(call, set.unwrap_or(u32::MAX)) as u32 }
}

fn groups() -> io::Result<Vec<gid_t>> {
    // SAFETY: with no room given, getgroups answers how many there are.
    let count = unsafe { libc::getgroups(0, ptr::null_mut()) };
    let mut groups = vec![0; usize::try_from(count).map_err(|_| io::Error::last_os_error())?];
    // SAFETY: there is room for `count` of them.
    let got = unsafe { libc::getgroups(count, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(got).map_err(|_| io::Error::last_os_error())?);
    Ok(groups)
}

fn set_groups(groups: &[gid_t]) -> io::Result<()> {
    // SAFETY: setgroups reads as many numbers as there are.
    succeeded(unsafe { libc::syscall(SETGROUPS, groups.len(), groups.as_ptr()) })
}

fn succeeded(code: c_long) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Capabilities of this thread, as capget(2) has them: effective, permitted, inheritable, each in two words.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Capabilities([[u32; 3]; 2]);

impl Capabilities {
    fn get() -> io::Result<Capabilities> {
        let header = [CAPABILITY_VERSION, 0];
        let mut found = Capabilities([[0; 3]; 2]);
        // SAFETY: version 3 has a header of two words and writes two structs of three.
        succeeded(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), found.0.as_mut_ptr()) })?;
        Ok(found)
    }

    fn set(self) -> io::Result<()> {
        let header = [CAPABILITY_VERSION, 0];
        // SAFETY: version 3 has a header of two words and reads two structs of three.
        succeeded(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), self.0.as_ptr()) })
    }

    fn effective(self) -> u64 {
        u64::from(self.0[0][0]) | u64::from(self.0[1][0]) << 32
    }

    fn permitted(self) -> u64 {
        u64::from(self.0[0][1]) | u64::from(self.0[1][1]) << 32
    }

    fn with_effective(mut self, effective: u64) -> Capabilities {
        self.0[0][0] = effective as u32;
        self.0[1][0] = (effective >> 32) as u32;
        self
    }
}

fn death_signal() -> Option<(c_int, libc::pid_t)> {
    let mut signal: c_int = 0;
    // SAFETY: prctl writes one int.
    let code = unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal) };
    // SAFETY: getppid cannot fail.
    (code == 0 && signal != 0).then(|| (signal, unsafe { libc::getppid() }))
}

/// Blocks all but those that tell a fault of this thread's own; says which were blocked.
fn block_signals() -> io::Result<u64> {
    const FAULTS: [c_int; 7] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];
    let blocked = FAULTS.iter().fold(u64::MAX, |all, signal| all & !(1 << (signal - 1)));
    let mut before = 0_u64;
    // Raw, because glibc leaves its own signals unblocked.
    // SAFETY: the kernel reads and writes one set of 64 signals each.
    succeeded(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &blocked as *const u64,
            &mut before as *mut u64,
            8_usize,
        )
    })?;
    Ok(before)
}

fn set_signals(blocked: u64) {
    // SAFETY: the kernel reads one set of 64 signals.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &blocked as *const u64,
            ptr::null_mut::<u64>(),
            8_usize,
        )
    };
}

/// Whether the process may be traced and dumped, which a change of ids ends for all its threads.
struct Dumpable {
    lock: ForkLock,
    /// Threads between `enter` and `leave`, and the incarnation that counts them.
    inside: AtomicU32,
    process: AtomicU64,
    /// As it was before the first of them.
    was: AtomicI32,
}

static DUMPABLE: Dumpable =
    Dumpable { lock: ForkLock::new(), inside: AtomicU32::new(0), process: AtomicU64::new(0), was: AtomicI32::new(0) };

impl Dumpable {
    fn enter(&self) -> bool {
        let Some(_held) = self.lock.hold(Duration::from_secs(1)) else { return false };
        let me = process::incarnation();
        let mut inside = self.inside.load(Ordering::Relaxed);
        let mut is_known = inside > 0;
        if self.process.swap(me, Ordering::Relaxed) != me {
            // A child of a fork in the middle has the parent's threads in the count, and none of them.
            is_known &= inside > 0;
            inside = 0;
        }
        if !is_known {
            // SAFETY: prctl answers a number.
            self.was.store(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, Ordering::Relaxed);
        }
        self.inside.store(inside + 1, Ordering::Relaxed);
        true
    }

    fn leave(&self) {
        let mut held = None;
        insist(|| {
            held = self.lock.hold(Duration::from_secs(1));
            held.is_some()
        });
        let inside = self.inside.load(Ordering::Relaxed).saturating_sub(1);
        self.inside.store(inside, Ordering::Relaxed);
        if inside == 0 {
            // Only 0 and 1 can be set; 2 is what the kernel sets by itself.
            // SAFETY: prctl sets a flag of the process.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, self.was.load(Ordering::Relaxed)) };
        }
    }
}

#[cfg(test)]
mod tests;
