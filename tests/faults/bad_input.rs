//! A store that cannot be used and options that make no sense: each is answered with a status and a message that says
//! what to do, and the server goes on without a cache.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use support::{compile, is_root, lock, measure, root, run, set_mode, stage, staged, text, Scratch, Server, BOTH};

const OK: u32 = 0;
const INVALID: u32 = 1;
const SYSTEM: u32 = 2;

const DEADLINE: Duration = Duration::from_secs(60);

/// The program that opens a store and reports, next to the test programs.
fn open_report() -> &'static PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let _lock = lock("open_report");
        let output = support::kept().join("open_report");
        compile(&[&root().join("tests/support/open_report.c")], &output);
        output
    })
}

/// Runs a command that ends in open_report's own output, and takes status and message from the last line.
fn report_of(command: &mut Command) -> (u32, String) {
    let done = run(command, DEADLINE, "").expect_success("open_report was stopped by what it was given");
    let last = done.stdout.lines().last().unwrap_or_default();
    let (status, message) = last.split_once(' ').unwrap_or_else(|| panic!("open_report says nothing\n{done}"));
    (status.parse().unwrap_or_else(|_| panic!("open_report says no status\n{done}")), message.to_owned())
}

/// What comes of opening `path`, with options when there are any.
fn open(path: &str, options: Option<&str>) -> (u32, String) {
    report_of(staged(open_report()).arg(path).args(options))
}

/// A message for a person: not empty, not the bare words of the C library, and with every one of these words in it.
fn assert_helps(what: &str, message: &str, words: &[&str]) {
    assert!(message.len() > 20, "{what}: a message as short as {message:?} helps nobody");
    for word in words {
        assert!(message.contains(word), "{what}: the message does not mention {word:?}: {message}");
    }
}

/// The server starts with such a store, says why it has no cache, and serves clients nevertheless.
fn assert_serves_without_a_cache(arguments: &[&str], words: &[&str]) {
    let server = Server::start("prefork_server", arguments);
    for tls in BOTH {
        let tally = measure(server.port, 3, tls);
        assert_eq!(tally.elsewhere, 0, "{arguments:?}: sessions are shared although the cache could not be opened");
    }
    let said = server.stop();
    assert_helps(&format!("stderr of the server with {arguments:?}"), &said, words);
}

#[test]
fn a_good_path_is_accepted() {
    let scratch = Scratch::new("good");
    let store = scratch.text("store");
    for options in [None, Some(""), Some("  "), Some("capacity=8MiB ttl=2h sni=strict namespace='a b'")] {
        assert_eq!(open(&store, options), (OK, String::new()), "a store that is in order, options {options:?}");
    }
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let scratch = Scratch::new("file");
    let path = scratch.text("store");
    fs::write(&path, "not a store").expect("write a file");
    let (status, message) = open(&path, None);
    assert_eq!(status, INVALID, "{message}");
    assert_helps("a file", &message, &[&path, "not a directory"]);
    assert_eq!(fs::read_to_string(&path).expect("the file"), "not a store", "a file of the user was changed");
    assert_serves_without_a_cache(&["-s", &path], &[&path, "not a directory"]);
}

#[test]
fn a_symbolic_link_is_refused() {
    let scratch = Scratch::new("link");
    let (path, target) = (scratch.text("store"), scratch.text("target"));
    fs::create_dir(&target).expect("make a directory");
    set_mode(target.as_ref(), 0o700);
    symlink(&target, &path).expect("make a link");
    let (status, message) = open(&path, None);
    assert_eq!(status, INVALID, "{message}");
    assert_helps("a symbolic link", &message, &[&path, "symbolic link"]);
    let written = fs::read_dir(&target).expect("the target").count();
    assert_eq!(written, 0, "something was written through a link that another user may have set");
    assert_serves_without_a_cache(&["-s", &path], &[&path, "symbolic link"]);
}

