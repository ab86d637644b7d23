//! nginx, the stock binary of Debian; integrations/nginx makes it gain sesscache.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{run, Result};
use crate::subject::{Cache, Rival, Site, Subject};

const PROGRAM: &str = "/usr/sbin/nginx";

/// `ssl_session_cache shared`.
const ZONE: Cache = Cache::Own("shared zone");

/// nginx with the module that was built for it.
#[derive(Default)]
pub struct Nginx {
    module: PathBuf,
    libraries: PathBuf,
}

impl Subject for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn version(&self) -> Result<String> {
        let said = run(Command::new(PROGRAM).arg("-v"))?;
        Ok(said.trim().trim_start_matches("nginx version: ").to_owned())
    }

    fn build(&mut self, stage: &Path) -> Result<()> {
        let build = stage.with_file_name("nginx");
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "-C", "integrations/nginx"]);
        make.arg(format!("BUILD={}", std::path::absolute(&build)?.display()));
        make.env("PKG_CONFIG_PATH", std::path::absolute(stage)?.join("lib/pkgconfig"));
        run(&mut make)?;
        self.module = build.join("ngx_sesscache_module.so");
        self.libraries = stage.join("lib");
        Ok(())
    }

    fn caches(&self) -> Vec<Cache> {
        vec![Cache::Stock, ZONE, Cache::Sesscache]
    }

    fn rivals(&self) -> Vec<Rival> {
        vec![Rival { cache: ZONE, most: usize::MAX }]
    }

    fn command(&self, site: &Site, cache: Cache) -> Result<Command> {
        let path = site.file("nginx.conf");
        fs::write(&path, self.configuration(site, cache)?)?;
        let mut command = Command::new(PROGRAM);
        command.arg("-p").arg(&site.directory).arg("-c").arg(&path).arg("-e").arg(site.error_log());
        command.env("LD_LIBRARY_PATH", &self.libraries);
        Ok(command)
    }

    fn complaints(&self, log: &str) -> Vec<String> {
        let asks = |line: &&str| ["[warn]", "[error]", "[crit]", "[alert]", "[emerg]"].iter().any(|l| line.contains(l));
        // The master reports a worker that was killed, which is what the harness does.
        let expected = |line: &&str| line.contains("exited on signal 9");
        log.lines().filter(asks).filter(|line| !expected(line)).map(str::to_owned).collect()
    }
}

impl Nginx {
    fn configuration(&self, site: &Site, cache: Cache) -> Result<String> {
        let mut text = String::new();
        if cache == Cache::Sesscache {
            writeln!(text, "load_module {};", std::path::absolute(&self.module)?.display())?;
        }
        if let Some(user) = &site.user {
            writeln!(text, "user {user};")?;
        }
        let (workers, directory, port, timeout) = (site.workers, site.directory.display(), site.port, site.timeout);
        let sessions = match cache {
            Cache::Stock => String::new(),
            Cache::Own(_) => format!("ssl_session_cache shared:TLS:{}; ssl_session_tickets off;", site.own_capacity),
            Cache::Sesscache => format!("sesscache {} \"{}\";", site.store.display(), site.options),
        };
        let (certificate, key) = (site.certificate.display(), site.key.display());
        // With reuseport the kernel spreads the connections over the workers; else one of them may take all.
        write!(
            text,
            "worker_processes {workers};
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_timeout {timeout};
    {sessions}
    server {{
        listen 127.0.0.1:{port} ssl reuseport;
        location / {{ return 200 \"$pid\\n\"; }}
    }}
}}
"
        )?;
        Ok(text)
    }
}
