"""Python servers for the test, as stock.py has those of distributions: `command` says which way they get their context."""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "openssl-conf"), str(HERE.parent / "support")]

import servers  # noqa: E402
import stock  # noqa: E402

# What belongs to the distribution, and its packages.
PYTHON = "/usr/bin/python3"


class Forking(stock.Stock):
    """A process for each connection, with the context of the parent."""

    program = "https_server.py"
    interpreter = sys.executable
    packages = ()
    path = HERE
    found_by = {"LD_LIBRARY_PATH": f"{servers.STAGE}/lib"}

    def __init__(self, scratch, port, options=""):
        super().__init__(scratch, port)
        self.options, self.cached = options, False

    def command(self):
        shared = [self.directory, self.options] if self.cached else []
        return [self.interpreter, "-B", HERE / self.program, str(self.port), self.cert, self.key, *shared]

    def start(self, cached=False):
        self.cached = cached
        env = {"LD_LIBRARY_PATH": "", "PYTHONPATH": str(self.path), **self.found_by, **self.env}
        return self.server(self.command(), self.scratch.path / "log", self.port, env)

    def says(self):
        """What the log has."""
        return (self.scratch.path / "log").read_text()


class PyOpenSsl(Forking):
    program = "pyopenssl_server.py"
    interpreter = PYTHON
    packages = (f"{PYTHON}:python3", "/usr/lib/python3/dist-packages/OpenSSL:python3-openssl")


def environment():
    """A virtual environment with this package as pip installs it, and with what else comes from the registry of Python's packages."""
    place = servers.BUILT / "python"
    if not (place / "complete").exists():
        servers.need("pip3:python3-pip", "/usr/share/python-wheels:python3-pip-whl", f"{PYTHON}:python3", "/usr/lib/python3/dist-packages/setuptools:python3-setuptools",
                     "/usr/share/doc/python3-venv:python3-venv", "/usr/lib/python3/dist-packages/wheel:python3-wheel")
        subprocess.run([PYTHON, "-m", "venv", "--clear", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "--quiet", "gunicorn", "pyopenssl"], check=True)
        (place / "complete").touch()
    return place


def install(place):
    """`pip install` of a copy: a build leaves its files in the source."""
    with servers.Scratch() as scratch:
        for name in ["pyproject.toml", "README.md", "sesscache.py"]:
            (scratch.path / name).write_bytes((HERE / name).read_bytes())
        subprocess.run([place / "bin" / "pip", "install", "--quiet", "--force-reinstall", scratch.path], check=True)


class OpenSslInside(PyOpenSsl):
    """pyOpenSSL as the registry has it: with a cryptography that has an OpenSSL inside."""

    packages = ()
    path = ""

    def prepare(self):
        self.interpreter = environment() / "bin" / "python"


class Gunicorn(Forking):
    """A context for each connection, which its configuration makes."""

    path = ""

    def prepare(self):
        self.interpreter = environment() / "bin" / "gunicorn"
        (self.scratch.path / "app.py").write_text(
            'def app(environ, start):\n    start("200 OK", [("Content-Length", "7")])\n    return [b"a page\\n"]\n')

    def command(self):
        conf = self.scratch.path / "gunicorn.conf.py"
        conf.write_text(gunicorn_conf().replace("/run/app-tls", str(self.directory)) if self.cached else "")
        return [self.interpreter, "-c", conf, "--chdir", self.scratch.path, "-w", "4", "-b", f"127.0.0.1:{self.port}", "--certfile", self.cert,
                "--keyfile", self.key, "app:app"]


def gunicorn_conf():
    """What README.md tells people to write."""
    return (HERE / "README.md").read_text().split("gunicorn.conf.py")[1].split("```python\n")[1].split("```")[0]
