//! `make install` puts complete, working files where it is told, and `make uninstall` leaves none of them. The static
//! library shows its API and nothing else, so that a program's own LMDB or another Rust library stay apart from ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::install::{build_directory, files_below, make, Prefix};
use support::{program_sources, root, run, text, Scratch};

const STRICT: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn uninstall_leaves_nothing_of_what_install_brought() {
    let scratch = Scratch::new("uninstall");
    for libdir in ["", "/opt/tls/lib/x86_64-linux-gnu"] {
        let place = [format!("DESTDIR={}", scratch.text("root")), "PREFIX=/opt/tls".into(), format!("LIBDIR={libdir}")];
        // Twice: over an older version is how most installations begin.
        make("install", &place);
        make("install", &place);
        let installed = files_below(scratch.path());
        let lib = if libdir.is_empty() { "root/opt/tls/lib" } else { "root/opt/tls/lib/x86_64-linux-gnu" };
        for file in
            ["libsesscache.so", "libsesscache.a", "pkgconfig/sesscache.pc", "cmake/sesscache/sesscache-config.cmake"]
        {
            assert!(
                installed.contains(&format!("{lib}/{file}")),
                "LIBDIR={libdir}: {file} is not in it: {installed:#?}"
            );
        }
        for file in [
            "include/sesscache.h",
            "share/man/man3/sesscache_open.3",
            "share/doc/sesscache/examples/minimal.c",
            "share/doc/sesscache/LICENSE-MIT",
        ] {
            assert!(installed.contains(&format!("root/opt/tls/{file}")), "{file} is not installed: {installed:#?}");
        }
        make("uninstall", &place);
        assert_eq!(files_below(scratch.path()), Default::default(), "files stay behind after `make uninstall`");
        let mut find = Command::new("find");
        let left = run(find.arg(scratch.path().join("root/opt/tls")).args(["-mindepth", "1"]), MINUTE, "");
        assert_eq!(left.stdout, "", "directories stay behind after `make uninstall`");
    }
}

#[test]
fn install_says_what_the_dynamic_linker_lacks() {
    let say = |directory: &str| {
        run(Command::new(root().join("scripts/ldconfig-hint")).arg(directory), MINUTE, "")
            .expect_success("the last step of `make install`")
            .stdout
    };
    let elsewhere = say("/opt/tls/lib");
    assert!(elsewhere.contains("-Wl,-rpath,/opt/tls/lib"), "ldconfig would not help there: {elsewhere:?}");
    assert_eq!(say("/usr/local/lib"), "Now run: ldconfig\n");
}

#[test]
fn a_program_links_with_the_stripped_library_which_is_half_as_large_at_most() {
    let scratch = Scratch::new("stripped");
    let prefix = Prefix { path: scratch.path().join("prefix"), libdir: scratch.path().join("prefix/lib") };
    let size = |target: &str| {
        make(target, &[format!("PREFIX={}", prefix.path.display())]);
        fs::metadata(prefix.libdir.join("libsesscache.so")).expect("the shared library").len()
    };
    let (whole, stripped) = (size("install"), size("install-strip"));
    assert!(stripped < whole / 2, "{stripped} of {whole} bytes");
    let mut cc = prefix.command("cc");
    cc.args(STRICT).arg(root().join("c-examples/minimal.c")).args(["-o", &scratch.text("program")]);
    run(cc.args(prefix.pkg_config(&["--cflags", "--libs"])), MINUTE, "").expect_success("a program does not link");
}

