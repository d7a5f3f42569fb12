"""A month of accesses of people and applications with habits, and attacks among them.

All of it is drawn from a seed: the same people, the same accesses, the same ids in every run.
Habits are hours, weekdays, a pace, models, addresses and sizes; they have their noise, too:
travels, late evenings, a new model, a client that is misconfigured for an hour, a busy day. Attacks
come in several strengths, weak ones included, and begin when two weeks have passed, so that what
learns had something to learn from. Each attack's event ids are its label.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import exp, log
from typing import Any

Document = dict[str, Any]
TUNE_SEED, SEED = 11, 12  # thresholds were looked at with the first, figures are of the second
START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
DAY_SECONDS = 86_400
LEARNING_DAYS = 15
MODELS = tuple(f"slm-{size}" for size in ("tiny", "small", "base", "code", "chat", "long"))
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
TENANTS = ("acme", "globex", "initech")
SERVICES = ("support", "coding", "search", "reports")
FAILURES = (
    (400, "invalid_request"),
    (429, "rate_limited"),
    (503, "unavailable"),
    (403, "content_filtered"),
)
ATTACKS = ("credential sharing", "exfiltration burst", "enumeration", "off-hours", "slow probing")


@dataclass
class Identity:
    """Somebody with habits. Hours are of UTC; sizes are medians in tokens."""

    number: int
    tenant: str
    user: str
    key: str
    is_app: bool
    hours: tuple[int, int]
    per_day: float
    models: tuple[str, ...]
    addresses: tuple[str, ...]
    service: str
    input_tokens: float
    output_tokens: float
    failure_share: float


@dataclass
class Event:
    """One access, before it is a document. `attack` is the number of the attack it is part of."""

    seconds: float
    who: Identity
    model: str
    address: str
    user: str
    path: str = PATHS[0]
    status: int = 200
    reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    attack: int = -1
    event_id: str = ""


@dataclass
class Attack:
    """What was injected, and how strong it is in words."""

    number: int
    kind: str
    strength: str
    who: Identity
    began_seconds: float
    ids: set[str] = field(default_factory=set)


@dataclass
class Month:
    """Accesses in order of time with the attacks among them."""

    identities: list[Identity]
    days: int
    events: list[Event]
    attacks: list[Attack]

    def documents(self) -> Iterator[Document]:
        """The accesses as detection reads them."""
        return map(document, self.events)


def month(
    identities: int = 200, days: int = 30, attacks_of_kind: int = 8, seed: int = SEED
) -> Month:
    """The whole of it."""
    draw = random.Random(seed)
    people = [_identity(number, draw) for number in range(identities)]
    own = {who.number: random.Random(f"{seed}/{who.number}") for who in people}
    events = [event for who in people for event in _habits(who, days, own[who.number])]
    attacks = _attacks(people, days, attacks_of_kind, draw, events)
    events.sort(key=lambda event: event.seconds)
    for number, event in enumerate(events):
        event.event_id = f"00000000-0000-7000-8000-{number:012x}"
        if event.attack >= 0:
            attacks[event.attack].ids.add(event.event_id)
    return Month(people, days, events, attacks)


# ---- who they are ------------------------------------------------------------------------------


def _identity(number: int, draw: random.Random) -> Identity:
    is_app = number % 10 == 9
    begins = draw.randint(6, 10)
    return Identity(
        number=number,
        tenant=TENANTS[number % len(TENANTS)],
        user=f"{'app' if is_app else 'person'}-{number}",
        key=f"key-{number}",
        is_app=is_app,
        hours=(0, 24) if is_app else (begins, begins + draw.randint(7, 10)),
        per_day=_around(250 if is_app else 40, 0.5, draw),
        models=tuple(draw.sample(MODELS, 1 if is_app else draw.randint(1, 3))),
        addresses=tuple(_address(draw) for _ in range(1 if is_app else draw.randint(1, 3))),
        service=draw.choice(SERVICES),
        input_tokens=_around(900, 0.8, draw),
        output_tokens=_around(250, 0.6, draw),
        failure_share=draw.uniform(0.002, 0.02),
    )


def _around(median: float, spread: float, draw: random.Random) -> float:
    return exp(draw.gauss(log(median), spread))


def _address(draw: random.Random) -> str:
    return f"198.51.{draw.randrange(100, 120)}.{draw.randrange(1, 255)}"


# ---- what they usually do ----------------------------------------------------------------------


def _habits(who: Identity, days: int, draw: random.Random) -> Iterator[Event]:
    for day in range(days):
        count = _pace(who, day, draw)
        for seconds in sorted(_moments(who, day, count, draw)):
            yield _usual(who, seconds, draw)
        if not who.is_app:
            yield from _noise(who, day, draw)


def _pace(who: Identity, day: int, draw: random.Random) -> int:
    """How many accesses in a day: few at weekends, many on a busy day."""
    weekend = day % 7 >= 5
    share = 1.0 if who.is_app or not weekend else (0.3 if who.number % 4 == 0 else 0.0)
    busy = 3.0 if draw.random() < 0.02 else 1.0
    return round(who.per_day * share * busy * draw.uniform(0.6, 1.4))


def _moments(who: Identity, day: int, count: int, draw: random.Random) -> Iterator[float]:
    first, last = who.hours
    while count > 0:
        begins = draw.uniform(first, last) * 3600 + day * DAY_SECONDS
        for turn in range(min(count, draw.randint(1, 6))):  # a conversation
            yield begins + turn * draw.uniform(5, 60)
            count -= 1


def _usual(who: Identity, seconds: float, draw: random.Random) -> Event:
    event = Event(
        seconds=seconds,
        who=who,
        model=who.models[0] if draw.random() < 0.7 else draw.choice(who.models),
        address=who.addresses[0] if draw.random() < 0.8 else draw.choice(who.addresses),
        user=who.user,
        path=PATHS[who.number % 2],
        input_tokens=round(_around(who.input_tokens, 0.5, draw)),
        output_tokens=round(_around(who.output_tokens, 0.5, draw)),
    )
    if draw.random() < who.failure_share:
        _fail(event, *draw.choice(FAILURES))
    return event


def _fail(event: Event, status: int, reason: str) -> Event:
    event.status, event.reason, event.output_tokens = status, reason, 0
    return event


def _noise(who: Identity, day: int, draw: random.Random) -> Iterator[Event]:
    """What is no attack and looks like one."""
    if day % 7 >= 5:
        return
    begins = day * DAY_SECONDS + draw.uniform(*who.hours) * 3600
    if draw.random() < 1 / 60:  # a travel: another address for a day
        yield from _changed(who, begins, 12, draw, address=_address(draw))
    if draw.random() < 1 / 60:  # late at work
        late = day * DAY_SECONDS + (who.hours[1] + draw.uniform(0.2, 2.5)) * 3600
        yield from _changed(who, late, 6, draw)
    if draw.random() < 1 / 60:  # another model is tried
        yield from _changed(who, begins, 4, draw, model=draw.choice(MODELS))
    if draw.random() < 1 / 50:  # a client under development
        for turn in range(draw.randint(2, 12)):
            yield _fail(_usual(who, begins + turn * 12, draw), 400, "invalid_request")
    if draw.random() < 1 / 60:  # a report over long texts
        for turn in range(draw.randint(4, 25)):
            event = _usual(who, begins + turn * 45, draw)
            event.input_tokens, event.output_tokens = draw.randint(4000, 12_000), 600
            yield event


def _changed(
    who: Identity, begins: float, count: int, draw: random.Random, **what: str
) -> Iterator[Event]:
    for turn in range(count):
        event = _usual(who, begins + turn * draw.uniform(20, 120), draw)
        for name, value in what.items():
            setattr(event, name, value)
        yield event


# ---- what attackers do -------------------------------------------------------------------------


def _attacks(
    people: list[Identity], days: int, of_kind: int, draw: random.Random, events: list[Event]
) -> list[Attack]:
    """Each has a victim of its own; strengths go from weak to strong within a kind."""
    persons = [who for who in people if not who.is_app]
    victims = iter(draw.sample(persons, of_kind * len(ATTACKS)))
    made: list[Attack] = []
    for kind in ATTACKS:
        for turn in range(of_kind):
            strength = turn / max(1, of_kind - 1)
            day = draw.randrange(LEARNING_DAYS, days - 1)
            day -= max(0, day % 7 - 4)  # a working day
            who = next(victims)
            found, told = _KINDS[kind](who, day * DAY_SECONDS, strength, draw)
            for event in found:
                event.attack = len(made)
            began = min(event.seconds for event in found)
            made.append(Attack(len(made), kind, told, who, began))
            events += found
    return made


def _between(weak: float, strong: float, strength: float) -> int:
    return round(weak + (strong - weak) * strength)


def _shared(
    who: Identity, midnight: float, strength: float, draw: random.Random
) -> tuple[list[Event], str]:
    """The victim's key in the hands of others, each with a name and an address of their own."""
    others = _between(3, 12, strength)
    found = []
    for other in range(others):
        address, begins = _address(draw), midnight + draw.uniform(8, 18) * 3600
        for turn in range(draw.randint(3, 12)):
            event = _usual(who, begins + turn * draw.uniform(20, 300), draw)
            event.address, event.user = address, f"stranger-{who.number}-{other}"
            found.append(event)
    return found, f"{others} people in a day"


