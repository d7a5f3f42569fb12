"""The API is what its description says: schemathesis asks the real service on Elasticsearch."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis.openapi
import uvicorn
from tests.access_service import Service, running_service
from tests.integration.search.test_search import Book
from tests.integration.serve.test_api import BEGAN, row
from tests.waiting import until

from gatebook.engines.processes import free_ports
from gatebook.processors.serve.access.caller import Caller
from gatebook.processors.serve.access.sessions import csrf_token
from gatebook.processors.serve.access.settings import AccessSettings
from gatebook.processors.serve.app import create_app
from gatebook.processors.serve.deps import Deps
from gatebook.processors.serve.settings import ServeSettings
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.settings import ElasticsearchSettings

CONFIG = Path(__file__).parent / "schemathesis.toml"
SEED = "20261123"
MAX_EXAMPLES = "6"
# So often nobody is kept out for asking too much: what is tested here is what is answered.
PLENTY = AccessSettings(caller_per_minute=1e6, address_per_minute=1e6, failed_logins_per_minute=1e6)


async def opened(_document: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    return {layer: {"state": "absent"} for layer in layers}


async def said(_record: dict[str, Any]) -> None:
    """A broker has it."""


def app_of(deps: Deps) -> Any:
    """The whole service; a tail ends at once, as a fuzzer waits for the end of every answer."""
    settings = ServeSettings(tail_seconds=0.05, tail_interval_seconds=0.01)
    return create_app(
        Deps(
            deps.connection,
            deps.namespace,
            deps.audit,
            settings=settings,
            install=deps.install,
            reveal=opened,
            say=said,
        )
    )


@asynccontextmanager
async def served(service: Service) -> AsyncIterator[str]:
    """The service on a port of its own."""
    port = free_ports(1)[0]
    config = uvicorn.Config(service.app, "127.0.0.1", port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=None))
    try:
        await until("the service listens", lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def service(engines: Any, namespace: str) -> AsyncIterator[Service]:
    url = engines.elasticsearch_url
    await setup_elasticsearch(ElasticsearchSettings(url=url), namespace)
    book = Book(url, namespace)
    await book.write(*(row(n, at=BEGAN + timedelta(seconds=n)) for n in range(50)))
    async with running_service(url, namespace, settings=PLENTY, make=app_of) as found:
        yield found
    names = await book.connection.request("GET", f"/{namespace}-*/_alias?expand_wildcards=all")
    await book.connection.request("DELETE", "/" + ",".join(names.body))
    await book.connection.close()


async def test_every_answer_is_as_described(service: Service, tmp_path: Path) -> None:
    """All checks of schemathesis: no server error, statuses, types and bodies as described, wrong
    data refused, good data taken, and nothing answered without credentials."""
    # By a session: a fuzzer that finds out about tokens revokes the one it came with.
    officer = Caller("ada", "Ada", "oidc", frozenset({"privacy_officer", "admin"}), None)
    value = await service.access.sessions.begin(officer)
    cookie = f"Cookie: {service.access.cookie_name}={value}"
    async with served(service) as address:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
            f"{address}/api/v1/openapi.json",
            *("--header", cookie, "--header", f"X-CSRF-Token: {csrf_token(value)}"),
            *("--seed", SEED, "--max-examples", MAX_EXAMPLES, "--checks", "all"),
            *("--phases", "examples,coverage,fuzzing", "--generation-database", "none"),
            *("--request-timeout", "30", "--no-color", "--workers", "1"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 300)
    text = output.decode(errors="replace")
    assert process.returncode == 0, text[-12_000:]
    described = msgspec.json.decode(await openapi(service))
    count = len(operations(described))
    assert f"Selected: {count}/{count}" in text
    assert f"Tested: {count}" in text


NO_JSON = [
    (b'{"query": ', "application/json"),
    (b"query=user.id%3Aada", "application/x-www-form-urlencoded"),
    (b'{"query": ""}', "text/plain"),
    (b"\xff\xfe{", "application/json"),
    (b"[" * 100_000, "application/json"),
    (b"hello", "application/problem+json"),
]


@pytest.mark.parametrize(("body", "media"), NO_JSON, ids=str)
async def test_a_body_that_is_no_json_is_one_error_everywhere(
    service: Service, body: bytes, media: str
) -> None:
    """Broken text, another content type, bytes that are no text, nesting without end: each route
    that takes a body answers 400 `not_json`, as its description says; JSON of another form 422."""
    described = msgspec.json.decode(await openapi(service))
    schema = schemathesis.openapi.from_dict(described)
    taking = [
        (path, method)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    ]
    assert len(taking) >= 8
    officer = await service.by_token("privacy_officer", "admin")
    async with officer as client:
        for path, method in taking:
            address = path.replace("{id}", "x").replace("{incident}", "x")
            headers = {"content-type": media}
            answer = await client.request(method, address, content=body, headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["type"]) == (400, "not_json"), (path, answer.text)
            assert "application/json" in error["next_step"]
            schema[path][method].validate_response(answer)
            other = await client.request(method, address, json=[1])
            assert (other.status_code, other.json()["error"]["type"]) == (422, "invalid_request")
            schema[path][method].validate_response(other)


async def test_the_range_of_an_answer_is_asked_for_again_as_described(service: Service) -> None:
    """Requests take since and until, nothing takes from and to; what an answer tells as from and
    to gives the same again."""
    described = msgspec.json.decode(await openapi(service))
    told = described["info"]["description"].replace("\n", " ")
    assert "send `from` as `since`" in told
    assert "give `from`" not in json.dumps(described)
    taken = {
        name: set(schema["properties"])
        for name, schema in described["components"]["schemas"].items()
        if name.endswith("Request")
    }
    parameters = {
        one["name"]
        for methods in described["paths"].values()
        for operation in methods.values()
        for one in operation.get("parameters", ())
    }
    assert {"from", "to"}.isdisjoint(parameters.union(*taken.values()))
    assert {"since", "until"} <= taken["SearchRequest"] & taken["ExportRequest"]
    analyst = await service.by_token("analyst")
    async with analyst as client:
        for since in ("30d", "all"):
            first = (await client.post("/api/v1/search", json={"since": since})).json()
            bounds = {"since": first["from"] or "all", "until": first["to"]}
            again = (await client.post("/api/v1/search", json=bounds)).json()
            assert {k: again[k] for k in ("from", "to", "total")} == {
                k: first[k] for k in ("from", "to", "total")
            }


async def openapi(service: Service) -> bytes:
    async with service.client() as client:
        return (await client.get("/api/v1/openapi.json")).content


def operations(described: dict[str, Any]) -> list[str]:
    return [f"{method} {path}" for path, found in described["paths"].items() for method in found]
