//! docs/testing.md leads from every promise, option and status to the tests that prove it: none is left out, and every test
//! and command that it names exists.

use std::fs;

use support::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The rows of the table under a heading: the first cell, and the rest.
fn rows(document: &str, heading: &str) -> Vec<(String, String)> {
    let section = document.split(&format!("\n## {heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("docs/testing.md has no section '{heading}'"));
    let lines = section.split("\n## ").next().expect("a section").lines().filter(|line| line.starts_with('|'));
    let cell = |line: &str| {
        let (first, rest) = line[1..].split_once('|').unwrap_or_else(|| panic!("a row of one cell: {line}"));
        (first.trim().to_owned(), rest.to_owned())
    };
    lines.skip(2).map(cell).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Tests as the document names them, each as it is found: `program::case` of tests/c, `folder::module::test` else.
fn tests_of(text: &str) -> Vec<&str> {
    quoted(text).filter(|word| word.contains("::")).collect()
}

/// Whether there is such a test.
fn exists(test: &str) -> bool {
    let parts: Vec<&str> = test.split("::").collect();
    let (sources, name) = match parts[..] {
        ["c", program, case] => return read(&format!("tests/c/{program}.c")).contains(&format!("TEST({case})")),
        [folder, module, name] => (vec![format!("tests/{folder}/{module}.rs")], name),
        [program, name] => (vec![format!("tests/{program}.rs"), format!("tests/{program}/main.rs")], name),
        _ => return false,
    };
    sources.iter().filter_map(|path| fs::read_to_string(root().join(path)).ok()).any(|source| {
        let head = format!("fn {name}() {{");
        source
            .lines()
            .zip(source.lines().skip(1))
            .any(|(before, line)| before.trim() == "#[test]" && line.trim() == head)
    })
}

/// The promises of docs/design.md, each with its number, as one line.
fn promises() -> Vec<String> {
    let design = read("docs/design.md");
    let section = design.split("\n## Promises\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let mut found: Vec<String> = Vec::new();
    for line in section.expect("docs/design.md has its promises").lines().filter(|line| !line.is_empty()) {
        match found.last_mut() {
            Some(last) if line.starts_with(' ') => *last = format!("{last} {}", line.trim()),
            _ => found.push(line.to_owned()),
        }
    }
    found
}

#[test]
fn every_promise_option_and_status_leads_to_a_test() {
    let document = read("docs/testing.md");
    let options = sesscache::OPTIONS.iter().map(|row| format!("`{}`", row.name)).collect();
    let statuses =
        sesscache::STATUSES.iter().map(|row| format!("`{}`", row.name.trim_start_matches("SESSCACHE_"))).collect();
    for (heading, expected) in [("Promises", promises()), ("Options", options), ("Statuses", statuses)] {
        let found = rows(&document, heading);
        let names: Vec<&String> = found.iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected.iter().collect::<Vec<_>>(), "docs/testing.md, {heading}");
        for (name, tests) in &found {
            assert!(!tests_of(tests).is_empty(), "docs/testing.md has no test for {name}");
        }
    }
}

/// The rows of the matrix "alone beside attached".
#[test]
fn every_row_of_the_matrix_is_in_the_table_of_habits() {
    let matrix = read("tests/c/alone_beside_attached.c");
    let mut rows_there: Vec<&str> =
        matrix.split("{.name = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let table = rows(&read("docs/testing.md"), "Habits").into_iter().map(|(_, cells)| cells).collect::<String>();
    let mut rows_here: Vec<&str> = quoted(&table).filter(|name| !name.contains("::")).collect();
    rows_there.sort_unstable();
    rows_here.sort_unstable();
    assert_eq!(rows_here, rows_there, "docs/testing.md, Habits");
}

#[test]
fn every_test_that_is_named_exists() {
    let document = read("docs/testing.md");
    let missing: Vec<&str> = tests_of(&document).into_iter().filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "docs/testing.md names tests that do not exist: {missing:#?}");
}

#[test]
fn every_command_and_variable_that_is_named_exists() {
    let (document, makefile) = (read("docs/testing.md"), read("Makefile"));
    for target in quoted(&document).filter_map(|text| text.strip_prefix("make ")) {
        let target = target.split(' ').next().expect("a word");
        assert!(makefile.contains(&format!("\n{target}:")), "there is no `make {target}`");
    }
    let sources = ["tests/support/machine.rs", "tests/support/tree.rs", "tests/faults/damaged_file.rs", "Makefile"];
    let sources: String = sources.iter().map(|path| read(path)).collect();
    for variable in quoted(&document).filter(|text| text.starts_with("SESSCACHE_")) {
        let variable = variable.split('=').next().expect("a name");
        assert!(sources.contains(variable), "nothing reads {variable}");
    }
}
