"""Runs a program on a terminal of its own, ends it, and says what it did to the terminal.

terminal.py q|ctrl-c|sigterm PROGRAM ARGUMENT...
"""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

end, command = sys.argv[1], sys.argv[2:]
DEADLINE = time.monotonic() + 30

master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.execv(command[0], command)

seen = b""


def read_until(done, what):
    global seen
    while not done():
        if time.monotonic() > DEADLINE:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"{what}; it wrote {seen[-400:]!r}")
        if select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 65536)


read_until(lambda: b"hit rate" in seen and b"q quit" in seen, "nothing is drawn")
if b"\x1b[?1049h" not in seen:
    sys.exit("it draws over what was on the screen")
if end == "sigterm":
    os.kill(pid, signal.SIGTERM)
else:
    os.write(master, b"q" if end == "q" else b"\x03")

status = None


def ended():
    global status
    done, code = os.waitpid(pid, os.WNOHANG)
    if done:
        status = os.waitstatus_to_exitcode(code)
    return bool(done)


read_until(ended, f"it does not end on {end}")
while select.select([master], [], [], 0.1)[0]:
    seen += os.read(master, 65536)
if status != 0:
    sys.exit(f"it ends with {status} on {end}: {seen[-400:]!r}")
if seen.rfind(b"\x1b[?1049l") < seen.rfind(b"\x1b[?1049h"):
    sys.exit("it does not leave the other screen")
if seen.rfind(b"\x1b[?25h") < seen.rfind(b"\x1b[?25l"):
    sys.exit("the cursor stays hidden")
if termios.tcgetattr(slave) != before:
    sys.exit("the terminal stays in raw mode")
