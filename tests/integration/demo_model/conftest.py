"""A model server and helpers that run an ASGI application on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from gatebook.cli.demo.model_file import write_model
from gatebook.cli.demo.model_server import ModelServer
from gatebook.cli.demo.scenario import API_KEYS

START_TIMEOUT_SECONDS = 20.0


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated model file."""
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture(scope="session")
def model_server(model_path: Path) -> Iterator[ModelServer]:
    """A llama.cpp server that accepts the scenario's keys."""
    with ModelServer(model_path, list(API_KEYS.values())) as server:
        yield server


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve `app` with uvicorn on a free loopback port; gives its address."""
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that name it.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not server.started:
            assert thread.is_alive(), "the application did not start"
            assert time.monotonic() < deadline, "the application is not ready"
            time.sleep(0.01)  # waits: polled until the deadline above
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
