"""Where alerts go and how many: targets, routes, teams and noise control, from one TOML file.

    default = ["chat"]                      # where no route matches

    [targets.oncall]
    type = "pagerduty"
    routing_key = "env:PAGERDUTY_KEY"

    [targets.chat]
    type = "slack"
    url = "file:/run/secrets/slack"

    [[routes]]                              # the first that matches, further ones with continue
    severity = ["critical", "error"]
    team = "security"
    targets = ["oncall"]
    continue = true

    [teams.security]                        # the first team whose patterns match
    tenant = "acme*"
    page_budget = 20
    digest_targets = ["chat"]

    [noise]
    settle_seconds = 600

    [[suppressions]]                        # pages wait until it is over; nothing is lost
    rule = "off_hours"
    hours = "01:00-03:00"
    reason = "nightly batch"

Without a file: one Alertmanager where GATEBOOK_ALERTMANAGER_URL names it, with the defaults.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gatebook.processors.alerts.alertmanager import AlertmanagerOptions, options_from
from gatebook.processors.alerts.base import AlertTarget, Finding
from gatebook.processors.alerts.cloudevents import WebhookOptions
from gatebook.processors.alerts.kafka import KafkaOptions
from gatebook.processors.alerts.opsgenie import JsmOptions, OpsgenieOptions
from gatebook.processors.alerts.pagerduty import PagerDutyOptions
from gatebook.processors.alerts.settings import AlertSettings, load_alert_settings
from gatebook.processors.alerts.slack import SlackOptions
from gatebook.processors.alerts.text import model_of, tenant_of
from gatebook.schemas.errors import Fatal

Options = (
    AlertmanagerOptions
    | PagerDutyOptions
    | OpsgenieOptions
    | JsmOptions
    | SlackOptions
    | WebhookOptions
    | KafkaOptions
)
Patterns = str | tuple[str, ...]
Seconds = Annotated[float, Meta(ge=0, le=366 * 86_400)]
Count = Annotated[int, Meta(ge=1)]
DAY_SECONDS = 86_400
NANOSECONDS = 1_000_000_000
NO_TEAM = ""


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Patterns such as `acme*`, one or several a field; an empty field matches everything."""

    severity: Patterns = ()
    """critical, error, warning or info."""
    team: Patterns = ()
    """Team of the finding; where it names none, the one whose patterns match."""
    model: Patterns = ()
    """Model requested."""
    tenant: Patterns = ()
    """Organization id."""
    rule: Patterns = ()
    """Rule id."""
    service: Patterns = ()
    """Service name."""

    def matches(self, finding: Finding, team: str = NO_TEAM) -> bool:
        """Whether every field that has patterns has one that fits."""
        models = (model_of(finding), *(finding["gatebook"].get("models") or ()))
        values = {
            "severity": (finding["gatebook"]["severity"],),
            "team": (team,),
            "model": models,
            "tenant": (tenant_of(finding),),
            "rule": (finding["rule"]["id"],),
            "service": ((finding.get("service") or {}).get("name") or "",),
        }
        return all(_fits(getattr(self, name), found) for name, found in values.items())

    @property
    def matches_everything(self) -> bool:
        """Whether no field has a pattern."""
        return not any(getattr(self, name) for name in Match.__struct_fields__)


def _fits(patterns: Patterns, values: tuple[str, ...]) -> bool:
    wanted = (patterns,) if isinstance(patterns, str) else patterns
    if not any(wanted):
        return True
    return any(fnmatchcase(value, pattern) for value in values for pattern in wanted)


class Route(Match, frozen=True, kw_only=True):
    """Findings that match go to these targets."""

    targets: tuple[str, ...]
    """Names of targets."""
    go_on: bool = msgspec.field(default=False, name="continue")
    """Whether routes below are looked at, too."""


class Team(Match, frozen=True, kw_only=True):
    """Who is called, and how often at most."""

    page_budget: Count = 20
    """Pages in a budget window; what comes beyond goes to the digest. Shared out evenly over the
    partitions of the finding topic, with at least one for each."""
    budget_window_seconds: Annotated[float, Meta(ge=1, le=7 * DAY_SECONDS)] = 3600.0
    """Length of the budget window, which slides."""
    critical_share: Annotated[float, Meta(ge=0, le=1)] = 0.25
    """Part of the budget that only critical findings may use."""
    digest_targets: tuple[str, ...] = ()
    """Where digests go; empty: where the findings would have gone."""


