"""Objects are read with their keys: as arguments of tools, they come out as their JSON would."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.processors.redact import RedactionFailed, Redactor, default_rules
from gatebook.processors.redact.keyed import secret_kind
from gatebook.processors.redact.rules import expand, split_marks
from gatebook.processors.redact.walk import JsonWalk
from gatebook.processors.screen import Screen

REDACTOR = Redactor.default(b"a key for tests only")
ARGUMENTS = {
    "ssn": "536904399",
    "dateOfBirth": "1985-05-17",
    "tax_id": "36574261809",
    "phone": "4155552671",
    "dbPassword": "Zq9kkQx1!",
    "password": 448812,
    "token": "k9x7w5z3q1m2n4b6",
}
MASK = re.compile(r"\[[A-Z][A-Z0-9_]*_e1_[A-Z2-7]{16}(?::[^\]]{1,70})?\]")


def tool_use(arguments: Any) -> list[Any]:
    """Messages as Anthropic's format and Ollama's have them: arguments are objects."""
    block = {"type": "tool_use", "id": "t1", "name": "lookup", "input": arguments}
    call = {"function": {"name": "lookup", "arguments": arguments}}
    return [
        {"role": "assistant", "content": [block]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]


def arguments_in(messages: Any) -> list[Any]:
    block, call = messages
    return [block["content"][0]["input"], call["tool_calls"][0]["function"]["arguments"]]


def test_what_a_key_says_is_heard_in_arguments_that_are_objects() -> None:
    """In both formats, and batches of events are read alike."""
    messages = tool_use(ARGUMENTS)
    redacted, counts = REDACTOR.redact_json(messages)
    for given_back in arguments_in(redacted):
        assert all(MASK.fullmatch(value) for value in given_back.values()), given_back
    assert sum(counts.values()) == 2 * len(ARGUMENTS)
    values = {"input_messages": messages}
    screen = Screen(REDACTOR)
    look = screen.look([screen.texts([], values, 900)])[0]
    assert look.content is not None
    read = look.content.settled(REDACTOR, "")
    assert REDACTOR.redact_values(values, read=read)[0] == {"input_messages": redacted}
    assert arguments_in(messages) == [ARGUMENTS, ARGUMENTS]


@pytest.mark.parametrize(
    "value",
    [
        {"password": ["x"]},
        {"password": {"value": "x"}},
        {"password": 448812},
        {"password": [{"type": "plain", "of": ["x"]}]},
        {"name": "password", "value": "x"},
        {"name": "DB_PASSWORD", "value": "x"},
        {"value": "x", "key": "DB_PASSWORD"},
        {"env": [{"name": "A", "value": "production"}, {"name": "DB_PASSWORD", "value": "x"}]},
        {"userPassword": "x"},
        {"DBPassword": "x"},
        {"PGPASSWORD": "x"},
        {"passcode": "x"},
        {"pass": "x"},
        {"pw": "x"},
        {"cookie": "x"},
        {"Set-Cookie": "x"},
        {"Passwort": "x"},
        {"openaiApiKey": "x"},
        {"refreshToken": "x"},
        {"new_password2": "x"},
        {"a" * 200 + "_password": "x"},
    ],
)
def test_whatever_stands_below_the_name_of_a_credential_is_masked(value: dict[str, Any]) -> None:
    """Texts, numbers, lists, objects, and the value of a pair of a name and a value."""
    redacted, counts = REDACTOR.redact_json(value)
    written = json.dumps(redacted)
    assert '"x"' not in written
    assert "448812" not in written
    assert set(counts) <= {"password", "api_key"}
    assert REDACTOR.redact_json(redacted) == (redacted, {})
    assert "production" in written or "production" not in json.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        {"password": {"type": "string", "description": "The user's password", "minLength": 8}},
        {"properties": {"api_key": {"type": "string"}}, "required": ["api_key", "password"]},
        {"password": None, "secret": True, "cookie": ""},
        {"max_tokens": 12, "token": "hello", "compass": "north", "password_hash": "md5"},
        {"name": "password", "description": "What it is"},
        {"name": "colour", "value": "green"},
        {"token_count": 412, "key": "value", "title": "Secrets of the sea"},
    ],
)
def test_what_only_speaks_of_credentials_stays(value: dict[str, Any]) -> None:
    """Declarations of tools, what is left empty, and names that only sound alike."""
    assert REDACTOR.redact_json(value) == (value, {})


def test_a_value_masked_by_a_rule_under_the_name_of_a_credential_is_the_rule_s() -> None:
    """Its mask is the one it has in a text: it can be told there, too. What a rule masks in part
    only is masked whole, by its own text."""
    by_rule, _ = REDACTOR.redact_json({"password": "hunter2hunter"})
    assert by_rule == {"password": REDACTOR.redact_text("password=hunter2hunter").text[9:]}
    in_part, _ = REDACTOR.redact_json({"password": "of ada@example.com"})
    assert isinstance(in_part, dict)
    assert MASK.fullmatch(str(in_part["password"]))


def unquoted(text: str) -> bool:
    return text.isprintable() and text.isascii() and not set(text) & set('"\\[]{}')


VALUED = [split_marks(expand(case)) for rule in default_rules() for case in rule.positive]
TEXTS = sorted({text for text, _ in VALUED if unquoted(text)})
VALUES = sorted({value for _, values in VALUED for value in values if unquoted(value)})
KEYS = ["city", "ssn", "phone", "dob", "note", "iban", "birthDate", "token", "taxId", "q", "state"]
scalars = st.one_of(
    st.sampled_from(VALUES), st.sampled_from(TEXTS), st.integers(0, 10**16), st.booleans()
)
objects = st.dictionaries(
    st.sampled_from(KEYS),
    st.one_of(scalars, st.dictionaries(st.sampled_from(KEYS), scalars, min_size=1, max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400, deadline=None)
@given(objects)
def test_an_object_comes_out_as_its_json_text_does(value: dict[str, Any]) -> None:
    """The same masks in the same places: what one form hides, the other does not show."""
    redacted, _ = REDACTOR.redact_json(value)
    text = REDACTOR.redact_text(json.dumps(value)).text
    assert is_among(MASK.findall(text), iter(MASK.findall(json.dumps(redacted))))


NAMES = ["password", "passwords", "api_keys", "credentials", "dbPassword", "X-Api-Key", "cookie"]
plain_texts = st.one_of(st.sampled_from(VALUES), st.sampled_from(TEXTS), st.just("sunshine"))
held = st.recursive(
    st.one_of(plain_texts, st.integers(0, 10**16), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["old", "user", "value", *NAMES]), inner, max_size=3),
    ),
    max_leaves=6,
).filter(lambda value: isinstance(value, list | dict))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(NAMES), held)
def test_below_the_name_of_a_credential_both_forms_hide_the_same(name: str, value: Any) -> None:
    """All of a list or an object goes, were it a plain word: as an object, as its JSON text, and
    as that text in another."""
    redacted, _ = REDACTOR.redact_json({name: value})
    text = json.dumps({"note": 1, name: value})
    masks = MASK.findall(json.dumps(redacted))
    once, escaped = (REDACTOR.redact_text(form).text for form in (text, json.dumps(text)))
    assert is_among(masks, iter(MASK.findall(once)))
    assert len(MASK.findall(escaped)) >= len(masks)
    assert "sunshine" not in once + escaped


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"passwords": ["Winter#2026x", "sunshine"], "n": "blue"}', '"n": "blue"}'),
        ('{"db":{"password":{"old":"Winter#2026x","new":["zz",{"a":"b c"}]}},"n":1}', '"n":1}'),
        (r'args "{\"credentials\":[\"Admin1!pw\",\"a, b\"]}" ok', r"{\"credentials\":["),
        ("{'api_keys': ['k9x7w5z3q1', 'q'], 'n': 'blue'}", "'n': 'blue'}"),
        ('{"password": ["Winter#2026x", "tR8', '{"password": ['),
        ('{"name": "DB_PASSWORD", "value": ["x1y2"]}', '"value": ['),
        ('{"headers":{"X-Api-Key":"xk-123456789012"}}', '{"headers":{"X-Api-Key":"'),
        ("passwords: [Winter#2026x, tR8kQ2vLm9Zx]\nn: 1", "passwords: ["),
        ("db:\n  password: {old: Winter#2026x, new: 'Spring#2027x'}\n", "password: {old: "),
    ],
)
def test_lists_and_objects_below_a_credential_s_name_are_masked_in_texts(
    text: str, left: str
) -> None:
    """As JSON, escaped in another text, in quotes of Python's, broken off, as YAML in one line."""
    masked = REDACTOR.redact_text(text).text
    assert left in masked
    rest = MASK.sub("", masked)
    for secret in ("Winter", "Spring", "sunshine", "zz", "b c", "Admin", "a, b", "k9x7", "tR8"):
        assert secret not in rest
    assert not re.search("[\"']q[\"']|x1y2|xk-", rest)


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ({"card": {"cvv": "737", "exp": "12/30"}}, ["card_security_code"]),
        ({"pin": "4711", "security_code": 737}, ["card_security_code", "pin"]),
        ({"otp": "482913", "mfa_code": 119922}, ["one_time_code", "one_time_code"]),
        ({"userPin": 4711, "pin_count": 4096}, ["pin"]),
    ],
)
def test_short_codes_are_told_by_their_keys(value: dict[str, Any], kinds: list[str]) -> None:
    """Texts and numbers, in objects as in their JSON text; the date a card expires stays."""
    redacted, counts = REDACTOR.redact_json(value)
    text = REDACTOR.redact_text(json.dumps(value))
    assert sorted(Counter(counts).elements()) == kinds
    assert text.counts == counts
    assert MASK.findall(text.text) == MASK.findall(json.dumps(redacted))
    assert "12/30" in text.text or "12/30" not in json.dumps(value)


