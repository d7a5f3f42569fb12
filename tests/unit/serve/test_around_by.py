"""What one can go by from one access to others is the same wherever it is offered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from gatebook.cli.export_commands import AROUND_BY as AT_THE_COMMAND_LINE
from gatebook.processors.search.around import AROUND_BY
from gatebook.processors.serve.models import AroundBy

FLYOUT = Path(__file__).parents[3] / "processors" / "console" / "src" / "components" / "flyout.tsx"


def test_api_command_line_and_console_offer_the_same() -> None:
    """None is forgotten in one of them."""
    (listed,) = re.findall(r"const AROUND_BY = \[(.*)\];", FLYOUT.read_text())
    in_the_console = tuple(re.findall(r'"([^"]+)"', listed))
    assert AROUND_BY == get_args(AroundBy) == AT_THE_COMMAND_LINE == in_the_console
    assert {"user.id", "gatebook.principal", "source.ip"} <= {*AROUND_BY}
