"""`python -m tests.fleet.api PORT BROKER-PORT CERTIFICATE KEY`: the agent's settings over HTTPS, in its own process.

It answers what plugins ask at a start, after a failed attempt and after a reconnect: the agent's own settings, a
plugin's, and their status. As the agent's API is, it is there or not, and has a processor of its own or not.
"""

import json
import ssl
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, cast

from kepm_plugin.contract import BROKER_HOST_KEY, BROKER_PORT_KEY, SETTINGS_PATH, STATUS, SYSTEM_PLUGIN

SYSTEM: Final = f"{SETTINGS_PATH}/{SYSTEM_PLUGIN}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, broker: int, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", port), _Asked)
        self._context = context
        self.system = {BROKER_HOST_KEY: "127.0.0.1", BROKER_PORT_KEY: str(broker)}

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a handshake holds up nobody else.
        with self._context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients give up."""


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        found: object = {}
        if self.path == SYSTEM:
            found = cast("_Server", self.server).system
        elif self.path.endswith(f"/{STATUS}"):
            found = {"settingsHash": "1"}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the standard library's name
        """Say nothing."""


def main(arguments: Sequence[str]) -> None:
    """Serve until killed."""
    port, broker, certificate, key = arguments
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    _Server(int(port), int(broker), context).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
