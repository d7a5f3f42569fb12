"""The WSGI middleware under the contract: a scripted application and a server that does what PEP
3333 says, piece by piece; a real server is in tests/integration/adapters/test_wsgi.py."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from gatebook.producers.adapters.wsgi import GatebookWsgiMiddleware, WsgiApp
from gatebook.producers.recorder import Recorder

from ._contract import API_KEY, PATH, SCRIPTS, AdapterUnderTest, Reply, Script, Situation

REASONS = {200: "200 OK", 400: "400 Bad Request", 401: "401 Unauthorized"}


def harness() -> AdapterUnderTest:
    return WsgiUnderTest()


class WsgiUnderTest(AdapterUnderTest):
    """The application does by itself what the script says: it raises where it fails."""

    def through(self, situation: Situation, recorder: Recorder) -> Reply:
        script = SCRIPTS[situation]
        return serve(GatebookWsgiMiddleware(scripted_app(script), recorder), script)

    def bare(self, situation: Situation) -> Reply:
        return serve(scripted_app(SCRIPTS[situation]), SCRIPTS[situation])


def scripted_app(script: Script) -> WsgiApp:
    """An application that follows a script."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        assert environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])) == script.body
        if script.end == "silence":
            raise TimeoutError("the model behind the application is silent")
        if script.end == "exception":
            raise RuntimeError("the planted question broke it")
        start_response(REASONS[script.status], [("Content-Type", script.content_type)])
        return iter(script.chunks)

    return app


def environ_of(script: Script) -> dict[str, Any]:
    """The environ of a chat request with a key."""
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/v1",
        "PATH_INFO": PATH.removeprefix("/v1"),
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(script.body)),
        "HTTP_HOST": "model.test",
        "HTTP_AUTHORIZATION": f"Bearer {API_KEY}",
        "REMOTE_ADDR": "203.0.113.9",
        "wsgi.input": io.BytesIO(script.body),
        "wsgi.version": (1, 0),
    }


def serve(app: WsgiApp, script: Script) -> Reply:
    """A server whose client goes away after the script's pieces, where it leaves."""
    begun: list[Any] = []
    chunks: list[bytes] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        begun[:] = [int(status[:3]), dict(headers)["Content-Type"]]
        return chunks.append

    answer: Any = ()
    broken = ""
    try:
        answer = app(environ_of(script), start_response)
        for chunk in answer:
            chunks.append(chunk)
            if script.end == "stays" and len(chunks) == len(script.chunks):
                break
    except Exception as error:
        broken = type(error).__name__
    finally:
        getattr(answer, "close", lambda: None)()
    status, content_type = begun or (None, "")
    return Reply(status, content_type, tuple(chunks), broken)
