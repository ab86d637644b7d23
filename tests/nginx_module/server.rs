//! Debian's nginx with the module of integrations/nginx: configured, started, visited by `openssl s_client`, stopped.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use support::{certificate, is_root, lock, root, run, signal, spawn_in_group, stage, text, wait_until, Scratch};

const PROGRAM: &str = "/usr/sbin/nginx";
/// Sends its input once the other side has greeted.
const GREETED: &str =
    "(until grep -aqsE 'IMAP4 ready|store [01]' \"$0\"; do sleep 0.05; done; cat) | \"$@\" | tee \"$0\"";
/// nginx is started by a shell that is gone once the pid file is there.
const ORPHAN: &str =
    "trap 'kill -KILL 0' TERM; (\"$@\" & until test -e $0; do sleep 0.05; done); while :; do sleep 0.1; done";
const DEADLINE: Duration = Duration::from_secs(30);

/// The module, built as its README says.
fn module() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let _lock = lock("nginx");
        let build = stage().with_file_name("nginx");
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "-C", "integrations/nginx"]).arg(format!("BUILD={}", text(&build)));
        make.current_dir(root()).env("PKG_CONFIG_PATH", stage().join("lib/pkgconfig"));
        run(&mut make, Duration::from_secs(300), "").expect_success("the module for nginx cannot be built");
        build.join("ngx_sesscache_module.so")
    })
}

/// A port that nobody listens on at this instant.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// One nginx in a scratch directory, which holds its configuration, its log and, by the tests' choice, the store.
pub struct Nginx {
    pub scratch: Scratch,
    child: Option<Child>,
    pub port: u16,
}

impl Nginx {
    /// `modules` come before ours or after it: `before` and `after` are lines of configuration.
    pub fn new(before: &str, after: &str, blocks: &str) -> Nginx {
        let nginx = Nginx { scratch: Scratch::new("nginx"), child: None, port: free_port() };
        nginx.configure(before, after, blocks);
        nginx
    }

    /// An http server with these lines in `http` and in `server`.
    pub fn http(http: &str, server: &str) -> Nginx {
        let nginx = Nginx { scratch: Scratch::new("nginx"), child: None, port: free_port() };
        nginx.configure_http(http, server);
        nginx
    }

    /// Writes the configuration of an http server. STORE, PORT, SCRATCH stand for what they say.
    pub fn configure_http(&self, http: &str, server: &str) {
        self.configure_http_with("", http, server);
    }

    /// The same with lines outside of all blocks.
    pub fn configure_http_with(&self, main: &str, http: &str, server: &str) {
        let blocks = format!(
            "http {{ access_log off; client_body_temp_path SCRATCH/body; proxy_temp_path SCRATCH/proxy;
              fastcgi_temp_path SCRATCH/fcgi; scgi_temp_path SCRATCH/scgi; uwsgi_temp_path SCRATCH/uwsgi;
              ssl_protocols TLSv1.2 TLSv1.3; CERTIFICATE {http}
              server {{ listen 127.0.0.1:PORT ssl; {server}
                location / {{ return 200 \"resumed $ssl_session_reused store $sesscache_resumed_from_store\\n\"; }}
                location /status {{ sesscache_status; }} }} }}"
        );
        self.configure("", main, &blocks);
    }

    /// Writes the configuration.
    pub fn configure(&self, before: &str, after: &str, blocks: &str) {
        let (certificate, key) = certificate();
        let copy = |from, name| self.copy(from, name);
        let user = if is_root() { "user www-data;" } else { "" };
        let head = format!(
            "{before} load_module {}; {after} {user} env LD_LIBRARY_PATH; daemon off; worker_processes 2; pid SCRATCH/pid;
             error_log SCRATCH/error.log info; events {{ worker_connections 64; }}\n",
            text(module())
        );
        let whole = (head + blocks)
            .replace("CERTIFICATE", "ssl_certificate CERT; ssl_certificate_key KEY;")
            .replace("CERT", &copy(certificate, "cert.pem"))
            .replace("KEY", &copy(key, "key.pem"))
            .replace("STORE", &self.scratch.text("store"))
            .replace("SCRATCH", text(self.scratch.path()))
            .replace("PORT", &self.port.to_string());
        fs::write(self.scratch.path().join("nginx.conf"), whole).expect("write nginx.conf");
    }

