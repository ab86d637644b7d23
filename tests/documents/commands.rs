//! What README.md and docs/ tell people to type works. Every block is run or compiled; one that is not is listed here with
//! the reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::install::{build_directory, Prefix};
use support::{compile_check, root, run, without_cargos_settings, Compile, Scratch};

const DOCUMENTS: [&str; 3] = ["README.md", "docs/guide.md", "docs/operating.md"];

/// What becomes of a shell command, found by how it begins.
enum Shell {
    /// Runs, with these commands before and after it.
    Run { before: &'static str, after: &'static str },
    /// Does not run, and why.
    Not(&'static str),
}

use Shell::{Not, Run};

/// The program that was built says how it is used.
const STARTS: &str = "(./myserver || true) 2>&1 | grep usage";

/// The shell commands and blocks, by how they begin.
const SHELL: &[(&str, Shell)] = &[
    ("make demo", Run { before: "export CONNECTIONS=20", after: "" }),
    ("make test", Not("this very test is a part of it")),
    ("make bench", Not("takes ten minutes of a quiet machine")),
    ("make servers", Not("a step of CI of its own")),
    ("make clients", Not("installs browsers and languages; docs/clients.md is its result")),
    ("make soak", Not("runs for ten minutes; the tests have twenty seconds of it")),
    // In DESTDIR there is nothing for the linker of this machine.
    (
        "make && sudo make install",
        Run { before: "ldconfig() { :; }", after: "test -f \"$DESTDIR/usr/local/include/sesscache.h\"" },
    ),
    ("cc -o myserver myserver.c $(pkg-config", Run { before: "cd $WORK", after: STARTS }),
    (
        "cc -o myserver myserver.c -l:libsesscache.a",
        Run {
            before: "cd $WORK",
            after:
                "case $(readelf -d myserver) in *libsesscache*) exit 1;; esac; (./myserver || true) 2>&1 | grep usage",
        },
    ),
    ("install -d -m 0700", Run { before: "", after: "test \"$(stat -c %a $RUN)\" = 700" }),
    (
        "cd /run/myserver-tls",
        Run {
            before: "mkdir -p $RUN; cd $RUN; head -c 32 /dev/zero >key; chmod 600 key",
            after: "test \"$(stat -c %s:%a key)\" = 64:600; test \"$(tail -c 32 key | tr -d '\\0' | wc -c)\" = 0",
        },
    ),
    ("rm -rf /run/myserver-tls/*", Run { before: "mkdir -p $RUN; touch $RUN/control", after: "rmdir $RUN" }),
    ("docker volume create", Not("needs Docker and an image of the server")),
    ("semanage fcontext", Not("needs a kernel with SELinux")),
];

/// Blocks in other languages.
const OTHER: &[(&str, &str)] = &[
    ("yaml", "needs a cluster"),
    ("apparmor", "needs a kernel with AppArmor"),
    ("promql", "needs a Prometheus that has scraped; the rules of packaging/prometheus are tried out by tests/program/streams.rs"),
    ("text", "what the demo prints; compared in operating_tables.rs and tests/program/streams.rs"),
];

/// A block of a document: its language, and its text without the fence.
struct Block {
    document: &'static str,
    language: String,
    text: String,
}

/// The fenced blocks; those set in by four spaces are shell commands, one per line.
fn blocks() -> Vec<Block> {
    let mut found = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).unwrap_or_else(|e| panic!("{document}: {e}"));
        let mut open: Option<Block> = None;
        for line in text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    open = Some(Block { document, language: language.to_owned(), text: String::new() });
                }
                (Some(_), Some(_)) => found.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => {
                    if let Some(command) = line.strip_prefix("    ") {
                        found.push(Block { document, language: "sh".into(), text: format!("{command}\n") });
                    }
                }
            }
        }
        assert!(open.is_none(), "{document}: a block does not end");
    }
    found
}

fn of_language(language: &str) -> Vec<Block> {
    let mut found = blocks();
    found.retain(|block| block.language == language);
    assert!(!found.is_empty(), "the documents have no block in {language}: this test looks in the wrong place");
    found
}

/// An installed prefix, and a directory with a program to build.
struct Workshop {
    scratch: Scratch,
    prefix: Prefix,
}

impl Workshop {
    fn new(name: &str) -> Workshop {
        let scratch = Scratch::new(name);
        let prefix = Prefix::install(scratch.path().join("prefix"), "lib");
        let work = scratch.path().join("work");
        fs::create_dir(&work).expect("a directory");
        fs::copy(root().join("c-examples/minimal.c"), work.join("myserver.c")).expect("copy an example");
        Workshop { scratch, prefix }
    }

    fn work(&self) -> PathBuf {
        self.scratch.path().join("work")
    }

    /// Runs a program in a directory; its words when it fails are the message.
    fn run(&self, directory: &Path, program: impl AsRef<Path>, arguments: &[&str], complaint: &str) -> String {
        let mut command = self.prefix.command(program);
        command.current_dir(directory).args(arguments);
        run(&mut command, Duration::from_secs(240), "").expect_success(complaint).stdout
    }
}

#[test]
fn every_block_is_in_a_language_that_is_tried_out_or_excused() {
    let tried = ["sh", "c", "cmake", "meson", "ini"];
    for block in blocks() {
        let known = tried.contains(&block.language.as_str()) || OTHER.iter().any(|(one, _)| *one == block.language);
        assert!(known, "{}: nothing tries out this block in {:?}:\n{}", block.document, block.language, block.text);
    }
    for (language, reason) in OTHER {
        println!("not tried out: blocks in {language}: {reason}");
    }
}

