"""Asks the resolvers in their order, and adds what a caller says about the end user and session.

The first that proves who calls counts. Where none does, the first proof that failed counts, then
the first claim: a caller with a broken token is not named after something weaker it also sent.
What a caller merely says (X-End-User, the body's `user`) never becomes the user: it stands in
gatebook.identity.on_behalf_of, whoever the caller is, beside how well the caller itself is known.
Where the caller is a service (an API key, a client certificate) or not known, export, erasure and
holds go by that end user. Where a person proved who they are (oidc, sso, header), they go by the
caller: nobody evades them by naming somebody else. So an app that calls for its users shows a key
or a certificate of its own, not a token with a user in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity import (
    ANONYMOUS,
    STARTED_AT,
    Identity,
    IdentityResolver,
    judged,
)
from gatebook.producers.identity_api_key import ApiKeyResolver, load_known_keys
from gatebook.producers.identity_header import HeaderResolver, decoded
from gatebook.producers.identity_mtls import MtlsResolver
from gatebook.producers.identity_oidc import OidcResolver
from gatebook.producers.values import text

log = logging.getLogger("gatebook.producers")

Hook = Callable[[Any], Identity | None]
_RANKS = {"verified": 2, "failed": 1}


def make_resolvers(settings: ProducerSettings, secret: bytes) -> list[IdentityResolver]:
    """The resolvers that the settings name, in their order. One without what it needs (no issuer,
    no header set) is left out. Raises Fatal for a keys file or library that is not there."""
    makers: dict[str, Callable[[], IdentityResolver | None]] = {
        "oidc": lambda: OidcResolver(settings) if settings.oidc_issuer else None,
        "api_key": lambda: _api_keys(settings, secret),
        "mtls": lambda: _certificates(settings),
        "header": lambda: _headers(settings),
    }
    made = [makers[name]() for name in settings.identity_resolvers if name in makers]
    return [resolver for resolver in made if resolver is not None]


def _api_keys(settings: ProducerSettings, secret: bytes) -> IdentityResolver:
    known = load_known_keys(settings.identity_keys_file)
    return ApiKeyResolver(secret, known, settings.api_key_headers)


def _certificates(settings: ProducerSettings) -> IdentityResolver:
    return MtlsResolver(
        settings.mtls_name,
        settings.trusted_networks(),
        settings.mtls_xfcc_header,
        settings.mtls_subject_header,
        settings.mtls_verify_header,
    )


def _headers(settings: ProducerSettings) -> IdentityResolver | None:
    user, email = settings.identity_user_header, settings.identity_email_header
    if not (user or email):
        return None
    return HeaderResolver(user, email, settings.identity_roles_header, settings.trusted_networks())


def headers_read(settings: ProducerSettings) -> frozenset[str]:
    """Lower-case names of the headers that the resolvers of these settings may read, and those of
    a caller's claims."""
    names = (
        "authorization",
        *settings.api_key_headers,
        settings.mtls_xfcc_header,
        settings.mtls_subject_header,
        settings.mtls_verify_header,
        settings.identity_user_header,
        settings.identity_email_header,
        settings.identity_roles_header,
        settings.end_user_header,
        settings.session_header,
    )
    return frozenset(name.lower() for name in names if name)


class Identifier:
    """Who calls, by all resolvers together. `hook` is asked first, and what it says holds; `first`
    are resolvers that come before those of the settings."""

    def __init__(
        self,
        settings: ProducerSettings,
        secret: bytes,
        hook: Hook | None = None,
        first: Sequence[IdentityResolver] = (),
    ) -> None:
        self._hook = hook
        self._resolvers = (*first, *make_resolvers(settings, secret))
        self._end_user = settings.end_user_header.lower()
        self._session = settings.session_header.lower()

    def start(self) -> None:
        """Begin what goes on in the background, without waiting. Harmless to call twice."""
        for resolver in self._resolvers:
            getattr(resolver, "start", _nothing)()

    def close(self) -> None:
        """End what goes on in the background."""
        for resolver in self._resolvers:
            getattr(resolver, "close", _nothing)()

    def identify(
        self,
        scope: Mapping[str, Any],
        headers: Mapping[str, str],
        status: int | None,
        started_at_seconds: float,
    ) -> Identity:
        """The caller, in the light of the answer. Never raises, never blocks.

        `headers` has lower-case names, of a repeated one all values joined by commas; `status` is
        None where there was no answer.
        """
        found = _guarded(self._hook, scope) if self._hook is not None else None
        if found is None:
            found = self._resolved({**scope, STARTED_AT: started_at_seconds}, headers)
        return self._with_claims(judged(found, status), headers)

    def _resolved(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity:
        best: Identity | None = None
        for resolver in self._resolvers:
            found = _guarded(resolver.resolve, scope, headers)
            if found is not None and (best is None or _rank(found) > _rank(best)):
                best = found
            if best is not None and best.assurance == "verified":
                break
        return best or ANONYMOUS

    def _with_claims(self, identity: Identity, headers: Mapping[str, str]) -> Identity:
        """With the end user and session that the caller names, where nothing better is known."""
        end_user = identity.on_behalf_of or _said(headers, self._end_user)
        session = identity.session_id or _said(headers, self._session)
        if end_user == identity.on_behalf_of and session == identity.session_id:
            return identity
        return msgspec.structs.replace(identity, on_behalf_of=end_user, session_id=session)


def _nothing() -> None:
    """What a resolver without a background does."""


def _rank(identity: Identity) -> int:
    return _RANKS.get(identity.assurance, 0)


def _said(headers: Mapping[str, str], name: str) -> str:
    return text(decoded(headers.get(name, "").strip())) if name else ""


def _guarded(resolve: Callable[..., Identity | None], *arguments: Any) -> Identity | None:
    try:
        return resolve(*arguments)
    except Exception as error:
        log.warning("the caller could not be identified: %s", type(error).__name__)
        return None