def test_a_long_list_below_a_credential_s_name_is_masked_to_its_end() -> None:
    """A text as large as a table that is masked wholly."""
    text = json.dumps({"passwords": [f"Winter#2026x{number}" for number in range(3_000)]})
    assert 55_000 < len(text) < 65_000
    redacted = REDACTOR.redact_text(text)
    assert redacted.counts == {"password": 3_000}
    assert "Winter" not in redacted.text


@pytest.mark.parametrize(
    "text",
    [
        '{"password": {"type": "string", "description": "The password of it", "minLength": 8}}',
        '{"credentials": {"username": user, "password": os.environ["PASSWORD"]}}',
        '{"passwords": ["${DB_PASSWORD}", get("first")]}',
        '{"secret": {"value": "<your-api-key>", "valid": true}}',
        '{"passwords": [], "api_keys": {}, "n": ["blue"]}',
        '{"password_hash": ["md5"], "keys": ["blue"], "tokens": ["hello"]}',
        "password: ['', [Validators.required]]",
        "password: {required: 'Please enter 8 letters', minlength: 8}",
        "the passwords: [see below]",
        '{"X-Api-Key": "your-api-key", "secret": "words only"}',
    ],
)
def test_lists_and_objects_that_hold_no_credential_stay(text: str) -> None:
    """Declarations, code, variables, rules of forms, and names that only sound alike."""
    assert REDACTOR.redact_text(text).text == text


