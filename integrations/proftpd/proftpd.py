"""Debian's ProFTPD with mod_tls and a session cache, for its test."""

import pathlib
import pwd
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "openssl-conf"), str(HERE.parent / "support")]

import clients  # noqa: E402
import servers  # noqa: E402
import stock  # noqa: E402

MODULE = servers.BUILT / "proftpd" / "mod_tls_sesscache.so"


class Proftpd(stock.Stock):
    """A process for each connection. Clients log in and are confined to their directory: data connections happen as another user
    than the control connection, in a chroot. ProFTPD refuses those that do not resume."""

    packages = ("cc:gcc", "pkg-config:pkg-config", "libssl:libssl-dev", "dpkg-deb:dpkg")
    speak = staticmethod(clients.ftp)
    cache = "shm:/file={path}/shmcache"

    def prepare(self):
        self.core, crypto, headers = map(servers.unpacked, ["proftpd-core", "proftpd-mod-crypto", "proftpd-dev"])
        subprocess.run(["make", "-s", "-C", HERE, f"STAGE={servers.STAGE}", f"BUILD={MODULE.parent}",
                        f"HEADERS={headers}/usr/include/proftpd"], check=True)
        self.modules = self.scratch.path / "modules"
        self.modules.mkdir()
        of_debian = crypto / "usr" / "lib" / "proftpd"
        for module in [MODULE, of_debian / "mod_tls.so", of_debian / "mod_tls_shmcache.so"]:
            (self.modules / module.name).symlink_to(module)
        home = self.scratch.path / "ftp"
        home.mkdir()
        (home / "file").write_text("x" * 100000)
        hashed = subprocess.run(["openssl", "passwd", "-6", "test@localhost"], check=True, capture_output=True, text=True).stdout.strip()
        user = pwd.getpwnam("www-data")
        accounts = self.scratch.path / "accounts"
        accounts.write_text(f"anonymous:{hashed}:{user.pw_uid}:{user.pw_gid}::{home}:/bin/sh\n")
        accounts.chmod(0o600)

    def command(self):
        conf = self.scratch.path / "proftpd.conf"
        conf.write_text(f'''ModulePath {self.modules}
LoadModule mod_tls.c
LoadModule mod_tls_shmcache.c
LoadModule mod_tls_sesscache.c
ServerType standalone
DefaultAddress 127.0.0.1
Port {self.port}
UseIPv6 off
User nobody
Group nogroup
AuthOrder mod_auth_file.c
AuthUserFile {self.scratch.path}/accounts
RequireValidShell off
WtmpLog off
DefaultRoot ~
PidFile {self.scratch.path}/pid
ScoreboardFile {self.scratch.path}/scoreboard
DelayTable none
SystemLog {self.scratch.path}/system.log
TLSEngine on
TLSLog {self.scratch.path}/tls.log
TLSProtocol TLSv1.2 TLSv1.3
TLSRSACertificateFile {self.cert}
TLSRSACertificateKeyFile {self.key}
TLSSessionCache "{self.cache.format(path=self.scratch.path)}" 3600
''')
        return [self.core / "usr" / "sbin" / "proftpd", "-n", "-c", conf]

    def start(self, openssl_conf=None):
        return self.server(self.command(), self.scratch.path / "log", self.port)
