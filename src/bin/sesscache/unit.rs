//! `unit`: what gives the configuration module of OpenSSL to a service of systemd, and to nothing else.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{json, Value};
use sesscache::{Error, Options, Status};

use crate::arguments::UnitArguments;
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// What our files begin with. Another file is neither overwritten nor deleted.
const MARK: &str = "# Written by `sesscache unit";
/// Where distributions have the system's configuration.
pub const SYSTEM: &[&str] =
    &["/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/usr/lib/ssl/openssl.cnf", "/usr/local/ssl/openssl.cnf"];

/// A file to be: its path below the root, and its text.
struct Draft {
    path: PathBuf,
    text: String,
}

pub fn run(arguments: &UnitArguments, json: bool) -> Result<Outcome, Failure> {
    let name = arguments.name.strip_suffix(".service").unwrap_or(&arguments.name);
    let root = arguments.root.as_deref().unwrap_or(Path::new("/"));
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let paths = [format!("/etc/sesscache/{name}.cnf"), format!("/etc/systemd/system/{name}.service.d/sesscache.conf")];
    let mut out = Output::new();
    if arguments.undo {
        let mut deleted = Vec::new();
        for path in &paths {
            if undo(&at(path), root)? {
                deleted.push(path);
            }
        }
        if json {
            out.json(&json!({ "deleted": deleted }))?;
        } else if deleted.is_empty() {
            writeln!(out, "nothing of {name} was there")?;
        } else {
            for path in &deleted {
                writeln!(out, "deleted {path}")?;
            }
            writeln!(out, "{}", next(name))?;
        }
        out.flush()?;
        return Ok(Outcome::fine_if(!deleted.is_empty()));
    }
    let [conf, drop_in] = &paths;
    let drafts = [
        Draft { path: at(conf), text: openssl_conf(arguments, name)? },
        Draft { path: at(drop_in), text: service(name, conf) },
    ];
    if !arguments.dry_run {
        for draft in &drafts {
            refuse_others(draft)?;
        }
        for draft in &drafts {
            write(draft)?;
        }
    }
    if json {
        let files: Vec<Value> =
            paths.iter().zip(&drafts).map(|(path, draft)| json!({ "path": path, "text": draft.text })).collect();
        out.json_pretty(&json!({ "written": !arguments.dry_run, "files": files }))?;
    } else {
        for (path, draft) in paths.iter().zip(&drafts) {
            writeln!(out, "{}\n", out.bold(path))?;
            for line in draft.text.lines() {
                writeln!(out, "    {line}")?;
            }
            writeln!(out)?;
        }
        let note =
            if arguments.dry_run { "nothing is written: without --dry-run, it is".to_owned() } else { next(name) };
        writeln!(out, "{note}")?;
    }
    out.flush()?;
    Ok(Outcome::Fine)
}

fn next(name: &str) -> String {
    format!("Now run: systemctl daemon-reload && systemctl restart {name}")
}

/// Preserved over a restart: what is in it is what a restart would lose.
fn service(name: &str, conf: &str) -> String {
    format!(
        "{MARK} {name}`; `sesscache unit --undo {name}` deletes it.\n[Service]\nEnvironment=OPENSSL_CONF={conf}\n\
         RuntimeDirectory=sesscache-{name}\nRuntimeDirectoryPreserve=yes\n"
    )
}

fn openssl_conf(arguments: &UnitArguments, name: &str) -> Result<String, Failure> {
    let options = arguments.options.as_deref().unwrap_or_default();
    Options::parse(options)?;
    let module = match &arguments.module {
        Some(module) => module.clone(),
        None => find_module()?,
    };
    let system = SYSTEM.iter().find(|path| Path::new(path).is_file());
    let init = system.map(|path| fs::read_to_string(path).map(|text| init_section(&text)));
    let init = init.transpose().map_err(Failure::system("cannot read the system's openssl.cnf"))?.flatten();
    let mut text = format!("{MARK} {name}`; `sesscache unit --undo {name}` deletes it.\n");
    if let Some(system) = system {
        text += &format!(".include {system}\n");
    }
    text +=
        "\n[default]\n# If the module cannot be loaded, the service does what it did before.\nconfig_diagnostics = 0\n";
    if init.is_none() {
        text += "openssl_conf = openssl_init\n";
    }
    text += &format!(
        "\n[{}]\nsesscache = sesscache_section\n\n[sesscache_section]\n",
        init.as_deref().unwrap_or("openssl_init")
    );
    let directory = arguments.directory.clone().unwrap_or_else(|| format!("/run/sesscache-{name}/tls"));
    let module = module.to_string_lossy().into_owned();
    let context = arguments.session_id_context.as_deref().unwrap_or_default();
    let programs = arguments.programs.as_deref().unwrap_or_default();
    let force = if arguments.force { "yes" } else { "" };
    for (key, value) in [
        ("path", module.as_str()),
        ("directory", &directory),
        ("options", options),
        ("programs", programs),
        ("session_id_context", context),
        ("force", force),
    ] {
        if value.chars().any(char::is_control) {
            return Err(Error::new(Status::Invalid, format!("{key}: a line ends in the midst of it")).into());
        }
        if !value.is_empty() {
            text += &format!("{key} = {}\n", escape(value));
        }
    }
    Ok(text)
}