#[test]
fn a_dangling_link_is_refused() {
    let scratch = Scratch::new("dangling");
    let (path, target) = (scratch.text("store"), scratch.text("nowhere"));
    symlink(&target, &path).expect("make a link");
    let (status, message) = open(&path, None);
    assert_eq!(status, INVALID, "{message}");
    assert_helps("a dangling link", &message, &[&path, "symbolic link"]);
    assert!(fs::metadata(&target).is_err(), "a directory was made where a link of another user points");
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let scratch = Scratch::new("open");
    let path = scratch.text("store");
    fs::create_dir(&path).expect("make a directory");
    for mode in [0o777, 0o1777, 0o770, 0o755] {
        set_mode(path.as_ref(), mode);
        let (status, message) = open(&path, None);
        assert_eq!(status, INVALID, "mode {mode:o}: {message}");
        assert_helps("a directory open to others", &message, &[&path, &format!("chmod 0700 {path}")]);
    }
    assert_serves_without_a_cache(&["-s", &path], &["chmod"]);
    set_mode(path.as_ref(), 0o700);
    assert_eq!(open(&path, None), (OK, String::new()), "the command in the message does not mend the directory");
}

#[test]
fn a_parent_that_is_missing_is_named() {
    let scratch = Scratch::new("missing-parent");
    let (path, missing) = (scratch.text("a/b/store"), scratch.text("a"));
    let (status, message) = open(&path, None);
    assert_eq!(status, SYSTEM, "{message}");
    let above = format!("make {} first", scratch.text("a/b"));
    assert_helps("a missing parent", &message, &[&format!("cannot create {path}: {missing} is missing"), &above]);
    assert!(fs::metadata(&missing).is_err(), "a directory was made that nobody asked for");
    fs::create_dir_all(scratch.join("a/b")).expect("make the directories");
    assert_eq!(open(&path, None), (OK, String::new()), "what the message asks for does not help");
}

#[test]
fn a_path_that_is_too_long_or_leads_nowhere_is_refused() {
    let scratch = Scratch::new("long");
    let cases = [
        ("longer than a path may be", format!("{}/{}", scratch.text("store"), "a/".repeat(3000))),
        ("a name longer than a name may be", scratch.text(&"n".repeat(300))),
        ("a parent that is missing", scratch.text("missing/store")),
        ("a parent that is a file", format!("{}/store", text(open_report()))),
    ];
    for (what, path) in cases {
        let (status, message) = open(&path, None);
        assert!(status == SYSTEM || status == INVALID, "{what}: {status} {message}");
        assert_helps(what, &message, &[]);
    }
    let (status, message) = open("", None);
    assert_eq!(status, INVALID, "{message}");
    assert_helps("an empty path", &message, &["empty", "directory"]);
    assert_serves_without_a_cache(&["-s", &scratch.text("missing/store")], &["missing/store"]);
}

/// A user without rights. The program and the library go along, because the tree may lie where only root can look.
#[test]
fn a_place_where_the_user_may_not_write_is_refused() {
    assert!(is_root(), "this test gives up root's rights, so it has to begin with them: run it as root");
    let scratch = Scratch::new("unprivileged");
    let store = scratch.text("store");
    support::copy_program(open_report(), &scratch.join("open_report"));
    let library = fs::canonicalize(stage().join("lib/libsesscache.so")).expect("the staged library");
    fs::copy(&library, scratch.path().join(library.file_name().expect("a name"))).expect("copy the library");
    let open = |path: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &scratch.text("open_report"), path]);
        report_of(command.env("LD_LIBRARY_PATH", scratch.path()))
    };

    let (status, message) = open(&store);
    assert_eq!(status, SYSTEM, "{message}");
    assert_helps("a parent that is root's", &message, &[&store, "ermission denied"]);

    fs::create_dir(&store).expect("make a directory");
    set_mode(store.as_ref(), 0o700);
    let (status, message) = open(&store);
    assert!(status == SYSTEM || status == INVALID, "{status} {message}");
    assert_helps("a store that is root's", &message, &[&store]);
    assert_eq!(fs::read_dir(&store).expect("the store").count(), 0, "a user without rights wrote into root's store");
}

