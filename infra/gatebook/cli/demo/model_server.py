"""llama.cpp's own OpenAI-compatible HTTP server, in a process of its own.

`ModelServer` starts `python -m gatebook.cli.demo.model_server` and stops it again. The child binds
loopback only, answers /v1/chat/completions, /v1/completions and /v1/embeddings, and refuses a key
it was not given with llama.cpp's own 401. /health alone needs no key: llama.cpp's choice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from gatebook.cli.demo.model_file import CONTEXT_TOKENS, MODEL_NAME

API_KEYS_VARIABLE = "GATEBOOK_DEMO_API_KEYS"
_LOOPBACK = "127.0.0.1"
_PARALLEL_REQUESTS = 4
_HTTP_THREADS = 8
_POLL_SECONDS = 0.02
_LISTENING = "listening "


class ModelServerError(RuntimeError):
    """The model server did not start; the message says what to look at."""


class ModelServer:
    """A running model server. A context manager: leaving it stops the process.

    `url` has no trailing slash and no /v1. Should the parent be killed, the child sees its standard
    input close and stops by itself, so no server is left behind.
    """

    def __init__(
        self,
        model_path: Path,
        api_keys: Sequence[str],
        *,
        port: int = 0,
        threads: int = 1,
        start_timeout_seconds: float = 30.0,
        log_path: Path | None = None,
    ) -> None:
        """Start the server and return once /health says it is ready; port 0 takes a free port.

        What llama.cpp logs goes to `log_path`, or nowhere. Its parse errors can quote a request,
        so keep that file as carefully as the prompts. Raises ModelServerError.
        """
        self._log_path = log_path
        self._process = _spawn(model_path, api_keys, port, threads, log_path)
        try:
            self.url = self._read_address(start_timeout_seconds)
            self._wait_until_healthy(start_timeout_seconds)
        except BaseException:
            self.stop()
            raise

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._process.pid

    def stop(self, timeout_seconds: float = 10.0) -> int:
        """Stop the server and return its exit code: 0 for a clean stop. Safe to call twice."""
        process = self._process
        if process.poll() is None:
            process.terminate()
        try:
            code = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return code

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _read_address(self, timeout_seconds: float) -> str:
        """The child's one line on standard output: the address it was given."""
        assert self._process.stdout is not None
        # A child that never speaks is killed, which ends the blocking read below.
        deadline = threading.Timer(timeout_seconds, self._process.kill)
        deadline.start()
        try:
            line = self._process.stdout.readline().decode()
        finally:
            deadline.cancel()
        if not line.startswith(_LISTENING):
            raise self._start_error("it ended before it listened")
        return line.removeprefix(_LISTENING).strip()

    def _wait_until_healthy(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not _is_healthy(self.url):
            if self._process.poll() is not None:
                raise self._start_error("it ended while loading the model")
            if time.monotonic() > deadline:
                raise self._start_error(f"not ready within {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def _start_error(self, what: str) -> ModelServerError:
        where = self._log_path or "its log (give log_path to keep one)"
        return ModelServerError(f"model server: {what}; see {where}")


def _spawn(
    model_path: Path, api_keys: Sequence[str], port: int, threads: int, log_path: Path | None
) -> subprocess.Popen[bytes]:
    if any("," in key or not key for key in api_keys):
        raise ValueError("an API key of the demo is not empty and holds no comma")
    command = [sys.executable, "-m", "gatebook.cli.demo.model_server"]
    command += ["--model", str(model_path), "--port", str(port), "--threads", str(threads)]
    command += ["--stop-on-stdin-close"]
    with open(log_path or os.devnull, "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Keys travel in the environment: a command line can be read by every local user.
            env={**os.environ, API_KEYS_VARIABLE: ",".join(api_keys)},
        )


def _is_healthy(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=2.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@click.command()
@click.option("--model", "model_path", required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--port", default=0, show_default=True, help="0 takes a free port.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 2))
@click.option("--stop-on-stdin-close", is_flag=True, help="Stop when standard input closes.")
def main(model_path: str, port: int, threads: int, stop_on_stdin_close: bool) -> None:
    """Serve a GGUF model on loopback until SIGTERM or SIGINT.

    The accepted API keys are read from GATEBOOK_DEMO_API_KEYS, separated by commas.
    """
    api_keys = [key for key in os.environ.get(API_KEYS_VARIABLE, "").split(",") if key]
    if not api_keys:
        raise click.UsageError(f"{API_KEYS_VARIABLE} must hold at least one key")
    stopping = threading.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop_signal, lambda *_: stopping.set())
    server = _start_llama(model_path, port, threads, api_keys)
    print(f"{_LISTENING}{server.listening_address}", flush=True)
    if stop_on_stdin_close:
        threading.Thread(target=_set_when_stdin_closes, args=(stopping,), daemon=True).start()
    stopping.wait()
    del server  # ends the HTTP server and its threads


def _start_llama(model_path: str, port: int, threads: int, api_keys: list[str]) -> Any:
    import xllamacpp  # here, so that the parent process never loads llama.cpp

    params = xllamacpp.CommonParams()
    params.model.path = model_path
    params.model_alias = {MODEL_NAME}
    params.hostnames = [_LOOPBACK]
    params.port = port
    params.api_keys = api_keys
    params.n_parallel = _PARALLEL_REQUESTS
    params.n_ctx = CONTEXT_TOKENS * _PARALLEL_REQUESTS  # llama.cpp divides it among the slots
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = _HTTP_THREADS
    # Mean pooling lets one server answer embeddings beside completions.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.fit_params = False
    params.warmup = False
    params.cache_ram_mib = 0
    params.verbosity = 0
    return xllamacpp.Server(params)


def _set_when_stdin_closes(stopping: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopping.set()


if __name__ == "__main__":
    main()
