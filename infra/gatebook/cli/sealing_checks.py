"""What `gatebook doctor` says of the keys that content is sealed with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gatebook.engines.check import Check, Verdict
from gatebook.schemas.errors import Fatal, GatebookError

if TYPE_CHECKING:
    from gatebook.producers.config import ProducerSettings
    from gatebook.schemas.keys import Bundle, Key, KeySource


def check_sealing() -> Iterator[Check]:
    """Whether there are keys for content: a public one here, for producers, and the private one,
    for intake. Where this environment captures content, their lack is a failure: it is dropped
    (no_key), or cannot be opened. Services on this machine may have settings of their own: keys
    that are there and all destroyed are told in any case."""
    from gatebook.producers.config import ProducerSettings

    try:
        settings = ProducerSettings.from_env()
        wanted = wants_content(settings)
        yield from judge_public(settings.public_key_source(), wanted)
    except Fatal:
        return  # said by the row of the settings
    try:
        yield from _check_private(settings, wanted)
    except (Fatal, ModuleNotFoundError):
        return  # likewise, or intake does not run here


def wants_content(settings: ProducerSettings) -> bool:
    """Whether content could be kept of an access, by setting, policy, or a raise of it. A policy
    that cannot be read is taken for one that wants it."""
    from gatebook.producers.config import WITH_CONTENT
    from gatebook.producers.policy.match import Policy

    if not settings.capture_policy:
        return settings.may_want_content
    try:
        policy = Policy.read(Path(settings.capture_policy).expanduser().read_bytes())
    except (OSError, GatebookError):
        return True
    return policy.highest_level in WITH_CONTENT or policy.file.break_glass is not None


def judge_public(source: KeySource, wanted: bool) -> Iterator[Check]:
    """The row of the producers' side; none where nothing is wanted and nothing looks odd."""
    newest, problem = _newest(source)
    if newest is not None:
        if wanted:
            detail = f"content is sealed for key {newest.id}, made {newest.created}"
            yield Check(name="sealing", verdict="ok", detail=detail)
        return
    if not wanted and source.version() is None:
        return  # no keys, and no use for any
    step = "gatebook keys rotate where the keys are kept, then bring its public file here"
    if source.version() is None:
        step = "bring intake's public bundle here; on one machine: gatebook keys new"
    yield Check(
        name="sealing",
        verdict="fail" if wanted else "warn",
        detail=f"captured content is dropped: {problem}",
        next_step=step,
    )


def _check_private(settings: ProducerSettings, wanted: bool) -> Iterator[Check]:
    from gatebook.processors.config import from_env

    worker = from_env()
    source = worker.private_key_source()
    public, _ = _newest(settings.public_key_source())
    if source.version() is None and not worker.sealing_keys:
        if wanted and _intake_may_run_here():
            yield _opening("warn", f"no private keys for intake at {source}", "that is right where "
                           "intake runs elsewhere; else bring its private bundle here")  # fmt: skip
        return
    bundle, problem = _bundle(source)
    live = {key.id for key in bundle.keys if key.private and not key.destroyed}
    verdict: Verdict = "fail" if wanted else "warn"
    if not live:
        problem = problem or f"{source} has no live key"
        step = "gatebook keys rotate; or bring the private bundle of before back"
        yield _opening(verdict, f"intake cannot open content: {problem}", step)
    elif public is not None and public.id not in live:
        detail = f"intake cannot open what is sealed now: {source} lacks the key {public.id}"
        step = "bring the public bundle that goes with it to the producers (gatebook keys list)"
        yield _opening(verdict, detail, step)
    elif wanted:
        yield _opening("ok", f"intake has {len(live)} private keys", "")


def _opening(verdict: Verdict, detail: str, next_step: str) -> Check:
    return Check(name="opening", verdict=verdict, detail=detail, next_step=next_step)


def _intake_may_run_here() -> bool:
    """Whether the workers' packages are installed."""
    from importlib.util import find_spec

    return find_spec("aiokafka") is not None  # Faust's; Faust itself has no spec once imported


def _bundle(source: KeySource) -> tuple[Bundle, str]:
    """The keys there are, and why there are none."""
    from gatebook.schemas.keys import Bundle, KeysUnavailable, parse

    try:
        return parse(source.read()), ""
    except KeysUnavailable as error:
        return Bundle(), str(error)


def _newest(source: KeySource) -> tuple[Key | None, str]:
    """The key to seal for, or why there is none."""
    bundle, problem = _bundle(source)
    return bundle.newest, problem or f"{source} has no live key"
