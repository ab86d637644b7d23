"""The stock servers of Debian: how each is configured and started, where its sessions lie, and what it speaks."""

import os
import pathlib
import pwd
import shutil

import clients
import servers


def give(path, user):
    """A private directory of this user's, where sessions go."""
    path.mkdir(mode=0o700)
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)


class Stock:
    """What all have in common. A subclass says what is different."""

    packages = ()               # as for scripts/need
    modes = ("1.2 id", "1.2 ticket", "1.3")
    speak = staticmethod(clients.https)
    settings = {}               # of the module's section
    env = {}
    server = servers.Server
    transfers = False           # FTP: data connections, too
    settles = 0                 # seconds after the start, when it is ready for a measurement
    gains = True                # or does with the module what it does without

    def __init__(self, scratch, port):
        self.scratch, self.port = scratch, port
        self.cert, self.key = scratch.certificate()
        self.pem = scratch.path / "both.pem"
        self.pem.write_text(self.cert.read_text() + self.key.read_text())

    @property
    def directory(self):
        """Of the sessions, as the process that handshakes sees it."""
        return self.scratch.path / "tls"

    def prepare(self):
        """What must exist before the first start."""

    def command(self):
        raise NotImplementedError

    def start(self, openssl_conf=None):
        # The module finds its library beside it.
        env = {"LD_LIBRARY_PATH": "", **self.env}
        if openssl_conf:
            env["OPENSSL_CONF"] = str(openssl_conf)
        return self.server(self.command(), self.scratch.path / "log", self.port, env)


class Lighttpd(Stock):
    packages = ("/usr/sbin/lighttpd:lighttpd", "/usr/lib/lighttpd/mod_openssl.so:lighttpd-mod-openssl")
    settings = {"force": "yes", "options": "owner=www-data"}

    def prepare(self):
        (self.scratch.path / "pages").mkdir()
        (self.scratch.path / "pages" / "index.html").write_text("a page\n")
        for path in [self.key, self.pem]:
            os.chown(path, pwd.getpwnam("www-data").pw_uid, -1)

    def command(self):
        conf = self.scratch.path / "lighttpd.conf"
        conf.write_text(f'''server.username = "www-data"
server.groupname = "www-data"
server.modules = ( "mod_openssl" )
server.document-root = "{self.scratch.path}/pages"
server.bind = "127.0.0.1"
server.port = {self.port}
server.max-worker = 4
index-file.names = ( "index.html" )
ssl.engine = "enable"
ssl.pemfile = "{self.cert}"
ssl.privkey = "{self.key}"
ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "TLSv1.2" )
''')
        return ["/usr/sbin/lighttpd", "-D", "-f", conf]


class Vsftpd(Stock):
    """Chroot, change of user and a filter of system calls come before the first handshake. Data connections must resume, also those
    of clients that send a server name on one of the two connections only."""

    packages = ("dpkg-deb:dpkg",)
    transfers = True
    speak = staticmethod(clients.ftp)
    settings = {"options": "sni=off ttl=1d"}
    directory = pathlib.Path("/tls")

    def prepare(self):
        self.program = servers.unpacked("vsftpd") / "usr" / "sbin" / "vsftpd"
        inside = self.scratch.path / "empty"
        inside.mkdir()
        give(inside / "tls", "nobody")
        (self.scratch.path / "ftp").mkdir()
        (self.scratch.path / "ftp" / "file").write_text("x" * 100000)

    def outside(self):
        """The directory by its name outside of the chroot."""
        return self.scratch.path / "empty" / "tls"

    def lose_store(self):
        """From here on the directory is not there, and cannot be made."""
        shutil.rmtree(self.outside())

    def command(self):
        conf = self.scratch.path / "vsftpd.conf"
        conf.write_text(f'''background=NO
listen=YES
listen_address=127.0.0.1
listen_port={self.port}
anonymous_enable=YES
ftp_username=www-data
anon_root={self.scratch.path}/ftp
secure_chroot_dir={self.scratch.path}/empty
ssl_enable=YES
allow_anon_ssl=YES
rsa_cert_file={self.cert}
rsa_private_key_file={self.key}
''')
        return [self.program, conf]


class Dovecot(Stock):
    """imap-login: a process per connection, exec'd anew, that makes its SSL_CTX in a chroot."""

    packages = ("/usr/lib/dovecot/imap-login:dovecot-imapd",)
    speak = staticmethod(clients.imaps)
    directory = pathlib.Path("/tls")

    def prepare(self):
        login = self.scratch.path / "run" / "login"
        login.mkdir(parents=True)
        give(login / "tls", "dovenull")

    def command(self):
        conf = self.scratch.path / "dovecot.conf"
        run = self.scratch.path / "run"
        conf.write_text(f'''base_dir = {run}
state_dir = {run}
log_path = {self.scratch.path}/log
protocols = imap
ssl = required
ssl_cert = <{self.cert}
ssl_key = <{self.key}
import_environment = TZ OPENSSL_CONF
passdb {{
  driver = static
  args = password=x
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
''')
        return ["/usr/sbin/dovecot", "-F", "-c", conf]


SERVERS = [Lighttpd, Vsftpd, Dovecot]
