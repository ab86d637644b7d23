//! The manual pages say what the header and the tables say, their examples compile, and man finds them.
//!
//! `make header` writes the lists of options, counters and statuses anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::install::Prefix;
use support::mdoc::{sentences, Page};
use support::{compile_check, root, run, Compile, Scratch};

const MINUTE: Duration = Duration::from_secs(60);

/// Every page of the source tree, under each of its names.
fn pages() -> Vec<Page> {
    let entries = fs::read_dir(root().join("man")).expect("man").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = entries.collect();
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

/// The pages of the C API.
fn api_pages() -> Vec<Page> {
    let mut pages = pages();
    pages.retain(|page| page.name().ends_with(".3"));
    pages
}

fn symbols() -> Vec<(String, String)> {
    let list = fs::read_to_string(root().join("include/sesscache.symbols")).expect("include/sesscache.symbols");
    let lines = list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    lines.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

/// One space between words and none beside brackets, so that line breaks do not matter.
fn squeeze(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every function and function type that the header declares, as one line each, with the names that OpenSSL's own
/// headers give to its types.
fn declarations_of_the_header() -> Vec<String> {
    let header = fs::read_to_string(root().join("include/sesscache.h")).expect("include/sesscache.h");
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").expect("a comment ends").1;
    }
    let lines = (code + rest).lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let code = lines.replace("extern \"C\" {", "").replace("struct ssl_session_st", "SSL_SESSION");
    let code = code.replace("struct ssl_ctx_st", "SSL_CTX").replace("struct ssl_st", "SSL");
    let all = code.split_inclusive(';').map(squeeze);
    all.filter(|one| one.contains("sesscache") && one.ends_with(");")).collect()
}

#[test]
fn every_function_has_a_page_that_shows_its_prototype() {
    let header = declarations_of_the_header();
    let pages = api_pages();
    for (name, _) in symbols() {
        let page = pages.iter().find(|page| page.name() == format!("{name}.3"));
        let page = page.unwrap_or_else(|| panic!("`man {name}` finds nothing"));
        assert!(page.names().contains(&name), "{} does not name {name}", page.name());
        let is_it = |line: &&String| line.contains(&format!("{name}("));
        let declared = header.iter().find(is_it).unwrap_or_else(|| panic!("{name} is not in the header"));
        let shown = page.declarations();
        let shown = shown.iter().find(is_it).unwrap_or_else(|| panic!("{} does not show {name}", page.name()));
        assert_eq!(
            &shown.replace("* sesscache", "*sesscache"),
            declared,
            "{}: not the header's prototype",
            page.name()
        );
    }
}

#[test]
fn every_declaration_of_the_header_is_in_a_page_and_every_one_of_a_page_in_the_header() {
    let header: BTreeSet<String> = declarations_of_the_header().into_iter().collect();
    let shown = api_pages().iter().flat_map(Page::declarations).collect::<Vec<_>>();
    let shown: BTreeSet<String> = shown.iter().map(|line| line.replace("* sesscache", "*sesscache")).collect();
    assert_eq!(shown, header, "manual and header differ (left: the manual)");
}

#[test]
fn every_page_says_which_version_brought_its_functions() {
    let symbols = symbols();
    for page in api_pages().iter().filter(|page| page.name() != "sesscache.3") {
        for name in page.names() {
            let version = &symbols.iter().find(|(symbol, _)| *symbol == name).expect("a symbol").1;
            let history = page.section("HISTORY").join(" ");
            assert!(history.contains(version.as_str()), "{}: {name} came with {version}: {history}", page.name());
        }
    }
}

/// The lists that pages share with the tables of the library, by the marks around them.
fn lists() -> [(&'static str, &'static str, String); 3] {
    let mut options = String::new();
    for option in sesscache::OPTIONS {
        let text = format!("By default {}: {}. {}", option.default, option.accepts, option.meaning);
        writeln!(options, ".It Cm {}\n{}", option.name, sentences(&text)).expect("write to a string");
    }
    let mut counters = String::new();
    for counter in sesscache::COUNTERS {
        writeln!(counters, ".It Va {}\n{}.", counter.name, sentences(counter.meaning)).expect("write to a string");
    }
    let mut statuses = String::new();
    for status in sesscache::STATUSES {
        let phrase = sentences(status.phrase.to_str().expect("UTF-8"));
        writeln!(statuses, ".It Dv {} No ({})\n{phrase}.", status.name, status.number).expect("write to a string");
    }
    [
        ("sesscache_options.7", "options", options),
        ("sesscache_read_stats.3", "counters", counters),
        ("sesscache_read_stats.3", "statuses", statuses),
    ]
}

#[test]
fn options_counters_and_statuses_are_those_of_the_library() {
    for (file, mark, list) in lists() {
        let path = root().join("man").join(file);
        let page = fs::read_to_string(&path).expect("a page");
        let (start, end) = (format!(".\\\" {mark}\n"), ".\\\" end\n");
        let (before, rest) = page.split_once(&start).unwrap_or_else(|| panic!("{file} has no place for {mark}"));
        let (is, after) = rest.split_once(end).expect("the list has an end");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, format!("{before}{start}{list}{end}{after}")).expect("write a page");
        } else {
            assert_eq!(is, list, "{file}: the {mark} are not those of the library; run: make header");
        }
    }
}

