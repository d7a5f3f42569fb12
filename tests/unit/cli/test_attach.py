"""What `gatebook attach` prints: complete, with the settings of this place, without its secrets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette

from gatebook.cli.attach_commands import SERVICES, available
from gatebook.cli.main import cli
from gatebook.producers.adapters.outside import Policy
from gatebook.producers.config import ProducerSettings
from gatebook.schemas import registry
from gatebook.schemas.errors import Fatal, WrongSetting

GENERATED = Path(registry.__file__).parent / "generated"

NAMES = [
    "fastapi",
    "starlette",
    "wsgi",
    "llama.cpp",
    "vllm",
    "ollama",
    "tgi",
    "litellm",
    "openai-client",
    "in-process",
    "other-language",
    "existing-logs",
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings but the test's own."""
    for name in [name for name in os.environ if name.startswith(("GATEBOOK_", "OTEL_"))]:
        monkeypatch.delenv(name)
    return tmp_path


def attach(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["attach", *arguments])
    return done.exit_code, done.output


def details(name: str) -> dict[str, Any]:
    code, output = attach(name, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(output)
    return found


def test_every_service_that_is_promised_is_listed() -> None:
    """By name and by what it is."""
    code, output = attach()
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()[: len(NAMES)]] == NAMES
    assert list(json.loads(attach("--json")[1])) == NAMES
    assert available() == list(SERVICES)


def test_an_unknown_service_is_told_what_is_known() -> None:
    """Exit 2, like any wrong usage."""
    code, output = attach("tensorflow")
    assert code == 2
    assert "llama.cpp" in output


@pytest.mark.parametrize("name", NAMES)
def test_instructions_are_complete(name: str) -> None:
    """What to install, to set, to write, where, and how to see that it works."""
    found = details(name)
    assert found["install"].startswith("pip install ")
    assert found["environment"]["GATEBOOK_KAFKA_BOOTSTRAP"] == "127.0.0.1:19092"
    assert found["place"]
    assert found["check"] == "gatebook doctor --producer"
    code, text = attach(name)
    assert code == 0
    for part in (found["install"], found["place"], found["lines"], found["check"]):
        assert part in text
    if found["language"] == "python":
        compile(found["lines"], name, "exec")


def test_the_settings_of_this_place_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones a service needs; quoted for a shell."""
    settings = {
        "KAFKA_BOOTSTRAP": "kafka-1:9093,kafka-2:9093",
        "NAMESPACE": "acme",
        "SERVICE_NAME": "support assistant",
        "DELIVERY_MODE": "strict",
        "TRUSTED_PROXIES": "10.0.0.0/8,192.0.2.7",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"GATEBOOK_{name}", value)
    found = details("fastapi")["environment"]
    assert found["GATEBOOK_SERVICE_NAME"] == "'support assistant'"
    quoted = {f"GATEBOOK_{name}": value for name, value in settings.items()}
    assert found == {**quoted, "GATEBOOK_SERVICE_NAME": "'support assistant'"}
    assert details("vllm")["environment"]["GATEBOOK_PROVIDER_NAME"] == "vllm"


def test_secrets_are_named_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output ends up in tickets and chats."""
    monkeypatch.setenv("GATEBOOK_KAFKA_SASL_PASSWORD", "hunter2-planted")
    monkeypatch.setenv("GATEBOOK_KEY_DIGEST_SECRET", "planted-secret-of-this-place")
    for name in NAMES:
        for output in (attach(name)[1], attach(name, "--json")[1]):
            assert "planted" not in output
    assert details("wsgi")["secrets"] == [
        "GATEBOOK_KAFKA_SASL_PASSWORD",
        "GATEBOOK_KEY_DIGEST_SECRET",
    ]


def test_a_wrong_setting_is_told_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions with it would not work."""
    monkeypatch.setenv("GATEBOOK_DELIVERY_MODE", "sometimes")
    done = CliRunner().invoke(cli, ["attach", "fastapi"])
    assert done.exit_code == 1
    assert isinstance(done.exception, WrongSetting)
    assert "GATEBOOK_DELIVERY_MODE" in str(done.exception)


@pytest.mark.parametrize("name", ["fastapi", "starlette", "wsgi"])
@pytest.mark.parametrize(
    ("setting", "value"), [("DELIVERY_MODE", "sometimes"), ("IDENTITY_KEYS_FILE", "/nope")]
)
def test_a_service_with_a_wrong_setting_does_not_start(
    name: str, setting: str, value: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed lines end the import of the service's module, with the name of the setting."""
    lines = details(name)["lines"]
    monkeypatch.setenv("GATEBOOK_HOME", str(home))
    monkeypatch.setenv(f"GATEBOOK_{setting}", value)
    with pytest.raises(Fatal, match=f"GATEBOOK_{setting}"):
        exec(lines, {"app": Starlette()})


def test_a_service_that_captures_content_installs_what_seals_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without, it would not start; a service that captures none carries no more than it needs."""
    assert details("fastapi")["install"] == "pip install gatebook"
    monkeypatch.setenv("GATEBOOK_CAPTURE_LEVEL", "redacted")
    assert details("fastapi")["install"] == "pip install 'gatebook[sealing]'"
    assert details("vllm")["install"] == "pip install 'gatebook[proxy,sealing]'"


def content_told() -> dict[str, str]:
    """The examples of content for a sender, as JSON text, by where they stand."""
    told = CliRunner().invoke(cli, ["agent", "--help"]).output
    lines = details("other-language")["lines"].replace("#", " ").split("full:")[1]
    fields = GENERATED.joinpath("FIELDS.md").read_text().split("```json")[1].split("```")[0]
    helped = re.search(r'\{"event": [^;]*"error_text": ""\}\}', told.split("any of these parts")[1])
    return {"agent": helped[0] if helped else "", "attach": f"{{{lines}}}", "FIELDS": fields}


@pytest.mark.parametrize("place", ["agent", "attach", "FIELDS"])
def test_how_content_is_given_is_told_and_true(place: str) -> None:
    """Whoever writes a sender finds an example, and the agent takes it as it stands there."""
    policy = Policy(ProducerSettings(), b"secret", "agent", lambda: True)
    event = policy.admit(json.loads(content_told()[place])).build()
    content = json.loads(event["content"])
    assert content["input_messages"] == [{"role": "user", "content": "Why?"}]
    assert content["output_messages"] == [{"role": "assistant", "content": "Because."}]
