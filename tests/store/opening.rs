//! What `Cache::open` refuses, with the status that says why: a store of another version, or other options than the process
//! has it open with. faults/bad_input.rs has paths and options that make no sense.

use std::fs;
use std::os::unix::fs::FileExt;

use sesscache::{Cache, Options, Status};
use support::{open, Scratch};

#[test]
fn a_store_of_another_format_is_refused_and_stays_as_it_is() {
    let scratch = Scratch::new("format");
    let (path, control) = (scratch.join("store"), scratch.join("store/control"));
    drop(open(&path, ""));
    // The format stands behind the eight bytes that every version begins with; what follows is the other version's affair.
    let file = fs::OpenOptions::new().write(true).open(&control).expect("the control file");
    file.write_all_at(&99_u32.to_ne_bytes(), 8).expect("a format of the future");
    file.set_len(file.metadata().expect("the control file").len() + 4_096).expect("more counters");
    let before = fs::read(&control).expect("the control file");
    let error = Cache::open(&path, &Options::default()).expect_err("a store of another format is opened");
    assert_eq!(error.status, Status::Format, "{error}");
    assert!(error.detail.contains("format 99"), "the message does not help: {error}");
    assert_eq!(fs::read(&control).expect("the control file"), before, "a store of another version is changed");
}

#[test]
fn a_process_has_one_size_of_memory_for_a_directory() {
    let scratch = Scratch::new("other-memory");
    let path = scratch.join("store");
    let first = open(&path, "local=1MiB");
    for other in ["local=2MiB", "local=off"] {
        let other = Options::parse(other).expect("options");
        let error = Cache::open(&path, &other).expect_err("one directory has two sizes of memory");
        assert_eq!(error.status, Status::Mismatch, "{error}");
        assert!(error.detail.contains("local="), "the message does not name the option: {error}");
    }
    drop(open(&path, "local=1MiB"));
    drop(open(&path, ""));
    drop(first);
    open(&path, "local=off");
}

#[test]
fn a_process_has_one_deadline_and_one_key_for_a_directory() {
    let scratch = Scratch::new("other-options");
    let path = scratch.join("store");
    let first = open(&path, "deadline=7ms");
    let other = Options::parse("deadline=8ms").expect("options");
    let error = Cache::open(&path, &other).expect_err("one directory has two deadlines");
    assert_eq!(error.status, Status::Mismatch, "{error}");
    assert!(error.detail.contains("deadline="), "the message does not name the option: {error}");
    drop(first);
    open(&path, "deadline=8ms");
}
