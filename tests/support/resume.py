"""Connects to 127.0.0.1:PORT with Python's ssl module, then RETURNS times more with the newest session.

Usage: resume.py PORT TLSv1_2|TLSv1_3 RETURNS. Prints the line of the server for every connection.
"""
import socket
import ssl
import sys


def visit(context, port, session):
    """One connection. Returns the session to offer next."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as tcp:
        with context.wrap_socket(tcp, session=session) as tls:
            line = b""
            while not line.endswith(b"\n"):
                part = tls.recv(200)
                if not part:
                    raise EOFError("the server closed the connection before its line was complete")
                line += part
            if int(line.split()[3]) != tls.session_reused:
                raise AssertionError("server and client disagree on whether the session resumed")
            # The tickets of TLS 1.3 come before the line, so the session is complete only here.
            newest = tls.session
            tls.unwrap()
    print(line.decode(), end="")
    return newest


def main():
    """Command line."""
    port, version, returns = int(sys.argv[1]), ssl.TLSVersion[sys.argv[2]], int(sys.argv[3])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    session = None
    for _ in range(returns + 1):
        session = visit(context, port, session)


main()
