"""The real openai client under the contract, against a scripted server on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any

import openai

from gatebook.producers.adapters.openai_client import recorded
from gatebook.producers.recorder import Recorder

from ._contract import API_KEY, SCRIPTS, AdapterUnderTest, Script, Situation

CALLER_PATIENCE_SECONDS = 0.3
PATIENCE_SECONDS = 10.0


def harness() -> AdapterUnderTest:
    return OpenAIUnderTest()


class OpenAIUnderTest(AdapterUnderTest):
    """One call without retries; each is an access of its own."""

    def through(self, situation: Situation, recorder: Recorder) -> object:
        return _received(situation, lambda client: recorded(client, recorder))

    def bare(self, situation: Situation) -> object:
        return _received(situation, lambda client: client)


def _received(situation: Situation, wrap: Any) -> object:
    script = SCRIPTS[situation]
    patience = CALLER_PATIENCE_SECONDS if situation is Situation.TIMEOUT else PATIENCE_SECONDS
    with (
        scripted(script) as url,
        openai.OpenAI(
            base_url=f"{url}/v1", api_key=API_KEY, max_retries=0, timeout=patience
        ) as client,
    ):
        try:
            return _call(wrap(client), script)
        except openai.OpenAIError as error:
            return type(error), str(error)


def _call(client: openai.OpenAI, script: Script) -> object:
    given: dict[str, Any] = dict(script.request)
    if not script.request.get("stream"):
        raw = client.chat.completions.with_raw_response.create(**given)
        return raw.status_code, raw.content
    with client.chat.completions.create(**given) as stream:
        wanted = len(script.chunks) if script.end == "stays" else None
        return [chunk.model_dump() for chunk in islice(stream, wanted)]


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    """A server that does what the script says; its address."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if script.end == "exception":
                self.close_connection = True
                return
            if script.end == "silence":
                over.wait(PATIENCE_SECONDS)
                self.close_connection = True
                return
            self.send_response(script.status)
            self.send_header("content-type", script.content_type)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for chunk in script.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            if script.end == "stays":
                over.wait(PATIENCE_SECONDS)
                self.close_connection = True
                return
            self.wfile.write(b"0\r\n\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
