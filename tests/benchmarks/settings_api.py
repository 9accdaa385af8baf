"""The agent's settings over HTTPS, no more than a start and the watch of settings ask for."""

import json
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from kepm_plugin.contract import BROKER_HOST_KEY, BROKER_PORT_KEY, SETTINGS_PATH, SYSTEM_PLUGIN
from tests.benchmarks.broker import Broker, Certificate


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, broker_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self._context = context
        self.system = {BROKER_HOST_KEY: "127.0.0.1", BROKER_PORT_KEY: str(broker_port)}

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a handshake holds up nobody else.
        with self._context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the measured processes are killed while they are connected."""


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Else each answer waits for 40 ms, which is the server's doing: its head and its body are written one by one."""

    def do_GET(self) -> None:
        system = self.path == f"{SETTINGS_PATH}/{SYSTEM_PLUGIN}"
        body = json.dumps(cast("_Server", self.server).system if system else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the standard library's name
        """Say nothing."""


@contextmanager
def settings_api(certificate: Certificate, broker: Broker) -> Generator[str]:
    """Serve for the time of the block; yields the base of the address."""
    server = _Server(certificate.context(), broker.tls)
    thread = threading.Thread(target=server.serve_forever, name="settings API", daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
