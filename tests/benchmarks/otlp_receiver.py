"""A receiver of OTLP logs over HTTP, in a process of its own: counts records, keeps none.

Prints its port. `POST /v1/logs` takes what exporters send; `GET /` tells how many records came.
Ends when its stdin does.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

_received = 0
_lock = threading.Lock()
ANSWER = ExportLogsServiceResponse().SerializeToString()


class Handler(BaseHTTPRequestHandler):
    """Both questions, on connections that stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        global _received
        body = self.rfile.read(int(self.headers["content-length"]))
        request = ExportLogsServiceRequest.FromString(body)
        records = sum(
            len(scope.log_records) for logs in request.resource_logs for scope in logs.scope_logs
        )
        with _lock:
            _received += records
        self._answer("application/x-protobuf", ANSWER)

    def do_GET(self) -> None:
        self._answer("text/plain", str(_received).encode())

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not a line a request."""


def main() -> None:
    """Serve until stdin ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