    /// Copies a file to the scratch directory, where it can be handed to an ordinary user.
    fn copy(&self, from: &Path, name: &str) -> String {
        let to = self.scratch.text(name);
        fs::copy(from, &to).unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
        to
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["-p", text(self.scratch.path()), "-c", &self.scratch.text("nginx.conf")]);
        command.args(["-e", &self.scratch.text("error.log")]).env("LD_LIBRARY_PATH", stage().join("lib"));
        command
    }

    /// `nginx -t`: whether the configuration is accepted, and what nginx says.
    pub fn check(&self) -> (bool, String) {
        let done = run(self.command().arg("-t"), DEADLINE, "");
        (done.status.success(), format!("{done}"))
    }

    /// Starts it and waits until it listens.
    pub fn start(&mut self) {
        let command = self.command();
        self.start_by(command);
    }

    /// Starts it as a daemon's master is: without the parent it began with, or it would take USR2 for a mistake. It
    /// stays in the group of a shell that takes all of it down when told to, or when this test is gone.
    pub fn start_orphaned(&mut self) {
        let nginx = self.command();
        let mut shell = Command::new("sh");
        shell.args(["-c", ORPHAN, &self.scratch.text("pid")]);
        shell.arg(nginx.get_program()).args(nginx.get_args());
        shell.envs(nginx.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.start_by(shell);
        let parent = || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            fs::read_to_string(format!("/proc/{}/comm", line.unwrap_or_default().trim())).unwrap_or_default()
        };
        let orphaned = wait_until(DEADLINE, || !["", "sh"].contains(&parent().trim()));
        assert!(orphaned, "the shell that started nginx does not end; nginx has the parent {:?}", parent());
    }

    /// Starts it as www-data, or as whoever runs the tests when that is not root.
    pub fn start_without_privileges(&mut self) {
        let nginx = self.command();
        let mut command = Command::new("setpriv");
        // The project may lie in a directory that others cannot look into.
        let library = stage().join("lib/libsesscache.so");
        let soname = fs::read_link(&library).expect("the library's link for linkers");
        self.copy(&library, text(&soname));
        let conf = self.scratch.path().join("nginx.conf");
        let configuration = fs::read_to_string(&conf).expect("nginx.conf");
        let configuration = configuration.replace(text(module()), &self.copy(module(), "module.so"));
        fs::write(&conf, configuration).expect("write nginx.conf");
        if is_root() {
            let owner = run(Command::new("chown").args(["-R", "www-data", text(self.scratch.path())]), DEADLINE, "");
            owner.expect_success("chown to the user of Debian's web servers fails");
            command.args(["--reuid=www-data", "--regid=www-data", "--clear-groups"]);
        }
        command.arg(nginx.get_program()).args(nginx.get_args());
        command.envs(nginx.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("LD_LIBRARY_PATH", self.scratch.path());
        self.start_by(command);
    }

    fn start_by(&mut self, mut command: Command) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(spawn_in_group(&mut command));
        let serves = wait_until(DEADLINE, || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        assert!(serves, "nginx does not listen; its log:\n{}\nnginx -t:\n{}", self.log(), self.check().1);
    }

    /// The master by the pid file; 0 while there is none.
    pub fn pid(&self) -> u32 {
        fs::read_to_string(self.scratch.path().join("pid")).unwrap_or_default().trim().parse().unwrap_or(0)
    }

    pub fn master(&self) -> u32 {
        self.child.as_ref().expect("a running nginx").id()
    }

    /// The processes below the master.
    pub fn workers(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.master());
        let children = fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Waits until there are two workers, none of them one of these.
    pub fn wait_for_new_workers(&self, old: &[u32]) {
        let renewed = wait_until(DEADLINE, || {
            let now = self.workers();
            now.len() == 2 && now.iter().all(|pid| !old.contains(pid))
        });
        assert!(renewed, "no workers take the place of the old ones\n{}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("error.log")).unwrap_or_default()
    }

    /// Lines of the log at this level.
    pub fn logged(&self, level: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(level)).map(str::to_owned).collect()
    }

    /// A visit by `openssl s_client`, which sends `input` and offers the session in `session` if there is one.
    pub fn visit(&self, port: u16, session: &str, arguments: &[&str], input: &str) -> Visit {
        let path = self.scratch.text(session);
        let mut command = Command::new("sh");
        if input.starts_with("a1 ") {
            // nginx overlooks what a client of mail sends before it is greeted.
            let seen = self.scratch.text("seen");
            let _ = fs::remove_file(&seen);
            command.args(["-c", GREETED, &seen]);
        } else {
            command.args(["-c", "exec \"$@\"", "sh"]);
        }
        command.args(["openssl", "s_client", "-ign_eof", "-connect", &format!("127.0.0.1:{port}"), "-sess_out", &path]);
        if fs::metadata(&path).is_ok() {
            command.args(["-sess_in", &path]);
        }
        let done = run(command.args(arguments), DEADLINE, input);
        let resumed = done.stdout.lines().any(|line| line.starts_with("Reused, TLS"));
        let full = done.stdout.lines().any(|line| line.starts_with("New, TLS"));
        assert!(resumed || full, "openssl s_client gets no connection\n{done}\nlog of nginx:\n{}", self.log());
        Visit { resumed, said: done.stdout }
    }

    /// A visit to the http server.
    pub fn get(&self, session: &str, arguments: &[&str], path: &str) -> Visit {
        self.visit(
            self.port,
            session,
            arguments,
            &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        )
    }
}

/// What came of a visit.
pub struct Visit {
    pub resumed: bool,
    pub said: String,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), libc::SIGTERM);
        let ended = wait_until(DEADLINE, || child.try_wait().is_ok_and(|status| status.is_some()));
        let _ = child.kill();
        let _ = child.wait();
        if !std::thread::panicking() {
            assert!(ended, "nginx does not end on SIGTERM; its log:\n{}", self.log());
        }
    }
}