/// Services whose manager takes capabilities from root meet permissions that a shell of root does not.
#[test]
fn root_without_the_right_to_override_is_told_which_one_it_lacks() {
    assert!(is_root(), "this test gives up a right of root's, so it has to begin with it: run it as root");
    let scratch = Scratch::new("less-than-root");
    set_mode(scratch.path(), 0o755);
    let (others, store) = (scratch.join("others"), scratch.text("others/store"));
    fs::create_dir(&others).expect("make a directory");
    set_mode(&others, 0o700);
    chown(&others, Some(65_534), Some(65_534)).expect("give it to nobody");
    let open = |capabilities: &str, path: &str| {
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={capabilities}")).args([text(open_report()), path, "owner=65534"]);
        report_of(command.env("LD_LIBRARY_PATH", stage().join("lib")))
    };
    let less = "-dac_override,-dac_read_search";
    for path in [&store, &format!("{store}/deeper/store")] {
        let (status, message) = open(less, path);
        assert_eq!(status, SYSTEM, "{message}");
        assert_helps("root without CAP_DAC_OVERRIDE", &message, &[path, "ermission denied", "CAP_DAC_OVERRIDE"]);
    }
    assert_eq!(open("-net_raw", &store), (OK, String::new()), "what the message asks for does not help");
    fs::create_dir(scratch.join("own")).expect("make a directory");
    let own = scratch.text("own/store");
    assert_eq!(open(less, &own), (OK, String::new()), "a directory where root needs no such right");
}

/// Runs a shell script where it may mount; $1 is a directory, $2 the program. The mounts end with the script.
fn with_mounts(script: &str, directory: &str) -> Option<(u32, String)> {
    let mut command = support::in_namespaces("a read-only file system", &["-m"])?;
    command.args(["sh", "-ec", script, "sh", directory, text(open_report())]);
    Some(report_of(command.env("LD_LIBRARY_PATH", stage().join("lib"))))
}

#[test]
fn a_read_only_file_system_is_refused() {
    let scratch = Scratch::new("read-only");
    let script = "mount -t tmpfs -o ro none \"$1\"; exec \"$2\" \"$1/store\"";
    let Some((status, message)) = with_mounts(script, text(scratch.path())) else { return };
    assert_eq!(status, SYSTEM, "{message}");
    assert_helps("a new store on a read-only file system", &message, &[&scratch.text("store"), "ead-only"]);

    let script = "mount -t tmpfs none \"$1\"; \"$2\" \"$1/store\" >/dev/null; mount -o remount,ro \"$1\"; exec \"$2\" \"$1/store\"";
    let Some((status, message)) = with_mounts(script, text(scratch.path())) else { return };
    assert_eq!(status, SYSTEM, "{message}");
    assert_helps("an old store on a read-only file system", &message, &[&scratch.text("store"), "ead-only"]);
}

