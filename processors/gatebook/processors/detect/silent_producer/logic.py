"""How a producer says farewell."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.silence import SilenceParameters


def hit(access: Access, parameters: SilenceParameters) -> bool:
    """The last frame of a process that ended in good order."""
    return access.frame_state == "closed"
