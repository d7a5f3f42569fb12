"""An OpenID Connect provider over real HTTP: authorization code with PKCE, keys that rotate.

What it does by the book is checked by the book; `spoil` lets a test make it lie.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI, HTTPException, Request
from starlette.responses import RedirectResponse
from tests.waiting import wait_until

CLIENT_ID = "gatebook"
CLIENT_SECRET = "a-client-secret"


class Provider:
    """One issuer with one client, and one person who always agrees."""

    def __init__(self, issuer: str, redirect_uri: str) -> None:
        self.issuer = issuer
        self.redirect_uri = redirect_uri
        self.person: dict[str, Any] = {"sub": "ada-7", "name": "Ada", "roles": ["analyst"]}
        self.secret = CLIENT_SECRET
        self.spoil: Callable[[dict[str, Any]], dict[str, Any]] = dict
        self.sign: Callable[[dict[str, Any]], str] = self.signed
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.rotate("k1")
        self._codes: dict[str, dict[str, str]] = {}

    def rotate(self, key_id: str) -> None:
        """A new key; those before are withdrawn."""
        self.key_id = key_id
        self.keys = {key_id: rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    def signed(self, claims: dict[str, Any]) -> str:
        """A JWT by the key of now."""
        key = self.keys[self.key_id]
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": self.key_id})

    def token(self, audience: str, **more: Any) -> str:
        """An access token for an API."""
        return self.sign(self.spoil(self._claims(audience) | more))

    def _claims(self, audience: str) -> dict[str, Any]:
        now = int(time.time())
        return {"iss": self.issuer, "aud": audience, "iat": now, "exp": now + 300, **self.person}

    # -- endpoints

    def discovery(self) -> dict[str, Any]:
        """What it says of itself."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
        }

    def jwks(self) -> dict[str, Any]:
        """Its public keys."""
        found = []
        for key_id, key in self.keys.items():
            public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            found.append({**public, "kid": key_id, "use": "sig", "alg": "RS256"})
        return {"keys": found}

    def authorize(self, request: Request) -> RedirectResponse:
        """The person agrees at once."""
        asked = dict(request.query_params)
        _require(asked.get("client_id") == CLIENT_ID and asked["response_type"] == "code")
        _require(asked["redirect_uri"] == self.redirect_uri)
        _require(
            asked.get("code_challenge_method") == "S256" and len(asked["code_challenge"]) == 43
        )
        _require(bool(asked.get("nonce")) and "openid" in asked["scope"].split())
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.issuer}
        return RedirectResponse(f"{self.redirect_uri}?{urlencode(back)}", 302)

    async def exchange(self, request: Request) -> dict[str, Any]:
        """A code for a token, once, for whoever has the verifier and the client's secret."""
        given = dict(parse_qsl((await request.body()).decode()))
        pair = base64.b64encode(f"{CLIENT_ID}:{self.secret}".encode()).decode()
        _require(request.headers.get("authorization") == f"Basic {pair}")
        asked = self._codes.pop(given.get("code", ""), None)
        _require(asked is not None and given.get("redirect_uri") == self.redirect_uri)
        assert asked is not None
        digest = hashlib.sha256(given["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        _require(challenge == asked["code_challenge"])
        claims = self.spoil({**self._claims(CLIENT_ID), "nonce": asked["nonce"]})
        return {"access_token": "opaque", "token_type": "Bearer", "id_token": self.sign(claims)}


def _require(holds: bool) -> None:
    if not holds:
        raise HTTPException(400, {"error": "invalid_request"})


@contextmanager
def running_provider(redirect_uri: str) -> Iterator[Provider]:
    """A provider on a free port of this machine, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    provider = Provider(f"http://127.0.0.1:{listening.getsockname()[1]}", redirect_uri)
    app = FastAPI()
    app.get("/.well-known/openid-configuration")(provider.discovery)
    app.get("/jwks")(provider.jwks)
    app.get("/authorize")(provider.authorize)
    app.post("/token")(provider.exchange)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        wait_until("the provider runs", lambda: server.started)
        yield provider
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
