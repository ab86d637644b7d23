#!/usr/bin/env python3
"""An HTTPS server that forks a process for each connection. All of them, and those after a restart, share their sessions.

    https_server.py PORT CERTIFICATE KEY [DIRECTORY [OPTIONS]]      without a directory: what Python does alone
    curl -k https://localhost:PORT/                                  answers with how the handshake went"""

import logging
import socketserver
import ssl
import sys

import sesscache


class Connection(socketserver.StreamRequestHandler):
    def setup(self):
        # In the child: a client that is slow to shake hands keeps nobody waiting.
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self):
        while self.rfile.readline(65536).strip():
            pass
        answer = b"resumed\n" if self.request.session_reused else b"full\n"
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

    def finish(self):
        super().finish()
        try:
            # A client that gets no close_notify may take its session for a broken one, and not offer it.
            self.request.settimeout(5)
            self.request.unwrap()
        except OSError:
            self.request.close()


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port, context):
        self.context = context
        super().__init__(("127.0.0.1", port), Connection)


def main(port, certificate, key, directory=None, options=""):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if directory:
        try:
            sesscache.enable(context, directory, options)
        except sesscache.Error as why:
            logging.warning("no session cache: %s", why)
    with Server(int(port), context) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
