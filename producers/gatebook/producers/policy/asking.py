"""Asking for break-glass and approving it: keys, signatures, files. The command line uses this;
producers only read what it writes (grants.py)."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gatebook.producers.policy.document import RANK, BreakGlass, Match, public_key
from gatebook.producers.policy.grants import (
    NANOSECONDS,
    Grant,
    Request,
    Signed,
    SignedRequest,
    Step,
    keys_of,
    read_grants,
)
from gatebook.producers.policy.match import Policy
from gatebook.schemas.errors import GatebookError


class Refused(GatebookError):
    """A step that the policy, or the state of the request, does not allow."""

    exit_code = 1

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


class Person:
    """Somebody with a private key that fits the public one in the policy."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self._key = key

    @classmethod
    def known(cls, name: str, key_file: Path, policy: Policy) -> Person:
        """Raises Refused where the policy does not list them, or lists another key."""
        key = read_key(key_file)
        listed = public_key(keys_of(rules_of(policy)).get(name, ""))
        if listed is None:
            raise Refused(
                f"the policy lists nobody named {name}", "see [break_glass] in the policy"
            )
        if listed != key.public_key().public_bytes_raw():
            raise Refused(f"this is not the key of {name}", "name the key file of --by")
        return cls(name, key)

    def sign(self, request: Request, step: Step) -> str:
        """The signature for one step."""
        return base64.b64encode(self._key.sign(request.signed_bytes(step))).decode()


def rules_of(policy: Policy) -> BreakGlass:
    """Who may do what. Raises Refused where the policy has no break-glass."""
    if policy.file.break_glass is None:
        raise Refused("the policy has no [break_glass]", "list approvers in the policy file")
    return policy.file.break_glass


def new_key(path: Path) -> str:
    """Make a private key, for its owner to read alone; the public key for the policy file."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}", "name a file that is not there yet") from None
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def read_key(path: Path) -> Ed25519PrivateKey:
    """A private key from a PEM file. Raises Refused."""
    next_step = "make one with `gatebook policy break-glass key FILE`"
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}", next_step) from None
    except (ValueError, TypeError):
        raise Refused(f"{path} is no private key in PEM without a password", next_step) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(f"{path} is a private key of another kind than Ed25519", next_step)
    return key


def new_request(
    policy: Policy,
    by: str,
    level: str,
    match: Mapping[str, str],
    reason: str,
    seconds: int,
    now_ns: int,
) -> Request:
    """A request that begins now. Raises Refused where it is none that could be approved."""
    plain = {
        "id": f"bg-{secrets.token_hex(8)}",
        "policy": policy.name,
        "policy_version": policy.digest,
        "reason": reason,
        "match": match,
        "level": level,
        "requested_by": by,
        "begins_ns": now_ns,
        "expires_ns": now_ns + seconds * NANOSECONDS,
    }
    try:
        request = msgspec.convert(plain, Request)
    except msgspec.ValidationError as error:
        raise Refused(f"no request: {error}", "see --help") from None
    if request.match == Match():
        raise Refused("a raise of everything is not allowed", "name a tenant, a model, a route ...")
    return request


def check_request(policy: Policy, request: Request) -> None:
    """Raises Refused for a request that the policy would not allow anybody."""
    rules = rules_of(policy)
    if RANK[request.level] > RANK[rules.max_level]:
        raise Refused(f"the policy allows at most {rules.max_level}", "ask for less")
    if request.expires_ns - request.begins_ns > rules.max_seconds * NANOSECONDS:
        raise Refused(f"the policy allows at most {rules.max_seconds} s", "ask for less with --for")


def ask(folder: Path, policy: Policy, person: Person, request: Request) -> Grant:
    """Write the request beside the policy; what producers will make of it. Raises Refused where it
    cannot be written."""
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"{folder}: {error.strerror}", "ask who may write beside the policy"
        ) from None
    signed = SignedRequest(request, person.name, person.sign(request, "request"))
    _write(folder, f"{request.id}.request.json", signed)
    return find(folder, policy, request.id)


def approvable(policy: Policy, grant: Grant, by: str, now_ns: int) -> Request:
    """The request, where this person may approve it now. Raises Refused."""
    request, state = grant.request, grant.state_at(now_ns)
    if request is None or state in ("refused", "expired", "revoked"):
        raise Refused(f"{grant.id} is {state}: {grant.problem or 'over'}", "ask anew")
    if by == request.requested_by:
        raise Refused("nobody approves what they asked for", "somebody else has to")
    if by not in rules_of(policy).approvers:
        raise Refused(f"{by} may ask, but not approve", "see [break_glass.approvers]")
    return request


def sign_step(folder: Path, policy: Policy, person: Person, request: Request, step: Step) -> Grant:
    """Write an approval or a revocation; what producers will make of it."""
    signed = Signed(person.name, person.sign(request, step))
    _write(folder, f"{request.id}.{step}.{person.name}.json", signed)
    return find(folder, policy, request.id)


def find(folder: Path, policy: Policy, request_id: str) -> Grant:
    """One request, as the policy judges it. Raises Refused where there is none."""
    for grant in read_grants(folder, policy):
        if grant.id == request_id:
            return grant
    raise Refused(f"there is no request {request_id}", "`gatebook policy break-glass status`")


def _write(folder: Path, name: str, content: msgspec.Struct) -> Path:
    """Appears whole or not at all."""
    path = folder / name
    draft = folder / f".{name}.{secrets.token_hex(4)}"
    try:
        draft.write_bytes(msgspec.json.encode(content))
        draft.replace(path)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}", "ask who may write beside the policy") from None
    return path
