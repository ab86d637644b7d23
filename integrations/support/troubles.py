"""A store that cannot be used, is full or is damaged: whatever server it is, it serves on, and says so once."""

import contextlib
import os
import shutil

import servers
from servers import check


def trouble(start, log):
    """`start(scratch, port, directory, options)` runs the server; `log(scratch)` is what it wrote that is not normal."""
    with servers.Scratch() as scratch:
        (scratch.path / "file").write_text("")
        port = servers.free_port()
        with start(scratch, port, scratch.path / "file" / "tls", ""), servers.Clients(port, "2") as clients:
            check(clients.say("new 20")[2] == 0 and clients.say("back 1")[2] == 0, "without a usable directory the server serves")
        check(any("no session cache" in line for line in log(scratch)), "its log says why there is no cache")

    with servers.Scratch() as scratch:
        port = servers.free_port()
        with start(scratch, port, scratch.path / "tls", "capacity=1MiB"), servers.Clients(port, "3") as clients:
            check(clients.say("full 5000")[2] == 0, "10,000 tickets go into a store of 1 MiB")
            clients.say("new 50")
            seen = clients.say("back 2")
            check(seen == (100, 100, 0), "sessions made when it is full resume", seen)
        check(not log(scratch), "a full store is no matter for the log", log(scratch)[:2])

    with servers.Scratch() as scratch:
        port, tls = servers.free_port(), scratch.path / "tls"

        def run():
            return start(scratch, port, tls, "capacity=8MiB")
        for what, harm in [
            ("data.mdb overwritten with noise", lambda: [f.write_bytes(os.urandom(f.stat().st_size)) for f in tls.glob("v1-*/data.mdb")]),
            ("control overwritten with noise", lambda: (tls / "control").write_bytes(os.urandom((tls / "control").stat().st_size))),
            ("the key deleted", lambda: (tls / "key").unlink()),
        ]:
            with contextlib.ExitStack() as stack:
                server = stack.enter_context(run())
                clients = stack.enter_context(servers.Clients(port, "3"))
                clients.say("new 20")
                server.stop()
                harm()
                stack.enter_context(run())
                check(clients.say("back 1")[2] == 0, f"{what}: the server serves")
                check(clients.say("back 1") == (20, 20, 0), f"{what}: new sessions resume")
        with run(), servers.Clients(port, "3") as clients:
            clients.say("new 20")
            shutil.rmtree(tls)
            check(clients.say("back 2")[2] == 0, "the directory deleted under running workers: the server serves")