/// Options that make no sense, and what the message has to mention: the option, and something that would be accepted.
const OPTIONS: &[(&str, &[&str])] = &[
    ("capcity=64MiB", &["capcity", "capacity"]),
    ("CAPACITY=64MiB", &["CAPACITY", "capacity"]),
    ("nonsense", &["nonsense", "capacity"]),
    ("=64MiB", &["capacity", "ttl"]),
    ("=", &["capacity"]),
    ("ttl=2h,sni=off", &["spaces separate options: ttl=2h sni=off"]),
    ("ttl=2h;sni=off", &["spaces separate options: ttl=2h sni=off"]),
    ("namespace=a,sni=off", &["spaces separate options: namespace=a sni=off"]),
    ("ttl=2h,5", &["ttl", "2h"]),
    ("capacity", &["capacity", "MiB"]),
    ("capacity=", &["capacity", "MiB"]),
    ("capacity =64MiB", &["capacity", "="]),
    ("capacity= 64MiB", &["capacity", "MiB"]),
    ("capacity=64", &["capacity", "MiB"]),
    ("capacity=64MB", &["capacity", "MiB"]),
    ("capacity=64 MiB", &["capacity", "MiB"]),
    ("capacity=0MiB", &["capacity", "1MiB"]),
    ("capacity=-64MiB", &["capacity", "MiB"]),
    ("capacity=1.5GiB", &["capacity", "GiB"]),
    ("capacity=65GiB", &["capacity", "64GiB"]),
    ("capacity=18446744073709551616GiB", &["capacity", "64GiB"]),
    ("capacity=17179869184GiB", &["capacity", "64GiB"]),
    ("capacity=64MiB capacity=64MiB", &["capacity", "twice"]),
    ("ttl=0s", &["ttl", "1s"]),
    ("ttl=2", &["ttl", "2h"]),
    ("ttl=1500ms", &["ttl", "1s"]),
    ("ttl=367d", &["ttl", "366d"]),
    ("ttl=soon", &["ttl", "2h"]),
    ("mode=0644", &["mode", "0600"]),
    ("mode=0777", &["mode", "0600"]),
    ("mode=rw", &["mode", "0600"]),
    ("owner=no-such-user-here", &["owner", "no-such-user-here"]),
    ("owner=", &["owner", "user"]),
    ("group=no-such-group-here", &["group", "no-such-group-here"]),
    ("sni=maybe", &["sni", "strict"]),
    ("sni=Strict", &["sni", "strict"]),
    ("single_use=yes", &["single_use", "early_data"]),
    ("remove=all", &["remove", "failures"]),
    ("deadline=1h", &["deadline", "10s"]),
    ("deadline=5", &["deadline", "5ms"]),
    ("decoded=-1", &["decoded", "1GiB"]),
    ("decoded=1024", &["decoded", "1GiB"]),
    ("guard=1", &["guard", "on or off"]),
    ("key=relative/path", &["key", "absolute"]),
    ("key='/unfinished", &["key", "quote"]),
    ("key='/a'b", &["key", "quote"]),
    ("readers=15", &["readers", "16"]),
    ("readers=65537", &["readers", "65536"]),
    ("sni=strict sni=off", &["sni", "twice"]),
];

#[test]
fn options_that_make_no_sense_are_refused() {
    let scratch = Scratch::new("options");
    let store = scratch.text("store");
    for (options, words) in OPTIONS {
        let (status, message) = open(&store, Some(options));
        assert_eq!(status, INVALID, "{options:?}: {message}");
        assert_helps(&format!("{options:?}"), &message, words);
    }
    let namespace = format!("namespace={}", "n".repeat(256));
    let (status, message) = open(&store, Some(&namespace));
    assert_eq!(status, INVALID, "{message}");
    assert_helps("a namespace of 256 bytes", &message, &["namespace", "255"]);
    assert!(fs::metadata(&store).is_err(), "a store was made although the options were refused");
}

#[test]
fn a_server_with_options_that_make_no_sense_serves_without_a_cache() {
    let scratch = Scratch::new("server-options");
    assert_serves_without_a_cache(&["-s", &scratch.text("store"), "-o", "capacity=64MB"], &["capacity", "MiB"]);
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let scratch = Scratch::new("key");
    let (store, key) = (scratch.text("store"), scratch.text("sealing-key"));
    fs::write(&key, [7u8; 32]).expect("write a key");
    set_mode(key.as_ref(), 0o644);
    let options = format!("key={key}");
    let (status, message) = open(&store, Some(&options));
    assert_eq!(status, INVALID, "{message}");
    assert_helps("a key that others may read", &message, &[&key, "chmod"]);
    set_mode(key.as_ref(), 0o600);
    assert_eq!(open(&store, Some(&options)), (OK, String::new()), "the command in the message does not mend the key");
}
