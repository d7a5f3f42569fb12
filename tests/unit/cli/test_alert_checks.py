"""What `gatebook doctor` says of alert targets that could not be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.cli.alert_checks import check_alert_targets
from gatebook.engines.check import Check


def row() -> Check:
    """Of the only target."""
    (found,) = check_alert_targets()
    return found


def test_secrets_of_alert_targets_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing or malformed, with the reference and the target, and never the value."""
    file = tmp_path / "alerts.toml"
    file.write_text(
        '[targets.soc]\ntype = "webhook"\nurl = "https://soc.example.org/hook"\n'
        'secrets = ["env:SOC_SECRET"]\n'
    )
    monkeypatch.setenv("GATEBOOK_ALERTS_FILE", str(file))
    monkeypatch.delenv("SOC_SECRET", raising=False)
    missing = row()
    assert (missing.name, missing.verdict) == ("alert target soc", "fail")
    assert missing.detail == "env:SOC_SECRET is missing or empty"
    monkeypatch.setenv("SOC_SECRET", "whsec_planted!")
    malformed = row()
    assert malformed.verdict == "fail"
    assert "env:SOC_SECRET is malformed" in malformed.detail
    assert "planted" not in malformed.detail + malformed.next_step
    monkeypatch.setenv("SOC_SECRET", "whsec_" + "QUJD" * 8)
    assert row().verdict == "ok"


def test_a_url_by_reference_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What notify would refuse at each alert; the URL is a secret and is not shown."""
    file = tmp_path / "alerts.toml"
    file.write_text('[targets.chat]\ntype = "slack"\nurl = "env:CHAT_URL"\n')
    monkeypatch.setenv("GATEBOOK_ALERTS_FILE", str(file))
    monkeypatch.setenv("CHAT_URL", "http://127.0.0.1/planted")
    found = row()
    assert found.verdict == "fail"
    assert "loopback" in found.detail
    assert "planted" not in found.detail + found.next_step