#[test]
fn a_program_runs_with_the_installed_shared_library() {
    let scratch = Scratch::new("installed");
    let prefix = Prefix::install(scratch.path().join("prefix"), "lib");
    let source =
        "#include <sesscache.h>\n#include <stdio.h>\nint main(void) { return puts(sesscache_version()) < 0; }\n";
    fs::write(scratch.text("program.c"), source).expect("write a source");
    let mut cc = prefix.command("cc");
    cc.args(STRICT).args(["-o", &scratch.text("program"), &scratch.text("program.c")]);
    run(cc.args(prefix.pkg_config(&["--cflags", "--libs"])), MINUTE, "").expect_success("a program does not compile");
    let done = run(&mut prefix.command(scratch.text("program")), MINUTE, "").expect_success("the program does not run");
    assert_eq!(done.stdout.trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(prefix.pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")], "pkg-config tells another version");
}

/// Links a program with the static library of an installed prefix, as its pkg-config file says, and with `more`.
fn link_statically(prefix: &Prefix, archives: &[&Path], sources: &[&Path], more: &[&str], output: &Path) {
    let mut libraries = prefix.pkg_config(&["--static", "--libs"]);
    // The linker would take the shared library, which lies in the same directory.
    let at = libraries.iter().position(|flag| flag == "-lsesscache").expect("pkg-config names the library");
    libraries.splice(at..=at, archives.iter().map(|archive| text(archive).to_owned()));
    let mut cc = prefix.command("cc");
    cc.args(STRICT)
        .args(prefix.pkg_config(&["--cflags"]))
        .args(sources)
        .arg("-o")
        .arg(output)
        .args(libraries)
        .args(more);
    run(&mut cc, MINUTE, "").expect_success("a program cannot be linked with the static library");
}

#[test]
fn a_server_with_the_static_library_resumes_its_sessions() {
    let scratch = Scratch::new("static");
    let prefix = Prefix::install(scratch.path().join("prefix"), "lib");
    let program = scratch.path().join("program");
    let sources = program_sources("tls13_chain_ends");
    let archive = prefix.libdir.join("libsesscache.a");
    link_statically(
        &prefix,
        &[&archive],
        &sources.iter().map(|source| &**source).collect::<Vec<_>>(),
        &["-lpthread"],
        &program,
    );
    let mut command = prefix.command(&program);
    command.current_dir(scratch.path()).env("TMPDIR", scratch.path()).env_remove("LD_LIBRARY_PATH");
    run(&mut command, MINUTE, "").expect_success("a program of tests/c fails when it is linked statically");
    let needed = run(Command::new("readelf").arg("-d").arg(&program), MINUTE, "").stdout;
    assert!(!needed.contains("sesscache"), "the shared library was linked, not the static one:\n{needed}");
}

/// How many calls of LMDB a program with its own LMDB makes, and how many reach it in all.
fn calls_that_reach_the_host(prefix: &Prefix, archive: &Path, lmdb: &str, scratch: &Scratch) -> (u32, u32) {
    let program = scratch.path().join("own_lmdb");
    let source = root().join("tests/install/own_lmdb.c");
    let wrap = ["-Wl,--wrap=mdb_env_create", "-Wl,--wrap=mdb_txn_begin", lmdb, "-lpthread"];
    link_statically(prefix, &[archive], &[&source], &wrap, &program);
    let data = scratch.path().join("data");
    let _ = fs::remove_dir_all(&data);
    fs::create_dir(&data).expect("a directory");
    let done =
        run(prefix.command(&program).arg(&data), MINUTE, "").expect_success("one of the two LMDBs does not work");
    let mut numbers = done.stdout.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    (numbers.next().expect("own calls"), numbers.next().expect("calls seen"))
}

#[test]
fn a_program_with_its_own_lmdb_keeps_it_and_the_static_library_keeps_ours() {
    let scratch = Scratch::new("own-lmdb");
    let prefix = Prefix::install(scratch.path().join("prefix"), "lib");
    let archive = prefix.libdir.join("libsesscache.a");
    for lmdb in ["-llmdb", "-l:liblmdb.a"] {
        let (own, seen) = calls_that_reach_the_host(&prefix, &archive, lmdb, &scratch);
        assert_eq!(seen, own, "{lmdb}: the program's LMDB serves sesscache, too");
    }
    // The same program with the archive as cargo makes it: this is what the hiding is for, and this test sees it.
    let (own, seen) =
        calls_that_reach_the_host(&prefix, &build_directory().join("release/libsesscache.a"), "-llmdb", &scratch);
    assert!(seen > own, "cargo's own archive shows no LMDB any more ({seen} calls): this test proves nothing");
}

#[test]
fn the_static_library_shows_the_reviewed_symbols_and_no_other() {
    let scratch = Scratch::new("static-symbols");
    let prefix = Prefix::install(scratch.path().join("prefix"), "lib");
    let mut nm = Command::new("nm");
    nm.args(["-g", "--defined-only", "-P"]).arg(prefix.libdir.join("libsesscache.a")).env("LC_ALL", "C");
    let table = run(&mut nm, MINUTE, "").expect_success("nm cannot read the static library").stdout;
    let mut shown: Vec<&str> =
        table.lines().filter(|line| !line.ends_with(':')).filter_map(|line| line.split(' ').next()).collect();
    shown.sort();
    let list = fs::read_to_string(root().join("include/sesscache.symbols")).expect("include/sesscache.symbols");
    let mut reviewed: Vec<&str> =
        list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()).collect();
    reviewed.sort();
    assert_eq!(shown, reviewed, "a program meets symbols in the static library that it did not ask for");
}

/// A C function that panics and catches it, as a static library of Rust's.
fn library_that_panics(scratch: &Scratch) -> PathBuf {
    let source = "#[no_mangle] pub extern \"C\" fn sesscache_other() -> i32 {\n\
        std::panic::set_hook(Box::new(|_| {}));\n\
        std::panic::catch_unwind(|| std::hint::black_box(Vec::<i32>::new())[0]).unwrap_or(42)\n}\n";
    fs::write(scratch.text("other.rs"), source).expect("write a source");
    let archive = scratch.path().join("libother.a");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--crate-type=staticlib", "--edition=2021", "-o", text(&archive), &scratch.text("other.rs")]);
    run(&mut rustc, MINUTE, "").expect_success("rustc cannot make another library");
    archive
}

/// Every Rust static library brings Rust's runtime. Two of them with visible symbols do not link, or share one runtime.
#[test]
fn another_rust_library_fits_into_the_same_program() {
    let scratch = Scratch::new("other-rust");
    let prefix = Prefix::install(scratch.path().join("prefix"), "lib");
    let program = "#include <sesscache.h>\nint sesscache_other(void);\n\
        int main(void) { return sesscache_other() == 42 && sesscache_version()[0] != 0 ? 0 : 1; }\n";
    fs::write(scratch.text("program.c"), program).expect("write a source");
    let (ours, other) = (prefix.libdir.join("libsesscache.a"), library_that_panics(&scratch));
    let (source, output) = (scratch.path().join("program.c"), scratch.path().join("program"));
    for order in [[ours.as_path(), &other], [&other, &ours]] {
        link_statically(&prefix, &order, &[&source], &["-lpthread"], &output);
        run(&mut prefix.command(&output), MINUTE, "")
            .expect_success("two Rust libraries in one program disturb each other");
    }
}

/// What `scripts/static-library` does to an archive must leave the tables of the unwinder whole: a fault in the cache is a
/// panic that is caught, and costs a handshake. Tried with a library that does panic.
#[test]
fn a_panic_is_still_caught_in_a_static_library_with_hidden_symbols() {
    let scratch = Scratch::new("hidden-panic");
    let (archive, hidden) = (library_that_panics(&scratch), scratch.text("libhidden.a"));
    fs::write(scratch.text("symbols"), "sesscache_other 0.1.0\n").expect("write a list");
    let mut hide = Command::new(root().join("scripts/static-library"));
    hide.args([text(&archive), &scratch.text("symbols"), &hidden]);
    run(&mut hide, MINUTE, "").expect_success("the symbols of another library cannot be hidden");
    let program = "int sesscache_other(void);\nint main(void) { return sesscache_other() == 42 ? 0 : 1; }\n";
    fs::write(scratch.text("program.c"), program).expect("write a source");
    let mut cc = Command::new("cc");
    cc.args(STRICT).args([
        "-o",
        &scratch.text("program"),
        &scratch.text("program.c"),
        &hidden,
        "-lm",
        "-ldl",
        "-lpthread",
    ]);
    run(&mut cc, MINUTE, "").expect_success("a program cannot be linked with the static library");
    run(&mut Command::new(scratch.text("program")), MINUTE, "").expect_success("a contained fault ends the server");
}
