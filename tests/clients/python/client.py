"""Visits 127.0.0.1:PORT with Python's ssl module, each time with the newest session.

Usage: client.py PORT TLSv1.2|TLSv1.3 VISITS CA [CERT KEY]. Prints what the server answers, and the client's own word.
"""
import socket
import ssl
import sys


def visit(context, port, session):
    """One connection. Returns the session to offer next."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as tcp:
        with context.wrap_socket(tcp, session=session, server_hostname="localhost") as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := tls.recv(4096):
                answer += part
            print(answer.decode().strip())
            print("client", tls.version(), "resumed", int(tls.session_reused))
            # The tickets of TLS 1.3 come before the answer, so the session is complete only here.
            return tls.session


def main():
    """Command line."""
    port, version, visits, ca = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    if len(sys.argv) > 5:
        context.load_cert_chain(sys.argv[5], sys.argv[6])
    session = None
    for _ in range(visits):
        session = visit(context, port, session)


main()
