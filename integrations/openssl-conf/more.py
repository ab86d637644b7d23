"""More stock servers, with less to say about each."""

import http.server
import os
import pathlib
import pwd
import subprocess
import threading

import clients
import servers
import stock


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"a page\n")

    def log_message(self, *_):
        pass


class Hitch(stock.Stock):
    packages = ("/usr/sbin/hitch:hitch",)
    settings = {"options": "owner=_hitch"}

    def prepare(self):
        self.backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=self.backend.serve_forever, daemon=True).start()

    def command(self):
        conf = self.scratch.path / "hitch.conf"
        conf.write_text(f'frontend = "[127.0.0.1]:{self.port}"\nbackend = "[127.0.0.1]:{self.backend.server_port}"\n'
                        f'pem-file = "{self.pem}"\nworkers = 4\ndaemon = off\nocsp-dir = ""\nuser = "_hitch"\ngroup = "_hitch"\n'
                        'tls-protos = TLSv1.2 TLSv1.3\n')
        return ["/usr/sbin/hitch", "--config", conf]


class Haproxy(stock.Stock):
    """Its own cache has callbacks, which the module leaves in place: it must be switched off."""

    packages = ("/usr/sbin/haproxy:haproxy",)
    settings = {"options": "owner=haproxy", "force": "yes"}

    def command(self):
        conf = self.scratch.path / "haproxy.cfg"
        conf.write_text(f'''global
    user haproxy
    group haproxy
    tune.ssl.cachesize 0
defaults
    mode http
    timeout client 20s
    timeout connect 20s
    timeout server 20s
frontend page
    bind 127.0.0.1:{self.port} ssl crt {self.pem}
    http-request return status 200 content-type text/plain string page
''')
        return ["/usr/sbin/haproxy", "-db", "-f", conf]


class Memcached(stock.Stock):
    packages = ("memcached:memcached",)
    speak = staticmethod(clients.memcached)
    settings = {"options": "owner=nobody", "force": "yes"}

    def prepare(self):
        os.chmod(self.key, 0o644)

    def command(self):
        return ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(self.port), "-Z", "-o",
                f"ssl_chain_cert={self.cert},ssl_key={self.key}"]


class Socat(stock.Stock):
    """A process for each connection, forked by one that never makes a connection itself."""

    packages = ("socat:socat",)
    speak = staticmethod(clients.echo)

    def command(self):
        return ["socat", f"OPENSSL-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr,cert={self.pem},verify=0", "PIPE"]


class Mosquitto(stock.Stock):
    packages = ("/usr/sbin/mosquitto:mosquitto",)
    speak = staticmethod(clients.mqtt)
    settings = {"options": "owner=mosquitto"}

    def prepare(self):
        os.chmod(self.key, 0o644)

    def command(self):
        conf = self.scratch.path / "mosquitto.conf"
        conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\ncertfile {self.cert}\nkeyfile {self.key}\n")
        return ["/usr/sbin/mosquitto", "-c", conf]


class PureFtpd(stock.Stock):
    """A process for each connection. It gives clients of TLS 1.3 no tickets. Data connections happen as another user, in a chroot."""

    packages = ("dpkg-deb:dpkg",)
    modes = ("1.2 id", "1.2 ticket")
    speak = staticmethod(clients.ftp)
    transfers = True

    def prepare(self):
        self.usr = servers.unpacked("pure-ftpd") / "usr"
        home, accounts = self.scratch.path / "ftp", self.scratch.path / "accounts"
        home.mkdir()
        (home / "file").write_text("x" * 100000)
        user = pwd.getpwnam("nobody")
        subprocess.run([self.usr / "bin" / "pure-pw", "useradd", "anonymous", "-u", str(user.pw_uid), "-g", str(user.pw_gid), "-d", home,
                        "-f", accounts, "-F", accounts.with_suffix(".pdb"), "-m"], input=2 * "test@localhost\n", text=True,
                       stdout=subprocess.DEVNULL, check=True)

    def command(self):
        return [self.usr / "sbin" / "pure-ftpd", "-S", f"127.0.0.1,{self.port}", "-Y", "1", "-2", f"{self.cert},{self.key}", "-E", "-H", "-A",
                "-l", f"puredb:{self.scratch.path}/accounts.pdb"]


class PostfixServer(servers.Server):
    """Its master leaves the wrapper's group, and ends when postfix(1) tells it to."""

    def stop(self):
        subprocess.run([*self.process.args[:3], "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        super().stop()


class Postfix(stock.Stock):
    """smtpd in its chroot. Its processes clean their environment."""

    packages = ("/usr/sbin/postfix:postfix",)
    speak = staticmethod(clients.smtp)
    directory = pathlib.Path("/tls")

    def prepare(self):
        etc, spool = self.scratch.path / "postfix", self.scratch.path / "spool"
        data = self.scratch.path / "data"
        etc.mkdir()
        spool.mkdir()
        stock.give(data, "postfix")
        (etc / "main.cf").write_text(f'''compatibility_level = 3.6
queue_directory = {spool}
data_directory = {data}
myhostname = localhost
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file = {self.scratch.path}/postfix.log
maillog_file_prefixes = {self.scratch.path}
smtpd_tls_cert_file = {self.cert}
smtpd_tls_key_file = {self.key}
smtpd_tls_security_level = may
alias_maps =
local_recipient_maps =
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C OPENSSL_CONF
''')
        services = [f"127.0.0.1:{self.port} inet n - y - 4 smtpd", "cleanup unix n - y - 0 cleanup", "qmgr unix n - n 300 1 qmgr",
                    "tlsmgr unix - - y 1000? 1 tlsmgr", "rewrite unix - - y - - trivial-rewrite", "anvil unix - - y - 1 anvil",
                    "postlog unix-dgram n - n - 1 postlogd", "pickup unix n - y 60 1 pickup"]
        (etc / "master.cf").write_text("\n".join(services) + "\n")
        stock.give(spool / "tls", "postfix")

    server = PostfixServer

    def command(self):
        return ["/usr/sbin/postfix", "-c", self.scratch.path / "postfix", "start-fg"]


SERVERS = [Hitch, Haproxy, Memcached, Socat, Mosquitto, PureFtpd, Postfix]
