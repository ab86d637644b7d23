//! lighttpd, built from Debian's source with the patch of integrations/lighttpd. Without its directive the patched server
//! is the stock one.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, path};

use crate::instance::Instance;
use crate::machine::{open_to_all, run, wait_until, Result};
use crate::subject::{Cache, Site, Subject};

#[derive(Default)]
pub struct Lighttpd {
    prefix: PathBuf,
    libraries: PathBuf,
}

impl Subject for Lighttpd {
    fn name(&self) -> &'static str {
        "lighttpd"
    }

    fn version(&self) -> Result<String> {
        let said = run(Command::new(self.prefix.join("sbin/lighttpd")).arg("-v"))?;
        Ok(said.lines().next().unwrap_or_default().split(" (").next().unwrap_or_default().to_owned())
    }

    fn build(&mut self, stage: &Path) -> Result<()> {
        let stage = path::absolute(stage)?;
        self.libraries = stage.join("lib");
        self.prefix = stage.with_file_name("integrations").join("lighttpd/prefix");
        if !self.prefix.join("sbin/lighttpd").exists() {
            let mut build = Command::new("integrations/lighttpd/build");
            run(build.arg(&self.prefix).env("STAGE", &stage).current_dir(env!("CARGO_MANIFEST_DIR")))?;
        }
        Ok(())
    }

    /// It has no session cache that its workers share: tickets are its way.
    fn caches(&self) -> Vec<Cache> {
        vec![Cache::Stock, Cache::Sesscache]
    }

    fn command(&self, site: &Site, cache: Cache) -> Result<Command> {
        let pages = site.file("pages");
        if !pages.is_dir() {
            fs::create_dir(&pages)?;
            open_to_all(&pages)?;
            fs::write(pages.join("index.html"), "a page\n")?;
        }
        // lighttpd becomes the user of its workers before it opens its log; when it restarts, it reads the key as that user.
        if let Some(user) = &site.user {
            let own = |mode: &str, from: &Path, to: PathBuf| {
                run(Command::new("install").args(["-m", mode, "-o", user]).arg(from).arg(to))
            };
            own("0600", &site.key, site.file("site.key"))?;
            if !site.error_log().exists() {
                own("0644", Path::new("/dev/null"), site.error_log())?;
            }
        }
        let path = site.file("lighttpd.conf");
        fs::write(&path, configuration(site, cache)?)?;
        let mut command = Command::new(self.prefix.join("sbin/lighttpd"));
        command.arg("-D").arg("-f").arg(&path).arg("-m").arg(self.prefix.join("lib/lighttpd"));
        command.env("LD_LIBRARY_PATH", &self.libraries);
        Ok(command)
    }

    /// SIGUSR1 is its graceful restart: the same process reads the configuration again.
    fn reload(&self, instance: &Instance) -> Result<()> {
        let old = instance.workers();
        instance.signal(libc::SIGUSR1);
        let renewed = wait_until(std::time::Duration::from_secs(30), || {
            let now = instance.workers();
            now.len() >= old.len() && now.iter().all(|pid| !old.contains(pid))
        })?;
        renewed.then_some(()).ok_or_else(|| "lighttpd: 30 s after a restart the old workers are still there".into())
    }

    fn complaints(&self, log: &str) -> Vec<String> {
        // It has no levels: what is normal is listed, and what a busy machine makes it say.
        let normal =
            ["server started", "server stopped", "graceful shutdown", "[note]", "logfiles cycled", "clock jumped"];
        log.lines().filter(|line| !normal.iter().any(|text| line.contains(text))).map(str::to_owned).collect()
    }
}

fn configuration(site: &Site, cache: Cache) -> Result<String> {
    let mut text = String::new();
    if let Some(user) = &site.user {
        writeln!(text, "server.username = \"{user}\"\nserver.groupname = \"{user}\"")?;
    }
    if cache == Cache::Sesscache {
        // It makes its SSL_CTXs as root at the start, and as the workers' user at a restart.
        let owner = site.user.as_ref().map_or(String::new(), |user| format!(" owner={user}"));
        writeln!(text, "ssl.sesscache = ( \"{}\" => \"{}{owner}\" )", site.store.display(), site.options)?;
    }
    let key = if site.user.is_some() { site.file("site.key") } else { site.key.clone() };
    let (directory, port, workers) = (site.directory.display(), site.port, site.workers);
    write!(
        text,
        "server.modules = ( \"mod_openssl\" )
server.document-root = \"{directory}/pages\"
index-file.names = ( \"index.html\" )
mimetype.assign = ( \".html\" => \"text/html\" )
server.pid-file = \"{directory}/lighttpd.pid\"
server.errorlog = \"{directory}/error.log\"
server.bind = \"127.0.0.1\"
server.port = {port}
server.max-worker = {workers}
ssl.engine = \"enable\"
ssl.pemfile = \"{}\"
ssl.privkey = \"{}\"
",
        site.certificate.display(),
        key.display()
    )?;
    Ok(text)
}
