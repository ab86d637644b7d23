//! A seccomp filter that answers EPERM to fallocate(2), as those of sandboxes do with what they do not know. It is a file system
//! that cannot reserve, for this process alone.

use std::path::Path;
use std::sync::{Arc, Mutex};

use sesscache::Cache;
use support::{now, open, text, Data, Random, Scratch, Worker};

support::roles!(work: "makes a store behind a filter", "fills a store behind a filter");

fn work(role: &str, arguments: &[String]) {
    let path = Path::new(&arguments[0]);
    refuse_fallocate();
    match role {
        "makes a store behind a filter" => {
            let cache = open(path, "capacity=8MiB");
            let stored = (0..8_000).filter(|seed| put(&cache, *seed)).count();
            assert_eq!(stored, 8_000, "puts are refused where no room can be reserved");
            println!("{}", (0..8_000).filter(|seed| has(&cache, *seed)).count());
        }
        "fills a store behind a filter" => {
            let cache = open(path, "capacity=8MiB");
            let said = Arc::new(Mutex::new(Vec::new()));
            let heard = Arc::clone(&said);
            cache.set_log(Some(Box::new(move |_, line| {
                heard.lock().expect("a list").push(line.to_string_lossy().into_owned());
            })));
            let stored = (10_000..18_000).filter(|seed| put(&cache, *seed)).count();
            let said = said.lock().expect("a list").join("\n");
            assert!(said.contains("this process may not reserve room"), "{stored} stored, and it says: {said}");
            println!("{stored}");
        }
        other => panic!("no such role: {other}"),
    }
}

/// For this process, as a sandbox does it.
fn refuse_fallocate() {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut program = [
        // The number of the call stands first in seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_fallocate as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: prctl sets a flag of the process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: prctl reads a program of as many statements as it is told, which lives until it returns.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) }, 0);
}

fn put(cache: &Cache, seed: u64) -> bool {
    cache.put(&Random(seed).id(32), &Data { len: 400, seed }.bytes(), now() + 600).is_ok()
}

fn has(cache: &Cache, seed: u64) -> bool {
    let data = Data { len: 400, seed };
    cache.get(&Random(seed).id(32), |bytes| assert!(data.is(bytes), "another record is returned")).is_ok()
}

#[test]
fn a_process_that_may_not_reserve_makes_a_store_that_all_use() {
    let scratch = Scratch::new("filtered");
    let path = scratch.join("store");
    let mut filtered = Worker::start("makes a store behind a filter", &[text(&path)]);
    assert_eq!(filtered.hear(), "8000", "what was stored behind a filter is not found there");
    filtered.finish();
    let cache = open(&path, "capacity=8MiB");
    let found = (0..8_000).filter(|seed| has(&cache, *seed)).count();
    assert_eq!(found, 8_000, "what was stored behind a filter is not found by others");
    assert!(put(&cache, 9_000) && has(&cache, 9_000));
}

#[test]
fn a_process_that_may_not_reserve_stores_in_the_room_that_others_have_reserved() {
    let scratch = Scratch::new("filtered-later");
    let path = scratch.join("store");
    let cache = open(&path, "capacity=8MiB");
    assert!(put(&cache, 0));
    let mut filtered = Worker::start("fills a store behind a filter", &[text(&path)]);
    assert_eq!(filtered.hear(), "8000", "puts are refused where older sessions can make room");
    filtered.finish();
    let before = (10_000..18_000).filter(|seed| has(&cache, *seed)).count();
    let stored = (0..8_000).filter(|seed| put(&cache, *seed)).count();
    let found = (0..8_000).filter(|seed| has(&cache, *seed)).count();
    assert!(stored == 8_000 && found > 2 * before, "{found} found, {before} before: others do not let the store grow");
}
