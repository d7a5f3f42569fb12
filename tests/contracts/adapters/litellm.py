"""The LiteLLM callback under the contract, driven as LiteLLM's proxy drives it: the hooks, their
order and what they are given were recorded from litellm 1.105.1. The real proxy is in
tests/integration/adapters/test_litellm.py."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

from gatebook.producers.adapters.litellm import GatebookCallback
from gatebook.producers.recorder import Recorder

from ._contract import API_KEY, PATH, SCRIPTS, AdapterUnderTest, Script, Situation


def harness() -> AdapterUnderTest:
    return LiteLLMUnderTest()


class Failed(Exception):
    """What LiteLLM's exceptions have in common."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status


class Timeout(Failed):
    """LiteLLM's name for it."""


class LiteLLMUnderTest(AdapterUnderTest):
    """A proxy without a database: its callers are known by the digest of their key."""

    stream_chunks = 4  # the proxy writes the end mark after the hook

    def through(self, situation: Situation, recorder: Recorder) -> object:
        return asyncio.run(Proxy(GatebookCallback(recorder)).answer(SCRIPTS[situation]))

    def bare(self, situation: Situation) -> object:
        return asyncio.run(Proxy(None).answer(SCRIPTS[situation]))


class Proxy:
    """Calls the callback as the proxy does."""

    def __init__(self, callback: GatebookCallback | None) -> None:
        self._callback = callback
        self._key = SimpleNamespace(api_key=API_KEY, request_route=PATH)

    async def answer(self, script: Script) -> object:
        if script.status == 401:
            body = {**script.request, "metadata": {"gatebook_request": "forged"}}
            return await self._failed(body, Failed(401, json.loads(script.chunks[0])["error"]))
        data = await self._pre_call(script)
        if script.end == "silence":
            return await self._failed(data, Timeout(408, "silent"))
        if script.end == "exception":
            return await self._failed(data, Failed(500, "the planted question broke it"))
        if script.status >= 400:
            text = json.loads(script.chunks[0])["error"]["message"]
            return await self._failed(data, Failed(script.status, text))
        if script.request.get("stream"):
            return await self._stream(data, script)
        answer = json.loads(script.chunks[0])
        await self._success(data, answer)
        return answer

    async def _pre_call(self, script: Script) -> dict[str, Any]:
        data: dict[str, Any] = {**script.request, "metadata": {}, "litellm_call_id": "same-for-all"}
        url = f"http://proxy.test{PATH}"
        data["proxy_server_request"] = {"url": url, "method": "POST", "body": dict(script.request)}
        if self._callback is not None:
            await self._callback.async_pre_call_hook(self._key, None, data, "acompletion")
        return data

    async def _failed(self, data: dict[str, Any], error: Failed) -> object:
        kwargs = self._logged(data, {}, "failure") | {"exception": error}
        if self._callback is not None:
            await self._callback.async_log_failure_event(kwargs, None, None, None)
            await self._callback.async_post_call_failure_hook(
                request_data=data, original_exception=error, user_api_key_dict=self._key
            )
        return type(error), str(error)

    async def _success(self, data: dict[str, Any], answer: Any) -> None:
        if self._callback is not None:
            kwargs = self._logged(data, answer, "success")
            for _ in range(2):  # told twice, it counts once
                await self._callback.async_log_success_event(kwargs, answer, None, None)

    async def _stream(self, data: dict[str, Any], script: Script) -> object:
        async def upstream() -> AsyncIterator[Any]:
            for chunk in script.chunks:
                if b"[DONE]" not in chunk:
                    yield json.loads(chunk.removeprefix(b"data: "))

        pieces: Any = upstream()
        if self._callback is not None:
            pieces = self._callback.async_post_call_streaming_iterator_hook(
                user_api_key_dict=self._key, response=pieces, request_data=data
            )
        return await self._pass_on(pieces, data, script)

    async def _pass_on(self, pieces: AsyncGenerator[Any], data: Any, script: Script) -> object:
        seen = []
        async for piece in pieces:
            seen.append(piece)
            if script.end == "stays" and len(seen) == len(script.chunks):
                await pieces.aclose()
                break
        # Also for a caller who left, LiteLLM tells of a success.
        answer = json.loads(SCRIPTS[Situation.SUCCESS].chunks[0])
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        await self._success(data, answer | {"usage": usage})
        return seen

    def _logged(self, data: dict[str, Any], answer: Any, status: str) -> dict[str, Any]:
        now = time.time()
        payload = {
            "status": status,
            "startTime": now - 0.01,
            "endTime": now,
            "model": "openai/tiny-q4",
            "response": answer,
            "metadata": {"user_api_key_request_route": PATH, "user_api_key_hash": API_KEY},
        }
        params = {"metadata": data.get("metadata", {})}
        return {"litellm_params": params, "standard_logging_object": payload}
