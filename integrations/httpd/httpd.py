"""Debian's httpd with a configuration of its own, for its test."""

import pathlib
import ssl
import subprocess
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import servers  # noqa: E402

MODULE = servers.BUILT / "httpd" / "mod_socache_sesscache.so"
PROBE = servers.BUILT / "httpd" / "mod_socache_probe.so"
MODULES = "/usr/lib/apache2/modules"
# Spare threads of more than one child: when all are killed, httpd starts children only until it has the spare threads.
THREADS = {
    "event": "StartServers 3\nServerLimit 3\nThreadsPerChild 10\nMinSpareThreads 11\nMaxSpareThreads 30\nMaxRequestWorkers 30",
    "prefork": "StartServers 4\nMinSpareServers 4\nMaxSpareServers 4\nServerLimit 4\nMaxRequestWorkers 4",
}
LOAD = ["authz_core", "ssl", "status", "socache_shmcb", "socache_dbm", "socache_redis"]


def configuration(scratch, port, cache, mpm="event", tickets="off", extra="", name="httpd", user="www-data"):
    """Writes PATH/NAME.conf; returns its path."""
    cert, key = scratch.certificate()
    root = scratch.path / "htdocs"
    root.mkdir(exist_ok=True)
    (root / "index.html").write_text("a page\n")
    lines = [f"LoadModule {m}_module {MODULES}/mod_{m}.so" for m in [f"mpm_{mpm}", *LOAD]]
    text = "\n".join([
        *lines,
        f"LoadModule socache_sesscache_module {MODULE}\nLoadModule socache_probe_module {PROBE}",
        f"ServerRoot {scratch.path}\nServerName localhost\nPidFile {scratch.path}/{name}.pid\nDefaultRuntimeDir {scratch.path}",
        f"User {user}\nGroup {user}\nListen 127.0.0.1:{port}\nDocumentRoot {root}\nMutex default",
        THREADS[mpm],
        "MaxConnectionsPerChild 0\nKeepAlive Off\nGracefulShutdownTimeout 5\nLogLevel warn",
        f"ErrorLog {scratch.path}/{name}.error",
        f'LogFormat "%P %{{SSL_PROTOCOL}}x %{{SSL_SESSION_RESUMED}}x" tls\nCustomLog {scratch.path}/{name}.access tls',
        "SSLEngine on\nSSLSessionCacheTimeout 3600",
        f"SSLCertificateFile {cert}\nSSLCertificateKeyFile {key}",
        f'SSLSessionCache "{cache}"\nSSLSessionTickets {tickets}',
        "ExtendedStatus Off\n<Location /server-status>\nSetHandler server-status\n</Location>",
        "<Location /probe>\nSetHandler socache-probe\n</Location>",
        extra, ""])
    path = scratch.path / f"{name}.conf"
    path.write_text(text)
    return path


def start(scratch, port, conf, name="httpd"):
    return servers.Server(["/usr/sbin/apache2", "-DFOREGROUND", "-f", str(conf)], scratch.path / f"{name}.out", port)


def prepare():
    servers.need("apache2:apache2", "apxs:apache2-dev", "openssl:openssl", "cc:gcc", "pkg-config:pkg-config", "libssl:libssl-dev")
    subprocess.run(["make", "-s", "-C", str(pathlib.Path(__file__).parent), f"STAGE={servers.STAGE}",
                    f"BUILD={servers.BUILT / 'httpd'}", "all", "probe"], check=True, stdout=subprocess.DEVNULL)


def get(port, path, timeout=20):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return urllib.request.urlopen(f"https://localhost:{port}{path}", context=context, timeout=timeout).read().decode()
