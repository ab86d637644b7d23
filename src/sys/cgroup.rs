//! How much memory this process may have: the least limit of its control group and of those above (cgroups(7)).
//!
//! Pages of a tmpfs count against the group that first touches them. Where they do not fit, the kernel ends the process: a store
//! has to be smaller than the limit before it is full.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Limits from here on are none: cgroup v1 says so by the greatest number that is a multiple of the page size.
const NONE: u64 = 1 << 60;

/// The limit in bytes; `None` when there is none, or when it cannot be read. Looked up once in a process.
pub(crate) fn memory_limit() -> Option<u64> {
    /// 0 before the first question.
    static FOUND: AtomicU64 = AtomicU64::new(0);
    let mut found = FOUND.load(Ordering::Relaxed);
    if found == 0 {
        found = limit_below(Path::new("/")).unwrap_or(NONE).max(1);
        FOUND.store(found, Ordering::Relaxed);
    }
    Some(found).filter(|limit| *limit < NONE)
}

/// The same on a machine whose files are below `root`.
fn limit_below(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let hierarchies = mounts.lines().filter_map(Hierarchy::of);
    let limits = hierarchies.filter_map(|hierarchy| hierarchy.limit(root, group(&groups, hierarchy.is_v2)?));
    limits.min().filter(|limit| *limit < NONE)
}

/// The group of this process in the hierarchy that has the memory controller, or in the one of version 2.
fn group(groups: &str, is_v2: bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match is_v2 {
            true => number == "0" && controllers.is_empty(),
            false => controllers.split(',').any(|controller| controller == "memory"),
        };
        is_it.then_some(path)
    })
}

/// A mounted hierarchy of control groups.
struct Hierarchy {
    is_v2: bool,
    /// Which of its groups is mounted.
    top: PathBuf,
    /// Where.
    at: PathBuf,
}

impl Hierarchy {
    /// From a line of mountinfo (proc_pid_mountinfo(5)); `None` for another file system.
    fn of(line: &str) -> Option<Hierarchy> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_v2 = match kind.next()? {
            "cgroup2" => true,
            "cgroup" if kind.next_back()?.split(',').any(|option| option == "memory") => false,
            _ => return None,
        };
        let mut fields = mount.split(' ').skip(3);
        let (top, at) = (fields.next()?, fields.next()?);
        Some(Hierarchy { is_v2, top: unescape(top), at: unescape(at) })
    }

    /// The least limit from this group upwards, as far as it can be seen.
    fn limit(&self, root: &Path, group: &str) -> Option<u64> {
        let name = if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        let at = root.join(self.at.strip_prefix("/").unwrap_or(&self.at));
        // A container may see the group's path on the host and have only its own groups mounted.
        let inside = Path::new(group).strip_prefix(&self.top).unwrap_or(Path::new(""));
        let is_inside = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let inside = if is_inside { inside } else { Path::new("") };
        let limits = inside.ancestors().filter_map(|group| fs::read_to_string(at.join(group).join(name)).ok());
        limits.filter_map(|limit| limit.trim_end().parse().ok()).min()
    }
}

/// Blanks and backslashes in a path of mountinfo are octal numbers.
fn unescape(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => out.push_str(&format!("{}{}", char::from(byte), &part[3..])),
            None => out.push_str(&format!("\\{part}")),
        }
    }
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Machine {
            let root = std::env::temp_dir().join(format!("sesscache-cgroup-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Machine(root)
        }

        fn limit(&self) -> Option<u64> {
            limit_below(&self.0)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const V2: &str = "25 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                      35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const OWN_V1: &str = "8:pids:/\n4:cpuset,memory:/system.slice/web.service\n0::/other\n";

    #[test]
    fn the_least_limit_from_the_own_group_upwards_counts() {
        let own = ("proc/self/cgroup", "0::/system.slice/web.service\n");
        let machine = Machine::new(
            "v2",
            &[
                own,
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/system.slice/web.service/memory.max", "max\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "20971520\n"),
                ("sys/fs/cgroup/system.slice/other.service/memory.max", "4096\n"),
            ],
        );
        assert_eq!(machine.limit(), Some(20 << 20), "a slice limits its services");
        let machine = Machine::new(
            "v2-own",
            &[
                own,
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/system.slice/web.service/memory.max", "10485760\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "20971520\n"),
            ],
        );
        assert_eq!(machine.limit(), Some(10 << 20));
    }

    #[test]
    fn version_1_is_read_where_the_memory_controller_is() {
        let machine = Machine::new(
            "v1",
            &[
                ("proc/self/cgroup", OWN_V1),
                ("proc/self/mountinfo", V1),
                ("sys/fs/cgroup/memory/system.slice/web.service/memory.limit_in_bytes", "20000768\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        );
        assert_eq!(machine.limit(), Some(20_000_768));
    }

    #[test]
    fn a_container_reads_the_limit_of_the_groups_that_it_sees() {
        let own = ("proc/self/cgroup", "4:memory:/docker/0123\n");
        let mounts = "35 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup ro,memory\n";
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "20971520\n");
        assert_eq!(Machine::new("docker", &[own, ("proc/self/mountinfo", mounts), limit]).limit(), Some(20 << 20));
        // A path that belongs to the host, or leads out of what is mounted.
        for group in ["4:memory:/kubepods/pod7/0123\n", "4:memory:/../../other\n"] {
            let own = ("proc/self/cgroup", group);
            let machine = Machine::new("outside", &[own, ("proc/self/mountinfo", mounts), limit]);
            assert_eq!(machine.limit(), Some(20 << 20), "{group}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        let own = ("proc/self/cgroup", "0::/\n");
        assert_eq!(Machine::new("nothing", &[]).limit(), None);
        assert_eq!(Machine::new("no-mounts", &[own]).limit(), None);
        assert_eq!(Machine::new("no-file", &[own, ("proc/self/mountinfo", V2)]).limit(), None);
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let machine = Machine::new("none", &[("proc/self/cgroup", OWN_V1), ("proc/self/mountinfo", V1), unlimited]);
        assert_eq!(machine.limit(), None);
        let nonsense = ("proc/self/mountinfo", "a\n - \n1 2 3 - cgroup2\n1 2 3 / /x rw - cgroup2 x y\n");
        assert_eq!(Machine::new("nonsense", &[own, nonsense]).limit(), None);
    }

    #[test]
    fn a_mount_point_may_have_blanks_in_its_path() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/a\\x"), Path::new("/a\\x"));
    }
}
