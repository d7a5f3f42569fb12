"""From one access to the others of the same caller, also where there is no user."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from tests.integration.serve.test_api import BEGAN, Api, api, good, row

__all__ = ["api"]  # the fixture

KEY = "key:key_4f1c"
AROUND = "/events/access-000004/around?by=gatebook.principal"


async def write_keys(api: Api) -> None:
    """Accesses of two keys, turn by turn, a minute apart; the even ones are of KEY."""
    keys = (KEY, "key:key_0000")
    await api.book.write(
        *(
            row(n, at=BEGAN + timedelta(minutes=n), user={}, gatebook={"principal": keys[n % 2]})
            for n in range(8)
        )
    )


async def test_a_caller_without_a_user_is_followed_by_their_principal(api: Api) -> None:
    """What came before and after, how much there is of it; in the API and at the command line."""
    await write_keys(api)
    async with await api.client() as client:
        found = await good(client.get(AROUND))
        assert (found["by"], found["value"]) == ("gatebook.principal", KEY)
        near = [[hit["id"][-1] for hit in found[side]] for side in ("before", "after")]
        assert near == [["0", "2"], ["6"]]
        event = await good(client.get("/events/access-000004"))
        assert {"by": "gatebook.principal", "value": KEY, "count": 4} in event["related"]
    asked = ("around", "access-000004", "--by", "gatebook.principal", "--json")
    ran = await asyncio.to_thread(api.book.command, *asked)
    told = json.loads(ran.stdout)
    assert [document["event"]["id"][-1] for document in told["before"]] == ["0", "2"]


async def test_a_viewer_follows_no_principal(api: Api) -> None:
    """A principal may be an address, and is masked as one: refused, recorded, and not counted."""
    await write_keys(api)
    async with await api.client("viewer") as client:
        refused = await client.get(AROUND)
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "masked_field")
        event = await client.get("/events/access-000004")
        assert {"service.name", "trace.id"} <= {same["by"] for same in event.json()["related"]}
        assert "key_4f1c" not in event.text + refused.text
        assert "gatebook.principal" not in {same["by"] for same in event.json()["related"]}
    (told,) = api.service.audit.of("access.refused")
    assert (told["act"], told["by"]) == ("event.around", "gatebook.principal")
