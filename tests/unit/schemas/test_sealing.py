"""The sealed envelope, byte for byte, and what it refuses."""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.schemas import sealing
from gatebook.schemas.errors import Fatal
from gatebook.schemas.sealing import DataKey, SealedFailed, associated_data

PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()
BOUND = associated_data("0193-id", "gateway-1", "acme", "redacted")
CONTENT = b'{"input_messages":[{"role":"user","content":"hello"}]}'
# Sealed once for the key above by this code, and frozen: what is on disk must stay readable.
FROZEN = bytes.fromhex((Path(__file__).parent / "sealed_envelope.hex").read_text())


def opened(envelope: bytes, bound: bytes = BOUND, private: X25519PrivateKey = PRIVATE) -> bytes:
    data_key = sealing.unwrap(sealing.head_of(envelope), private)
    return sealing.open_body(envelope, data_key, bound)


# --- HPKE as RFC 9180 writes it, from HMAC and X25519 alone: the module's doc is enough to read
# --- an envelope without the module.


class Hpke:
    """Mode base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-GCM with a key of `key_bytes`."""

    def __init__(self, aead_id: int, key_bytes: int) -> None:
        self.suite = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, aead_id)
        self.key_bytes = key_bytes

    def extract(self, suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        key = salt or bytes(32)
        return hmac.digest(key, b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(self, suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
        info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
        return hmac.digest(prk, info + b"\x01", "sha256")[:length]

    def open(
        self, private: X25519PrivateKey, enc: bytes, info: bytes, aad: bytes, sealed: bytes
    ) -> bytes:
        kem = b"KEM" + struct.pack(">H", 0x0020)
        shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
        context = enc + private.public_key().public_bytes_raw()
        prk = self.extract(kem, b"", b"eae_prk", shared)
        secret = self.expand(kem, prk, b"shared_secret", context, 32)
        psk_id = self.extract(self.suite, b"", b"psk_id_hash", b"")
        info_hash = self.extract(self.suite, b"", b"info_hash", info)
        schedule = b"\x00" + psk_id + info_hash
        prk = self.extract(self.suite, secret, b"secret", b"")
        key = self.expand(self.suite, prk, b"key", schedule, self.key_bytes)
        nonce = self.expand(self.suite, prk, b"base_nonce", schedule, 12)
        return AESGCM(key).decrypt(nonce, sealed, aad)


def test_the_reader_in_this_test_reads_the_rfcs_vector() -> None:
    """RFC 9180, appendix A.1.1, sequence number 0."""
    private = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    enc = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    sealed = bytes.fromhex(
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
    key = X25519PrivateKey.from_private_bytes(private)
    text = Hpke(1, 16).open(key, enc, b"Ode on a Grecian Urn", b"Count-0", sealed)
    assert text == b"Beauty is truth, truth beauty"


@pytest.mark.parametrize("envelope", [FROZEN, DataKey(PUBLIC).seal(CONTENT, BOUND)])
def test_an_envelope_can_be_read_by_what_is_written_about_it(envelope: bytes) -> None:
    """Offsets, HPKE and associated data as the module's doc has them, without the module."""
    identity = hashlib.sha256(b"gatebook key" + PUBLIC).digest()[:8]
    assert envelope[:1] == b"\x01"
    assert envelope[1:9] == identity
    info = b"gatebook.sealed/1" + identity
    secret = Hpke(2, 32).open(PRIVATE, envelope[9:41], info, b"", envelope[41:89])
    texts = (b"0193-id", b"gateway-1", b"acme", b"redacted")
    bound = b"gatebook.sealed/1" + b"".join(struct.pack(">I", len(t)) + t for t in texts)
    assert AESGCM(secret).decrypt(envelope[89:101], envelope[101:], bound) == CONTENT


def test_yesterdays_envelope_opens() -> None:
    """The format is a promise: spools and topics hold envelopes for weeks."""
    assert opened(FROZEN) == CONTENT


@given(content=st.binary(max_size=300), texts=st.tuples(*[st.text(max_size=20)] * 4))
@settings(max_examples=50)
def test_what_is_sealed_comes_back(content: bytes, texts: tuple[str, str, str, str]) -> None:
    """Any bytes, any names; the envelope is longer by a constant."""
    bound = associated_data(*texts)
    envelope = DataKey(PUBLIC).seal(content, bound)
    assert opened(envelope, bound) == content
    assert len(envelope) == len(content) + sealing.OVERHEAD_BYTES


@pytest.mark.parametrize(
    "other",
    [
        ("0193-other", "gateway-1", "acme", "redacted"),
        ("0193-id", "gateway-2", "acme", "redacted"),
        ("0193-id", "gateway-1", "other", "redacted"),
        ("0193-id", "gateway-1", "acme", "full"),
        ("0193-idg", "ateway-1", "acme", "redacted"),
    ],
)
def test_content_belongs_to_its_event(other: tuple[str, str, str, str]) -> None:
    """Moved to another event, producer or tenant, or to a higher level, it does not open."""
    envelope = DataKey(PUBLIC).seal(CONTENT, BOUND)
    with pytest.raises(SealedFailed) as caught:
        opened(envelope, associated_data(*other))
    assert caught.value.reason == sealing.FORGED


@pytest.mark.parametrize("position", [0, 1, 8, 9, 40, 41, 88, 89, 100, 101, -17, -16, -1])
def test_a_changed_bit_is_seen(position: int) -> None:
    """Wherever it is."""
    changed = bytearray(FROZEN)
    changed[position] ^= 1
    with pytest.raises(SealedFailed):
        opened(bytes(changed))


@pytest.mark.parametrize(
    "envelope",
    [b"", b"\x01", FROZEN[:116], b"\x02" + FROZEN[1:], CONTENT * 4, b"\x00" * 500],
)
def test_what_is_no_envelope_is_called_so(envelope: bytes) -> None:
    """Too short, another version, plain JSON."""
    with pytest.raises(SealedFailed) as caught:
        opened(envelope)
    assert caught.value.reason == sealing.UNDECODABLE


@given(junk=st.binary(max_size=400))
@settings(max_examples=100)
def test_hostile_bytes_are_refused_with_a_reason(junk: bytes) -> None:
    """Nothing but SealedFailed comes out, low-order points of the curve among them."""
    for envelope in (junk, b"\x01" + junk, FROZEN[:9] + junk, FROZEN[:41] + junk):
        with pytest.raises(SealedFailed):
            opened(envelope)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_that_gives_no_secret_is_refused(point: bytes) -> None:
    """X25519 with it would come out as zero for every private key."""
    with pytest.raises(SealedFailed):
        opened(FROZEN[:9] + point + FROZEN[41:])


def test_another_private_key_does_not_open_it() -> None:
    """Not even under the right key id."""
    with pytest.raises(SealedFailed):
        opened(FROZEN, private=X25519PrivateKey.generate())


def test_no_nonce_comes_twice() -> None:
    """Under one data key every event has its own number, whatever else happens."""
    data_key = DataKey(PUBLIC)
    with pytest.raises(TypeError):
        data_key.seal("text", BOUND)  # type: ignore[arg-type]
    envelopes = [data_key.seal(CONTENT, BOUND) for _ in range(1000)]
    numbers = [int.from_bytes(e[89:93], "big") for e in envelopes]
    assert numbers == list(range(1, 1001)), "a number that was tried is never used again"
    assert len({e[93:101] for e in envelopes}) == 1000


def test_two_data_keys_have_nothing_in_common() -> None:
    """Two processes, or two periods of one."""
    one, two = (DataKey(PUBLIC).seal(CONTENT, BOUND) for _ in range(2))
    assert one[:9] == two[:9]
    assert one[9:41] != two[9:41]
    assert one[101:] != two[101:]


def test_a_data_key_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it, it refuses rather than come near the bounds of AES-GCM."""
    monkeypatch.setattr(sealing, "MAX_EVENTS_PER_DATA_KEY", 3)
    data_key = DataKey(PUBLIC)
    for _ in range(3):
        assert not data_key.is_spent
        data_key.seal(CONTENT, BOUND)
    assert data_key.is_spent
    with pytest.raises(OverflowError):
        data_key.seal(CONTENT, BOUND)


def test_errors_say_nothing_of_what_is_inside() -> None:
    """Neither content nor keys stand in them."""
    with pytest.raises(SealedFailed) as caught:
        opened(FROZEN, associated_data("", "", "", ""))
    assert str(caught.value) == "forged"
    assert caught.value.__cause__ is None
    assert caught.value.key_id == FROZEN[1:9].hex()


@pytest.mark.parametrize("library", ["not_installed.hazmat", "cryptography.not_in_this_version"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; one that is too old is as good as none."""
    sealing.require("this")
    monkeypatch.setattr(sealing, "LIBRARY", library)
    with pytest.raises(Fatal, match="needs the package cryptography") as caught:
        sealing.require("this")
    assert "pip install 'gatebook[sealing]'" in caught.value.next_step


def test_random_bytes_are_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was copied with its counter still has another nonce."""
    data_key = DataKey(PUBLIC)
    monkeypatch.setattr(os, "urandom", lambda n: b"r" * n)
    assert data_key.seal(CONTENT, BOUND)[93:101] == b"rrrrrrrr"