def _exfiltrated(
    who: Identity, midnight: float, strength: float, draw: random.Random
) -> tuple[list[Event], str]:
    """Long answers, one after another, within working hours and from the usual address."""
    calls, tokens = _between(60, 400, strength), _between(1500, 4000, strength)
    begins = midnight + draw.uniform(who.hours[0], who.hours[1] - 2) * 3600
    found = []
    for turn in range(calls):
        event = _usual(who, begins + turn * 5400 / calls, draw)
        event.status, event.reason = 200, ""
        event.input_tokens, event.output_tokens = 200, round(tokens * draw.uniform(0.8, 1.2))
        found.append(event)
    return found, f"{calls} answers of {tokens} tokens in 90 min"


def _enumerated(
    who: Identity, midnight: float, strength: float, draw: random.Random
) -> tuple[list[Event], str]:
    """Names of models, or paths, tried one after another."""
    names, every = _between(5, 60, strength), _between(90, 2, strength)
    paths = draw.random() < 0.5
    begins = midnight + draw.uniform(*who.hours) * 3600
    found = []
    for turn in range(names):
        event = _fail(_usual(who, begins + turn * every, draw), 404, "not_found")
        event.path, event.model = (
            (f"/v1/internal/{turn}", "") if paths else (PATHS[0], f"slm-guess-{turn}")
        )
        found.append(event)
    return found, f"{names} {'paths' if paths else 'models'}, one in {every} s"


