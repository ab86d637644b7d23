//! The manual page and the completions are what the program says, and others can read them.
//!
//! `UPDATE=1 cargo test --features cli --test program manual`, or `make manual`, writes the page anew.

use std::fs;
use std::process::Command;
use std::time::Duration;
use support::{root, run, Scratch};

const DEADLINE: Duration = Duration::from_secs(60);

/// What the program of this build prints.
fn printed(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sesscache"));
    run(command.args(arguments), DEADLINE, "").expect_success("the program does not print what it is made from").stdout
}

#[test]
fn the_manual_page_is_what_the_program_says() {
    let page = printed(&["manual"]);
    let file = root().join("man/sesscache.1");
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(file, page).expect("write man/sesscache.1");
    }
    let old = fs::read_to_string(file).expect("man/sesscache.1");
    let differs = old.lines().zip(page.lines()).enumerate().find(|(_, (is, should))| is != should);
    if let Some((index, (is, should))) = differs {
        panic!("the manual is of another program; run: make manual\nline {}: {is}\nshould be: {should}", index + 1);
    }
    assert_eq!(old.len(), page.len(), "the manual is of another program; run: make manual");
}

#[test]
fn the_manual_page_names_every_counter_and_every_option_of_a_store() {
    let page = printed(&["manual"]);
    for row in sesscache::COUNTERS.iter().chain(sesscache::READINGS) {
        assert!(page.contains(&format!(".It Li {} Pq ", row.name)), "{} is not in the manual", row.name);
    }
    for row in sesscache::OPTIONS {
        assert!(page.contains(&format!(".It Li {}=\n", row.name)), "{} is not in the manual", row.name);
    }
}

#[test]
fn a_shell_takes_the_completions() {
    let scratch = Scratch::new("completions");
    let bash = printed(&["completions", "bash"]);
    let file = scratch.text("sesscache.bash");
    fs::write(&file, &bash).expect("write the completions");
    // What bash offers for `sesscache do`: its words, by the function that the file defines.
    let script = format!(
        "source {file}; COMP_WORDS=(sesscache do); COMP_CWORD=1; _sesscache sesscache do sesscache; echo \"${{COMPREPLY[@]}}\""
    );
    let done = run(Command::new("bash").args(["-c", &script]), DEADLINE, "").expect_success("bash does not take them");
    assert_eq!(done.stdout.trim(), "doctor", "bash completes something else\n{done}");
    assert!(printed(&["completions", "zsh"]).starts_with("#compdef sesscache"));
    assert!(printed(&["completions", "fish"]).contains("complete -c sesscache"));
}
