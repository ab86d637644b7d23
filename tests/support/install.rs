//! `make install` into a scratch root, and programs compiled against what it put there.

use crate::process::Finished;
use crate::{root, run, stage};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The build directory that holds the stage.
pub fn build_directory() -> &'static Path {
    stage().parent().expect("the stage lies in the build directory")
}

/// Runs one of the targets that install, with variables of make's as arguments.
pub fn make(target: &str, variables: &[String]) -> Finished {
    let mut make = Command::new("make");
    make.current_dir(root()).args(["--no-print-directory", target]).args(variables);
    // `make test` hands its own variables down to the tests; they are none of this make's business.
    for inherited in ["MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "DESTDIR", "PREFIX", "LIBDIR"] {
        make.env_remove(inherited);
    }
    make.env("CARGO_TARGET_DIR", build_directory());
    run(&mut make, Duration::from_secs(300), "").expect_success(&format!("`make {target}` fails"))
}

/// Everything below a directory that is no directory itself, as relative paths.
pub fn files_below(directory: &Path) -> BTreeSet<String> {
    fn collect(base: &Path, directory: &Path, into: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.is_symlink() {
                collect(base, &path, into);
            } else {
                let relative = path.strip_prefix(base).expect("below the base");
                into.insert(relative.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(directory, directory, &mut found);
    found
}

/// An installed prefix, used where it lies.
pub struct Prefix {
    pub path: PathBuf,
    pub libdir: PathBuf,
}

impl Prefix {
    /// Installs to `path`, the libraries to `path/libdir`.
    pub fn install(path: PathBuf, libdir: &str) -> Prefix {
        let libdir = path.join(libdir);
        make("install", &[format!("PREFIX={}", path.display()), format!("LIBDIR={}", libdir.display())]);
        Prefix { path, libdir }
    }

    /// A command that finds the prefix with pkg-config, the loader, CMake and man.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("PKG_CONFIG_PATH", self.libdir.join("pkgconfig"))
            .env("LD_LIBRARY_PATH", &self.libdir)
            .env("CMAKE_PREFIX_PATH", &self.path)
            .env("MANPATH", self.path.join("share/man"))
            .env("LC_ALL", "C");
        command
    }

    /// What pkg-config answers, in words.
    pub fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let done = run(self.command("pkg-config").args(arguments).arg("sesscache"), Duration::from_secs(60), "")
            .expect_success("pkg-config does not find the installed library");
        done.stdout.split_whitespace().map(str::to_owned).collect()
    }
}
