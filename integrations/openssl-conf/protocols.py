"""Stock servers of other protocols than the web's, mail and FTP: databases, calls, chat, remote desktops, tunnels."""

import http.server
import os
import pwd
import threading

import clients
import more
import servers
import stock


class Stunnel(stock.Stock):
    """Has session callbacks of its own, and keeps what it has."""

    packages = ("dpkg-deb:dpkg",)
    gains = False

    def prepare(self):
        self.program = servers.unpacked("stunnel4") / "usr" / "bin" / "stunnel4"
        self.backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), more.Page)
        threading.Thread(target=self.backend.serve_forever, daemon=True).start()

    def command(self):
        conf = self.scratch.path / "stunnel.conf"
        conf.write_text(f"foreground = yes\npid =\n[page]\naccept = 127.0.0.1:{self.port}\nconnect = 127.0.0.1:{self.backend.server_port}\n"
                        f"cert = {self.cert}\nkey = {self.key}\n")
        return [self.program, conf]


class Pgbouncer(stock.Stock):
    """Draws a session id context at each start."""

    packages = ("dpkg-deb:dpkg",)
    speak = staticmethod(clients.postgres)
    settings = {"options": "owner=nobody", "session_id_context": "pgbouncer"}

    def prepare(self):
        self.program = servers.unpacked("pgbouncer") / "usr" / "sbin" / "pgbouncer"
        self.key.chmod(0o644)

    def command(self):
        conf = self.scratch.path / "pgbouncer.ini"
        conf.write_text(f"""[databases]
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
admin_users = test
client_tls_sslmode = require
client_tls_cert_file = {self.cert}
client_tls_key_file = {self.key}
""")
        return [self.program, "-u", "nobody", conf]


class Pgpool(stock.Stock):
    """A pool of processes. Its database is away here: it says so to clients, over TLS. It switches OpenSSL's session cache off."""

    settings = {"force": "yes"}
    packages = ("dpkg-deb:dpkg",)
    speak = staticmethod(clients.postgres)

    def prepare(self):
        self.program = servers.unpacked("pgpool2") / "usr" / "sbin" / "pgpool"

    def command(self):
        conf = self.scratch.path / "pgpool.conf"
        conf.write_text(f"""listen_addresses = '127.0.0.1'
port = {self.port}
pcp_listen_addresses = ''
pcp_port = {servers.free_port()}
unix_socket_directories = '{self.scratch.path}'
pcp_socket_dir = '{self.scratch.path}'
pid_file_name = '{self.scratch.path}/pgpool.pid'
logdir = '{self.scratch.path}'
num_init_children = 4
backend_hostname0 = '127.0.0.1'
backend_port0 = {servers.free_port()}
backend_flag0 = 'DISALLOW_TO_FAILOVER'
sr_check_period = 0
ssl = on
ssl_key = '{self.key}'
ssl_cert = '{self.cert}'
""")
        for name in ["pcp.conf", "pool_hba.conf", "pool_passwd"]:
            (self.scratch.path / name).write_text("")
        return [self.program, "-n", "-f", conf, "-F", self.scratch.path / "pcp.conf", "-a", self.scratch.path / "pool_hba.conf"]


class Coturn(stock.Stock):
    """Threads, without TLS 1.3; it switches OpenSSL's session cache off."""

    modes = ("1.2 id", "1.2 ticket")
    settings = {"force": "yes"}
    packages = ("dpkg-deb:dpkg",)
    speak = staticmethod(clients.stun)

    def prepare(self):
        self.program = servers.unpacked("coturn") / "usr" / "bin" / "turnserver"

    def command(self):
        return [self.program, "-n", "-L", "127.0.0.1", "-p", str(servers.free_port()), "--tls-listening-port", str(self.port), "--cert", self.cert,
                "--pkey", self.key, "--no-cli", "--no-dtls", "--no-udp", "--pidfile", self.scratch.path / "pid", "--log-file", "stdout", "--db",
                self.scratch.path / "turndb"]


class Prosody(stock.Stock):
    """Its web server, which has the SSL_CTXs that its XMPP has. It changes each connection to another one than that which it began
    with, switches OpenSSL's session cache off, and asks for certificates without a session id context."""

    settles = 2                 # seconds: younger SSL_CTXs are only attached at connections that begin with them
    packages = ("/usr/bin/prosody:prosody",)

    def prepare(self):
        os.chown(self.key, pwd.getpwnam("prosody").pw_uid, -1)
        stock.give(self.scratch.path / "data", "prosody")

    settings = {"options": "owner=prosody", "force": "yes", "session_id_context": "prosody"}

    def command(self):
        conf = self.scratch.path / "prosody.cfg.lua"
        conf.write_text(f"""pidfile = "{self.scratch.path}/data/pid"
run_as_root = true
data_path = "{self.scratch.path}/data"
modules_enabled = {{ "http" }}
modules_disabled = {{ "s2s", "c2s" }}
http_ports = {{ }}
https_ports = {{ {self.port} }}
https_interfaces = {{ "127.0.0.1" }}
https_certificate = "{self.cert}"
https_ssl = {{ certificate = "{self.cert}", key = "{self.key}" }}
ssl = {{ certificate = "{self.cert}", key = "{self.key}" }}
log = {{ info = "*console" }}
VirtualHost "localhost"
""")
        return ["/usr/bin/prosody", "-F", "--config", conf]


class Xrdp(stock.Stock):
    """A process for each connection."""

    packages = ("/usr/sbin/xrdp:xrdp",)
    speak = staticmethod(clients.rdp)

    def command(self):
        conf = self.scratch.path / "xrdp.ini"
        conf.write_text(f"""[Globals]
ini_version=1
fork=true
port={self.port}
address=127.0.0.1
security_layer=tls
certificate={self.cert}
key_file={self.key}
ssl_protocols=TLSv1.2, TLSv1.3
[Logging]
LogFile={self.scratch.path}/xrdp.log
LogLevel=INFO
EnableSyslog=false
""")
        return ["/usr/sbin/xrdp", "--nodaemon", "-c", conf]


SERVERS = [Stunnel, Pgbouncer, Pgpool, Coturn, Prosody, Xrdp]
