"""The salted digest of a subject's key is the HMAC it stands for."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.subjects.keys import Salted


@given(st.binary(max_size=64), st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_a_key_that_is_read_once_digests_as_hmac_does(key: bytes, texts: list[bytes]) -> None:
    """Each time it is used, whatever it digested before."""
    salted = Salted(key)
    assert [salted.digest(t) for t in texts] == [hmac.digest(key, t, "sha256") for t in texts]