#[test]
fn every_example_compiles() {
    let scratch = Scratch::new("manual");
    for page in api_pages().iter().filter(|page| !page.path.is_symlink()) {
        let examples = page.examples();
        assert!(!examples.is_empty(), "{} has no example", page.name());
        for code in examples {
            let (source, output) = (scratch.path().join("example.c"), scratch.path().join("example.o"));
            fs::write(&source, &code).expect("write a source");
            let flags = ["-c", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];
            compile_check(&Compile { sources: &[&source], flags: &flags, libraries: &[], output: &output })
                .expect_success(&format!("the example in {} does not compile", page.name()));
        }
    }
}

#[test]
fn the_overview_shows_the_example_of_the_header() {
    let header = fs::read_to_string(root().join("include/sesscache.h")).expect("include/sesscache.h");
    let overview = Page::read(&root().join("man/sesscache.3"));
    for line in overview.examples().concat().lines().filter(|line| !line.is_empty()) {
        assert!(
            header.contains(&format!(" *     {line}\n")),
            "sesscache.3 shows another example than the header: {line}"
        );
    }
}

#[test]
fn mandoc_has_nothing_to_say_about_a_page() {
    for page in pages() {
        let mut mandoc = Command::new("mandoc");
        let done = run(mandoc.args(["-Tlint", "-Wwarning"]).arg(&page.path), MINUTE, "");
        assert!(done.status.success() && done.stdout.is_empty(), "{} is shown wrongly somewhere\n{done}", page.name());
    }
}

#[test]
fn a_reference_leads_to_a_page() {
    let all: BTreeSet<String> = pages().iter().map(|page| page.name().to_owned()).collect();
    for page in pages() {
        for (name, section) in page.references().iter().filter(|(name, _)| name.starts_with("sesscache")) {
            assert!(
                all.contains(&format!("{name}.{section}")),
                "{} refers to {name}({section}), which is none",
                page.name()
            );
        }
    }
}

#[test]
fn man_finds_the_installed_page_of_every_function() {
    let scratch = Scratch::new("man");
    let prefix = Prefix::install(scratch.path().join("prefix"), "lib");
    let names = symbols().into_iter().map(|(name, _)| (name, "3"));
    for (name, section) in names.chain([("sesscache".into(), "3"), ("sesscache_options".into(), "7")]) {
        let mut man = prefix.command("man");
        man.args([section, &name]).env("MANPAGER", "cat").env("PAGER", "cat").env("MANWIDTH", "100");
        let shown = run(&mut man, MINUTE, "").expect_success(&format!("`man {name}` finds nothing")).stdout;
        assert!(shown.contains(&name) && shown.contains("SEE ALSO"), "`man {name}` shows something else:\n{shown}");
    }
}
