"""Settings: documented, from the environment, and refused where they are dangerous."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.sealed import make_keys

from gatebook.producers.config import ProducerSettings, host_id
from gatebook.producers.publisher import kafka_configuration
from gatebook.schemas.errors import Fatal, WrongSetting


@pytest.mark.parametrize("name", ProducerSettings.__struct_fields__)
def test_every_setting_is_documented(name: str) -> None:
    """A person can look up what each variable does."""
    annotations = msgspec.inspect.type_info(ProducerSettings).fields  # type: ignore[attr-defined]  # a struct's info has fields
    (field,) = (f for f in annotations if f.name == name)
    assert field.type.extra_json_schema["description"]


def test_defaults_need_no_environment() -> None:
    """A local broker, the safe mode, no content."""
    settings = ProducerSettings.from_env({})

    assert settings.delivery_mode == "buffered"
    assert settings.capture_level == "metadata"
    assert settings.effective_producer_id == f"model-service-{host_id()}"


def test_values_come_from_the_environment() -> None:
    """Lists by commas, numbers and booleans as text."""
    settings = ProducerSettings.from_env(
        {
            "GATEBOOK_KAFKA_BOOTSTRAP": "10.0.0.1:9092",
            "GATEBOOK_NAMESPACE": "audit",
            "GATEBOOK_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1",
            "GATEBOOK_FRAME_MAX_EVENTS": "100",
            "GATEBOOK_PRODUCER_ID": "svc.1",
        }
    )

    assert settings.kafka_bootstrap == "10.0.0.1:9092"
    assert len(settings.trusted_networks()) == 2
    assert settings.frame_max_events == 100
    assert settings.effective_producer_id == "svc.1"
    assert settings.spool_path.name == "audit"


def test_opentelemetry_names_the_service_and_our_variables_win() -> None:
    """A service that is set up for OpenTelemetry needs nothing more."""
    otel = {
        "OTEL_SERVICE_NAME": "otel name",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=x,service.version=1%2E2,"
        "deployment.environment.name=staging",
    }
    settings = ProducerSettings.from_env(otel)
    assert settings.service_name == "otel name"
    assert settings.service_version == "1.2"
    assert settings.service_environment == "staging"
    assert settings.effective_producer_id.startswith("otel-name-")

    ours = ProducerSettings.from_env({**otel, "GATEBOOK_SERVICE_NAME": "ours"})
    assert ours.service_name == "ours"


def test_kafka_properties_pass_through_but_for_those_of_the_engines() -> None:
    """TLS and SASL are librdkafka's own properties."""
    settings = ProducerSettings.from_env(
        {
            "GATEBOOK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "GATEBOOK_KAFKA_SASL_PASSWORD": "planted",
            "GATEBOOK_KAFKA_PORT": "19092",
            "GATEBOOK_KAFKA_HEAP_MIB": "512",
        }
    )
    configuration = kafka_configuration(settings)

    assert configuration["security.protocol"] == "SASL_SSL"
    assert configuration["acks"] == "all"
    assert "port" not in configuration
    assert "planted" not in repr(settings)


REFUSED = {
    "unknown level": {"GATEBOOK_CAPTURE_LEVEL": "everything"},
    "no number": {"GATEBOOK_FRAME_MAX_EVENTS": "many"},
    "weak acks": {"GATEBOOK_KAFKA_ACKS": "1"},
    "no idempotence": {"GATEBOOK_KAFKA_ENABLE_IDEMPOTENCE": "false"},
    "two places for brokers": {"GATEBOOK_KAFKA_BOOTSTRAP_SERVERS": "x:1"},
    "everyone a proxy": {"GATEBOOK_TRUSTED_PROXIES": "0.0.0.0/0"},
    "no address": {"GATEBOOK_TRUSTED_PROXIES": "proxy.example"},
    "guessable secret": {"GATEBOOK_KEY_DIGEST_SECRET": "short"},
    "spool below a few frames": {"GATEBOOK_SPOOL_MAX_BYTES": "1000"},
    "memory below a few frames": {"GATEBOOK_MEMORY_BUFFER_MAX_BYTES": "1000"},
    "producer id with a slash": {"GATEBOOK_PRODUCER_ID": "../x"},
    "namespace with a dot": {"GATEBOOK_NAMESPACE": "a.b"},
    "a key source of no known kind": {"GATEBOOK_SEALING_PUBLIC_KEYS": "nowhere:x"},
    "a key source without a kind": {"GATEBOOK_SEALING_PUBLIC_KEYS": "/etc/keys.json"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_dangerous_or_wrong_is_refused_with_a_next_step(name: str) -> None:
    """At the start, not at the first request."""
    with pytest.raises(Fatal) as caught:
        ProducerSettings.from_env(REFUSED[name])

    assert caught.value.next_step


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("DELIVERY_MODE", "planted", "one of best_effort, buffered, strict"),
        ("FRAME_MAX_EVENTS", "planted", "`int`"),
        ("LINGER_SECONDS", "99", "<= 10"),
    ],
)
def test_a_wrong_value_is_told_with_the_variable_and_what_it_takes(
    name: str, value: str, wanted: str
) -> None:
    """The value itself is not repeated: it may be a secret in the wrong place."""
    with pytest.raises(WrongSetting, match=f"GATEBOOK_{name} is not valid") as caught:
        ProducerSettings.from_env({f"GATEBOOK_{name}": value})

    assert wanted in str(caught.value)
    assert value not in str(caught.value) + caught.value.next_step


@pytest.mark.parametrize("level", ["redacted", "full"])
def test_a_producer_starts_without_intakes_key(level: str, tmp_path: Path) -> None:
    """It may come later; until then content is dropped, not the service's start."""
    given = {"GATEBOOK_CAPTURE_LEVEL": level, "GATEBOOK_HOME": str(tmp_path)}

    assert ProducerSettings.from_env(given).capture_level == level


def test_a_producer_with_private_keys_is_refused(tmp_path: Path) -> None:
    """The bundle of intake stands on the wrong machine; nothing of it is in the message."""
    files = make_keys(tmp_path)
    given = {
        "GATEBOOK_CAPTURE_LEVEL": "redacted",
        "GATEBOOK_SEALING_PUBLIC_KEYS": f"file:{files.private}",
    }

    with pytest.raises(Fatal, match="holds private keys") as caught:
        ProducerSettings.from_env(given)

    assert files.read().keys[0].private not in str(caught.value) + caught.value.next_step


def test_the_digest_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """Every process of a host has the same one, and nobody else may read it."""
    first = ProducerSettings(home=str(tmp_path)).digest_secret()
    second = ProducerSettings(home=str(tmp_path)).digest_secret()

    (path,) = (tmp_path / "keys").iterdir()
    assert first == second
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_digest_secret_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    """Key ids that change at every start would be worse than none."""
    (tmp_path / "file").write_text("")

    with pytest.raises(Fatal, match="key digest secret"):
        ProducerSettings(home=str(tmp_path / "file")).digest_secret()


@pytest.mark.parametrize(
    ("otel", "level"),
    [
        ("true", "redacted"),
        ("EVENT_ONLY", "redacted"),
        ("NO_CONTENT", "metadata"),
        ("", "metadata"),
    ],
)
def test_opentelemetrys_word_on_content_is_honoured(otel: str, level: str) -> None:
    """Content asked for in OpenTelemetry's way is kept redacted; our own setting wins."""
    given = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": otel}
    assert ProducerSettings.from_env(given).capture_level == level
    ours = {**given, "GATEBOOK_CAPTURE_LEVEL": "none"}
    assert ProducerSettings.from_env(ours).capture_level == "none"
