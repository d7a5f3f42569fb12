"""The Confluent wire format: schema ids from a registry, our schemas and no others.

Needs the extra `registry`. Schemas are registered under `<topic>-value` when they are first
written. A message is accepted only if the schema behind its id is one of the packaged ones; a
registry that does not answer never makes a message bad.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastavro.schema import fingerprint, to_parsing_canonical_form

from gatebook.schemas.errors import Fatal, RecordRejected, RegistryUnavailable
from gatebook.schemas.registry import PackagedSchema, by_fingerprint, load
from gatebook.schemas.topics import all_topics, topic_name
from gatebook.schemas.wire import (
    CONFLUENT_MARKER,
    CONFLUENT_PREFIX_BYTES,
    AnyWire,
    WireFormat,
    confluent_schema_id,
)

URL_VARIABLE = "SCHEMA_REGISTRY_URL"
REQUEST_TIMEOUT_SECONDS = 5
# How long "the registry has no such id" is believed, and of how many ids: a registry may lag
# behind a producer, and a flood of made-up ids must not become a flood of requests.
UNKNOWN_ID_SECONDS = 30.0
MAX_REMEMBERED_IDS = 4096
# The registry's own answers, by HTTP status and error code: there is no such schema; this schema
# is not accepted. Any other answer (a proxy's 404, 401, 500, ...) says nothing about a schema.
NO_SUCH_SCHEMA_CODE = 40403
NOT_ACCEPTED_STATUS = (409, 422)
MAX_SCHEMA_ID = (1 << 31) - 1

Answer = TypeVar("Answer")


class ConfluentWire:
    """00 and a 4-byte schema id. A first sight of a schema or an id asks the registry, blocking
    for up to about ten seconds; after that both are known for the life of the object.

    `prefix` raises Fatal where the registry refuses our schema; both methods raise
    RegistryUnavailable where it cannot be asked.
    """

    def __init__(self, url: str, namespace: str) -> None:
        if not all(part.strip().startswith(("http://", "https://")) for part in url.split(",")):
            raise Fatal(f"{URL_VARIABLE} is not an address", "start it with http:// or https://")
        self._settings = {
            "url": url,
            "timeout": REQUEST_TIMEOUT_SECONDS,
            "max.retries": 1,
            "retries.wait.ms": 200,
        }
        self._namespace = namespace
        self._prefixes: dict[str, bytes] = {}
        self._schemas: dict[int, PackagedSchema | None] = {}
        self._unknown_until: dict[int, float] = {}

    def prefix(self, schema_name: str) -> bytes:
        known = self._prefixes.get(schema_name)
        if known is None:
            number = self._register(schema_name)
            known = self._prefixes[schema_name] = CONFLUENT_MARKER + struct.pack(">I", number)
        return known

    def identify(self, message: bytes) -> tuple[PackagedSchema, int]:
        if message[:1] != CONFLUENT_MARKER:
            raise RecordRejected("unknown_schema", "not in the Confluent format")
        number = confluent_schema_id(message)
        if number not in self._schemas:
            self._look_up(number)
        schema = self._schemas[number]
        if schema is None:
            raise RecordRejected("unknown_schema", "the schema of its id is not a packaged one")
        return schema, CONFLUENT_PREFIX_BYTES

    def subject(self, schema_name: str) -> str:
        """The registry's subject of a schema: that of the topic it is written to."""
        key = next(key for key, topic in all_topics().items() if topic.schema == schema_name)
        return topic_name(self._namespace, key) + "-value"

    def _register(self, schema_name: str) -> int:
        """The id of a packaged schema, registered if it was not. The same schema registered twice
        has one id, so dying before the id is used loses nothing."""
        schema_type = _client_module().Schema
        schema = schema_type(json.dumps(load(schema_name).raw), "AVRO")
        subject = self.subject(schema_name)
        try:
            return int(self._ask(lambda client: client.register_schema(subject, schema)))
        except _Refused as error:
            raise Fatal(
                f"the schema registry refuses {schema_name} under {subject} (HTTP {error.status})",
                "compare the subject's versions and compatibility rule with the packaged schema",
            ) from None

    def _look_up(self, number: int) -> None:
        if number > MAX_SCHEMA_ID or self._unknown_until.get(number, 0.0) > time.monotonic():
            raise RecordRejected("unknown_schema", "the registry has no such id")
        try:
            found = self._ask(lambda client: client.get_schema(number))
        except _Refused:
            _make_room(self._unknown_until)
            self._unknown_until[number] = time.monotonic() + UNKNOWN_ID_SECONDS
            raise RecordRejected("unknown_schema", "the registry has no such id") from None
        _make_room(self._schemas)
        self._schemas[number] = _packaged(found.schema_str or "")

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        """Ask through a client of its own: questions are rare, and no connection outlives a fork
        or goes stale. Error texts leave the address out: it may hold a password."""
        module = _client_module()
        try:
            with module.SchemaRegistryClient(self._settings) as client:
                return question(client)
        except module.SchemaRegistryError as error:
            status = error.http_status_code
            if error.error_code == NO_SUCH_SCHEMA_CODE or status in NOT_ACCEPTED_STATUS:
                raise _Refused(status) from None
            raise RegistryUnavailable(f"the schema registry answered HTTP {status}") from None
        except Exception as error:  # transport, TLS, an answer that is no JSON
            raise RegistryUnavailable(
                f"the schema registry cannot be asked: {type(error).__name__}"
            ) from None


class _Refused(Exception):
    """The registry answered, and its answer is no."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _client_module() -> Any:
    try:
        from confluent_kafka import schema_registry
    except ImportError as error:
        raise Fatal(
            f"{URL_VARIABLE} is set, but the registry client is not installed ({error.name})",
            "pip install 'gatebook[registry]'",
        ) from None
    return schema_registry


def _packaged(text: str) -> PackagedSchema | None:
    """The packaged schema with this text's fingerprint. None for any other text: someone else
    may have registered it, so it need not even be a schema."""
    try:
        digest = fingerprint(to_parsing_canonical_form(json.loads(text)), "CRC-64-AVRO")
    except Exception:  # not JSON, not Avro, nested beyond measure
        return None
    return by_fingerprint().get(bytes.fromhex(digest))


def _make_room(remembered: dict[int, Any]) -> None:
    """Forget everything when full: asking again costs time, growing for ever costs the process."""
    if len(remembered) >= MAX_REMEMBERED_IDS:
        remembered.clear()


def wire_from_env(namespace: str | None = None, environ: Mapping[str, str] = os.environ) -> AnyWire:
    """The wire format of this process: Confluent where SCHEMA_REGISTRY_URL is set, else
    single-object encoding. It reads both either way, as far as it can."""
    url = environ.get(URL_VARIABLE, "").strip()
    if not url:
        return AnyWire()
    _client_module()
    registry: WireFormat = ConfluentWire(
        url, namespace or environ.get("GATEBOOK_NAMESPACE", "") or "gatebook"
    )
    return AnyWire(registry)
