"""Settings from a TOML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.producers.config import ProducerSettings
from gatebook.schemas.errors import Fatal
from gatebook.schemas.settings_file import with_file

FILE = """
kafka_bootstrap = "kafka-1:9092"
trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]
frame_max_events = 200
alert_allow_private = true

[kafka]
security_protocol = "SASL_SSL"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "gatebook.toml"
    path.write_text(text)
    return str(path)


def test_the_file_gives_what_the_environment_does_not(tmp_path: Path) -> None:
    """Names, lists, numbers, tables; the environment wins."""
    environ = {"GATEBOOK_CONFIG": written(tmp_path, FILE), "GATEBOOK_FRAME_MAX_EVENTS": "7"}
    found = with_file(environ)
    assert found["GATEBOOK_KAFKA_BOOTSTRAP"] == "kafka-1:9092"
    assert found["GATEBOOK_TRUSTED_PROXIES"] == "10.0.0.0/8,192.0.2.1"
    assert found["GATEBOOK_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
    assert found["GATEBOOK_ALERT_ALLOW_PRIVATE"] == "true"
    assert found["GATEBOOK_FRAME_MAX_EVENTS"] == "7"


def test_a_producer_reads_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model service needs one variable: where the file is."""
    monkeypatch.setenv("GATEBOOK_CONFIG", written(tmp_path, FILE))
    monkeypatch.delenv("GATEBOOK_KAFKA_BOOTSTRAP", raising=False)
    settings = ProducerSettings.from_env()
    assert settings.kafka_bootstrap == "kafka-1:9092"
    assert settings.frame_max_events == 200
    assert settings.kafka_properties["security.protocol"] == "SASL_SSL"


def test_without_a_file_the_environment_is_all() -> None:
    """Nothing is read that was not named."""
    assert with_file({"GATEBOOK_NAMESPACE": "x"}) == {"GATEBOOK_NAMESPACE": "x"}


@pytest.mark.parametrize("text", ["not toml =", "Bad-Name = 1", "when = 2026-01-01", "a = [[{}]]"])
def test_a_wrong_file_stops_the_start_without_its_values(tmp_path: Path, text: str) -> None:
    """What is no setting is named, its value is not."""
    with pytest.raises(Fatal) as raised:
        with_file({"GATEBOOK_CONFIG": written(tmp_path, text)})
    assert "2026" not in str(raised.value)
    assert "GATEBOOK_CONFIG" in str(raised.value)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    """A service that was told to read a file does not run without it."""
    with pytest.raises(Fatal):
        with_file({"GATEBOOK_CONFIG": str(tmp_path / "absent.toml")})
