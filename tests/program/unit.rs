//! `sesscache unit` and `doctor --pid`: what a service gets, what programs do with it, and what stays as it was.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::program::{exit_status, json, sesscache};
use support::{certificate, root, run, spawn_in_group, stage, text, Finished, Scratch};

const MINUTE: Duration = Duration::from_secs(60);

fn unit(scratch: &Scratch, arguments: &[&str]) -> Finished {
    let root = scratch.text("root");
    sesscache(&[&["unit", "--root", &root], arguments].concat())
}

fn written(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let root = scratch.join("root");
    (root.join("etc/sesscache/web.cnf"), root.join("etc/systemd/system/web.service.d/sesscache.conf"))
}

/// Writes the files of a service whose sessions lie in the scratch directory; returns its openssl.cnf.
fn openssl_conf(scratch: &Scratch, arguments: &[&str]) -> PathBuf {
    let store = scratch.text("store");
    unit(scratch, &[&["web", "--directory", &store], arguments].concat()).expect_success("unit writes nothing");
    written(scratch).0
}

/// The module and its library where every user may read them. A tree may lie where only its owner may.
fn copied_module(scratch: &Scratch) -> PathBuf {
    let (from, to) = (stage().join("lib"), scratch.join("lib"));
    fs::create_dir_all(to.join("sesscache")).expect("a directory");
    let library = fs::read_link(from.join("libsesscache.so")).expect("a link to the library");
    for file in [library.as_path(), Path::new("sesscache/openssl_conf.so")] {
        fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
    to.join("sesscache/openssl_conf.so")
}

fn compile(scratch: &Scratch, name: &str, flags: &[&str]) -> PathBuf {
    let output = scratch.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]);
    cc.arg(root().join("tests/program/plain_program.c")).arg("-o").arg(&output).args(flags);
    run(&mut cc, MINUTE, "").expect_success("a program of the tests does not compile");
    output
}

fn server(scratch: &Scratch) -> PathBuf {
    compile(scratch, "server", &["-DSERVER", "-lssl", "-lcrypto"])
}

/// What a program says about itself with this file.
fn said(program: &Path, conf: Option<&Path>, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("OPENSSL_CONF").env_remove("LD_LIBRARY_PATH");
    command.envs(conf.map(|conf| ("OPENSSL_CONF", conf)));
    run(&mut command, MINUTE, "").stdout.trim().to_owned()
}

#[test]
fn unit_writes_what_it_shows_and_undo_deletes_it() {
    let scratch = Scratch::new("unit");
    let (conf, drop_in) = written(&scratch);
    let arguments = ["web.service", "--options", "owner=nobody key='/a b'", "--programs", "web webd", "--force"];
    let shown = unit(&scratch, &[&arguments[..], &["--dry-run"]].concat()).expect_success("unit shows nothing");
    assert!(!conf.exists() && !drop_in.exists(), "--dry-run writes");
    let done = unit(&scratch, &arguments).expect_success("unit writes nothing");
    let (conf_text, drop_in_text) =
        (fs::read_to_string(&conf).expect("a file"), fs::read_to_string(&drop_in).expect("a file"));
    for line in conf_text.lines().chain(drop_in_text.lines()) {
        assert!(shown.stdout.contains(line) && done.stdout.contains(line), "not shown: {line}");
    }
    let module = stage().join("lib/sesscache/openssl_conf.so");
    for line in [
        &format!("path = {}", module.display()),
        "directory = /run/sesscache-web/tls",
        "options = owner=nobody key=\\'/a b\\'",
        "programs = web webd",
        "force = yes",
        "config_diagnostics = 0",
    ] {
        assert!(conf_text.lines().any(|found| found == line), "no line {line} in\n{conf_text}");
    }
    for line in [
        "Environment=OPENSSL_CONF=/etc/sesscache/web.cnf",
        "RuntimeDirectory=sesscache-web",
        "RuntimeDirectoryPreserve=yes",
    ] {
        assert!(drop_in_text.lines().any(|found| found == line), "no line {line} in\n{drop_in_text}");
    }
    unit(&scratch, &arguments).expect_success("what is there already is not refused");
    assert_eq!(exit_status(&unit(&scratch, &["web"])), 2, "a file that differs is overwritten");
    unit(&scratch, &["--undo", "web"]).expect_success("undo fails");
    assert!(!conf.exists() && !drop_in.exists(), "undo leaves files");
    assert!(!drop_in.parent().expect("a directory").exists(), "undo leaves an empty directory");
    assert_eq!(exit_status(&unit(&scratch, &["--undo", "web"])), 1, "undo of nothing is no success");
}