#[test]
fn every_shell_command_works() {
    let shop = Workshop::new("shell");
    let (work, run_directory) = (shop.work(), shop.scratch.text("run"));
    let mut used = vec![false; SHELL.len()];
    for block in of_language("sh") {
        let command = block.text.split("    #").next().expect("a command").trim();
        let at = SHELL.iter().position(|(begins, _)| command.starts_with(begins));
        let at = at.unwrap_or_else(|| panic!("{}: nothing tries out this command:\n{command}", block.document));
        used[at] = true;
        let (before, after) = match SHELL[at].1 {
            Run { before, after } => (before, after),
            Not(reason) => {
                println!("not run: {command}: {reason}");
                continue;
            }
        };
        // Root's commands are run as whoever runs the test, and below the scratch directory.
        let text = block.text.replace("/run/myserver-tls", &run_directory);
        let script = format!("sudo() {{ \"$@\"; }}\n{before}\n{text}\n{after}\n");
        // A build in the source tree must not look at the scratch prefix: cargo would build anew.
        let mut bash = if command.starts_with("make") { Command::new("bash") } else { shop.prefix.command("bash") };
        bash.current_dir(root()).args(["-euo", "pipefail", "-c", &script]);
        for inherited in ["MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "SESSCACHE_STAGE", "PREFIX", "LIBDIR"] {
            bash.env_remove(inherited);
        }
        without_cargos_settings(&mut bash);
        bash.env("CARGO_TARGET_DIR", build_directory()).env("WORK", &work).env("RUN", &run_directory);
        bash.env("DESTDIR", shop.scratch.text("root"));
        run(&mut bash, Duration::from_secs(240), "")
            .expect_success(&format!("{}: people who type this meet an error:\n{command}", block.document));
        let _ = fs::remove_dir_all(&run_directory);
    }
    for (at, used) in used.iter().enumerate() {
        assert!(used, "no document has a command that begins with: {}", SHELL[at].0);
    }
}

#[test]
fn every_block_of_c_compiles() {
    let scratch = Scratch::new("c-blocks");
    for block in of_language("c") {
        let (source, output) = (scratch.path().join("block.c"), scratch.path().join("block.o"));
        fs::write(&source, &block.text).expect("write a source");
        let flags = ["-c", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];
        compile_check(&Compile { sources: &[&source], flags: &flags, libraries: &[], output: &output })
            .expect_success(&format!("{}: this code does not compile:\n{}", block.document, block.text));
    }
}

#[test]
fn a_project_of_cmake_finds_the_installed_library() {
    let shop = Workshop::new("cmake");
    for block in of_language("cmake") {
        for target in ["sesscache::sesscache", "sesscache::static"] {
            let lists = block.text.replace("sesscache::sesscache", target);
            fs::write(shop.work().join("CMakeLists.txt"), lists).expect("write a file");
            let complaint = format!("{}: CMake cannot use {target}", block.document);
            shop.run(&shop.work(), "cmake", &["-S", ".", "-B", target], &complaint);
            shop.run(&shop.work(), "cmake", &["--build", target], &complaint);
            let program = shop.work().join(target).join("myserver");
            let needed = shop.run(&shop.work(), "readelf", &["-d", support::text(&program)], &complaint);
            assert_eq!(needed.contains("libsesscache.so.0.1"), target == "sesscache::sesscache", "{target}:\n{needed}");
            let answer = run(&mut shop.prefix.command(&program), Duration::from_secs(60), "");
            assert!(
                answer.stderr.contains("usage"),
                "the program that CMake built for {target} does not run\n{answer}"
            );
        }
        // Another minor version is another ABI.
        let other = block.text.replace("sesscache 0.1", "sesscache 0.2");
        fs::write(shop.work().join("CMakeLists.txt"), other).expect("write a file");
        let mut cmake = shop.prefix.command("cmake");
        let answer = run(cmake.current_dir(shop.work()).args(["-S", ".", "-B", "other"]), Duration::from_secs(60), "");
        assert!(!answer.status.success(), "CMake takes this version for another, which is not compatible\n{answer}");
    }
}

#[test]
fn a_project_of_meson_finds_the_installed_library() {
    let shop = Workshop::new("meson");
    for block in of_language("meson") {
        fs::write(shop.work().join("meson.build"), &block.text).expect("write a file");
        let complaint = format!("{}: Meson cannot use the library", block.document);
        shop.run(&shop.work(), "meson", &["setup", "build"], &complaint);
        shop.run(&shop.work(), "ninja", &["-C", "build"], &complaint);
        let answer = run(&mut shop.prefix.command(shop.work().join("build/myserver")), Duration::from_secs(60), "");
        assert!(answer.stderr.contains("usage"), "the program that Meson built does not run\n{answer}");
    }
}

#[test]
fn the_unit_of_systemd_is_understood() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return println!("not tried out: the unit of docs/guide.md: systemd-analyze is not installed");
    }
    let scratch = Scratch::new("unit");
    for block in of_language("ini") {
        let unit = scratch.text("myserver.service");
        fs::write(&unit, block.text.replace("/usr/local/bin/myserver", "/bin/true")).expect("write a unit");
        let answer =
            run(Command::new("systemd-analyze").args(["verify", "--man=no", &unit]), Duration::from_secs(60), "");
        let about_it: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("myserver.service")).collect();
        assert!(about_it.is_empty(), "{}: systemd does not understand the unit:\n{answer}", block.document);
    }
}
