#!/usr/bin/env python3
"""The endpoints of the examples in docs/moving: whatever address is asked, /healthz says that it is ready; port 5432 opens."""
import http.server
import socket
import socketserver
import threading


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
        self.wfile.write(b"ready\n")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


class Everywhere:
    """IPv4 and IPv6 on one socket."""

    address_family = socket.AF_INET6
    allow_reuse_address = daemon_threads = True
    request_queue_size = 100

    def handle_error(self, *_):
        pass  # who has read the status hangs up


class Web(Everywhere, http.server.ThreadingHTTPServer):
    pass


class Database(Everywhere, socketserver.ThreadingTCPServer):
    pass


threading.Thread(target=Database(("::", 5432), socketserver.BaseRequestHandler).serve_forever, daemon=True).start()
Web(("::", 80), Site).serve_forever()
