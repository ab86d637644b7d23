"""Servers of applications: a process, or several, in which the application runs."""

import stock


class Gunicorn(stock.Stock):
    """An SSL_CTX for each connection."""

    packages = ("/usr/bin/gunicorn:gunicorn",)

    def prepare(self):
        (self.scratch.path / "app.py").write_text(
            'def app(environ, start):\n    start("200 OK", [("Content-Length", "7")])\n    return [b"a page\\n"]\n')

    def command(self):
        return ["/usr/bin/gunicorn", "--chdir", self.scratch.path, "-w", "4", "-b", f"127.0.0.1:{self.port}", "--certfile", self.cert,
                "--keyfile", self.key, "--ssl-version", "TLS_SERVER", "app:app"]


class Uwsgi(stock.Stock):
    """Its HTTP router forks before it serves, and switches OpenSSL's session cache off."""

    packages = ("/usr/bin/uwsgi-core:uwsgi-core", "/usr/lib/uwsgi/plugins/http_plugin.so:uwsgi-core",
                "/usr/lib/uwsgi/plugins/python3_plugin.so:uwsgi-plugin-python3")
    settings = {"force": "yes"}

    def prepare(self):
        (self.scratch.path / "app.py").write_text(
            'def application(environ, start):\n    start("200 OK", [("Content-Length", "7"), ("Connection", "close")])\n    return [b"a page\\n"]\n')

    def command(self):
        return ["/usr/bin/uwsgi-core", "--master", "--die-on-term", "--plugins", "http,python3", "--chdir", self.scratch.path, "--module",
                "app", "--processes", "2", "--http-processes", "3", "--https", f"127.0.0.1:{self.port},{self.cert},{self.key}"]


class Puma(stock.Stock):
    """Draws a session id context at each start, and switches OpenSSL's session cache off."""

    packages = ("/usr/bin/puma:puma",)
    settings = {"session_id_context": "puma", "force": "yes"}

    def prepare(self):
        (self.scratch.path / "config.ru").write_text('run ->(env) { [200, {"content-length" => "7"}, ["a page\\n"]] }\n')

    def command(self):
        return ["/usr/bin/puma", "-w", "4", "-t", "2:2", "--dir", self.scratch.path, "-b",
                f"ssl://127.0.0.1:{self.port}?key={self.key}&cert={self.cert}&verify_mode=none", "config.ru"]


class Starman(stock.Stock):
    """An SSL_CTX in each worker."""

    packages = ("/usr/bin/starman:starman", "/usr/share/perl5/IO/Socket/SSL.pm:libio-socket-ssl-perl")

    def prepare(self):
        (self.scratch.path / "app.psgi").write_text('sub { [200, ["Content-Length", 7], ["a page\\n"]] }\n')

    def command(self):
        return ["/usr/bin/starman", "--workers", "4", "--listen", f"127.0.0.1:{self.port}:ssl", "--ssl-cert", self.cert, "--ssl-key", self.key,
                self.scratch.path / "app.psgi"]


SERVERS = [Gunicorn, Uwsgi, Puma, Starman]