def _at_night(
    who: Identity, midnight: float, strength: float, draw: random.Random
) -> tuple[list[Event], str]:
    """The victim's own key, model and pace at an hour at which it sleeps; for half of them from
    another address."""
    count, elsewhere = _between(4, 60, strength), draw.random() < 0.5
    begins, address = midnight + draw.uniform(1, 4) * 3600, _address(draw)
    found = []
    for turn in range(count):
        event = _usual(who, begins + turn * draw.uniform(20, 60), draw)
        event.status, event.reason = 200, ""
        event.address = address if elsewhere else who.addresses[0]
        found.append(event)
    return found, f"{count} accesses at night{' from elsewhere' if elsewhere else ''}"


def _probed(
    who: Identity, midnight: float, strength: float, draw: random.Random
) -> tuple[list[Event], str]:
    """Refused accesses, spread over a day so that no short window holds many."""
    count = _between(24, 140, strength)
    found = []
    for turn in range(count):
        seconds = midnight + (turn + draw.random()) * DAY_SECONDS / count
        reason = draw.choice(((401, "unauthenticated"), (403, "forbidden"), (404, "not_found")))
        found.append(_fail(_usual(who, seconds, draw), *reason))
    return found, f"{count} refused accesses in a day"


_KINDS = {
    "credential sharing": _shared,
    "exfiltration burst": _exfiltrated,
    "enumeration": _enumerated,
    "off-hours": _at_night,
    "slow probing": _probed,
}


# ---- documents ---------------------------------------------------------------------------------


def time_ns(seconds: float) -> int:
    """Event time of a moment of the month."""
    return int(START.timestamp()) * 10**9 + round(seconds * 1e9)


def _text(at_ns: int) -> str:
    second, rest = divmod(at_ns, 10**9)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def document(event: Event) -> Document:
    """As intake renders it: nested names, nothing that is empty."""
    who, at_ns = event.who, time_ns(event.seconds)
    good = event.status == 200
    own: Document = {
        "principal": f"{who.tenant}/{event.user}",
        "identity": {"key_id": who.key, "method": "api_key", "assurance": "verified"},
        "source": {"address_class": "public"},
        "phase": "terminal",
        "producer_id": f"{who.service}-1",
        "capture": {"level": "metadata"},
    }
    out: Document = {
        "@timestamp": _text(at_ns),
        "event": {
            "id": event.event_id,
            "category": "api",
            "action": "chat",
            "outcome": "success" if good else "failure",
            "duration": 200_000_000 + 8_000_000 * event.output_tokens,
            "ingested": _text(at_ns + 10**9),
        },
        "organization": {"id": who.tenant},
        "user": {"id": event.user},
        "source": {"ip": event.address},
        "service": {"name": who.service},
        "url": {"path": event.path},
        "http": {
            "request": {"method": "POST", "body": {"bytes": 4 * event.input_tokens}},
            "response": {"status_code": event.status, "body": {"bytes": 4 * event.output_tokens}},
        },
        "gen_ai": {"operation": {"name": "chat"}, "usage": {"input_tokens": event.input_tokens}},
        "gatebook": own,
    }
    if event.reason:
        out["event"]["reason"] = event.reason
    if event.model:
        out["gen_ai"]["request"] = {"model": event.model}
    if good:
        out["gen_ai"]["response"] = {"model": event.model, "finish_reasons": ["stop"]}
        out["gen_ai"]["usage"]["output_tokens"] = event.output_tokens
    return out
