"""Break-glass: a temporary raise of the capture level, asked for by one person and approved by two
others, each with a signature over the same request.

Beside the policy file stands the folder `<file>.break-glass` with

    <id>.request.json            {"request": {...}, "by": name, "signature": ...}
    <id>.approval.<name>.json    {"by": name, "signature": ...}
    <id>.revoked.<name>.json     the same

Signatures are Ed25519 over a line that names the step and the request's canonical bytes: nobody
can change a request after it was approved, or use an approval for another one. A request is bound
to the digest of the policy it was made under, so a change of the policy ends it.

Reading a folder is pure but for the files; who may do what is in the policy alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from gatebook.producers.policy.document import (
    RANK,
    BreakGlass,
    Match,
    Name,
    public_key,
)
from gatebook.producers.policy.match import Matcher, Policy

FOLDER_SUFFIX = ".break-glass"
MAX_FILE_BYTES = 16 * 1024
MAX_REQUESTS = 64
NANOSECONDS = 10**9
ID = r"bg-[0-9a-f]{16}"
_FILE = re.compile(rf"({ID})\.(?:request|(approval|revoked)\.([A-Za-z0-9][A-Za-z0-9_.-]*))\.json")

Step = Literal["request", "approval", "revoked"]
State = Literal["pending", "approved", "expired", "revoked", "refused"]
Verify = Callable[[bytes, bytes, bytes], bool]
T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked for. Times are nanoseconds since 1970."""

    id: Annotated[str, Meta(pattern=rf"^{ID}$")]
    policy: str
    policy_version: str
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    match: Match
    level: Literal["metadata", "redacted", "full"]
    requested_by: Name
    begins_ns: int
    expires_ns: int

    def signed_bytes(self, step: Step) -> bytes:
        """What a signature for this step is over: the same bytes wherever they are made."""
        plain = msgspec.to_builtins(self)
        plain["match"] = {n: v for n, v in plain["match"].items() if v is not None}
        body = msgspec.json.encode(plain, order="deterministic")
        return f"gatebook break-glass v1 {step}\n".encode() + body


class SignedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request file."""

    request: Request
    by: Name
    signature: str


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of an approval or a revocation."""

    by: Name
    signature: str


@dataclass(frozen=True)
class Grant:
    """A request and what became of it. `problem` is a code, said where it is refused; `ignored`
    has the codes of approvals that do not count."""

    id: str
    state: State
    problem: str = ""
    request: Request | None = None
    approved_by: tuple[str, ...] = ()
    revoked_by: str = ""
    ignored: tuple[str, ...] = ()

    def state_at(self, now_ns: int) -> str:
        """`active` or `waiting` where it is approved; as it is, otherwise."""
        request = self.request
        if request is None or self.state not in ("approved", "pending"):
            return self.state
        if now_ns >= request.expires_ns:
            return "expired"
        if self.state == "pending":
            return "pending"
        return "active" if now_ns >= request.begins_ns else "waiting"


class Raise:
    """An approved grant, ready to match."""

    def __init__(self, request: Request) -> None:
        self.id = request.id
        self.level = request.level
        self.begins_ns, self.expires_ns = request.begins_ns, request.expires_ns
        self.matcher = Matcher(request.match)


def folder_of(policy_path: Path) -> Path:
    """Where the requests for a policy file are."""
    return policy_path.with_name(policy_path.name + FOLDER_SUFFIX)


def verify_signature(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature holds. False as well where the package cryptography is missing: without
    it nothing is proved, so nothing is raised."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Something that differs once a file of the folder does."""
    try:
        found = [(p.name, p.stat()) for p in sorted(folder.iterdir())[: MAX_REQUESTS * 16]]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


def read_grants(folder: Path, policy: Policy, verify: Verify = verify_signature) -> list[Grant]:
    """What stands in the folder, judged by the policy. Nothing that is wrong in there raises."""
    files: dict[str, dict[str, Path]] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    for path in paths:
        found = _FILE.fullmatch(path.name)
        if found:
            files.setdefault(found[1], {})[path.name.removeprefix(found[1] + ".")] = path
    some = list(files.items())[-MAX_REQUESTS:]
    return [_judge(request_id, there, policy, verify) for request_id, there in some]


def _judge(request_id: str, there: Mapping[str, Path], policy: Policy, verify: Verify) -> Grant:
    signed = _read(there.get("request.json"), SignedRequest)
    if signed is None:
        return Grant(request_id, "refused", "unreadable")
    request, rules = signed.request, policy.file.break_glass
    if rules is None:
        return Grant(request_id, "refused", "not_allowed", request)
    problem = _request_problem(signed, request_id, policy, rules, verify)
    if problem:
        return Grant(request_id, "refused", problem, request)
    return _judge_approvals(request, there, rules, verify)


def _request_problem(
    signed: SignedRequest, request_id: str, policy: Policy, rules: BreakGlass, verify: Verify
) -> str:
    request = signed.request
    checks = (
        ("another_id", request.id != request_id),
        (
            "another_policy",
            (request.policy, request.policy_version) != (policy.name, policy.digest),
        ),
        ("too_high", RANK[request.level] > RANK[rules.max_level]),
        (
            "too_long",
            not 0 < request.expires_ns - request.begins_ns <= rules.max_seconds * NANOSECONDS,
        ),
        ("matches_everything", request.match == Match()),
        ("signed_by_another", signed.by != request.requested_by),
        ("forged", not _holds(signed, request, "request", keys_of(rules), verify)),
    )
    return next((code for code, wrong in checks if wrong), "")


def _judge_approvals(
    request: Request, there: Mapping[str, Path], rules: BreakGlass, verify: Verify
) -> Grant:
    approved, ignored = [], []
    for signed in _signed(there, "approval"):
        problem = _approval_problem(signed, request, rules, verify)
        if problem:
            ignored.append(problem)
        else:
            approved.append(signed.by)
    names = tuple(sorted(set(approved)))
    revoked = [s.by for s in _signed(there, "revoked")
               if _holds(s, request, "revoked", keys_of(rules), verify)]  # fmt: skip
    state: State = "approved" if len(names) >= rules.approvals else "pending"
    by = revoked[0] if revoked else ""
    return Grant(request.id, "revoked" if by else state, "", request, names, by, tuple(ignored))


def _approval_problem(signed: Signed, request: Request, rules: BreakGlass, verify: Verify) -> str:
    if signed.by == request.requested_by:
        return "approved_by_requester"
    if signed.by not in rules.approvers:
        return "not_an_approver"
    return "" if _holds(signed, request, "approval", rules.approvers, verify) else "forged"


def keys_of(rules: BreakGlass) -> dict[str, str]:
    """The public keys of everybody named: an approver may ask as well, for others to approve."""
    return {**rules.requesters, **rules.approvers}


def _holds(
    signed: Signed | SignedRequest, request: Request, step: Step, keys: Mapping[str, str],
    verify: Verify,
) -> bool:  # fmt: skip
    key = public_key(keys.get(signed.by, ""))
    try:
        signature = base64.b64decode(signed.signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return key is not None and verify(key, signature, request.signed_bytes(step))


def _signed(there: Mapping[str, Path], step: str) -> Iterator[Signed]:
    for name, path in there.items():
        found = _read(path, Signed) if name.startswith(f"{step}.") else None
        if found is not None:
            yield found


def _read(path: Path | None, kind: type[T]) -> T | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
