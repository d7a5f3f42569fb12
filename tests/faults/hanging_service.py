"""A model service whose request hangs, to be killed.

    python -m tests.faults.hanging_service PORT

Settings by GATEBOOK_* variables. `/v1/chat/completions` says `begun` on stdout and never answers;
`/v1/models` answers at once.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gatebook.producers.asgi import GatebookMiddleware


async def hang(request: Request) -> Response:
    os.write(1, b"begun\n")
    await asyncio.Event().wait()
    return JSONResponse({})


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": []})


app = Starlette(
    routes=[
        Route("/v1/chat/completions", hang, methods=["POST"]),
        Route("/v1/models", models),
    ]
)

if __name__ == "__main__":
    uvicorn.run(GatebookMiddleware(app), port=int(sys.argv[1]), log_level="warning")
