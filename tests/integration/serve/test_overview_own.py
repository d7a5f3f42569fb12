"""The overview tells of the services that Gatebook watches, not of Gatebook's own."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.integration.serve.test_api import NOW, Api, api, good, row
from tests.integration.summaries.book import Book as SummaryBook

from gatebook.cli.privileged import SERVICE_NAME

__all__ = ["api"]  # a fixture


@pytest.mark.parametrize(("since", "days_ago"), [("3d", 1), ("45d", 40)])
async def test_the_overview_leaves_gatebooks_own_services_out(
    api: Api, since: str, days_ago: int
) -> None:
    """Whoever looks does not change what they see, be it counted from details or, as over a long
    range, from summaries; asked for, it counts."""
    at = (NOW - timedelta(days=days_ago)).replace(minute=0, second=0)
    chats = [row(n, at=at) for n in range(6)]
    own = [
        row(n, at=at, service={"name": name}, event={"outcome": "failure"})
        for n, name in enumerate((SERVICE_NAME, "gatebook-policy"), 100)
    ]
    await api.book.write(*chats, *own)
    if days_ago > 30:
        summed = SummaryBook(api.book.url, api.book.namespace)
        await summed.run(NOW.replace(minute=0, second=0))
        await summed.connection.close()
    async with await api.client() as client:
        found = await good(client.get(f"/overview?since={since}"))
        whole = await good(client.get(f"/overview?since={since}&include_own=true"))
    assert (found["source"] == "details") == (days_ago < 30)
    assert found["source"] == found["figures_source"]
    assert found["total"] == sum(bucket["count"] for bucket in found["traffic"]) == 6
    assert sum(top["count"] for top in found["top_models"]) == 6
    assert found["errors"]["total"] == 2
    assert (whole["total"], whole["errors"]["total"]) == (8, 4)
