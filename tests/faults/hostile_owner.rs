//! Root opens a store that belongs to a user without rights, as `owner=` is meant for, and that user means harm: names in the
//! directory lead elsewhere, or change under root's hands. Whatever he does to his own store, nothing outside of it changes,
//! and nothing of root's becomes his.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::os::unix::fs::{chown, lchown, symlink, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attacker::{exchange_all, exchange_without_end, link_old_names, names};
use sesscache::inspect::Inspect;
use support::{now, set_mode, tries, Data, Scratch, Worker};

support::roles!(work: "program", "look", "his", "link", "exchange", "spin");

/// Who means harm, and somebody who has nothing to do with it.
const HE: u32 = 65_534;
const SOMEBODY: u32 = 65_533;
const OPTIONS: &str = "owner=65534 group=65534 capacity=1MiB deadline=1s";
const SHARED: &str = "group=65534 mode=0660 capacity=1MiB deadline=1s";

fn work(role: &str, arguments: &[String]) {
    match role {
        "program" => flush_from_outside(),
        "look" => look_from_outside(),
        "his" => {
            become_him();
            support::serve();
        }
        _ => {
            become_him();
            let path = |at: usize| PathBuf::from(&arguments[at]);
            match role {
                "link" => link_old_names(&path(0), &path(1)),
                "exchange" => exchange_all(&path(0), &path(1), &arguments[2]),
                "spin" => exchange_without_end(&path(0), &path(1)),
                other => panic!("there is no role {other}"),
            }
        }
    }
}

fn become_him() {
    // SAFETY: the three calls change this process alone.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresgid(HE, HE, HE) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresuid(HE, HE, HE) }, 0);
}

/// What `sesscache flush` does, once for each line.
fn flush_from_outside() {
    for line in std::io::stdin().lock().lines() {
        let path = PathBuf::from(line.expect("a path"));
        match Inspect::open(&path, None).and_then(Inspect::into_cache).and_then(|cache| cache.flush()) {
            Ok(()) => println!("ok"),
            Err(error) => println!("err {:?} {}", error.status, error.detail.replace('\n', " ")),
        }
    }
}

/// What `sesscache stat` does, many times for each line.
fn look_from_outside() {
    for line in std::io::stdin().lock().lines() {
        let path = PathBuf::from(line.expect("a path"));
        let seen = (0..50).filter(|_| Inspect::open(&path, None).is_ok_and(|found| found.damage().is_none())).count();
        println!("{seen}");
    }
}

/// The scene: a store of his, a directory of root's with a store's names in it, and an empty one of root's.
struct Scene {
    scratch: Scratch,
    store: PathBuf,
    victim: PathBuf,
    empty: PathBuf,
}

impl Scene {
    /// `None`, and said, where there is no root to be attacked.
    fn new(name: &str) -> Option<Scene> {
        if !support::is_root() {
            support::not_tried("root in a directory of somebody else", "it takes root");
            return None;
        }
        let scratch = Scratch::new(name);
        let scene = Scene {
            store: scratch.join("place/store"),
            victim: scratch.join("victim"),
            empty: scratch.join("empty"),
            scratch,
        };
        for directory in [&scene.scratch.join("place"), &scene.victim, &scene.empty] {
            fs::create_dir(directory).expect("a directory");
            set_mode(directory, 0o755);
        }
        for name in ["gate", "data.mdb", "lock.mdb", "control", "key", "secret"] {
            let file = scene.victim.join(name);
            fs::write(&file, format!("root's own {name}")).expect("a file");
            set_mode(&file, 0o600);
        }
        Some(scene)
    }

