"""The engines' settings come from the environment, once, and are refused in words."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gatebook.engines.errors import BadSetting
from gatebook.engines.settings import Endpoints, EngineSettings, variable

OTHER_VALUES = {
    "engine": "embedded",
    "kafka_bootstrap": "broker:9092",
    "elasticsearch_url": "http://search:9200",
    "elasticsearch_api_key": "a-key",
    "elasticsearch_username": "a-name",
    "elasticsearch_password": "a-password",
    "elasticsearch_ca_file": "/etc/ca.pem",
    "namespace": "other",
    "home": "/tmp/a-home",
    "cache_dir": "/tmp/a-cache",
    "maven_repository": "https://mirror.example/maven2",
    "kafka_port": "21001",
    "kafka_controller_port": "21002",
    "elasticsearch_port": "21003",
    "elasticsearch_transport_port": "21004",
    "kafka_heap_mib": "300",
    "elasticsearch_heap_mib": "700",
    "start_timeout_seconds": "5.5",
    "stop_timeout_seconds": "6",
}


def test_every_setting_is_read_from_its_variable() -> None:
    """No setting without a variable, no variable without effect."""
    fields = {field.name for field in msgspec.structs.fields(EngineSettings)}
    assert fields == {*OTHER_VALUES, "kafka_properties"}  # for that one, see the next test
    default = EngineSettings.from_environment({})
    found = EngineSettings.from_environment({variable(k): v for k, v in OTHER_VALUES.items()})
    for name, text in OTHER_VALUES.items():
        assert getattr(found, name) != getattr(default, name)
        assert str(getattr(found, name)).removesuffix(".0") == text


def test_other_kafka_variables_go_to_librdkafka() -> None:
    """Properties of the client by their names; our own settings are none of them."""
    given = {variable(name): text for name, text in OTHER_VALUES.items()}
    given |= {"GATEBOOK_KAFKA_SASL_PASSWORD": "s3cret", "GATEBOOK_KAFKA_SASL_USERNAME": "u"}
    found = EngineSettings.from_environment(given)
    assert found.kafka_properties == {"sasl.password": "s3cret", "sasl.username": "u"}


def test_settings_in_a_log_line_are_harmless() -> None:
    """Whoever prints them prints no secret."""
    secrets = {"GATEBOOK_KAFKA_SASL_PASSWORD": "s3cret-1"}
    secrets |= {"GATEBOOK_ELASTICSEARCH_PASSWORD": "s3cret-2"}
    secrets |= {"GATEBOOK_ELASTICSEARCH_API_KEY": "s3cret-3"}
    assert "s3cret" not in f"{EngineSettings.from_environment(secrets)!r}"


def test_home_and_cache_follow_the_desktop_conventions() -> None:
    """XDG directories where they are set, the usual places where not."""
    xdg = {"XDG_DATA_HOME": "/tmp/data", "XDG_CACHE_HOME": "/tmp/cache"}
    settings = EngineSettings.from_environment(xdg)
    assert settings.home == Path("/tmp/data/gatebook")
    assert settings.cache_dir == Path("/tmp/cache/gatebook")
    assert EngineSettings.from_environment({}).home == Path.home() / ".local/share/gatebook"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"GATEBOOK_KAFKA_PORT": "kafka"}, "GATEBOOK_KAFKA_PORT"),
        ({"GATEBOOK_KAFKA_PORT": "70000"}, "GATEBOOK_KAFKA_PORT"),
        ({"GATEBOOK_KAFKA_PORT": "19200"}, "same"),
        ({"GATEBOOK_NAMESPACE": "Not-A-Name"}, "GATEBOOK_NAMESPACE"),
        ({"GATEBOOK_START_TIMEOUT_SECONDS": "0"}, "GATEBOOK_START_TIMEOUT_SECONDS"),
        ({"GATEBOOK_ENGINE": "podman"}, "GATEBOOK_ENGINE"),
        ({"GATEBOOK_KAFKA_BOOTSTRAP": "broker:9092"}, "without the other"),
        ({"GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:9092"}, "without the other"),
        ({"GATEBOOK_ELASTICSEARCH_URL": "http://search:9200"}, "without the other"),
    ],
)
def test_an_unusable_value_is_refused(environment: dict[str, str], named: str) -> None:
    """Usage errors exit with 2 and say what to do."""
    with pytest.raises(BadSetting, match=named) as caught:
        EngineSettings.from_environment(environment)
    assert caught.value.exit_code == 2
    assert caught.value.next_step


@pytest.mark.parametrize(
    "environment",
    [
        {"GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:19092"},
        {"GATEBOOK_KAFKA_BOOTSTRAP": "localhost:19092"},
        {"GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:21001", "GATEBOOK_KAFKA_PORT": "21001"},
        {"GATEBOOK_ELASTICSEARCH_URL": "http://127.0.0.1:19200/"},
    ],
)
def test_the_address_of_our_own_engine_alone_is_fine(environment: dict[str, str]) -> None:
    """Whoever exported what `gatebook attach` prints for a service can still ask for the status."""
    found = EngineSettings.from_environment(environment)
    assert found.kafka_bootstrap is None
    assert found.elasticsearch_url is None


def test_our_own_address_beside_another_is_kept() -> None:
    """Both are given, so both are meant."""
    given = {"GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:19092"}
    given |= {"GATEBOOK_ELASTICSEARCH_URL": "http://search:9200"}
    assert EngineSettings.from_environment(given).kafka_bootstrap == "127.0.0.1:19092"


def test_endpoints_lead_any_command_to_the_same_engines() -> None:
    """What `up` prints can be exported and read back."""
    endpoints = Endpoints(engine="embedded", kafka_bootstrap="h:1", elasticsearch_url="http://h:2")
    settings = EngineSettings.from_environment(endpoints.as_environment())
    assert settings.kafka_bootstrap == "h:1"
    assert settings.elasticsearch_url == "http://h:2"