class Noise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a finding does not become a page."""

    quiet_seconds: Seconds = 600.0
    """A problem whose detector does not say its end is over when it was not seen for so long."""
    longest_seconds: Seconds = 86_400.0
    """Any problem is over when nothing was heard of it for so long."""
    settle_seconds: Seconds = 600.0
    """What comes back within this time of its end is no new page, unless it is more severe or
    lasts longer than this time."""
    group_by: tuple[str, ...] = ("rule", "team", "tenant")
    """What findings of one group have in common, where the detector names no group."""
    group_size: Annotated[int, Meta(ge=0)] = 5
    """Active pages of one group that stand alone; further ones share one page. 0: all share it."""
    group_update_seconds: Seconds = 60.0
    """A page of a group is sent again with new figures at most this often."""
    digest_interval_seconds: Annotated[float, Meta(ge=1, le=7 * DAY_SECONDS)] = 3600.0
    """A digest goes out so long after the first finding in it."""
    digest_items: Annotated[int, Meta(ge=1, le=50)] = 20
    """Findings a digest names; the others are counted."""
    false_positive_seconds: Seconds = 7.0 * DAY_SECONDS
    """So long a verdict false_positive keeps the same problem quiet."""
    benign_seconds: Seconds = 30.0 * DAY_SECONDS
    """So long a verdict benign keeps the same problem quiet."""
    escape_factor: Annotated[float, Meta(ge=1)] = 2.0
    """A verdict raises the threshold to this many times the figure it was given for; more than
    that is told all the same."""
    raise_at_ratio: Annotated[float, Meta(ge=0)] = 0.0
    """A figure this many times its threshold raises the severity by one step, beside what rules
    say of escalation; 0: never."""
    raise_at_occurrences: Count = 10
    """A problem seen this often raises the severity by one step."""
    stale_seconds: Seconds = float(DAY_SECONDS)
    """A finding this old when it comes goes to the digest."""
    max_incidents: Count = 20_000
    """Problems remembered a partition; further ones are counted in the digest alone."""


class Suppression(Match, frozen=True, kw_only=True):
    """A time in which matching findings are not paged; what still lasts at its end is."""

    hours: Annotated[str, Meta(pattern=r"^(\d\d:\d\d-\d\d:\d\d)?$")] = ""
    """Each day, UTC, such as 22:00-06:00; empty: all day."""
    days: tuple[Annotated[str, Meta(pattern="^(mon|tue|wed|thu|fri|sat|sun)$")], ...] = ()
    """Days on which it begins; empty: every day."""
    reason: str = ""
    """Why, for whoever reads the file."""

    def ends_ns(self, now_ns: int) -> int:
        """When it is over, where `now_ns` lies in it; else 0."""
        seconds = now_ns // NANOSECONDS
        day, into = divmod(seconds, DAY_SECONDS)
        begin, end = self._hours()
        if begin >= end and into < end:  # it began yesterday
            day, into = day - 1, into + DAY_SECONDS
        end = end if begin < end else end + DAY_SECONDS
        if not begin <= into < end or not self._on(day):
            return 0
        return (day * DAY_SECONDS + end) * NANOSECONDS

    def _on(self, day: int) -> bool:
        names = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")  # 1970-01-01 was a Thursday
        return not self.days or names[day % 7] in self.days

    def _hours(self) -> tuple[int, int]:
        if not self.hours:
            return 0, DAY_SECONDS
        begin, end = (_second_of_day(part) for part in self.hours.split("-"))
        return begin, end


def _second_of_day(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60


class AlertsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The alerts file."""

    targets: dict[str, Options] = {}
    """By name."""
    routes: tuple[Route, ...] = ()
    """In order. None: everything goes to every target."""
    default: tuple[str, ...] = ()
    """Targets of what no route matches."""
    teams: dict[str, Team] = {}
    """By name."""
    noise: Noise = Noise()
    """Noise control."""
    suppressions: tuple[Suppression, ...] = ()
    """Times without pages."""


