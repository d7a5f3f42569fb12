"""What the ready-made kinds share: conditions, values, items and groups from rule.toml or from
functions of the folder's logic.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import BaseDetector, Common, Rule
from gatebook.processors.detect.predicates import (
    Predicate,
    divided,
    field,
    predicate,
    size_of,
    text_field,
)
from gatebook.processors.detect.windows import Aggregate, Paned, Sessions
from gatebook.schemas.errors import Fatal

# Functions a logic.py may have; each takes the access and the parameters.
FUNCTIONS = ("matches", "value", "item", "group", "hit")
Logic = Mapping[str, Callable[[Access, Any], Any]]
STEPS_PER_WINDOW = 6


def windows_of(rule: Rule, parameters: Any, aggregate: Aggregate) -> Paned | Sessions:
    """The windows a rule asks for. Fatal where its kind has no such windows."""
    seconds, kind = parameters.window_seconds, rule.detect.window
    if kind == "session":
        return Sessions(aggregate, seconds)
    if kind == "sliding":
        raise Fatal(f"{rule.id}: only `count` has sliding windows", "use hopping ones")
    step = parameters.step_seconds or max(1, seconds // STEPS_PER_WINDOW)
    if kind == "hopping" and seconds % step:
        raise Fatal(f"{rule.id}: window_seconds is no multiple of step_seconds", "make it one")
    return Paned(aggregate, seconds, step if kind == "hopping" else seconds)


class SimpleDetector(BaseDetector):
    """A detector whose questions to an access are answered by rule.toml and logic.py."""

    parameters_type: ClassVar[type[Common]]

    def __init__(self, rule: Rule, parameters: Any, logic: Logic) -> None:
        super().__init__(rule, parameters)
        seconds = parameters.quiet_seconds or getattr(parameters, "window_seconds", 0)
        self.quiet_ns = seconds * NANOSECONDS
        self._set_questions(logic)

    def _set_questions(self, logic: Logic) -> None:
        """Bind the functions to this instance: a plain call is what every access pays for."""
        detect, parameters = self.rule.detect, self.parameters
        self.matches = self._matcher(logic)  # type: ignore[assignment,method-assign]  # quicker
        self.value: Callable[[Access], float] = lambda access: 1.0
        if "value" in logic:
            value = logic["value"]
            self.value = lambda access: float(value(access, parameters))
        elif detect.value:
            get = field(detect.value)
            self.value = lambda access: size_of(get(access))
        self.item = self._text(logic, "item", detect.item)
        self.group = self._text(logic, "group", detect.group)  # type: ignore[assignment,method-assign]  # too

    def _matcher(self, logic: Logic) -> Predicate:
        where = predicate(self.rule.detect.where)
        self._alike, others = divided(self.rule.detect.where)
        self._asks = self._with_own(others, logic)
        return self._with_own(where, logic) or (lambda access: True)

    def _with_own(self, where: Predicate | None, logic: Logic) -> Predicate | None:
        own, parameters = logic.get("matches"), self.parameters
        if own is None:
            return where
        if where is None:
            return lambda access: own(access, parameters)
        return lambda access: where(access) and own(access, parameters)

    def asks(self, access: Access) -> Predicate | bool:
        """What [detect].where leaves open for accesses that are like this one."""
        if self._alike is not None and not self._alike(access):
            return False
        return self._asks or True

    def _text(self, logic: Logic, name: str, field_name: str) -> Callable[[Access], str]:
        own, parameters = logic.get(name), self.parameters
        if own is not None:
            return lambda access: own(access, parameters)
        if field_name:
            return text_field(field_name)
        return lambda access: ""
