//! The system calls that a process makes before and after sesscache_hold(): the lists of the manual page and of the guide are those
//! that tests/c/filter.h allows, under which tests/c/held_store.c lives.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{root, run};

/// The tables of the test, and how the two documents head them.
const LISTS: [(&str, &str, &str); 4] = [
    ("after", ".It After the call", "| after `sesscache_hold` |"),
    ("after_with_guard", ".It After the call, with guard=on, besides", "| with `guard=on`, besides |"),
    (
        "before",
        ".It In the call, in sesscache_open(), and at any time without the call, besides",
        "| in `sesscache_open` and `sesscache_hold`, and at any time without `sesscache_hold`, besides |",
    ),
    ("before_as_root", ".It The same, as root with owner=, besides", "| the same, as root with `owner=`, besides |"),
];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The words between the first `head` and the next `end`.
fn words(text: &str, head: &str, end: &str) -> BTreeSet<String> {
    let rest = text.split_once(head).unwrap_or_else(|| panic!("'{head}' is not there")).1;
    let list = rest.split(end).next().expect("the list ends");
    let words = list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    words.map(|word| word.trim_start_matches("SYS_").to_owned()).collect()
}

#[test]
fn the_lists_are_those_under_which_the_test_lives() {
    let (filter, page, guide) = (read("tests/c/filter.h"), read("man/sesscache_hold.3"), read("docs/guide.md"));
    for (name, in_page, in_guide) in LISTS {
        let allowed = words(&filter, &format!("static const int {name}[] = {{"), "}");
        assert!(allowed.len() > 3, "the table {name} is not found");
        assert_eq!(words(&page, &format!("{in_page}\n"), "\n."), allowed, "sesscache_hold(3): {in_page}");
        assert_eq!(words(&guide, in_guide, " |\n"), allowed, "docs/guide.md: {in_guide}");
    }
}

/// The calls of a set of systemd's, and of the sets in it.
fn set(name: &str) -> BTreeSet<String> {
    let mut systemd = Command::new("systemd-analyze");
    let done = run(systemd.args(["syscall-filter", name]), Duration::from_secs(60), "").expect_success(name);
    let lines = done.stdout.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| if line.starts_with('@') { set(line) } else { [line.to_owned()].into() }).collect()
}

#[test]
fn a_service_with_systemds_usual_filter_may_make_all_of_them() {
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        return support::not_tried("SystemCallFilter=@system-service", "there is no systemd-analyze");
    }
    let (filter, usual) = (read("tests/c/filter.h"), set("@system-service"));
    for (name, ..) in LISTS {
        let needed = words(&filter, &format!("static const int {name}[] = {{"), "}");
        let refused: Vec<_> = needed.difference(&usual).collect();
        assert!(
            refused.is_empty(),
            "docs/openssl-conf.md says that @system-service allows the calls of {name}: {refused:?}"
        );
    }
}
