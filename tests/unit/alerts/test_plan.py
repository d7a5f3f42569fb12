"""The alerts file: who is told of what, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.alerts.findings import NS, START_NS, finding

from gatebook.processors import alerts
from gatebook.processors.alerts.plan import Plan, Suppression, load_plan
from gatebook.processors.alerts.settings import load_alert_settings
from gatebook.schemas.errors import Fatal

SECRET = "hunter2hunter2"
TARGETS = """
[targets.oncall]
type = "pagerduty"
routing_key = "env:PAGERDUTY_KEY"

[targets.chat]
type = "slack"
url = "file:/run/secrets/slack"

[targets.bus]
type = "kafka"
topic = "oncall.alerts"

[targets.soc]
type = "webhook"
url = "https://soc.example.org/hook"
secrets = ["env:SOC_NEW", "env:SOC_OLD"]

[targets.ops]
type = "opsgenie"
api_key = "env:GENIE"

[targets.service]
type = "jsm"
api_key = "env:GENIE"

[targets.manager]
type = "alertmanager"
url = "https://alerts.example.org"
"""
ROUTES = """
default = ["chat"]

[[routes]]
severity = ["critical", "error"]
team = "security"
targets = ["oncall"]
continue = true

[[routes]]
model = "llama*"
targets = ["bus", "oncall"]

[[routes]]
tenant = ["acme", "umbrella*"]
rule = "failure_*"
targets = ["soc"]

[teams.security]
rule = ["credential_*", "failure_burst"]
tenant = "acme"
page_budget = 4
digest_targets = ["chat"]

[teams.platform]
service = "chat"
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def read(text: str) -> Plan:
        file = tmp_path / "alerts.toml"
        file.write_text(text)
        settings = load_alert_settings({"GATEBOOK_ALERTS_FILE": str(file)})
        return load_plan(settings, kafka={"bootstrap.servers": "127.0.0.1:9"})

    return read


def test_every_kind_of_target_is_made_from_the_file(load: Any) -> None:
    """By name, each of the type that its table says."""
    plan = load(TARGETS)
    assert {name: target.type for name, target in plan.targets.items()} == {
        "oncall": "pagerduty",
        "chat": "slack",
        "bus": "kafka",
        "soc": "webhook",
        "ops": "opsgenie",
        "service": "jsm",
        "manager": "alertmanager",
    }


def test_the_example_of_the_page_is_a_plan(load: Any) -> None:
    """What one copies from alerts/README.md starts a worker."""
    page = Path(alerts.__file__).with_name("README.md").read_text()
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert set(load(example).targets) == {"oncall", "chat", "soc", "bus"}


def test_without_routes_everything_goes_everywhere(load: Any) -> None:
    """As with one Alertmanager in the environment."""
    plan = load(TARGETS)
    assert plan.route(finding(), "") == tuple(plan.targets)


@pytest.mark.parametrize(
    ("ours", "team", "targets"),
    [
        ({"tenant": "acme"}, "security", ("oncall", "soc")),
        ({"tenant": "acme", "severity": "warning"}, "security", ("soc",)),
        ({"tenant": "acme", "model": "llama-3"}, "security", ("oncall", "bus")),
        ({"tenant": "umbrella-eu"}, "platform", ("soc",)),
        ({"tenant": "other"}, "platform", ("chat",)),
        ({"tenant": "acme", "rule": "first_use"}, "platform", ("chat",)),
        ({"models": ["qwen", "llama-3"]}, "platform", ("bus", "oncall")),
        ({"tenant": "acme", "team": "own"}, "own", ("soc",)),
    ],
)
def test_routes_are_looked_at_in_order(
    ours: dict[str, Any], team: str, targets: tuple[str, ...], load: Any
) -> None:
    """The first that matches, further ones after `continue`, the default where none does; the
    team is the finding's own or the first whose patterns match."""
    plan = load(ROUTES + TARGETS)
    found = finding(**ours)
    assert plan.team_of(found) == team
    assert plan.route(found, team) == targets


