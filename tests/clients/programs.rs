//! Clients whose program is in this folder: a few lines that connect again and again with what the library offers.

use crate::kit::{self, Kit};
use crate::visit::{visits, Errand, Visit};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use support::{run, Scratch, Tls};

const DEADLINE: Duration = Duration::from_secs(120);

/// A program built at most once in a run.
macro_rules! built {
    ($how:expr) => {{
        static BUILT: OnceLock<std::path::PathBuf> = OnceLock::new();
        BUILT.get_or_init(|| $how)
    }};
}

/// Appends what all of them take, runs, and reads what they print.
fn play(mut command: Command, kit: &Kit, errand: &Errand) -> Vec<Visit> {
    command.args([&errand.port.to_string(), errand.version(), &errand.visits.to_string(), &kit.ca]);
    if let Some((cert, key)) = errand.certificate {
        command.args([cert, key]);
    }
    if errand.early {
        command.env("EARLY_DATA", "1");
    }
    let done = run(&mut command, DEADLINE, "").expect_success("a client cannot connect, or is cut off");
    let all = visits(&done.stdout, errand);
    assert_eq!(all.len(), errand.visits, "a client does not get an answer in every connection\n{done}");
    all
}

pub fn python(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let mut python = Command::new("python3");
    python.arg(kit::source("python/client.py"));
    play(python, kit, errand)
}

fn node(module: &str, kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let mut node = Command::new("node");
    node.arg(kit::source("node/client.js")).arg(module);
    play(node, kit, errand)
}

pub fn node_tls(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    node("tls", kit, errand)
}

pub fn node_https(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    node("https", kit, errand)
}

fn java(class: &str, kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let classes = built!(kit::java_client());
    let mut java = Command::new("java");
    java.arg(format!("-Djdk.tls.client.protocols={}", errand.version()))
        .arg("-cp")
        .arg(classes)
        .args(["Client", class]);
    play(java, kit, errand)
}

pub fn java_socket(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    java("socket", kit, errand)
}

pub fn java_https(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    java("https", kit, errand)
}

pub fn go(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    play(Command::new(built!(kit::go_client())), kit, errand)
}

pub fn rustls(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    play(Command::new(built!(kit::rustls_client())), kit, errand)
}

pub fn nss(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    play(Command::new(built!(kit::c_client("nss", "nss"))), kit, errand)
}

pub fn wolfssl(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    play(Command::new(built!(kit::c_client("wolfssl", "wolfssl"))), kit, errand)
}

pub fn libcurl(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    play(Command::new(built!(kit::c_client("libcurl", "libcurl"))), kit, errand)
}

/// The program, which also tells its version.
pub fn mbedtls_program() -> &'static Path {
    built!(kit::c_client_with("mbedtls", &["mbedtls", "mbedx509", "mbedcrypto"]))
}

pub fn mbedtls(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    play(Command::new(mbedtls_program()), kit, errand)
}

/// A profile and a home of its own: new, empty, and with a CA to trust, so that it checks the certificate as it would
/// for its user.
pub fn chromium(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let scratch = Scratch::new("chromium");
    let certificates = scratch.text("home/.pki/nssdb");
    fs::create_dir_all(&certificates).unwrap_or_else(|e| panic!("{certificates}: {e}"));
    let database = format!("sql:{certificates}");
    for arguments in [&["-N", "--empty-password"][..], &["-A", "-n", "clients", "-t", "C,,", "-i", &kit.ca]] {
        let mut certutil = Command::new("certutil");
        certutil.args(["-d", &database]).args(arguments);
        run(&mut certutil, DEADLINE, "").expect_success("certutil does not make a database of trusted CAs");
    }
    let mut chromium = Command::new("chromium");
    chromium.env("HOME", scratch.text("home")).env("TMPDIR", scratch.path());
    for variable in ["DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
        chromium.env_remove(variable);
    }
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.args(["--disable-breakpad", "--no-proxy-server", "--host-resolver-rules=MAP localhost 127.0.0.1"]);
    // The page is a file: it may read answers that do not allow it, as those of `openssl s_server`.
    chromium.args(["--disable-web-security", &format!("--user-data-dir={}", scratch.text("profile"))]);
    chromium.arg(if errand.tls == Tls::V12 { "--ssl-version-max=tls1.2" } else { "--ssl-version-min=tls1.3" });
    if errand.early {
        chromium.arg("--enable-features=EnableTLS13EarlyData");
    }
    // The time that the page may take is counted in work, not in seconds on a clock.
    chromium.args(["--virtual-time-budget=60000", "--dump-dom"]);
    let page = kit::source("chromium/page.html");
    chromium.arg(format!("file://{}?port={}&visits={}", page.display(), errand.port, errand.visits));
    let done = run(&mut chromium, DEADLINE, "").expect_success("chromium does not show the page");
    // The page's source stands in what is printed, too, but without a worker's number.
    assert!(done.stdout.contains(">complete</p>"), "a visit of chromium failed\n{done}");
    let all = visits(&done.stdout.replace("<pre id=\"answers\">", "\n"), errand);
    assert_eq!(all.len(), errand.visits, "chromium does not get an answer in every connection\n{done}");
    all
}
