"""Keys and tokens as an identity provider makes them, and as an attacker would."""

from __future__ import annotations

import base64
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "model-service"
_ALGORITHMS = {"RS256": RSAAlgorithm, "PS256": RSAAlgorithm, "ES256": ECAlgorithm,
               "EdDSA": OKPAlgorithm}  # fmt: skip


@cache
def private_key(algorithm: str, name: str, rsa_bits: int = 2048) -> Any:
    """A key of an algorithm, the same one for the same name."""
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, rsa_bits)


def public_jwk(algorithm: str, name: str = "k1", **members: Any) -> dict[str, Any]:
    """The public part of a key as a provider shows it."""
    key = private_key(algorithm, name).public_key()
    jwk = json.loads(_ALGORITHMS[algorithm].to_jwk(key))  # type: ignore[attr-defined]  # a union of classes
    return {**jwk, "kid": name, "use": "sig", "alg": algorithm, **members}


def claims_of(issuer: str, **changes: Any) -> dict[str, Any]:
    """Good claims, changed; a change to None takes a claim away."""
    now = int(time.time())
    claims = {
        "iss": issuer, "aud": AUDIENCE, "sub": "user-7", "exp": now + 300, "nbf": now - 10,
        "iat": now, "email": "seven@example.test", "name": "Seven", "groups": ["ml", "ops"],
        "sid": "session-1", "tid": "acme", **changes,
    }  # fmt: skip
    return {name: value for name, value in claims.items() if value is not None}


def signed(
    claims: dict[str, Any],
    algorithm: str = "RS256",
    name: str = "k1",
    signed_by: str = "",
    **header: Any,
) -> str:
    """A token that says it is signed by the key of that name, and is, unless by another."""
    key = private_key(algorithm, signed_by or name)
    return jwt.encode(claims, key, algorithm, {"kid": name, **header})


def part(value: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(claims: dict[str, Any], algorithm: str = "none") -> str:
    """A token without a signature."""
    return f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': 'k1'})}.{part(claims)}."


def signed_with_public_key(claims: dict[str, Any]) -> str:
    """An HS256 token whose secret is the public key: what a careless check takes for signed."""
    pem = private_key("RS256", "k1").public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    text = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k1'})}.{part(claims)}"
    mac = hmac.HMAC(pem, hashes.SHA256())
    mac.update(text.encode())
    return f"{text}.{base64.urlsafe_b64encode(mac.finalize()).rstrip(b'=').decode()}"
