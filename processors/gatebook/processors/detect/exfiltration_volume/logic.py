"""How much an access took out."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.baseline import BaselineParameters

BYTES_PER_TOKEN = 4


def value(access: Access, parameters: BaselineParameters) -> float:
    """Tokens of the answer; where they are not told, as many as its bytes may have been."""
    return float(access.output_tokens or access.response_bytes // BYTES_PER_TOKEN)
