"""Runs a program on a terminal of its own, takes the terminal away, and says whether the program ends.

hangup.py close|eof|stuck-term|stuck-int PROGRAM ARGUMENT...

close: the terminal is closed, as when a connection is lost. eof: the same where it is not
the controlling one, and no signal says so.
stuck-*: nobody reads what the program draws, so that it waits in write(2); the signal comes twice.
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

how, command = sys.argv[1], sys.argv[2:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
pid = os.fork()
if pid == 0:
    os.setsid()
    if how != "eof":
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.execv(command[0], command)
os.close(slave)

seen = b""
DEADLINE = time.monotonic() + 30
while b"q quit" not in seen:
    if time.monotonic() > DEADLINE:
        os.kill(pid, signal.SIGKILL)
        sys.exit(f"nothing is drawn: {seen[-400:]!r}")
    if select.select([master], [], [], 0.05)[0]:
        seen += os.read(master, 65536)

if how.startswith("stuck"):
    number = signal.SIGTERM if how == "stuck-term" else signal.SIGINT
    # It has to wait in write(2), number 1 or 64 on x86-64 and arm64, for longer than it takes to draw.
    since, columns = None, 100
    while since is None or time.monotonic() - since < 0.5:
        if time.monotonic() > DEADLINE:
            os.kill(pid, signal.SIGKILL)
            sys.exit("it never waits for its terminal")
        if open(f"/proc/{pid}/syscall").read().split()[0] not in ("1", "64"):
            since = None
            # Of another size, all of it is drawn anew. No two sizes in turns: who looks every second time would see
            # one of them. And none while it waits: SIGWINCH interrupts write(2).
            columns = columns + 1 if columns < 140 else 100
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        elif since is None:
            since = time.monotonic()
        time.sleep(0.05)
    os.kill(pid, number)
    time.sleep(0.5)
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
else:
    os.close(master)

while True:
    done, code = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    if time.monotonic() > DEADLINE:
        os.kill(pid, signal.SIGKILL)
        sys.exit(f"{how}: it outlives its terminal")
    time.sleep(0.05)
status = os.waitstatus_to_exitcode(code)
if how in ("close", "eof") and status != 0:
    sys.exit(f"{how}: it ends with {status}")
