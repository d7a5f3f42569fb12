"""From what somebody wrote to the finding: secrets show, the names of Gatebook's tokens not."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from tests.pipeline import make_event

from gatebook.processors.detect.engine import DetectionEngine, Limits
from gatebook.processors.detect.registry import load_detector
from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import IntakeContext, Source, process_frame
from gatebook.processors.redact import SECRET_KINDS, Redactor
from gatebook.processors.serve.access.tokens import PREFIX, caller_id, short_id
from gatebook.schemas.codec import FrameHeader, build_frame, encode_event

CONTEXT = IntakeContext(Catalog(), Redactor.default(b"a key for tests only"), partitions=4)
TOKENS = 60
Make = Callable[[int], str]


def drawn(count: int, seed: str) -> str:
    """Characters as a generator of keys draws them, the same ones in every run."""
    digests = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(4))
    return base64.urlsafe_b64encode(b"".join(digests)).decode()[:count]


def letters(count: int, seed: str) -> str:
    """The same, of letters and digits alone."""
    return drawn(160, seed).replace("-", "").replace("_", "").replace("=", "")[:count]


def token(number: int) -> str:
    """A token as the service makes them."""
    return PREFIX + drawn(43, f"token {number}")


def taken_in(text: str, side: str = "input_messages") -> dict[str, Any]:
    """The document that intake makes of an access with this text."""
    content = {side: [{"role": "user", "content": text}]}
    event = make_event(
        "ada",
        content=json.dumps(content).encode(),
        content_encoding="json",
        gatebook={"capture": {"level": "redacted"}},
    )
    at = event["timestamp"]
    frame = build_frame(FrameHeader("p", 1, 0, 1, at), [encode_event(event)])
    source = Source("gatebook.access.v1", 1, 0, 0)
    (kept,) = process_frame(frame, source, CONTEXT, at, 1).documents
    document: dict[str, Any] = orjson.loads(kept.body)
    return document


def found(*documents: dict[str, Any]) -> list[str]:
    """The kinds of secrets that the rule names, a finding each."""
    engine = DetectionEngine((load_detector("secret_in_content"),), Limits())
    findings = engine.process(0, documents)
    return [finding["labels"]["kinds"] for finding in findings]


def test_every_kind_of_secret_that_redaction_tells_is_one_here() -> None:
    """A new kind of secret is not found in silence."""
    parameters: Any = load_detector("secret_in_content").parameters
    assert parameters.kinds == SECRET_KINDS
    assert found(taken_in("my PIN code is 9823")) == ["pin"]


NAMED = {
    "prose": "please revoke {id}, it is of no use any more",
    "command": "gatebook token revoke {id}",
    "list": "{id}  active   ci  viewer  all tenants  until 2026-12-01T00:00:00Z  never used",
    "query": 'user.id:"{user}" and event.action:search',
    "query without quotes": "user.id:{user}",
    "field of the log": 'gatebook.identity.key_id:"{id}" or gatebook.attributes.token:{id}',
    "address": "DELETE /api/v1/tokens/{id}",
    "json": '{{"id": "{id}", "name": "ci", "roles": ["viewer"], "created_by": "{user}"}}',
    "under the name of a secret": 'token: {id}, {{"token": "{id}"}}',
}


@pytest.mark.parametrize("form", NAMED)
def test_the_names_of_tokens_are_no_secrets(form: str) -> None:
    """Whoever writes of a token by its id, as commands and the log do, sets off nothing; the id
    stands there unmasked, for it is what one searches by."""
    for number in range(TOKENS):
        one = short_id(token(number))
        document = taken_in(NAMED[form].format(id=one, user=caller_id(one)))
        assert found(document) == [], (form, one)
        assert "entities" not in document["gatebook"]["redaction"]
        assert one in document["gen_ai"]["input"]["messages"]


SECRETS: dict[str, tuple[Make, str]] = {
    "a token of Gatebook": (token, "api_key"),
    "OpenAI": (
        lambda n: f"sk-proj-{drawn(74, f'a{n}')}T3Blbk" + f"FJ{drawn(74, f'b{n}')}",
        "api_key",
    ),
    "GitHub": (lambda n: "gh" + f"p_{letters(36, f'c{n}')}", "api_key"),
    "Slack": (lambda n: f"xoxb-{10**11 + n}-{10**12 + n}-{letters(24, f'd{n}')}", "api_key"),
    "a password": (lambda n: f"password: {letters(14, f'e{n}')}", "password"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_real_looking_secret_shows(name: str) -> None:
    """In a prompt as in an answer: a finding names its kind, and the secret is in no document."""
    make, kind = SECRETS[name]
    for number in range(TOKENS):
        secret = make(number)
        for side in ("input_messages", "output_messages"):
            document = taken_in(f"use this: {secret} and go on", side)
            assert found(document) == [kind], secret
            assert secret.removeprefix("password: ") not in str(document)


def test_a_secret_beside_the_name_of_a_token_shows_alone() -> None:
    """The id of a token in the same text hides nothing, and is not masked with it."""
    secret = token(7)
    document = taken_in(f"{short_id(secret)} is the id of {secret}")
    assert found(document) == ["api_key"]
    assert short_id(secret) in document["gen_ai"]["input"]["messages"]
    assert secret not in str(document)