#[test]
fn files_of_others_are_neither_overwritten_nor_deleted() {
    let scratch = Scratch::new("unit");
    let (conf, drop_in) = written(&scratch);
    fs::create_dir_all(conf.parent().expect("a parent")).expect("a directory");
    fs::write(&conf, "# mine\n").expect("a file");
    assert_eq!(exit_status(&unit(&scratch, &["web"])), 2);
    assert_eq!(exit_status(&unit(&scratch, &["--undo", "web"])), 2);
    assert_eq!(fs::read_to_string(&conf).expect("a file"), "# mine\n");
    assert!(!drop_in.exists(), "half of the files are written");
}

#[test]
fn wrong_names_and_options_are_refused() {
    let scratch = Scratch::new("unit");
    for name in ["", "../x", "a/b", "a b", "a%i", ".hidden"] {
        assert_eq!(exit_status(&unit(&scratch, &[name])), 2, "the name {name:?}");
    }
    for more in [["--options", "capcity=1MiB"], ["--options", "ttl=1h\nttl2=x"], ["--directory", "/a\nb"]] {
        assert_eq!(exit_status(&unit(&scratch, &["web", more[0], more[1]])), 2, "{more:?}");
    }
    assert!(!scratch.join("root").exists(), "something is written");
}

#[test]
fn systemd_accepts_the_drop_in() {
    let scratch = Scratch::new("unit");
    openssl_conf(&scratch, &[]);
    let units = scratch.join("root/etc/systemd/system");
    fs::write(units.join("web.service"), "[Service]\nExecStart=/bin/true\n").expect("a unit");
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        return support::not_tried("systemd-analyze verify", "there is no systemd-analyze");
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--generators=no", "web.service"])
        .env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()));
    let done = run(&mut verify, MINUTE, "");
    assert!(done.status.success() && !done.stderr.contains("sesscache"), "{done}");
}

#[test]
fn a_server_is_attached_with_the_file_and_as_it_was_without_it() {
    let scratch = Scratch::new("unit");
    let (conf, server) = (openssl_conf(&scratch, &[]), server(&scratch));
    assert_eq!(said(&server, Some(&conf), &[]), "module library libssl attached");
    assert_eq!(said(&server, None, &[]), "nothing libssl");
    fs::remove_file(&conf).expect("the file is taken away");
    assert_eq!(said(&server, Some(&conf), &[]), "nothing libssl");
}

#[test]
fn a_program_without_libssl_gets_none() {
    let scratch = Scratch::new("unit");
    let conf = openssl_conf(&scratch, &[]);
    assert_eq!(said(&compile(&scratch, "plain", &["-lcrypto"]), Some(&conf), &[]), "module");
}

#[test]
fn a_program_that_reads_no_configuration_has_no_module_and_the_doctor_says_why() {
    let scratch = Scratch::new("unit");
    let conf = openssl_conf(&scratch, &[]);
    let mut command = Command::new(server(&scratch));
    command.arg("no-config").env("OPENSSL_CONF", &conf).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = spawn_in_group(&mut command);
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("the program says nothing");
    assert_eq!(line.trim(), "nothing libssl");
    let doctor = json_or_fail(&["--json", "doctor", "--pid", &child.id().to_string()]);
    assert!(doctor.contains(text(&conf)) && doctor.contains("OPENSSL_INIT_NO_LOAD_CONFIG"), "{doctor}");
    drop(child.stdin.take());
    child.wait().expect("the program ended");
}

