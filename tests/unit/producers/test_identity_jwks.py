"""The provider's keys: fresh, bounded, and used while the provider is away, but not for ever."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from tests.integration.identity import tokens

from gatebook.producers.identity_fetch import FetchFailed
from gatebook.producers.identity_jwks import MAX_KEYS, Missing, SigningKeys, read_keys

ALL = ("RS256", "PS256", "ES256", "EdDSA")


class Provider:
    """What a fetch gives, set by a test."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        self.down = False

    def __call__(self) -> Any:
        if self.down:
            raise FetchFailed("unreachable")
        return {"keys": self.keys}


def signing_keys(provider: Any) -> SigningKeys:
    made = SigningKeys(provider, ALL, refresh_seconds=600, refetch_seconds=30, stale_seconds=3600)
    made._ensure_thread = lambda: None  # type: ignore[method-assign]  # no thread: tests refresh by hand
    return made


def missing(keys: SigningKeys, key_id: str, now: float) -> tuple[str, bool]:
    with pytest.raises(Missing) as caught:
        keys.find(key_id, "RS256", now)
    return caught.value.reason, caught.value.pending


def test_keys_are_used_while_the_provider_is_down_up_to_a_limit() -> None:
    """After that a token is no longer verified, and not refused either."""
    provider = Provider(tokens.public_jwk("RS256"))
    keys = signing_keys(provider)
    assert missing(keys, "k1", 0) == ("keys_not_loaded", True)
    keys.refresh(0)
    provider.down = True
    keys.refresh(600)

    assert keys.find("k1", "RS256", 3600)
    assert missing(keys, "k1", 3601) == ("keys_stale", True)


def test_an_unknown_key_asks_for_a_fetch_at_most_so_often() -> None:
    """A flood of invented key ids costs the provider one fetch per interval."""
    keys = signing_keys(Provider(tokens.public_jwk("RS256")))
    keys.refresh(1000)

    assert missing(keys, "invented", 1029) == ("unknown_key", False)
    assert not keys._wanted.is_set()
    assert missing(keys, "invented", 1031) == ("unknown_key", True)
    assert keys._wanted.is_set()
    keys._wanted.clear()
    keys._fetch = Provider(*[])
    keys._fetch.down = True  # type: ignore[attr-defined]  # it is our Provider
    keys.refresh(1032)
    assert missing(keys, "invented", 1040) == ("unknown_key", True)
    assert not keys._wanted.is_set()


def test_a_rotation_brings_new_keys_and_takes_withdrawn_ones_away() -> None:
    """The generation says that what the old ones proved is to be checked again."""
    provider = Provider(tokens.public_jwk("RS256", "old"))
    keys = signing_keys(provider)
    keys.refresh(0)
    before = keys.generation
    provider.keys = [tokens.public_jwk("RS256", "new")]
    keys.refresh(60)

    assert keys.find("new", "RS256", 61)
    assert missing(keys, "old", 61) == ("unknown_key", False)
    assert keys.generation > before


@pytest.mark.parametrize("document", [{"keys": []}, {"keys": "x"}, [], None, {"keys": [None, 7]}])
def test_a_document_without_a_usable_key_does_not_take_keys_away(document: Any) -> None:
    """A provider that answers nonsense is like one that is down."""
    keys = signing_keys(Provider(tokens.public_jwk("RS256")))
    keys.refresh(0)
    keys._fetch = lambda: document
    keys.refresh(60)

    assert keys.find("k1", "RS256", 61)


WEAK = tokens.public_jwk("RS256") | {"n": "AQAB" * 30}
NOT_USABLE = {
    "a secret key": {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
    "a key for encryption": tokens.public_jwk("RS256", use="enc"),
    "a short RSA key": WEAK,
    "another algorithm": tokens.public_jwk("RS256", alg="RSA-OAEP"),
    "an unknown curve": {"kty": "EC", "crv": "P-192", "x": "AA", "y": "AA", "kid": "x"},
    "a point that is not on its curve": tokens.public_jwk("ES256") | {"x": "AA"},
    "no numbers": {"kty": "RSA", "kid": "x"},
    "numbers that are lists": {"kty": "RSA", "kid": "x", "n": [], "e": {}},
}


@pytest.mark.parametrize("name", NOT_USABLE)
def test_what_is_no_usable_public_key_is_left_out(name: str) -> None:
    """Its neighbours are used."""
    keys = read_keys({"keys": [NOT_USABLE[name], tokens.public_jwk("EdDSA", "good")]}, ALL)

    assert list(keys) == [("good", "EdDSA")]


def test_the_private_part_of_a_key_shown_by_mistake_is_not_held() -> None:
    """What is kept can check signatures and not make any."""
    private = tokens.private_key("RS256", "k1").private_numbers()
    shown = tokens.public_jwk("RS256") | {"d": tokens.part(private.d), "p": "AA", "q": "AA"}

    ((key,),) = read_keys({"keys": [shown]}, ALL).values()

    assert not hasattr(key.key, "private_numbers")


def test_so_many_keys_are_read_and_no_more() -> None:
    """A provider cannot fill the memory with keys."""
    many = [tokens.public_jwk("EdDSA") | {"kid": str(number)} for number in range(MAX_KEYS + 9)]

    assert len(read_keys({"keys": many}, ALL)) == MAX_KEYS


def test_a_token_without_a_key_id_needs_the_only_key() -> None:
    """With two keys of one kind nobody guesses."""
    keys = signing_keys(Provider(tokens.public_jwk("RS256"), tokens.public_jwk("ES256", "k2")))
    keys.refresh(0)
    assert keys.find(None, "ES256", 1)
    # The RSA key without `alg` would do for PS256 as well; with it, for RS256 alone.
    with pytest.raises(Missing):
        keys.find(None, "PS256", 1)

    keys._fetch = Provider(tokens.public_jwk("ES256"), tokens.public_jwk("ES256", "k2"))
    keys.refresh(2)
    with pytest.raises(Missing):
        keys.find(None, "ES256", 3)


def test_a_forked_child_keeps_the_keys_and_starts_its_own_thread() -> None:
    """A preloading server's workers do not wait for a thread that stayed in the parent."""
    keys = SigningKeys(Provider(tokens.public_jwk("RS256")), ALL, 600, 30, 3600)
    keys.refresh(0)
    keys._starting.acquire()  # as if another thread were starting ours at this moment
    child = os.fork()
    if child == 0:
        fine = False
        try:
            keys.find("k1", "RS256", 1)
            fine = keys._thread is not None and keys._thread.is_alive()
        finally:
            os._exit(0 if fine else 1)
    keys._starting.release()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_application_that_is_started_again_fetches_again() -> None:
    """One thread at a time, none after the end."""
    provider = Provider(tokens.public_jwk("RS256"))
    keys = SigningKeys(provider, ALL, 600, 30, 3600)
    threads = []
    for _ in range(2):
        keys.start()
        keys.start()
        threads.append(keys._thread)
        keys.close()
        assert threads[-1] is not None
        threads[-1].join(10)
        assert not threads[-1].is_alive()
    assert threads[0] is not threads[1]
    with pytest.raises(Missing):
        keys.find("invented", "RS256", time.monotonic())
    assert keys._thread is None