class Plan:
    """Targets by name, and what is asked about a finding. Pure but for the targets themselves."""

    def __init__(
        self, settings: AlertSettings, file: AlertsFile, targets: Mapping[str, AlertTarget]
    ) -> None:
        self.settings = settings
        self.noise = file.noise
        self.targets = targets
        self._file = file
        self._any_team = Team()

    def team_of(self, finding: Finding) -> str:
        """Its own team, else the first whose patterns match; empty: nobody's."""
        if team := finding["gatebook"].get("team"):
            return str(team)
        return next((n for n, t in self._file.teams.items() if t.matches(finding)), NO_TEAM)

    def team(self, name: str) -> Team:
        """Budget and digest of a team; the defaults for one the file does not have."""
        return self._file.teams.get(name, self._any_team)

    def route(self, finding: Finding, team: str) -> tuple[str, ...]:
        """Names of the targets a finding goes to, each once."""
        if not self._file.routes:
            return self._file.default or tuple(self.targets)
        return tuple(dict.fromkeys(self._routed(finding, team))) or self._file.default

    def _routed(self, finding: Finding, team: str) -> Iterator[str]:
        for route in self._file.routes:
            if route.matches(finding, team):
                yield from route.targets
                if not route.go_on:
                    return

    def digest_targets(self, team: str, routed: Iterable[str]) -> list[str]:
        """Where a digest goes: where the team wants it, else where the findings in it would have
        gone, without those targets that call people, unless there is no other."""
        if named := self.team(team).digest_targets:
            return list(named)
        there = [name for name in routed if name in self.targets]
        return [name for name in there if not self.targets[name].calls] or there

    def suppressed_until_ns(self, finding: Finding, team: str, now_ns: int) -> int:
        """End of the suppression a finding falls into; 0: none."""
        ends = [s.ends_ns(now_ns) for s in self._file.suppressions if s.matches(finding, team)]
        return max(ends, default=0)


def read_file(path: str) -> AlertsFile:
    """The alerts file. Raises Fatal naming what is wrong, without its value."""
    try:
        return msgspec.convert(tomllib.loads(Path(path).read_text("utf-8")), AlertsFile)
    except (OSError, UnicodeDecodeError) as error:
        raise Fatal(
            f"GATEBOOK_ALERTS_FILE cannot be read: {type(error).__name__}", "correct the path"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise Fatal(f"the alerts file is not TOML: {error}", "correct the file") from None
    except msgspec.ValidationError as error:
        where = str(error).rpartition("`$")[2].rstrip("`") or "its tables"
        said = str(error).partition(" - at")[0]
        # Messages of msgspec quote names, types and bounds; what stands in the file only where
        # a tag or a name is unknown, and neither is a secret.
        raise Fatal(f"the alerts file is wrong at {where}: {said}", "correct the file") from None


def _checked(file: AlertsFile) -> AlertsFile:
    """Fatal where names lead nowhere, or a finding could go nowhere."""
    named = {
        "default": file.default,
        **{f"routes[{n}]": route.targets for n, route in enumerate(file.routes)},
        **{f"teams.{n}": team.digest_targets for n, team in file.teams.items()},
    }
    for where, names in named.items():
        for name in names:
            if name not in file.targets:
                raise Fatal(f"{where} of the alerts file names a target that is not there", name)
    catches = any(route.matches_everything for route in file.routes)
    if file.routes and not file.default and not catches:
        raise Fatal(
            "a finding that no route matches would go nowhere",
            "name targets in `default` of the alerts file",
        )
    for suppression in file.suppressions:
        if suppression.hours and max(suppression._hours()) > DAY_SECONDS:
            raise Fatal("the hours of a suppression are no times of a day", "write 22:00-06:00")
    return file


def load_plan(
    settings: AlertSettings | None = None, kafka: Mapping[str, Any] | None = None, **seams: Any
) -> Plan:
    """The plan in force: the alerts file, and the Alertmanager of the environment. Raises Fatal.

    `kafka` are the properties of targets of type kafka; `seams` are given in tests."""
    given = settings or load_alert_settings()
    file = read_file(given.alerts_file) if given.alerts_file else AlertsFile()
    if given.alertmanager_url:
        extra = {given.alertmanager_name: options_from(given)}
        file = msgspec.structs.replace(file, targets={**file.targets, **extra})
    _checked(file)
    return Plan(given, file, _targets(file, given, kafka or {}, seams))


def _targets(
    file: AlertsFile, settings: AlertSettings, kafka: Mapping[str, Any], seams: dict[str, Any]
) -> dict[str, AlertTarget]:
    built: dict[str, AlertTarget] = {}
    for name, options in file.targets.items():
        more = {"kafka": dict(kafka)} if isinstance(options, KafkaOptions) else seams
        try:
            built[name] = options.build(name, settings, **more)
        except Fatal as error:
            raise Fatal(f"alert target {name}: {error}", error.next_step) from None
    return built
