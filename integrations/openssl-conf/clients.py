"""Clients that come back, over the protocols of the stock servers: HTTPS, and those that greet or that begin with STARTTLS."""

import ftplib
import socket
import ssl

TIMEOUT = 20


def context(mode):
    """`1.2 id` offers no ticket, as TLS 1.2 clients without them; `1.2 ticket` and `1.3` are what OpenSSL does."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    version = ssl.TLSVersion.TLSv1_3 if mode == "1.3" else ssl.TLSVersion.TLSv1_2
    made.minimum_version = made.maximum_version = version
    # gunicorn says no goodbye, and a client that minds forgets the session. Python 3.13 minds, unless it is told.
    made.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if mode == "1.2 id":
        made.options |= ssl.OP_NO_TICKET
    return made


def ask(secure, question, end=b"\r\n"):
    """One line to the server, and its answer to the end of a line."""
    if question:
        secure.sendall(question)
    answer = b""
    while not answer.endswith(end):
        more = secure.recv(4096)
        if not more:
            raise ConnectionError(f"the server closed after {answer!r}")
        answer += more
    return answer


def https(plain, secured):
    secure = secured(plain)
    secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    while more := secure.recv(65536):
        answer += more
    assert answer.startswith(b"HTTP/1.1 "), answer[:80]
    return secure


def imaps(plain, secured):
    secure = secured(plain)
    assert ask(secure, b"").startswith(b"* OK")
    ask(secure, b"a logout\r\n")
    return secure


def smtp(plain, secured):
    assert ask(plain, b"").startswith(b"220")
    plain.sendall(b"EHLO localhost\r\n")
    while not any(line.startswith(b"250 ") for line in plain.recv(4096).splitlines()):
        pass
    assert ask(plain, b"STARTTLS\r\n").startswith(b"220")
    secure = secured(plain)
    assert ask(secure, b"QUIT\r\n").startswith(b"221")
    return secure


def ftp(plain, secured):
    assert ask(plain, b"").startswith(b"220")
    assert ask(plain, b"AUTH TLS\r\n").startswith(b"234")
    secure = secured(plain)
    assert ask(secure, b"QUIT\r\n").startswith(b"221")
    return secure


def memcached(plain, secured):
    secure = secured(plain)
    assert ask(secure, b"version\r\n").startswith(b"VERSION")
    return secure


def mqtt(plain, secured):
    secure = secured(plain)
    assert ask(secure, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", b"\x00\x00") == b"\x20\x02\x00\x00"
    return secure


def echo(plain, secured):
    secure = secured(plain)
    assert ask(secure, b"hello\r\n") == b"hello\r\n"
    return secure


def postgres(plain, secured):
    plain.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
    assert plain.recv(1) == b"S"
    secure = secured(plain)
    start = b"\x00\x03\x00\x00user\x00test\x00database\x00pgbouncer\x00\x00"
    secure.sendall((len(start) + 4).to_bytes(4, "big") + start)
    assert secure.recv(4096)[:1] in (b"R", b"E")
    return secure


def stun(plain, secured):
    secure = secured(plain)
    secure.sendall(b"\x00\x01\x00\x00\x21\x12\xa4\x42a binding id")
    assert secure.recv(4096).startswith(b"\x01\x01")
    return secure


def rdp(plain, secured):
    plain.sendall(b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x01\x00\x00\x00")
    assert plain.recv(19)[11:12] == b"\x02"
    secure = secured(plain)
    # What makes no sense ends the connection.
    secure.sendall(b"\x03\x00\x00\x08\x00\x00\x00\x00")
    secure.recv(4096)
    return secure


class Client:
    """One client, with the session of its last visit."""

    def __init__(self, port, mode, speak):
        self.port, self.speak, self.context, self.session = port, speak, context(mode), None

    def visit(self):
        """Whether it resumed; None when the visit failed."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as plain:
                secure = self.speak(plain, self.secured)
                self.session = secure.session
                resumed = secure.session_reused
                secure.close()
                return resumed
        except (OSError, AssertionError) as why:
            print(f"        a visit failed: {why!r}", flush=True)
            return None

    def secured(self, plain):
        return self.context.wrap_socket(plain, server_hostname="localhost", session=self.session)


class FtpOverTls(ftplib.FTP_TLS):
    """Data connections offer the session of the control connection, which servers demand."""

    name = None

    def ntransfercmd(self, cmd, rest=None):
        plain, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        return self.context.wrap_socket(plain, server_hostname=self.name, session=self.sock.session), size


def transfers(port, mode, name, times, halfway=lambda: None):
    """How many of these transfers in one FTP session succeed, and what the server said to the first that did not. The control
    connection has an address for its name, data connections have this one. `halfway` is called after half of the transfers."""
    with FtpOverTls(context=context(mode), timeout=TIMEOUT) as session:
        session.name = name
        session.connect("127.0.0.1", port)
        session.login("anonymous", "test@localhost")
        session.prot_p()
        done = 0
        for turn in range(times):
            if turn == times // 2:
                halfway()
            got = []
            try:
                session.retrbinary("RETR file", got.append)
            except (ftplib.Error, OSError) as why:
                return done, str(why)
            done += b"".join(got) == b"x" * 100000
        return done, None
