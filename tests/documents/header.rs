//! The header is made from the source, and every C and C++ compiler takes it without a word.
//!
//! `UPDATE=1 cargo test --test documents header`, or `make header`, writes it anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{compile_check, root, run, text, Compile, Scratch};

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The types that the library makes from its tables, as source that cbindgen can read.
fn tables() -> String {
    let mut source = "/// What a call came to. 0 is success; sesscache_errmsg() explains anything else.\n\
                      #[repr(C)]\npub enum sesscache_status {\n"
        .to_owned();
    for status in sesscache::STATUSES {
        writeln!(source, "/// {}\n{} = {},", status.meaning, status.name, status.number).expect("write to a string");
    }
    source += "}\n/// Counters since the store was made, summed over all processes, and a few numbers of this moment. New fields\n\
               /// are only ever added at the end.\n#[repr(C)]\npub struct sesscache_stats {\n";
    for counter in sesscache::COUNTERS {
        writeln!(source, "/// {}\npub {}: u64,", counter.meaning, counter.name).expect("write to a string");
    }
    source + "}\n"
}

fn generated() -> String {
    let scratch = Scratch::new("tables");
    let made = scratch.path().join("tables.rs");
    fs::write(&made, tables()).expect("write a source");
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    config.trailer = Some(options());
    let bindings = cbindgen::Builder::new()
        .with_src(made)
        .with_src(root().join("src/capi.rs"))
        .with_src(root().join("src/capi/client.rs"))
        .with_src(root().join("src/capi/records.rs"))
        .with_config(config)
        .generate();
    let mut header = Vec::new();
    bindings.expect("the C API is beyond cbindgen").write(&mut header);
    String::from_utf8(header).expect("a header in UTF-8")
}

/// The table of options as the comment that ends the header.
fn options() -> String {
    let mut text =
        "/*\n * The options: name=value pairs separated by spaces. Put a value that contains spaces in single quotes.\n"
            .to_owned();
    for option in sesscache::OPTIONS {
        text += &format!(
            " *\n * {}, by default {}: {}.\n *     {}\n",
            option.name, option.default, option.accepts, option.meaning
        );
    }
    text + " */"
}

fn committed() -> String {
    fs::read_to_string(root().join("include/sesscache.h")).expect("include/sesscache.h")
}

#[test]
fn the_header_is_what_the_source_says() {
    let header = generated();
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(root().join("include/sesscache.h"), header).expect("write include/sesscache.h");
    }
    let old = committed();
    let differs = old.lines().zip(header.lines()).enumerate().find(|(_, (is, should))| is != should);
    if let Some((index, (is, should))) = differs {
        panic!(
            "C programs see another API than the library has; run: make header\nline {}: {is}\nshould be: {should}",
            index + 1
        );
    }
    assert_eq!(old.len(), header.len(), "C programs see another API than the library has; run: make header");
}

/// Has a compiler check a file that includes nothing but the header, which must bring all that it needs.
fn assert_compiles(compiler: &str, standard: &str, extension: &str) {
    let scratch = Scratch::new("header");
    let source = scratch.text(&format!("alone.{extension}"));
    fs::write(&source, "#include <sesscache.h>\n#include <sesscache.h>\nextern int some_code;\n")
        .expect("write a source");
    let mut command = Command::new(compiler);
    command.args(STRICT).args([
        &format!("-std={standard}"),
        "-fsyntax-only",
        "-I",
        text(&root().join("include")),
        &source,
    ]);
    // An -isystem directory would have its warnings withheld; -I shows them.
    let done = run(&mut command, Duration::from_secs(60), "")
        .expect_success(&format!("a program in {standard} cannot include the header"));
    assert_eq!(done.stderr, "", "{compiler} -std={standard} warns about the header");
}

#[test]
fn the_header_alone_compiles_in_every_c() {
    for standard in ["c99", "c11", "c17", "c2x"] {
        assert_compiles("cc", standard, "c");
    }
}

#[test]
fn the_header_alone_compiles_in_every_cxx() {
    for standard in ["c++11", "c++14", "c++17", "c++20"] {
        assert_compiles("g++", standard, "cc");
    }
}

#[test]
fn a_cxx_program_links_with_the_library() {
    let scratch = Scratch::new("header");
    let (source, output) = (scratch.path().join("program.cc"), scratch.path().join("program"));
    let program = "#include <sesscache.h>\nint main() { return sesscache_version()[0] == '\\0'; }\n";
    fs::write(&source, program).expect("write a source");
    let flags = [&STRICT[..], &["-xc++", "-std=c++11"]].concat();
    compile_check(&Compile { sources: &[&source], flags: &flags, libraries: &[], output: &output })
        .expect_success("the names in the header are not those in the library for a C++ program");
}

/// The example in the header's first comment: the lines that are set in by four.
fn example() -> String {
    let header = committed();
    let comment = header.trim_start().strip_prefix("/*").expect("the header begins with a comment");
    let comment = comment.split("*/").next().expect("the comment has an end");
    let lines: Vec<&str> = comment.lines().map(|line| line.trim_start().trim_start_matches('*')).collect();
    let is_code = |line: &&str| line.starts_with("     ");
    let first = lines.iter().position(is_code).expect("the first comment has an example");
    let last = lines.iter().rposition(is_code).expect("the first comment has an example");
    lines[first..=last].iter().map(|line| format!("{}\n", line.strip_prefix("     ").unwrap_or(""))).collect()
}

#[test]
fn the_example_in_the_header_compiles() {
    let code = example();
    assert!(code.contains("sesscache_") && code.contains("#include <sesscache.h>"), "no complete example:\n{code}");
    let scratch = Scratch::new("header");
    for standard in ["-std=c99", "-std=c11", "-std=c2x"] {
        let (source, output): (&Path, &Path) = (&scratch.path().join("example.c"), &scratch.path().join("example.o"));
        fs::write(source, &code).expect("write a source");
        let flags = [&STRICT[..], &["-c", standard]].concat();
        compile_check(&Compile { sources: &[source], flags: &flags, libraries: &[], output })
            .expect_success("the example that everybody reads first does not compile");
    }
}
