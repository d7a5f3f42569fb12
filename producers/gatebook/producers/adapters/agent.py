"""The language-neutral door: access events over HTTP, from services that are not written in Python.

    POST /v1/events   a JSON object, a JSON array, or one JSON object a line (NDJSON)
    GET  /healthz     200 while events are taken, else 503
    GET  /metrics     Prometheus

Plain asyncio, because a base install has no web server. Everything a client controls is bounded:
connections, header and body bytes, bytes of all bodies together, and the time a request may take
to come in, however slowly its bytes drip.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import socket
import stat
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from prometheus_client import generate_latest

from gatebook.producers.adapters import agent_metrics as metrics
from gatebook.producers.adapters.agent_intake import Answer, BadBody, Intake
from gatebook.producers.adapters.agent_settings import AgentSettings
from gatebook.schemas.errors import Fatal

log = logging.getLogger("gatebook.producers")

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 100
WORKERS = 4
_TEXTS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 411: "Length Required",
    413: "Content Too Large", 415: "Unsupported Media Type", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 503: "Service Unavailable",
}  # fmt: skip


class Refused(Exception):
    """A request that is answered with an error; the connection is closed then."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Request:
    """A request's head."""

    method: str
    path: str
    headers: Mapping[str, str]
    keep_alive: bool