    /// Everything outside of the place where his store is.
    fn outside(&self) -> BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.victim.clone(), self.empty.clone()];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).expect("what was there before");
            let content = if meta.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
            for entry in fs::read_dir(&path).into_iter().flatten() {
                left.push(entry.expect("an entry").path());
            }
            found.insert(path, (meta.uid(), meta.gid(), meta.mode(), content));
        }
        found
    }

    /// Puts back what was changed, and says whether anything was.
    fn is_changed(&self, before: &BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)>) -> bool {
        let after = self.outside();
        for path in after.keys().rev().filter(|path| !before.contains_key(*path)) {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
        for (path, (uid, gid, mode, content)) in before {
            if after.get(path) != Some(&(*uid, *gid, *mode, content.clone())) {
                if mode & libc::S_IFMT == libc::S_IFREG {
                    fs::write(path, content).expect("a file");
                }
                chown(path, Some(*uid), Some(*gid)).expect("an owner");
                set_mode(path, mode & 0o7777);
            }
        }
        after != *before
    }

    /// The directory is root's, and he is of the group that may write it.
    fn make_shared(&self) {
        fs::create_dir(&self.store).expect("a directory");
        chown(&self.store, Some(0), Some(HE)).expect("a group");
        set_mode(&self.store, 0o770);
    }

    /// Root's worker, with the store made.
    fn worker(&self) -> Worker {
        Worker::open(&self.store, OPTIONS)
    }

    fn attacker(&self, role: &str, arguments: &[&str]) -> Worker {
        let mut all = vec![self.store.to_str().expect("UTF-8"), self.victim.to_str().expect("UTF-8")];
        all.extend(arguments);
        let mut attacker = Worker::start(role, &all);
        assert_eq!(attacker.hear(), "ready");
        attacker
    }

    /// A link in the place of the key is left to the operator.
    fn take_links_away(&self) {
        for name in names(&self.store) {
            let path = self.store.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink()) {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// He is gone, and the store goes on.
    fn goes_on(&self, worker: &mut Worker, options: &str) {
        self.take_links_away();
        std::thread::sleep(Duration::from_millis(1_100));
        worker.reopen(&self.store, options).expect("a store that opens again");
        worker.ask("flush").expect("a flush");
        let data = Data { len: 100, seed: 7 };
        worker.put(b"afterwards", data, now() + 600).expect("a record that is stored");
        assert!(worker.get(b"afterwards", data), "nothing can be stored once he has gone");
    }
}

#[test]
fn a_link_in_the_directory_deletes_nothing_outside() {
    let Some(scene) = Scene::new("links") else { return };
    let mut worker = scene.worker();
    worker.put(b"id", Data { len: 100, seed: 1 }, now() + 600).expect("a record that is stored");
    let before = scene.outside();
    let mut attacker = scene.attacker("link", &[]);
    let mut program = Worker::start("program", &[]);
    let rounds = tries(20, 200);
    let mut changed = 0;
    for round in 0..rounds {
        attacker.say("");
        assert_eq!(attacker.hear(), "linked 5");
        if round % 2 == 0 {
            worker.ask("flush").expect("a flush");
        } else {
            program.say(scene.store.to_str().expect("UTF-8"));
            assert_eq!(program.hear(), "ok");
        }
        changed += u64::from(scene.is_changed(&before));
    }
    assert_eq!(changed, 0, "root changed files outside the store at {changed} of {rounds} flushes");
    attacker.finish();
    program.finish();
    scene.goes_on(&mut worker, OPTIONS);
    let left: Vec<_> = names(&scene.store).into_iter().filter(|name| name.contains("0123456789abcdef")).collect();
    assert!(left.is_empty(), "leftovers stay: {left:?}");
    worker.finish();
}

/// Root looks into the store while its lock file is now a file and now a link.
fn look_under_attack(scene: &Scene, options: &str) {
    let mut worker = Worker::open(&scene.store, options);
    worker.put(b"id", Data { len: 100, seed: 1 }, now() + 600).expect("a record that is stored");
    worker.finish();
    let before = scene.outside();
    let attacker = scene.attacker("spin", &[]);
    let mut looker = Worker::start("look", &[]);
    let rounds = tries(40, 1_000);
    let (mut changed, mut seen) = (0, 0);
    for _ in 0..rounds {
        looker.say(scene.store.to_str().expect("UTF-8"));
        seen += looker.hear().parse::<u64>().expect("a number");
        changed += u64::from(scene.is_changed(&before));
    }
    attacker.kill();
    looker.finish();
    assert!(seen > 0, "root never got as far as LMDB");
    assert_eq!(changed, 0, "root made or changed files outside in {changed} of {rounds} times 50 looks");
}

#[test]
fn a_link_in_the_moment_in_which_lmdb_opens_leads_nowhere() {
    let Some(scene) = Scene::new("moment") else { return };
    look_under_attack(&scene, OPTIONS);
    let Some(scene) = Scene::new("moment-of-a-group") else { return };
    scene.make_shared();
    look_under_attack(&scene, SHARED);
}

/// Root flushes while he exchanges names in his store.
fn flush_under_attack(what: &str) {
    if let Some(scene) = Scene::new(what) {
        attack(what, &scene, OPTIONS);
    }
}

fn attack(what: &str, scene: &Scene, options: &str) {
    let mut worker = Worker::open(&scene.store, options);
    worker.put(b"id", Data { len: 100, seed: 1 }, now() + 600).expect("a record that is stored");
    let before = scene.outside();
    let attacker = scene.attacker("exchange", &[what]);
    let mut program = Worker::start("program", &[]);
    let rounds = tries(300, 10_000);
    let (mut changed, mut refused) = (0, 0);
    let mut is_open = true;
    for round in 0..rounds {
        is_open = is_open || worker.reopen(&scene.store, options).is_ok();
        let done = if round % 2 == 0 && is_open {
            worker.ask("flush").is_ok()
        } else {
            program.say(scene.store.to_str().expect("UTF-8"));
            program.hear() == "ok"
        };
        if !done {
            refused += 1;
            is_open = false;
            scene.take_links_away();
        }
        changed += u64::from(scene.is_changed(&before));
    }
    program.finish();
    attacker.kill();
    eprintln!("{what}: of {rounds} flushes, {refused} were refused and {changed} changed something outside");
    assert_eq!(changed, 0, "root changed files outside the store at {changed} of {rounds} flushes");
    scene.goes_on(&mut worker, options);
    worker.finish();
}

#[test]
fn a_generation_that_is_exchanged_under_construction_leads_nowhere() {
    flush_under_attack("construction");
}

#[test]
fn a_generation_that_is_exchanged_when_it_is_whole_leads_nowhere() {
    flush_under_attack("generation");
}

#[test]
fn files_that_are_exchanged_while_they_are_made_lead_nowhere() {
    flush_under_attack("files");
}

/// The directory is root's, and he is of the group that may write it: there is no owner whose rights root could have.
#[test]
fn in_a_directory_of_roots_that_a_group_may_write_names_lead_nowhere() {
    for what in ["files", "construction", "generation"] {
        let Some(scene) = Scene::new(what) else { return };
        scene.make_shared();
        attack(what, &scene, SHARED);
    }
}

/// The directory above is his as well: he may exchange the store's own directory in the moment it is made.
#[test]
fn a_directory_that_is_exchanged_when_it_is_made_is_given_to_nobody() {
    let Some(scene) = Scene::new("prepare") else { return };
    let above = scene.scratch.join("place");
    chown(&above, Some(HE), Some(HE)).expect("an owner");
    let before = scene.outside();
    let attacker = scene.attacker("exchange", &["directory"]);
    let mut worker = Worker::start("serve", &[]);
    let rounds = tries(500, 5_000);
    let mut changed = 0;
    for _ in 0..rounds {
        let _ = worker.reopen(&scene.store, OPTIONS);
        changed += u64::from(scene.is_changed(&before));
        let _ = worker.ask("close");
        let _ = fs::remove_file(&scene.store).or_else(|_| fs::remove_dir_all(&scene.store));
    }
    attacker.kill();
    // What he left there last.
    let _ = fs::remove_file(&scene.store);
    assert_eq!(changed, 0, "root gave away what is not the store's at {changed} of {rounds} starts");
    scene.goes_on(&mut worker, OPTIONS);
    assert_eq!(fs::metadata(&scene.store).expect("the store").uid(), HE, "the store is not its owner's");
    worker.finish();
}

#[test]
fn a_directory_below_somebody_elses_is_refused_and_not_made() {
    let Some(scene) = Scene::new("below") else { return };
    let above = scene.scratch.join("place");
    let mut worker = Worker::start("serve", &[]);
    let mut refuse = |store: &Path, word: &str| {
        let refused = worker.reopen(store, OPTIONS).expect_err("it is taken");
        assert_eq!(refused.status, "Invalid", "{refused:?}");
        assert!(refused.detail.contains(word), "{refused:?}");
        assert!(fs::symlink_metadata(store).is_err(), "a directory was made");
    };
    chown(&above, Some(SOMEBODY), Some(SOMEBODY)).expect("an owner");
    refuse(&scene.store, "65533");
    fs::create_dir(above.join("deep")).expect("a directory");
    refuse(&above.join("deep/store"), "65533");
    chown(&above, Some(0), Some(0)).expect("an owner");
    set_mode(&above, 0o777);
    refuse(&scene.store, "everybody");
    set_mode(&above, 0o755);
    symlink(&scene.empty, above.join("link")).expect("a link");
    lchown(above.join("link"), Some(HE), Some(HE)).expect("an owner");
    refuse(&above.join("link/store"), "link");
    // One of root's is what /var/run is.
    lchown(above.join("link"), Some(0), Some(0)).expect("an owner");
    worker.reopen(&above.join("link/store"), OPTIONS).expect("a link of root's");
    worker.finish();
}

#[test]
fn everything_that_root_makes_belongs_to_the_owner() {
    let Some(scene) = Scene::new("belongs") else { return };
    let mut worker = scene.worker();
    worker.put(b"id", Data { len: 100, seed: 1 }, now() + 600).expect("a record that is stored");
    worker.ask("flush").expect("a flush");
    let mut left = vec![scene.store.clone()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("a name");
        assert_eq!((meta.uid(), meta.gid()), (HE, HE), "{} belongs to somebody else", path.display());
        assert_eq!(meta.mode() & 0o077, 0, "{} is open to others", path.display());
        left.extend(fs::read_dir(&path).into_iter().flatten().map(|entry| entry.expect("an entry").path()));
        seen += 1;
    }
    assert!(seen >= 7, "only {seen} names are there");
    let mut his = Worker::start("his", &[]);
    his.reopen(&scene.store, "capacity=1MiB deadline=1s").expect("his own store");
    his.put(b"his", Data { len: 100, seed: 2 }, now() + 600).expect("a record that is stored");
    assert!(worker.get(b"his", Data { len: 100, seed: 2 }), "root does not find what the owner has stored");
    his.finish();
    worker.finish();
}