def is_among(masks: list[str], all_masks: Iterator[str]) -> bool:
    """In this order; a value that is read alone as well may show more than among its neighbours."""
    return all(mask in all_masks for mask in masks)


def test_values_of_a_large_object_are_masked_in_all_of_its_texts() -> None:
    """An object that is written as several texts loses no value, and keeps all others."""
    rows = [{"city": "x" * 50, "ssn": "536904399", "n": number} for number in range(600)]
    redacted, counts = REDACTOR.redact_json({"rows": rows, "more": 1})
    assert counts == {"ssn": 600}
    assert isinstance(redacted, dict)
    assert [row["n"] for row in redacted["rows"]] == list(range(600))  # type: ignore[union-attr,call-overload,index]  # as it went in


def test_an_object_that_is_too_deep_or_no_json_is_refused_as_before() -> None:
    """With its keys it is read within the same bounds."""
    deep: dict[str, Any] = {"ssn": "536904399"}
    for _ in range(200):
        deep = {"password": deep}
    for value, reason in ((deep, "too_deep"), ({"ssn": {1: "x"}}, "unknown_type")):
        with pytest.raises(RedactionFailed) as caught:
            REDACTOR.redact_json(value)
        assert caught.value.reason == reason
        with pytest.raises(RedactionFailed):
            JsonWalk(REDACTOR, "", {}).value(value, 0)


def test_names_of_messages_and_tools_name_no_credential() -> None:
    """What is left out of reading with its keys, because its keys are a protocol's, hides none."""
    from gatebook.processors.redact.keyed import FAMILIAR

    assert not [key for key in FAMILIAR if secret_kind(key)]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "DB_PASSWORD", "value": "Zq9kkQx1!"}',
        '[{"key":"password","value":"Zq9kkQx1!"}]',
        '{\n  "name": "DB_PASSWORD",\n  "value": "Zq9kkQx1!"\n}',
        "env:\n  - name: DB_PASSWORD\n    value: Zq9kkQx1!\n",
        "- name: DB_PASSWORD\r\n  value: Zq9kkQx1!",
        '- name: "DB_PASSWORD"\n  value: "Zq9kkQx1!"',
        '{"name":"API_TOKEN","value":"k9x7w5z3q1m2n4b6"}',
        "env:\n- name: API_TOKEN\n  value: k9x7w5z3q1m2n4b6",
    ],
)
def test_the_value_of_a_pair_in_a_text_is_masked(text: str) -> None:
    """As JSON, as a manifest: the value goes, and the word `value` stays."""
    found = REDACTOR.find(text)
    assert [one.value for one in found] == [
        "k9x7w5z3q1m2n4b6" if "TOKEN" in text else "Zq9kkQx1!",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db1"}}}',
        "- name: DB_PASSWORD\n  valueFrom:\n    secretKeyRef:\n      name: db1-login\n",
        '{"name": "API_TOKEN", "value": "${TOKEN_1}"}',
        '{"type": "password", "label2": "Choose one"}',
    ],
)
def test_a_pair_without_a_value_stays(text: str) -> None:
    """What comes from elsewhere, and the key of what comes next."""
    assert REDACTOR.redact_text(text).counts == {}
