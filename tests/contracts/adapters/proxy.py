"""The reverse proxy under the contract: the upstream is a scripted transport, so that its pieces
are exactly the script's; real sockets are in tests/integration/adapters/test_proxy.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from gatebook.producers.adapters.proxy import ProxySettings, create_proxy
from gatebook.producers.recorder import Recorder

from ._contract import API_KEY, PATH, SCRIPTS, AdapterUnderTest, Reply, Script, Situation
from .asgi import drive

SETTINGS = ProxySettings(upstream_url="http://upstream.test", provenance=False)


def harness() -> AdapterUnderTest:
    return ProxyUnderTest()


class ProxyUnderTest(AdapterUnderTest):
    """Without the adapter: what the upstream itself says."""

    def through(self, situation: Situation, recorder: Recorder) -> Reply:
        app = create_proxy(SETTINGS, recorder, transport=Upstream(SCRIPTS[situation]))
        return asyncio.run(drive(app, situation))

    def bare(self, situation: Situation) -> Reply:
        script = SCRIPTS[situation]
        return Reply(script.status, script.content_type, script.chunks)


class Upstream(httpx.AsyncBaseTransport):
    """A server that follows a script."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        script = self._script
        assert await request.aread() == script.body
        assert request.extensions["target"] == PATH.encode()
        assert request.headers["authorization"] == f"Bearer {API_KEY}"
        if script.end == "silence":
            raise httpx.ReadTimeout("planted question")
        if script.end == "exception":
            raise httpx.RemoteProtocolError("planted question")
        headers = [("content-type", script.content_type), ("connection", "close")]
        return httpx.Response(script.status, headers=headers, stream=Pieces(script))


class Pieces(httpx.AsyncByteStream):
    """The answer's pieces, one by one."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._script.chunks:
            yield chunk
        if self._script.end == "stays":
            await asyncio.Event().wait()
