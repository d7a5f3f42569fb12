"""What a tenant is told of a day out of which retention took something."""

from __future__ import annotations

import pytest

from gatebook.processors.retention.state import (
    Missing,
    missing_in,
    with_closed,
    with_settled,
)
from gatebook.processors.sinks.slots import Closed, Gates

SLOT = "2026.03.01"
OF_GLOBEX = Closed(thinned={"g": 100}, whose={"globex": ("g",)})
OF_ACME = Closed(dropped=("a",), whose={"acme": ("a",)})
OLD = Closed(dropped=("o",), thinned={"p": 7})
GONE = Closed(gone=True, whose={"globex": ()})


def closed(*given: Closed) -> Closed:
    """A slot closed to one after the other."""
    gates = Gates()
    for one in given:
        gates = with_closed(gates, "access", SLOT, one)
    return gates.closed["access"][SLOT]


def told(found: Closed, *tenants: str) -> Missing | None:
    """To callers of these tenants, or of all."""
    return missing_in("access", SLOT, found, frozenset(tenants) or None)


def missing(thinned: bool, keep_one_in: int = 0, unknown: bool = False) -> Missing:
    return Missing("access", SLOT, thinned, keep_one_in, unknown)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (closed(OF_GLOBEX), None),
        (closed(OF_GLOBEX, OF_ACME), missing(thinned=True)),
        (closed(OF_GLOBEX, GONE), None),
        (closed(OF_ACME, GONE), missing(thinned=False)),
        (closed(Closed(gone=True)), missing(thinned=False)),
        (closed(Closed(gone=True), GONE), missing(thinned=False)),
        (closed(OLD), missing(thinned=True, unknown=True)),
        (closed(OLD, OF_GLOBEX), missing(thinned=True, unknown=True)),
        (closed(OLD, OF_ACME), missing(thinned=True)),
        (closed(Closed(dropped=("n",), whose={"": ("n",)})), None),
    ],
)
def test_a_tenant_is_told_of_its_own_and_of_what_is_everybodys(
    found: Closed, expected: Missing | None
) -> None:
    """What is not known to be its own is told without figures, and another's is not told."""
    assert told(found, "acme") == expected


def test_figures_are_those_of_the_tenants_asked_for() -> None:
    """The coarsest sample of theirs; of all where all are asked for."""
    both = closed(OF_GLOBEX, Closed(thinned={"a": 4}, whose={"acme": ("a",)}))
    assert told(both, "acme") == missing(thinned=True, keep_one_in=4)
    assert told(both, "acme", "globex") == missing(thinned=True, keep_one_in=100)
    assert told(both) == missing(thinned=True, keep_one_in=100)


def test_who_was_to_lose_all_and_lost_nothing_is_told_nothing() -> None:
    """A day that was announced to be gone, and of which more was left in the end."""
    announced = Closed(gone=True, whose={"acme": (), "globex": ()})
    gates = with_closed(Gates(), "access", SLOT, announced)
    settled = Closed(dropped=("g",), whose={"globex": ("g",)})
    found = with_settled(gates, "access", SLOT, settled).closed["access"][SLOT]
    assert told(found, "acme") is None
    assert told(found, "globex") == missing(thinned=True)
