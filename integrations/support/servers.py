"""What the tests of the integrations share: a scratch directory, keys, clients that come back, a server's processes and
their CPU time. Only loopback addresses; everything that is started ends with the `with` block; every wait has a deadline."""

import ctypes
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
STAGE = pathlib.Path(os.environ.get("SESSCACHE_STAGE", TOP / "target" / "stage"))
BUILT = STAGE.parent / "integrations"
DEADLINE = 30
CLIENTS_DEADLINE = 300
PR_SET_PDEATHSIG = 1

# Told to end, a test leaves its `with` blocks, and nothing stays behind.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))

failures = []


def need(*things):
    subprocess.run([TOP / "scripts" / "need", *things], check=True)


def unpacked(package):
    """The files of a package, not installed: Debian's FTP servers conflict with one another. What they link is installed."""
    to = BUILT / "packages" / package
    if not to.exists():
        shutil.rmtree(work := to.with_suffix(".new"), ignore_errors=True)
        work.mkdir(parents=True)
        # apt downloads as a user of its own, who may not write here.
        subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], cwd=work, check=True)
        [deb] = work.glob("*.deb")
        depends = subprocess.run(["dpkg-deb", "-f", deb, "Depends"], check=True, capture_output=True, text=True).stdout
        subprocess.run(["apt-get", "-qq", "install", "--no-install-recommends", *re.findall(r"\blib[\w.+-]+", depends)], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg-deb", "-x", deb, work], check=True)
        deb.unlink()
        work.rename(to)
    return to


def check(ok, what, but=None):
    """A statement about what a user sees; the run goes on, and fails at the end. `but` is what was seen instead."""
    print(("ok      " if ok else "FAILED  ") + what, flush=True)
    if not ok and but is not None:
        print(f"        but: {but}", flush=True)
    if not ok:
        failures.append(what)


def finish():
    print(f"FAILED: {len(failures)} of these" if failures else "all passed", flush=True)
    sys.exit(1 if failures else 0)


def wait_for(condition, what, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline} s")
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


class Scratch:
    """A directory that workers of another user can enter."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="sesscache-", dir="/dev/shm"))
        self.path.chmod(0o755)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def certificate(self, name="localhost"):
        cert, key = self.path / f"{name}.crt", self.path / f"{name}.key"
        if not cert.exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                            "-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:FALSE", "-out", cert, "-keyout", key],
                           check=True, capture_output=True)
        return cert, key


def build_client():
    client = BUILT / "https_client"
    source = TOP / "integrations" / "support" / "https_client.c"
    if not client.exists() or client.stat().st_mtime < source.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libssl", "libcrypto"],
                               check=True, capture_output=True, text=True).stdout.split()
        subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", source, "-o", client, *flags],
                       check=True)
    return client


class Clients:
    """Clients of one protocol version that keep their sessions from command to command."""

    def __init__(self, port, version, *arguments):
        self.process = subprocess.Popen([build_client(), "-p", str(port), f"-{version}", *arguments],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(DEADLINE)

    def say(self, command):
        """(visits, resumed, failed)"""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        timer = threading.Timer(CLIENTS_DEADLINE, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.fullmatch(r"visits (\d+) resumed (\d+) failed (\d+)\n", line)
        if not found:
            raise RuntimeError(f"the client said {line!r}")
        return tuple(map(int, found.groups()))


def tree(pid):
    """A process and all its descendants."""
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                queue += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def runs(pid):
    """Whether it is there, and more than a zombie that nobody has waited for."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cpu(pids):
    """CPU time of all threads of these processes, in microseconds."""
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except OSError:
            pass
    return total / 1000


class Server:
    """A server in the foreground, in a process group of its own, with its output in a file."""

    def __init__(self, arguments, log, port, env=None):
        self.port = port
        library = f"{STAGE}/lib"
        self.process = subprocess.Popen(arguments, stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
                                        preexec_fn=die_with_parent, stdin=subprocess.DEVNULL, env={**os.environ, "LD_LIBRARY_PATH": library, **(env or {})})
        try:
            wait_for(lambda: self.process.poll() is not None or answers(port), f"{arguments[0]} answers")
            if self.process.poll() is not None:
                raise RuntimeError(f"{arguments[0]} ended: {log.read_text()[-2000:]}")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def stop(self):
        """Waits for the workers, too: the listening socket of one that is late would take connections meant for the next
        server on this port."""
        left = tree(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        wait_for(lambda: not any(map(runs, left)), f"the workers of {self.process.args[0]} end with it")

    def __exit__(self, *_):
        """In order when it can be, and by force after that."""
        try:
            self.stop()
        except (subprocess.TimeoutExpired, TimeoutError):
            print(f"{self.process.args[0]} does not end when told to", file=sys.stderr)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(DEADLINE)

    def workers(self):
        return [pid for pid in tree(self.process.pid) if pid != self.process.pid]

    def cpu_of(self, action):
        """What the action returns, and the server's CPU time for it. Workers must not come and go meanwhile."""
        before = {pid: cpu([pid]) for pid in tree(self.process.pid)}
        result = action()
        time.sleep(0.05)
        after = {pid: cpu([pid]) for pid in tree(self.process.pid)}
        return result, sum(after[pid] - before.get(pid, 0) for pid in after)
