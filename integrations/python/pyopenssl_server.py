#!/usr/bin/env python3
"""The same as https_server.py with pyOpenSSL.

    pyopenssl_server.py PORT CERTIFICATE KEY [DIRECTORY [OPTIONS]]"""

import logging
import socketserver
import sys

import sesscache
from OpenSSL import SSL


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        secure = SSL.Connection(self.server.context, self.request)
        secure.set_accept_state()
        secure.do_handshake()
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += secure.recv(65536)
        secure.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\na page\n")
        secure.shutdown()


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port, context):
        self.context = context
        super().__init__(("127.0.0.1", port), Connection)


def main(port, certificate, key, directory=None, options=""):
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_file(certificate)
    context.use_privatekey_file(key)
    if directory:
        try:
            sesscache.enable(context, directory, options)
        except sesscache.Error as why:
            logging.warning("no session cache: %s", why)
    with Server(int(port), context) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