/// EACCES is what AppArmor answers, too.
#[test]
fn a_module_or_a_library_that_may_not_be_read_ends_no_program() {
    let scratch = Scratch::new("unit");
    if !support::is_root() {
        return support::not_tried("a module that may not be read", "it takes root to run a program as another user");
    }
    let module = copied_module(&scratch);
    let library = fs::read_link(stage().join("lib/libsesscache.so")).expect("a link to the library");
    let library = scratch.join("lib").join(library);
    let (conf, server) = (openssl_conf(&scratch, &["--module", text(&module)]), server(&scratch));
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o1777)).expect("a mode");
    for (unreadable, expected) in
        [(None, "module library libssl attached"), (Some(&library), "module libssl"), (Some(&module), "nothing libssl")]
    {
        if let Some(file) = unreadable {
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&server).env("OPENSSL_CONF", &conf);
        assert_eq!(run(command.env_remove("LD_LIBRARY_PATH"), MINUTE, "").stdout.trim(), expected, "{unreadable:?}");
    }
}

#[test]
fn a_missing_module_ends_no_program() {
    let scratch = Scratch::new("unit");
    let conf = openssl_conf(&scratch, &["--module", "/nowhere/openssl_conf.so"]);
    let server = server(&scratch);
    assert_eq!(said(&server, Some(&conf), &[]), "nothing libssl");
    // What Debian's own file says: the reason why unit switches it off.
    let text = fs::read_to_string(&conf).expect("a file").replace("config_diagnostics = 0", "config_diagnostics = 1");
    fs::write(&conf, text).expect("a file");
    assert_eq!(said(&server, Some(&conf), &[]), "OpenSSL refuses");
}

#[test]
fn a_program_that_gains_rights_by_its_file_is_left_alone() {
    let scratch = Scratch::new("unit");
    if !support::is_root() {
        return support::not_tried("setuid programs", "it takes root");
    }
    let module = copied_module(&scratch);
    let (conf, server) = (openssl_conf(&scratch, &["--module", text(&module)]), server(&scratch));
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let file = text(&conf);
    for (mode, plain, own_file) in [
        (0o755, "module library libssl attached", "module library libssl attached"),
        (0o4755, "nothing libssl", "module libssl"),
    ] {
        fs::set_permissions(&server, fs::Permissions::from_mode(mode)).expect("a mode");
        let as_nobody = |arguments: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&server).args(arguments);
            let _ = fs::remove_dir_all(scratch.join("store"));
            fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o1777)).expect("a mode");
            run(command.env("OPENSSL_CONF", &conf), MINUTE, "").stdout.trim().to_owned()
        };
        assert_eq!(as_nobody(&[]), plain, "mode {mode:o}, OPENSSL_CONF");
        assert_eq!(as_nobody(&[file]), own_file, "mode {mode:o}, a file that the program names itself");
    }
}

#[test]
fn the_stock_s_server_resumes_after_a_restart_and_the_doctor_says_so() {
    let scratch = Scratch::new("unit");
    let conf = openssl_conf(&scratch, &["--session-id-context", "x"]);
    let (cert, key) = certificate();
    let session = scratch.text("session.pem");
    for (round, direction) in ["-sess_out", "-sess_in"].into_iter().enumerate() {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", text(cert), "-key", text(key)]);
        command.env("OPENSSL_CONF", &conf).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn_in_group(&mut command);
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut lines = lines.filter_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
        let address = lines.next().expect("s_server says where it listens");
        let mut visit = Command::new("openssl");
        visit.args(["s_client", "-ign_eof", "-connect", &address, direction, &session]);
        let done = run(&mut visit, MINUTE, "GET / HTTP/1.0\r\n\r\n");
        assert_eq!(done.stdout.contains("\nReused, "), round == 1, "{done}");
        let doctor = sesscache(&["doctor", "--pid", &child.id().to_string()]);
        assert_eq!(exit_status(&doctor), 0, "{doctor}");
        assert!(
            doctor.stdout.contains(&format!("{} ", scratch.text("store")))
                || doctor.stdout.contains(&scratch.text("store"))
        );
        assert!(doctor.stdout.contains("1 attached of "), "{doctor}");
        child.kill().expect("s_server ends");
        child.wait().expect("s_server ended");
    }
    let myself = json_or_fail(&["--json", "doctor", "--pid", &std::process::id().to_string()]);
    assert!(myself.contains("neither OPENSSL_CONF nor"), "{myself}");
    assert!(json(&["--json", &scratch.text("store")])["hits"].as_u64() >= Some(1));
}

fn json_or_fail(arguments: &[&str]) -> String {
    let done = sesscache(arguments);
    assert_eq!(exit_status(&done), 1, "a process without the module is healthy: {done}");
    done.stdout
}