def parse_head(head: bytes) -> Request:
    """Request line and headers. Raises Refused."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise Refused(400, "is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in [line for line in lines[1:] if line][: MAX_HEADERS + 1]:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or not name:
            raise Refused(400, "a header line cannot be read")
        name = name.lower()
        if name in headers and name in ("content-length", "transfer-encoding", "authorization"):
            raise Refused(400, f"{name} stands there twice")
        headers[name] = value.strip()
    if len(headers) > MAX_HEADERS:
        raise Refused(431, "too many headers")
    said = headers.get("connection", "").lower()
    keep_alive = said == "keep-alive" or (parts[2] == "HTTP/1.1" and said != "close")
    return Request(parts[0], parts[1].partition("?")[0], headers, keep_alive)


def body_length(headers: Mapping[str, str], limit: int) -> int | None:
    """Declared bytes of body; None for a chunked one. Raises Refused."""
    encoding, length = headers.get("transfer-encoding", ""), headers.get("content-length")
    if encoding:
        if encoding.lower() != "chunked" or length is not None:
            raise Refused(400, "how long the body is, is not clear")
        return None
    if length is None:
        raise Refused(411, "Content-Length is missing")
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        raise Refused(400, "Content-Length is not a number")
    if int(length) > limit:
        raise Refused(413, f"the body is larger than {limit} bytes")
    return int(length)


@dataclass
class Agent:
    """The server. `serve` runs it until `stop` is called."""

    settings: AgentSettings
    intake: Intake
    token: bytes = b""
    _connections: set[asyncio.Task[None]] = field(default_factory=set)
    _busy: set[asyncio.Task[None]] = field(default_factory=set)
    _body_bytes: int = 0
    _servers: list[asyncio.Server] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> list[str]:
        """Listen; the addresses, as a client needs them. Raises Fatal."""
        self._threads = asyncio.Semaphore(WORKERS)
        found = []
        if self.settings.listen:
            found.append(await self._listen_tcp())
        if self.settings.socket:
            found.append(await self._listen_unix(self.settings.socket_path))
        return found

    async def _listen_tcp(self) -> str:
        host, port = self.settings.address
        try:
            server = await asyncio.start_server(
                self._accept_tcp, host, port, limit=MAX_HEAD_BYTES, backlog=128
            )
        except OSError as error:
            raise Fatal(
                f"cannot listen on {self.settings.listen}: {error.strerror}",
                "is another agent running? Set --listen to another port",
            ) from None
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        return f"http://{shown}:{bound[1]}"

    async def _listen_unix(self, path: Path) -> str:
        _clear_socket(path)
        before = os.umask(0o177)  # nobody else may connect before the mode is set
        try:
            server = await asyncio.start_unix_server(
                self._accept_unix, path, limit=MAX_HEAD_BYTES, backlog=128
            )
            os.chmod(path, int(self.settings.socket_mode, 8))
        except OSError as error:
            raise Fatal(
                f"cannot listen on {path}: {error.strerror}",
                "set --socket to a path in a folder that exists and can be written",
            ) from None
        finally:
            os.umask(before)
        self._servers.append(server)
        return f"unix:{path}"

    async def serve(self, grace_seconds: float = 10.0) -> None:
        """Until `stop`; then lets requests under way finish."""
        await self._stopping.wait()
        for server in self._servers:
            server.close()
        for task in self._connections - self._busy:
            task.cancel()
        if self._busy:
            await asyncio.wait(set(self._busy), timeout=grace_seconds)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections), timeout=1)
        if self.settings.socket:
            self.settings.socket_path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Take no more connections and end. Called in the event loop."""
        self._stopping.set()

    async def _accept_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._accept(reader, writer, self.token)

    async def _accept_unix(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._accept(reader, writer, b"")

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes
    ) -> None:
        if len(self._connections) >= self.settings.connections_max:
            metrics.REFUSED.inc()
            await _close(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        metrics.CONNECTIONS.inc()
        try:
            await _Connection(self, reader, writer, token, task).run()
        except asyncio.CancelledError:
            pass  # we end
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client is gone
        except Exception as error:
            log.error("a connection ended by an error of ours: %s", type(error).__name__)
        finally:
            self._connections.discard(task)
            self._busy.discard(task)
            metrics.CONNECTIONS.dec()
            await _close(writer)

    @asynccontextmanager
    async def busy(self, task: asyncio.Task[None]) -> AsyncIterator[None]:
        """A request is under way: the end waits for it."""
        self._busy.add(task)
        try:
            yield
        finally:
            self._busy.discard(task)

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Memory for a body. Raises Refused where there is none."""
        if self._body_bytes + size > self.settings.bodies_max_bytes or self.intake.full():
            raise Refused(429, "there is no room for more events now")
        self._body_bytes += size
        try:
            yield
        finally:
            self._body_bytes -= size

    async def take(self, body: bytes, content_type: str) -> Answer:
        """Record a body's events, a few bodies at a time."""
        async with self._threads:
            return await asyncio.to_thread(self.intake.take, body, content_type)


class _Connection:
    """One connection: requests one after the other."""

    def __init__(
        self,
        agent: Agent,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        token: bytes,
        task: asyncio.Task[None],
    ) -> None:
        self._agent = agent
        self._settings = agent.settings
        self._reader = reader
        self._writer = writer
        self._token = token
        self._task = task

    async def run(self) -> None:
        """Until either side closes."""
        while True:
            try:
                head = await self._head()
            except Refused as refused:
                await self._refuse(refused)
                return
            if not head:
                return
            async with self._agent.busy(self._task):
                if not await self._answered(head):
                    return

    async def _head(self) -> bytes:
        """The next request's head; empty where none comes. The first byte may take long, the rest
        may not."""
        try:
            async with asyncio.timeout(self._settings.idle_timeout_seconds):
                first = await self._reader.read(1)
        except TimeoutError:
            return b""
        if not first:
            return b""
        try:
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                return first + await self._reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise Refused(408, "the request came in too slowly") from None
        except asyncio.LimitOverrunError:
            raise Refused(431, "the headers are too large") from None

    async def _answered(self, head: bytes) -> bool:
        """Answer a request; whether another may follow."""
        try:
            request = parse_head(head)
            if request.method == "POST" and request.path == "/v1/events":
                await self._events(request)
            else:
                await self._other(request)
        except Refused as refused:
            await self._refuse(refused)
            return False
        return request.keep_alive

    async def _events(self, request: Request) -> None:
        self._check_token(request.headers)
        limit = self._settings.body_max_bytes
        length = body_length(request.headers, limit)
        async with self._agent.room(limit if length is None else length):
            body = await self._body(request.headers, length)
            plain = _plain(body, request.headers.get("content-encoding", ""), limit)
            try:
                content_type = request.headers.get("content-type", "")
                answer = await self._agent.take(plain, content_type)
            except BadBody as error:
                await self._send(400, _error(str(error)), request.keep_alive)
                return
        await self._send(answer.status, answer.body(), request.keep_alive)

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if not self._token:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        told = given.strip().encode("latin-1", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(told, self._token):
            raise Refused(401, "Authorization: Bearer with the agent's token is missing or wrong")

    async def _body(self, headers: Mapping[str, str], length: int | None) -> bytes:
        if headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                if length is not None:
                    return await self._reader.readexactly(length)
                return await self._chunks()
        except TimeoutError:
            raise Refused(408, "the request came in too slowly") from None
        except asyncio.LimitOverrunError:
            raise Refused(400, "a chunk's size cannot be read") from None

    async def _chunks(self) -> bytes:
        parts: list[bytes] = []
        total, limit = 0, self._settings.body_max_bytes
        while True:
            line = (await self._reader.readuntil(b"\r\n")).partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", line):
                raise Refused(400, "a chunk's size cannot be read")
            size = int(line, 16)
            total += size
            if total > limit:
                raise Refused(413, f"the body is larger than {limit} bytes")
            if size == 0:
                while (await self._reader.readuntil(b"\r\n")).strip():
                    pass  # trailers, which say nothing to us
                return b"".join(parts)
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)

    async def _other(self, request: Request) -> None:
        headers = request.headers
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            request.keep_alive = False  # a body that nobody reads
        if request.path not in ("/healthz", "/metrics", "/v1/events"):
            raise Refused(404, "there are /v1/events, /healthz and /metrics")
        if request.method != "GET" or request.path == "/v1/events":
            raise Refused(405, "POST to /v1/events, GET the others")
        if request.path == "/metrics":
            text = await asyncio.to_thread(generate_latest)
            await self._send(200, text, request.keep_alive, "text/plain; version=0.0.4")
            return
        works = await asyncio.to_thread(self._agent.intake.works)
        said = b'{"status":"ok"}' if works else b'{"status":"unavailable"}'
        await self._send(200 if works else 503, said, request.keep_alive)

    async def _refuse(self, refused: Refused) -> None:
        await self._send(refused.status, _error(str(refused)), keep_alive=False)

    async def _send(
        self, status: int, body: bytes, keep_alive: bool, kind: str = "application/json"
    ) -> None:
        metrics.REQUESTS.labels(str(status)).inc()
        lines = [
            f"HTTP/1.1 {status} {_TEXTS[status]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
        ]
        if status in (429, 503):
            lines.append(f"Retry-After: {self._settings.retry_after_seconds}")
        if status == 401:
            lines.append("WWW-Authenticate: Bearer")
        head = "\r\n".join(lines).encode("ascii")
        self._writer.write(head + b"\r\n\r\n" + body)
        with suppress(TimeoutError):  # a client that does not read its answer
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                await self._writer.drain()


def _plain(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its Content-Encoding. Raises Refused."""
    if encoding.lower() in ("", "identity"):
        return body
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        raise Refused(415, "Content-Encoding is neither gzip nor deflate")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = unpacking.decompress(body, limit + 1)
    except zlib.error:
        raise Refused(400, "the body cannot be unpacked") from None
    if len(plain) > limit:
        raise Refused(413, f"unpacked, the body is larger than {limit} bytes")
    if not unpacking.eof:
        raise Refused(400, "the packed body is not complete")
    return plain


def _error(text: str) -> bytes:
    return msgspec.json.encode({"error": text})


def _clear_socket(path: Path) -> None:
    """Remove a socket that a dead agent left. Raises Fatal for a living one, or another file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise Fatal(f"{path} is there and is no socket", "set --socket to another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Fatal(f"an agent listens on {path} already", "stop it, or set --socket to another path")


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()
