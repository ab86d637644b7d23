//! Containers, users and boots meet in one directory: equal process numbers, other owners, read-only mounts, an older boot.

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::{measure, now, text, Data, Random, Scratch, Server, Worker, BOTH};

support::roles!(work: "as");

fn work(role: &str, arguments: &[String]) {
    assert_eq!(role, "as");
    let id = arguments[0].parse().expect("a user");
    // SAFETY: the three calls change this process alone.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresgid(65_533, 65_533, 65_533) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresuid(id, id, id) }, 0);
    support::serve();
}

const OPTIONS: &str = "capacity=4MiB deadline=2s";

fn data(seed: u64) -> Data {
    Data { len: 200, seed }
}

fn exchange(workers: &mut [Worker]) {
    for round in 0..12 {
        for who in 0..workers.len() {
            let seed = round * 8 + who as u64;
            workers[who].put(&Random(seed).id(32), data(seed), now() + 600).expect("a record that is stored");
            for (other, worker) in workers.iter_mut().enumerate() {
                assert!(worker.get(&Random(seed).id(32), data(seed)), "{other} does not find what {who} has stored");
            }
        }
    }
}

#[test]
fn containers_with_equal_process_numbers_share_sessions() {
    let scratch = Scratch::new("containers");
    let path = scratch.join("store");
    let contained = || {
        let options = ["-p", "-f", "--mount-proc", "--kill-child"];
        let mut command = support::in_namespaces("containers with equal process numbers", &options)?;
        command.arg(std::env::current_exe().expect("this program"));
        let mut worker = Worker::run_as("serve", command);
        worker.reopen(&path, OPTIONS).expect("a store that opens in a container");
        Some(worker)
    };
    let (Some(one), Some(other)) = (contained(), contained()) else { return };
    let mut workers = [one, other, Worker::open(&path, OPTIONS)];
    let begin = workers[2].stat("generation");
    exchange(&mut workers);
    assert_eq!(workers[2].stat("generation"), begin);
    workers.into_iter().for_each(Worker::finish);
}

#[test]
fn users_of_one_group_share() {
    let scratch = Scratch::new("users");
    support::set_mode(&scratch.join(""), 0o711);
    let path = scratch.join("store");
    let options = format!("{OPTIONS} owner=65534 group=65533 mode=0660");
    Worker::open(&path, &options).finish();
    let user = |id: &str| {
        let mut worker = Worker::start("as", &[id]);
        worker.reopen(&path, &options).unwrap_or_else(|e| panic!("user {id} cannot open the store: {e:?}"));
        worker
    };
    let mut workers = [Worker::open(&path, &options), user("65534")];
    exchange(&mut workers);
}

/// Every Debian has a user games, whose group has another number.
#[test]
fn files_get_the_group_of_their_owner() {
    let scratch = Scratch::new("group-of-the-owner");
    let path = scratch.join("store");
    let mut worker = Worker::open(&path, &format!("{OPTIONS} owner=games mode=0660"));
    worker.put(b"id", data(1), now() + 600).expect("a record that is stored");
    worker.finish();
    let mut files = vec![path];
    let mut seen = 0;
    while let Some(file) = files.pop() {
        let meta = fs::symlink_metadata(&file).expect("a file of the store");
        assert_eq!((meta.uid(), meta.gid()), (5, 60), "{} is not of games and its group", file.display());
        seen += 1;
        if meta.is_dir() {
            files.extend(fs::read_dir(&file).expect("a directory").map(|entry| entry.expect("an entry").path()));
        }
    }
    assert!(seen > 5, "only {seen} files");
}

#[test]
fn on_a_read_only_mount_the_server_goes_on_and_says_so_once() {
    let scratch = Scratch::new("read-only-mount");
    let path = scratch.join("store");
    Worker::open(&path, OPTIONS).finish();
    let Some(mut command) = support::in_namespaces("a read-only mount", &["-m"]) else { return };
    let script = "mount --bind \"$0\" \"$0\"; mount -o remount,bind,ro \"$0\"; exec \"$@\"";
    command.args(["sh", "-ec", script, text(&path), text(&support::stage().join("bin/prefork_server"))]);
    command.env("LD_LIBRARY_PATH", support::stage().join("lib"));
    let server = Server::start_command(command, &["-s", text(&path)]);
    for tls in BOTH {
        assert_eq!(measure(server.port, 3, tls).elsewhere, 0, "a store that nobody may write is written");
    }
    let said = server.stop();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("ead-only"), "{said}");
}

#[test]
fn a_store_of_an_earlier_boot_is_not_used() {
    let scratch = Scratch::new("boot");
    let (path, id) = (scratch.join("store"), scratch.join("boot_id"));
    fs::write(&id, "0badcafe-0000-4000-8000-000000000000\n").expect("a boot id");
    let mut before = Worker::open(&path, OPTIONS);
    before.put(b"old", data(1), now() + 600).expect("a record that is stored");
    let begin = before.stat("generation");
    before.finish();
    let Some(mut command) = support::in_namespaces("a store of an earlier boot", &["-m"]) else { return };
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id; exec \"$@\"";
    command.args(["sh", "-ec", script, text(&id)]).arg(std::env::current_exe().expect("this program"));
    let mut after = Worker::run_as("serve", command);
    after.reopen(&path, OPTIONS).expect("a store that opens after a boot");
    assert!(!after.get(b"old", data(1)), "a store that nobody has synchronised is used after a boot");
    after.put(b"new", data(2), now() + 600).expect("a record that is stored");
    assert!(after.get(b"new", data(2)) && after.stat("generation") > begin);
    after.finish();
}
