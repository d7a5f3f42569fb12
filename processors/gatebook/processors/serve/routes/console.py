"""The console's files. They hold no data; what they show they ask the API for."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from gatebook.processors.serve.errors import answer, body

room = APIRouter(include_in_schema=False)
STATIC = Path(__file__).parent.parent / "static"
# Pages of the console: it finds out itself what to show by the address.
PAGES = (
    "/",
    "/search",
    "/event/{rest:path}",
    "/findings",
    "/finding/{rest:path}",
    "/overview",
    "/tail",
    "/retention",
    "/tokens",
    "/saved",
)


async def page() -> Response:
    """The console."""
    index = STATIC / "index.html"
    if index.is_file():
        return FileResponse(index, media_type="text/html; charset=utf-8")
    return answer(404, body("not_found", "the console is not built", next_step="make console"))


async def file(name: str) -> Response:
    """One of the console's files, and nothing outside their folder."""
    root = STATIC.resolve()
    found = (root / name).resolve() if "\x00" not in name and len(name) < 256 else root
    if found.is_relative_to(root) and found.is_file():
        return FileResponse(found)
    return answer(404, body("not_found", "there is nothing here"))


async def asset(name: str) -> Response:
    """A built file."""
    return await file(f"assets/{name}")


for _path in PAGES:
    room.add_api_route(_path, page, methods=["GET"])
room.add_api_route("/assets/{name:path}", asset, methods=["GET"])


async def favicon() -> Response:
    """The icon of the tab."""
    return await file("favicon.svg")


room.add_api_route("/favicon.svg", favicon, methods=["GET"])