/// The section of the modules that a file names before its first section.
fn init_section(text: &str) -> Option<String> {
    let before = text.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "openssl_conf").then(|| value.split('#').next().unwrap_or_default().trim().to_owned())
    };
    before.filter_map(value).last()
}

/// As config(5) reads it again.
fn escape(value: &str) -> String {
    value.chars().flat_map(|c| ("\\$#'\"".contains(c)).then_some('\\').into_iter().chain([c])).collect()
}

/// The module that was installed with this program: below LIBDIR, which may have the name of an architecture.
fn find_module() -> Result<PathBuf, Failure> {
    let missing = || {
        let error = Error::new(Status::NotFound, "the configuration module openssl_conf.so is not beside this program");
        error.remedy("name it with --module")
    };
    let program = std::env::current_exe().map_err(Failure::system("cannot find this program"))?;
    let prefix = program.parent().and_then(Path::parent).ok_or_else(missing)?;
    let lib = prefix.join("lib");
    let below = fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places: Vec<PathBuf> = [lib.clone(), prefix.join("lib64")].into_iter().chain(below).collect();
    places.iter_mut().for_each(|place| place.push("sesscache/openssl_conf.so"));
    places.into_iter().find(|place| place.is_file()).ok_or_else(|| missing().into())
}

fn refuse_others(draft: &Draft) -> Result<(), Failure> {
    match fs::read_to_string(&draft.path) {
        Ok(text) if text == draft.text => Ok(()),
        Ok(_) => {
            let error = Error::new(Status::Invalid, format!("{} is there already and differs", draft.path.display()));
            Err(error.remedy("edit it, or run `sesscache unit --undo` first").into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::System(format!("cannot read {}", draft.path.display()), error)),
    }
}

/// Whole or not at all: systemd may read it at any moment.
fn write(draft: &Draft) -> Result<(), Failure> {
    let failed = || Failure::system(format!("cannot write {}", draft.path.display()));
    let parent = draft.path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed())?;
    let new = draft.path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new).map_err(failed())?;
    file.write_all(draft.text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed())?;
    fs::rename(&new, &draft.path).map_err(failed())
}

/// Deletes a file of ours, and its directory when that is empty then. Tells whether there was one.
fn undo(path: &Path, root: &Path) -> Result<bool, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Failure::System(format!("cannot read {}", path.display()), error)),
    };
    if !text.starts_with(MARK) {
        let error = Error::new(Status::Invalid, format!("{} was not written by this program", path.display()));
        return Err(error.remedy("delete it yourself").into());
    }
    fs::remove_file(path).map_err(Failure::system(format!("cannot delete {}", path.display())))?;
    let ours = |parent: &&Path| *parent != root && parent.file_name() != Some(OsStr::new("system"));
    if let Some(parent) = path.parent().filter(ours) {
        // Others may have files there.
        let _ = fs::remove_dir(parent);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_of_modules_is_the_one_before_all_sections() {
        assert_eq!(
            init_section("a = b\nopenssl_conf = mine # x\n[y]\nopenssl_conf = other\n").as_deref(),
            Some("mine")
        );
        assert_eq!(init_section("#openssl_conf = mine\n[y]\nopenssl_conf = other\n"), None);
    }

    #[test]
    fn what_config_would_read_otherwise_is_escaped() {
        assert_eq!(escape("key='/a b' #$\\"), "key=\\'/a b\\' \\#\\$\\\\");
    }
}
