"""Checks tokens for the search service, with the verification that producers have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatebook.processors.serve.access.settings import AccessSettings
    from gatebook.producers.config import ProducerSettings

# How long a token whose key is not known yet is waited for: keys are fetched meanwhile.
PATIENCE_SECONDS = 5.0
POLL_SECONDS = 0.05
REFETCH_SECONDS = 10.0


class IssuerTokens:
    """A TokenVerifier: tokens of one issuer, for some audiences. Close it when done."""

    def __init__(self, settings: ProducerSettings) -> None:
        from gatebook.producers.identity_oidc import OidcResolver

        self._resolver = OidcResolver(settings)
        self._resolver.start()

    async def verify(self, token: str) -> Mapping[str, Any]:
        """See TokenVerifier."""
        from gatebook.processors.serve.access.claims import TokenRefused, TokenUncheckable
        from gatebook.producers.identity_jwks import Missing
        from gatebook.producers.identity_oidc import Refused

        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._resolver.claims_of(token, time.time())
            except Refused as refused:
                raise TokenRefused(refused.reason) from None
            except Missing as missing:
                if not missing.pending:
                    raise TokenRefused(missing.reason) from None
                if time.monotonic() >= until:
                    raise TokenUncheckable(missing.reason) from None
            await asyncio.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Stop fetching keys."""
        self._resolver.close()


def id_token_check(settings: AccessSettings) -> IssuerTokens | None:
    """Checks ID tokens, which are made for our client id; None where no issuer is set."""
    return _check(settings, (settings.oidc_client_id,)) if settings.oidc_issuer else None


def bearer_check(settings: AccessSettings) -> IssuerTokens | None:
    """Checks access tokens of the API; None where none are accepted."""
    if not (settings.oidc_issuer and settings.oidc_api_audience):
        return None
    return _check(settings, settings.oidc_api_audience)


def _check(settings: AccessSettings, audience: tuple[str, ...]) -> IssuerTokens:
    """Raises Fatal for settings that are refused. Of the producer's own settings, the algorithms,
    the leeway and the times of fetching hold here as well."""
    import msgspec

    from gatebook.producers.config import ProducerSettings

    base = ProducerSettings.from_env()
    return IssuerTokens(
        msgspec.structs.replace(
            base,
            oidc_issuer=settings.oidc_issuer,
            oidc_audience=audience,
            oidc_jwks_url="" if settings.oidc_issuer != base.oidc_issuer else base.oidc_jwks_url,
            oidc_refetch_seconds=min(base.oidc_refetch_seconds, REFETCH_SECONDS),
        ).check()
    )
