//! httpd with the event MPM, the stock binary of Debian; integrations/httpd is a provider of its object cache.

use std::fmt::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, path};

use crate::instance::spawn;
use crate::machine::{free_port, open_to_all, run, wait_until, Result};
use crate::subject::{Cache, Rival, Site, Subject};

const PROGRAM: &str = "/usr/sbin/apache2";
const MODULES: &str = "/usr/lib/apache2/modules";

/// httpd with the module that was built for it.
#[derive(Default)]
pub struct Httpd {
    module: PathBuf,
    libraries: PathBuf,
    redis: Option<Redis>,
}

const SHMCB: Cache = Cache::Own("shmcb");
const DBM: Cache = Cache::Own("dbm");
const REDIS: Cache = Cache::Own("redis");

/// The server behind `redis:`, for as long as the harness runs.
struct Redis {
    port: u16,
    process: Child,
}

impl Redis {
    fn start() -> Result<Redis> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]).arg(port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let redis = Redis { port, process: spawn(&mut command)? };
        match wait_until(Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).is_ok())? {
            true => Ok(redis),
            false => Err("redis-server does not answer".into()),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Subject for Httpd {
    fn name(&self) -> &'static str {
        "httpd"
    }

    fn version(&self) -> Result<String> {
        let said = run(Command::new(PROGRAM).arg("-v"))?;
        Ok(said.lines().next().unwrap_or_default().trim_start_matches("Server version: ").to_owned())
    }

    fn build(&mut self, stage: &Path) -> Result<()> {
        let stage = path::absolute(stage)?;
        let build = stage.with_file_name("httpd");
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "-C", "integrations/httpd"]);
        make.arg(format!("BUILD={}", build.display())).arg(format!("STAGE={}", stage.display()));
        run(&mut make)?;
        self.module = build.join("mod_socache_sesscache.so");
        self.libraries = stage.join("lib");
        self.redis = Some(Redis::start()?);
        Ok(())
    }

    fn caches(&self) -> Vec<Cache> {
        vec![Cache::Stock, SHMCB, Cache::Sesscache]
    }

    fn rivals(&self) -> Vec<Rival> {
        // dbm walks through all it has every time: to fill it takes a time that grows with the square.
        let rival = |cache, most| Rival { cache, most };
        vec![rival(SHMCB, usize::MAX), rival(REDIS, usize::MAX), rival(DBM, 10_000)]
    }

    fn beside(&self, cache: Cache) -> Vec<u32> {
        self.redis.iter().filter(|_| cache == REDIS).map(|redis| redis.process.id()).collect()
    }

    fn command(&self, site: &Site, cache: Cache) -> Result<Command> {
        let pages = site.file("pages");
        if !pages.is_dir() {
            fs::create_dir(&pages)?;
            open_to_all(&pages)?;
            fs::write(pages.join("index.html"), "a page\n")?;
        }
        let path = site.file("httpd.conf");
        fs::write(&path, self.configuration(site, cache)?)?;
        let mut command = Command::new(PROGRAM);
        command.arg("-DFOREGROUND").arg("-f").arg(&path);
        command.env("LD_LIBRARY_PATH", &self.libraries);
        Ok(command)
    }

    fn reload_signal(&self) -> i32 {
        libc::SIGUSR1
    }

    fn complaints(&self, log: &str) -> Vec<String> {
        let asks = |line: &&str| [":warn]", ":error]", ":crit]", ":alert]", ":emerg]"].iter().any(|l| line.contains(l));
        // Said with any session cache: of a Debian that has upgraded httpd before OpenSSL, of tickets without a cache, of
        // children that were killed, which is what the harness does, and of connections that linger at the end.
        let usual = ["AH01882", "AH01873", "AH00051", "AH00052", "AH10392", "AH03092"];
        let expected = |line: &&str| usual.iter().any(|id| line.contains(id));
        log.lines().filter(asks).filter(|line| !expected(line)).map(str::to_owned).collect()
    }
}

impl Httpd {
    fn configuration(&self, site: &Site, cache: Cache) -> Result<String> {
        let (directory, port, timeout) = (site.directory.display(), site.port, site.timeout);
        let sessions = match cache {
            Cache::Stock => String::new(),
            Cache::Own(name) => {
                let place = match Cache::Own(name) {
                    DBM => format!("dbm:{directory}/dbm"),
                    REDIS => format!("redis:127.0.0.1:{}", self.redis.as_ref().ok_or("redis does not run")?.port),
                    _ => format!("shmcb:{directory}/shmcb({})", site.own_capacity),
                };
                format!("SSLSessionCache {place}\nSSLSessionTickets off")
            }
            Cache::Sesscache => {
                format!(
                    "SSLSessionCache \"sesscache:{}({})\"\nSSLSessionTickets off",
                    site.store.display(),
                    site.options
                )
            }
        };
        let mut text = String::new();
        for module in ["mpm_event", "authz_core", "dir", "ssl", "socache_shmcb", "socache_dbm", "socache_redis"] {
            writeln!(text, "LoadModule {module}_module {MODULES}/mod_{module}.so")?;
        }
        if cache == Cache::Sesscache {
            writeln!(text, "LoadModule socache_sesscache_module {}", self.module.display())?;
        }
        if let Some(user) = &site.user {
            writeln!(text, "User {user}\nGroup {user}")?;
        }
        let (certificate, key, workers) = (site.certificate.display(), site.key.display(), site.workers);
        // Room for the children of the next configuration beside those of the last one.
        let (most, threads, spare) = (workers * 2, workers * 8, (workers - 1) * 8 + 1);
        let all = most * 8;
        write!(
            text,
            "ServerRoot {directory}
ServerName localhost
DefaultRuntimeDir {directory}
PidFile {directory}/httpd.pid
ErrorLog {directory}/error.log
LogLevel warn
Listen 127.0.0.1:{port}
DocumentRoot {directory}/pages
StartServers {workers}
ServerLimit {most}
ThreadsPerChild 8
MinSpareThreads {spare}
MaxSpareThreads {threads}
MaxRequestWorkers {all}
KeepAlive Off
SSLEngine on
SSLCertificateFile {certificate}
SSLCertificateKeyFile {key}
SSLSessionCacheTimeout {timeout}
{sessions}
"
        )?;
        Ok(text)
    }
}
