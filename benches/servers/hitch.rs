//! hitch, built from Debian's source with the patch of integrations/hitch, before a web server that answers at once.
//! Without its directive the patched hitch is the stock one. Its own shared cache cannot be built from Debian's source: a
//! part of it comes from elsewhere.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, path, thread};

use crate::machine::{run, Result};
use crate::subject::{Cache, Site, Subject};

#[derive(Default)]
pub struct Hitch {
    prefix: PathBuf,
    libraries: PathBuf,
    backend: u16,
}

impl Subject for Hitch {
    fn name(&self) -> &'static str {
        "hitch"
    }

    fn version(&self) -> Result<String> {
        let mut command = Command::new(self.prefix.join("sbin/hitch"));
        let said = run(command.arg("--version").env("LD_LIBRARY_PATH", &self.libraries))?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    fn build(&mut self, stage: &Path) -> Result<()> {
        let stage = path::absolute(stage)?;
        self.libraries = stage.join("lib");
        self.prefix = stage.with_file_name("integrations").join("hitch/prefix");
        if !self.prefix.join("sbin/hitch").exists() {
            let mut build = Command::new("integrations/hitch/build");
            run(build.arg(&self.prefix).env("STAGE", &stage).current_dir(env!("CARGO_MANIFEST_DIR")))?;
        }
        self.backend = serve()?;
        Ok(())
    }

    fn caches(&self) -> Vec<Cache> {
        vec![Cache::Stock, Cache::Sesscache]
    }

    fn command(&self, site: &Site, cache: Cache) -> Result<Command> {
        // Certificate and key in one file.
        let pem = site.file("site.pem");
        fs::write(&pem, [fs::read(&site.certificate)?, fs::read(&site.key)?].concat())?;
        let path = site.file("hitch.conf");
        fs::write(&path, self.configuration(site, cache, &pem)?)?;
        let mut command = Command::new(self.prefix.join("sbin/hitch"));
        command.arg("--config").arg(&path);
        command.env("LD_LIBRARY_PATH", &self.libraries);
        Ok(command)
    }

    fn complaints(&self, log: &str) -> Vec<String> {
        // It has no levels in its log: what is normal is listed. The harness kills workers.
        let normal = [
            " starting",
            "Loading certificate",
            "initialization complete",
            " online",
            "was terminated by signal 9",
            "Received SIGHUP",
            "Configuration reload",
            "Config reloaded",
            "is now exiting",
            "exited with status 0",
            "Received signal 15",
        ];
        let expected = |line: &&str| normal.iter().any(|text| line.contains(text));
        log.lines().filter(|line| !line.is_empty()).filter(|line| !expected(line)).map(str::to_owned).collect()
    }
}

impl Hitch {
    fn configuration(&self, site: &Site, cache: Cache, pem: &Path) -> Result<String> {
        let mut text = String::new();
        if let Some(user) = &site.user {
            writeln!(text, "user = \"{user}\"\ngroup = \"{user}\"")?;
        }
        if cache == Cache::Sesscache {
            // Root makes the store for the workers' user.
            let owner = site.user.as_ref().map_or(String::new(), |user| format!(" owner={user}"));
            writeln!(text, "sesscache = \"{} {}{owner}\"", site.store.display(), site.options)?;
        }
        let (port, backend, workers) = (site.port, self.backend, site.workers);
        write!(
            text,
            "frontend = \"[127.0.0.1]:{port}\"
backend = \"[127.0.0.1]:{backend}\"
pem-file = \"{}\"
workers = {workers}
daemon = off
log-level = 1
log-filename = \"{}\"
ocsp-dir = \"\"
tls-protos = TLSv1.2 TLSv1.3
",
            pem.display(),
            site.error_log().display()
        )?;
        Ok(text)
    }
}

/// A web server in a thread, until the harness ends.
fn serve() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            // A client that is gone again is none of ours.
            let asked = stream.read(&mut request).unwrap_or(0);
            if asked > 0 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\na page\n");
            }
        }
    });
    Ok(port)
}
