"""Make break-glass requests and approvals for tests, with real keys."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatebook.producers.policy.document import Match
from gatebook.producers.policy.grants import Request, Step, folder_of
from gatebook.producers.policy.match import Policy

PEOPLE = {
    name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))
    for name in ("ada", "bob", "cyd", "eve")
}
REQUEST_ID = "bg-" + "0" * 16
SECOND_NS = 10**9


def public(name: str) -> str:
    return base64.b64encode(PEOPLE[name].public_key().public_bytes_raw()).decode()


def policy_text(level: str = "metadata") -> str:
    """Ada may ask; Bob, Cyd and Ada herself may approve."""
    approvers = "\n".join(f'{name} = "{public(name)}"' for name in ("ada", "bob", "cyd"))
    return f"""
version = 1
name = "acme"
[[rule]]
name = "all"
level = "{level}"
[break_glass]
max_seconds = 3600
max_level = "redacted"
[break_glass.approvers]
{approvers}
"""


def request_of(under: Policy, begins_ns: int = 0, **changed: Any) -> Request:
    plain = Request(
        id=REQUEST_ID,
        policy=under.name,
        policy_version=under.digest,
        reason="incident 7",
        match=Match(tenant="lab"),
        level="redacted",
        requested_by="ada",
        begins_ns=begins_ns,
        expires_ns=begins_ns + 600 * SECOND_NS,
    )
    return msgspec.structs.replace(plain, **changed)


def signature(request: Request, step: Step, key_of: str) -> str:
    return base64.b64encode(PEOPLE[key_of].sign(request.signed_bytes(step))).decode()


class Box:
    """The folder beside a policy file."""

    def __init__(self, policy_path: Path) -> None:
        self.folder = folder_of(policy_path)
        self.folder.mkdir(exist_ok=True)

    def ask(self, request: Request, by: str = "", key_of: str = "") -> Request:
        by = by or request.requested_by
        signed = {"request": request, "by": by}
        self._write("request", {**signed, "signature": signature(request, "request", key_of or by)})
        return request

    def approve(self, request: Request, by: str, key_of: str = "", step: Step = "approval") -> None:
        signed = {"by": by, "signature": signature(request, step, key_of or by)}
        self._write(f"approval.{by}", signed)

    def revoke(self, request: Request, by: str, key_of: str = "") -> None:
        signed = {"by": by, "signature": signature(request, "revoked", key_of or by)}
        self._write(f"revoked.{by}", signed)

    def _write(self, name: str, content: Any) -> None:
        path = self.folder / f"{REQUEST_ID}.{name}.json"
        path.write_bytes(msgspec.json.encode(content))
