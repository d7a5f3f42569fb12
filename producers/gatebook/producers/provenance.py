"""Model provenance: which weights, in which form, on which engine, as the model server tells it.

    provenance = ModelProvenance("http://127.0.0.1:8080")
    provenance.of("llama3.2")  # what is known by now: never waits, never raises

Asked in a thread of its own, once per upstream and model, and again after a while; a request never
waits for it, so the first accesses after a start may lack it. What a server tells is a claim of the
server, but for the digest of a weights file on this machine, which is computed here.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping

from gatebook.producers import provenance_servers as servers
from gatebook.producers.provenance_http import Probe

log = logging.getLogger("gatebook.producers")

TIME_LIMIT_SECONDS = 10.0
REFRESH_SECONDS = 60.0
RETRY_SECONDS = 30.0
MAX_MODELS = 256

Facts = Mapping[str, str]
NOTHING: Facts = {}


class ModelProvenance:
    """What one upstream says of its models, kept for `refresh_seconds`.

    `api_key` is the proxy's own for the upstream, where that wants one even for questions about
    itself (llama.cpp with --api-key does); callers' keys are never used. `time_limit_seconds`
    bounds one round of questions, not the reading of a local weights file; `context` verifies the
    upstream's certificate.
    """

    def __init__(
        self,
        upstream_url: str,
        api_key: str = "",
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
        refresh_seconds: float = REFRESH_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._probe = Probe(upstream_url, api_key, time_limit_seconds, context)
        self._refresh_seconds = refresh_seconds
        self._retry_seconds = retry_seconds
        self._reset()

    def _reset(self) -> None:
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._wanted: deque[str] = deque()
        self._working = False
        self._server: servers.Server | None = None
        self._models: dict[str, Facts] = {}
        self._due = 0.0  # monotonic time from which the server is asked anew

    def of(self, model: str) -> Facts:
        """Fields of gatebook.model for the model a request named; empty where not known (yet).

        Asks in the background where it is time to. A name the server does not list costs nothing.
        """
        if os.getpid() != self._process_id:
            self._reset()  # the thread that would answer belongs to the parent
        with self._lock:
            if time.monotonic() >= self._due and not self._working:
                self._want_held(model, anew=True)
            elif model not in self._models and self._is_listed_held(model):
                self._want_held(model, anew=False)
            return self._models.get(model) or self._models.get("") or NOTHING

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until nothing is being asked; False when the time is over first."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._working, timeout_seconds)

    def _is_listed_held(self, model: str) -> bool:
        known = self._server is not None and self._server.has(model)
        return known and model not in self._wanted and len(self._models) < MAX_MODELS

    def _want_held(self, model: str, anew: bool) -> None:
        if anew:
            self._due = time.monotonic() + self._retry_seconds
            self._wanted.appendleft("")
        if model and model not in self._wanted:
            self._wanted.append(model)
        if not self._working:
            self._working = True
            threading.Thread(target=self._work, name="gatebook-provenance", daemon=True).start()

    def _work(self) -> None:
        """Answer what is wanted, then end."""
        while True:
            with self._lock:
                if not self._wanted:
                    self._working = False
                    self._idle.notify_all()
                    return
                model = self._wanted.popleft()
            try:
                self._ask(model)
            except Exception as error:
                log.warning("model provenance could not be read: %s", type(error).__name__)

    def _ask(self, model: str) -> None:
        self._probe.begin()
        if not model:
            self._ask_server()
        elif self._server is not None and self._server.has(model):
            facts = self._server.facts(self._probe, model)
            with self._lock:
                self._models[model] = facts

    def _ask_server(self) -> None:
        """The server itself, and every model known so far: the old facts hold until then."""
        server = servers.recognise(self._probe)
        models: dict[str, Facts] = {}
        if server is not None:
            again = [name for name in self._models if not name or server.has(name)]
            models = {name: server.facts(self._probe, name) for name in ("", *again)}
        with self._lock:
            self._server, self._models = server, models
            if server is not None:
                self._due = time.monotonic() + self._refresh_seconds
