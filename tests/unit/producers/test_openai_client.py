"""The watched transport without a network, under httpx and httpx2."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from tests.unit.producers.conftest import MakeRecorder, Published

from gatebook.producers.adapters import openai_client
from gatebook.producers.adapters.openai_client import recorded
from gatebook.producers.recorder import NotDurable, Recorder
from gatebook.schemas.errors import Fatal

URL = "https://api.openai.com/v1/chat/completions"
ASKED = {"model": "tiny", "messages": []}

Events = Callable[[], list[dict[str, Any]]]
libraries = pytest.mark.parametrize("library", [httpx, httpx2])


@pytest.fixture
def recorder(make_recorder: MakeRecorder) -> Recorder:
    return make_recorder()


@pytest.fixture
def events(recorder: Recorder, published: Published) -> Events:
    def read() -> list[dict[str, Any]]:
        assert recorder.flush(10).complete
        return published.events()

    return read


def answering(library: ModuleType, *chunks: bytes, **more: Any) -> Any:
    """A transport that answers with these chunks."""

    class Stream(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc, name-defined]  # the library is a parameter
        def __iter__(self) -> Iterator[bytes]:
            yield from chunks

        async def __aiter__(self) -> Any:
            for chunk in chunks:
                yield chunk

    return library.MockTransport(lambda _: library.Response(200, stream=Stream(), **more))


@libraries
def test_either_library_with_the_bytes_as_they_are(
    library: ModuleType, recorder: Recorder, events: Events
) -> None:
    """Pieces pass one by one; host, provider and path are on the event."""
    client = recorded(library.Client(transport=answering(library, b"ab", b"c")), recorder)
    with client, client.stream("POST", URL, json=ASKED) as answer:
        assert list(answer.iter_raw()) == [b"ab", b"c"]
    (event,) = events()
    assert event["url"]["domain"] == "api.openai.com"
    assert event["gen_ai"]["provider"]["name"] == "openai"
    assert event["event"]["action"] == "chat"
    assert event["http"]["response"]["body"]["bytes"] == 3


@libraries
async def test_the_asynchronous_client_of_either_library(
    library: ModuleType, recorder: Recorder, events: Events
) -> None:
    """The same, awaited."""
    made = library.AsyncClient(transport=answering(library, b"ab", b"c"))
    async with recorded(made, recorder) as client:
        assert (await client.post(URL, json=ASKED)).content == b"abc"
    (event,) = events()
    assert event["gen_ai"]["request"]["model"] == "tiny"


@libraries
def test_recorded_twice_is_recorded_once(
    library: ModuleType, recorder: Recorder, events: Events
) -> None:
    """A second wrapper would tell every access twice."""
    client = library.Client(transport=answering(library, b"x"))
    assert recorded(recorded(client, recorder), recorder) is client
    with client:
        client.post(URL, json=ASKED)
    assert len(events()) == 1


@libraries
def test_proxies_of_the_environment_are_watched_too(
    library: ModuleType, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are transports of their own, which go before the client's."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with recorded(library.Client(), recorder) as client:
        found = client._transport_for_url(library.URL(URL))
    assert isinstance(found, openai_client._Transport)


@libraries
def test_a_file_is_recorded_while_it_is_sent(
    library: ModuleType, recorder: Recorder, events: Events
) -> None:
    """A body that is not in memory is counted on its way, and arrives whole."""
    arrived = []

    def handler(request: Any) -> Any:
        arrived.append(request.read())
        return library.Response(200)

    with recorded(library.Client(transport=library.MockTransport(handler)), recorder) as client:
        client.post(URL, files={"file": b"x" * 1000})
    (event,) = events()
    assert b"x" * 1000 in arrived[0]
    assert event["http"]["request"]["body"]["bytes"] == len(arrived[0])


@libraries
def test_a_compressed_stream_closed_at_its_end_mark(
    library: ModuleType, recorder: Recorder, events: Events
) -> None:
    """The end mark cannot be seen in the bytes, and yet the answer is complete."""
    packed = gzip.compress(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n')
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    transport = answering(library, packed, b"", headers=headers)
    with (
        recorded(library.Client(transport=transport), recorder) as client,
        client.stream("POST", URL, json={**ASKED, "stream": True}) as answer,
    ):
        next(answer.iter_raw())
    (event,) = events()
    assert event["event"]["outcome"] == "success"
    assert event["gatebook"]["stream"]["completed"] is True


@libraries
def test_open_streams_are_recorded_when_the_process_ends(
    library: ModuleType, recorder: Recorder, events: Events
) -> None:
    """Once, also where they are closed after that."""
    client = recorded(library.Client(transport=answering(library, b"a", b"b")), recorder)
    answer = client.send(client.build_request("POST", URL, json=ASKED), stream=True)
    openai_client._leave_open()
    answer.close()
    (event,) = events()
    assert event["event"]["reason"] == "client_aborted"


def test_strict_mode_sends_nothing_it_cannot_record(
    make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a whole answer is durable before it is given."""
    recorder = make_recorder(delivery_mode="strict")
    client = recorded(httpx2.Client(transport=answering(httpx2, b"x")), recorder)
    client.post(URL, json=ASKED)
    assert recorder.counters().spooled == 2  # before it is sent, and after the answer
    monkeypatch.setattr(recorder, "accepts_durably", lambda: False)
    with pytest.raises(NotDurable):
        client.post(URL, json=ASKED)
    client.close()


def test_what_is_no_client_is_refused(recorder: Recorder) -> None:
    """At once, and with what to do instead."""
    with pytest.raises(Fatal, match="no httpx"):
        recorded(object(), recorder)


def test_calls_side_by_side_keep_their_request_ids(recorder: Recorder, events: Events) -> None:
    """Attempts of one call share an id; calls of other tasks have others."""

    async def call(client: Any) -> None:
        for retry in ("0", "1"):
            await client.post(URL, json=ASKED, headers={"x-stainless-retry-count": retry})
            await asyncio.sleep(0)

    async def run() -> None:
        made = httpx2.AsyncClient(transport=answering(httpx2, b"x"))
        async with recorded(made, recorder) as client:
            await asyncio.gather(*(call(client) for _ in range(5)))

    asyncio.run(run())
    ids = [event["http"]["request"]["id"] for event in events()]
    assert len(ids) == 10
    assert sorted(map(ids.count, set(ids))) == [2] * 5
