"""Addresses and keys of cryptocurrencies, told by their checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from .probe import Found, Probe, plain

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RIPPLE = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_SIZES = {25, 26, 37, 38}
"""Bytes with checksum: addresses of one and two version bytes, private keys."""
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_SUMS = {1, 0x2BC830A3}


def crypto(probe: Probe) -> Iterator[Found]:
    """Accept an address or key whose checksum holds; a hex one in one case needs none."""
    value = plain(probe.value)
    probe.budget.spend(20)
    if ":" in value:
        valid = _is_cashaddr(value)
    elif value[:2] in ("0x", "0X"):
        valid = _is_ethereum(value[2:], probe)
    elif "1" in value[1:8] and (value.islower() or value.isupper()):
        valid = _is_bech32(value.lower())
    else:
        valid = is_base58check(value, _BASE58) or (
            value[0] == "r" and is_base58check(value, _RIPPLE)
        )
    if valid:
        yield Found(probe.start, probe.end, value)


def is_base58check(value: str, alphabet: str = _BASE58) -> bool:
    """Tell whether the last four bytes are the double SHA-256 of the others."""
    number = 0
    for character in value:
        digit = alphabet.find(character)
        if digit < 0:
            return False
        number = number * 58 + digit
    zeros = len(value) - len(value.lstrip(alphabet[0]))
    body = b"\x00" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    digest = hashlib.sha256(hashlib.sha256(body[:-4]).digest()).digest()
    return len(body) in _SIZES and digest[:4] == body[-4:]


_CASH_GENERATOR = (0x98F2BC8E61, 0x79B76D99E2, 0xF33E5FB3C4, 0xAE2EABE2A8, 0x1E4F43E470)


def _is_cashaddr(value: str) -> bool:
    """Tell the addresses of Bitcoin Cash: a code of forty bits over prefix and digits."""
    prefix, _, data = value.partition(":")
    check = 1
    for digit in [*(ord(c) & 31 for c in prefix), 0, *map(_BECH32.find, data)]:
        top = check >> 35
        check = (check & 0x07FFFFFFFF) << 5 ^ digit
        for bit, generator in enumerate(_CASH_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check == 1


def _is_bech32(value: str) -> bool:
    prefix, _, data = value.rpartition("1")
    digits = [_BECH32.find(character) for character in data]
    if min(digits, default=-1) < 0 or len(data) < 8:
        return False
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    return _polymod(expanded + digits) in _BECH32_SUMS


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        check = (check & 0x1FFFFFF) << 5 ^ value ^ _GENERATED[check >> 25]
    return check


def _generated(top: int) -> int:
    generator = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    sums = 0
    for bit in range(5):
        sums ^= generator[bit] if top >> bit & 1 else 0
    return sums


_GENERATED = [_generated(top) for top in range(32)]


_ONE_CASE = re.compile(r"[0-9a-f]{40}|[0-9A-F]{40}")


def _is_ethereum(hexadecimal: str, probe: Probe) -> bool:
    """An address in one case says nothing about its checksum (EIP-55)."""
    if _ONE_CASE.fullmatch(hexadecimal):
        return len(set(hexadecimal)) > 4
    probe.budget.spend(200)
    digest = keccak256(hexadecimal.lower().encode("ascii")).hex()
    return all(
        character.isdigit() or character.isupper() == (int(nibble, 16) > 7)
        for character, nibble in zip(hexadecimal, digest, strict=False)
    )


_ROTATIONS = (
    *(0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14),
)
_MASK = (1 << 64) - 1


def _round_constants() -> list[int]:
    constants, register = [], 1
    for _ in range(24):
        constant = 0
        for power in range(7):
            constant |= (register & 1) << ((1 << power) - 1)
            register = (register << 1) ^ (0x171 if register >> 7 else 0)
        constants.append(constant)
    return constants


_CONSTANTS = _round_constants()


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (the padding differs from SHA3-256), for short inputs."""
    rate = 136
    padded = bytearray(data + b"\x01" + b"\x00" * (-(len(data) + 1) % rate))
    padded[-1] |= 0x80
    state = [0] * 25
    for start in range(0, len(padded), rate):
        for lane in range(rate // 8):
            at = start + 8 * lane
            state[lane] ^= int.from_bytes(padded[at : at + 8], "little")
        state = _permuted(state)
    return b"".join(lane.to_bytes(8, "little") for lane in state[:4])


def _permuted(a: list[int]) -> list[int]:
    for constant in _CONSTANTS:
        c = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
        d = [c[x - 1] ^ _rotated(c[(x + 1) % 5], 1) for x in range(5)]
        b = [0] * 25
        for i in range(25):
            x, y = i % 5, i // 5
            b[y + 5 * ((2 * x + 3 * y) % 5)] = _rotated(a[i] ^ d[x], _ROTATIONS[i])
        a = [
            b[i] ^ (~b[i - i % 5 + (i + 1) % 5] & _MASK & b[i - i % 5 + (i + 2) % 5])
            for i in range(25)
        ]
        a[0] ^= constant
    return a


def _rotated(lane: int, by: int) -> int:
    return ((lane << by) | (lane >> (64 - by))) & _MASK if by else lane
