//! What the clients and servers need: certificates, a request, and the programs in this folder, compiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{lock, root, run, stage, text, Scratch};

/// A cold build of the rustls client compiles its libraries, too.
const BUILD_DEADLINE: Duration = Duration::from_secs(500);
const DEADLINE: Duration = Duration::from_secs(30);

/// A certificate and its key, as paths.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// Lives as long as the run.
pub struct Kit {
    pub scratch: Scratch,
    /// The CA that signed both certificates. Clients trust it, and nothing else.
    pub ca: String,
    pub server: Pair,
    pub client: Pair,
    /// A file with the request, for clients that want one.
    pub request: String,
}

/// What every client asks. fork_server takes it as the line that it waits for.
pub const REQUEST: &str = "GET / HTTP/1.0\r\n\r\n";

impl Kit {
    pub fn new() -> Kit {
        let scratch = Scratch::new("clients");
        let file = |name: &str| scratch.text(name);
        let pair = |name: &str| Pair { cert: file(&format!("{name}.pem")), key: file(&format!("{name}.key")) };
        let kit = Kit {
            ca: file("ca.pem"),
            server: pair("server"),
            client: pair("client"),
            request: file("request"),
            scratch,
        };
        fs::write(&kit.request, REQUEST).expect("write the request");
        let ca_key = kit.scratch.text("ca.key");
        let new_key = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365";
        // What Python 3.13 asks of a chain: a CA says what its key is for, a certificate whose key signed it.
        let ca = format!("{new_key} -x509 -subj /CN=clients -addext keyUsage=critical,keyCertSign,cRLSign");
        openssl(&ca, &["-keyout", &ca_key, "-out", &kit.ca]);
        let extensions = kit.scratch.text("extensions");
        let lines = "subjectAltName=DNS:localhost\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n";
        fs::write(&extensions, lines).expect("write a file");
        for pair in [&kit.server, &kit.client] {
            let request = format!("{}.csr", pair.cert);
            openssl(&format!("{new_key} -subj /CN=localhost"), &["-keyout", &pair.key, "-out", &request]);
            openssl(
                "x509 -req -days 365 -CAcreateserial",
                &["-in", &request, "-CA", &kit.ca, "-CAkey", &ca_key, "-extfile", &extensions, "-out", &pair.cert],
            );
        }
        kit
    }
}

fn openssl(words: &str, paths: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).args(paths);
    run(&mut command, DEADLINE, "").expect_success("openssl makes no certificates for the clients");
}

/// The folder of a client's source.
pub fn source(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

/// Where programs are built; kept, so that the next run finds them.
fn built(name: &str) -> PathBuf {
    let directory = support::kept().join("clients");
    fs::create_dir_all(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    directory.join(name)
}

fn build(mut command: Command, what: &str) {
    run(&mut command, BUILD_DEADLINE, "").expect_success(&format!("{what} does not build"));
}

/// What pkg-config says of a library.
pub fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).env("PKG_CONFIG_PATH", stage().join("lib/pkgconfig"));
    let done = run(&mut command, DEADLINE, "").expect_success("a library is missing; `make clients` installs it");
    done.stdout.split_whitespace().map(str::to_owned).collect()
}

fn compile(source: &Path, name: &str, flags: &[String]) -> PathBuf {
    let _lock = lock(&format!("client-{name}"));
    let binary = built(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-O1", "-o"]).arg(&binary).arg(source);
    cc.args(flags);
    build(cc, name);
    binary
}

/// The client of this name, written in C, with what pkg-config says of the library.
pub fn c_client(name: &str, module: &str) -> PathBuf {
    compile(&source(name).join("client.c"), name, &pkg_config(&["--cflags", "--libs", module]))
}

/// The same for a library without a file for pkg-config.
pub fn c_client_with(name: &str, libraries: &[&str]) -> PathBuf {
    let flags: Vec<String> = libraries.iter().map(|library| format!("-l{library}")).collect();
    compile(&source(name).join("client.c"), name, &flags)
}

/// The test server, against the staged library.
pub fn server() -> PathBuf {
    compile(&source("server.c"), "server", &pkg_config(&["--cflags", "--libs", "sesscache"]))
}

pub fn go_client() -> PathBuf {
    let _lock = lock("client-go");
    let binary = built("go");
    let mut go = Command::new("go");
    // Nothing but the standard library: nothing may be fetched, and no file of the user's is needed.
    go.envs([("GOPROXY", "off"), ("GO111MODULE", "off"), ("GOTOOLCHAIN", "local")]).env("GOCACHE", built("go-cache"));
    go.args(["build", "-o", text(&binary)]).arg(source("go/client.go"));
    build(go, "the client in Go");
    binary
}

/// The directory of the compiled class.
pub fn java_client() -> PathBuf {
    let _lock = lock("client-java");
    let classes = built("java");
    let mut javac = Command::new("javac");
    javac.args(["-d", text(&classes)]).arg(source("java/Client.java"));
    build(javac, "the client in Java");
    classes
}

pub fn rustls_client() -> PathBuf {
    let _lock = lock("client-rustls");
    let target = built("rustls");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(source("rustls/Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    build(cargo, "the client with rustls");
    target.join("debug/rustls-client")
}