def test_a_digest_goes_where_the_team_wants_it_and_calls_nobody_unasked(load: Any) -> None:
    """Else to those targets of its findings that call nobody; to a pager only where there is
    nothing else."""
    plan = load(ROUTES + TARGETS)
    assert plan.digest_targets("security", ["oncall"]) == ["chat"]
    assert plan.digest_targets("platform", ["oncall", "bus", "gone"]) == ["bus"]
    assert plan.digest_targets("platform", ["oncall"]) == ["oncall"]


@pytest.mark.parametrize(
    "text",
    [
        "targets = 5",
        "[targets.x]\ntype = 'nothing'",
        f"[targets.x]\ntype = 'pagerduty'\nrouting_key = '{SECRET}'",
        f"[targets.x]\ntype = 'slack'\nurl = 'https://hooks.slack.com/services/{SECRET}'",
        f"[targets.x]\ntype = 'webhook'\nurl = 'https://h.example.org'\nsecrets = ['{SECRET}']",
        "[targets.x]\ntype = 'webhook'\nurl = 'https://h.example.org'\nsecrets = []",
        f"[targets.x]\ntype = 'opsgenie'\napi_key = '{SECRET}'",
        f"[targets.x]\ntype = 'webhook'\nurl = 'https://h.example.org?t={SECRET}'\n"
        "secrets = ['env:A']",
        "[targets.x]\ntype = 'webhook'\nurl = 'http://169.254.169.254/'\nsecrets = ['env:A']",
        "[targets.x]\ntype = 'pagerduty'\nrouting_key = 'env:A'\nurl = 'http://pd.example.org'",
        "[targets.x]\ntype = 'kafka'\ntopic = ''",
        "[targets.x]\ntype = 'kafka'\ntopic = 't'\nparition = 3",
        "[[routes]]\ntargets = ['nobody']",
        "default = ['nobody']",
        "[teams.a]\ndigest_targets = ['nobody']",
        "[teams.a]\npage_budget = 0",
        "[noise]\nescape_factor = 0.5",
        "[[suppressions]]\nhours = 'night'",
        "[[suppressions]]\nhours = '25:00-26:00'",
        "[[suppressions]]\ndays = ['someday']",
        TARGETS + "[[routes]]\nseverity = 'critical'\ntargets = ['chat']",
        "not toml",
    ],
)
def test_a_wrong_file_stops_the_start(text: str, load: Any) -> None:
    """Unknown kinds, names and fields, secrets that stand in the file, inner addresses, findings
    that could go nowhere: refused with what to do, without a secret's value."""
    with pytest.raises(Fatal) as error:
        load(text)
    assert SECRET not in str(error.value) + error.value.next_step
    assert error.value.next_step


def test_a_route_that_matches_all_needs_no_default(load: Any) -> None:
    """It is one."""
    assert load(TARGETS + "[[routes]]\ntargets = ['chat']").route(finding(), "") == ("chat",)


def seconds(hours: float) -> int:
    return round(hours * 3600)


@pytest.mark.parametrize(
    ("tables", "at_hours", "left_hours"),
    [
        ({"hours": "09:00-10:00"}, 0.5, 0.5),
        ({"hours": "09:00-10:00"}, 1, 0),
        ({"hours": "09:00-10:00"}, -0.01, 0),
        ({"hours": "22:00-06:00"}, 14, 7),
        ({"hours": "22:00-06:00"}, 20, 1),
        ({"hours": "22:00-06:00"}, 22, 0),
        ({"hours": "22:00-06:00", "days": ["mon"]}, 20, 1),
        ({"hours": "22:00-06:00", "days": ["tue"]}, 20, 0),
        ({"days": ["mon"]}, 0, 15),
        ({"days": ["tue", "sun"]}, 0, 0),
    ],
)
def test_a_suppression_knows_when_it_ends(
    tables: dict[str, Any], at_hours: float, left_hours: float
) -> None:
    """From Monday, nine o'clock: within its hours and on its days, over midnight too."""
    now_ns = START_NS + seconds(at_hours) * NS
    ends_ns = msgspec.convert(tables, Suppression).ends_ns(now_ns)
    assert ends_ns == (now_ns + seconds(left_hours) * NS if left_hours else 0)
