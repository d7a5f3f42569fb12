"""The real LiteLLM proxy in an environment of its own: built once, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until

LOCK = Path(__file__).with_name("litellm_proxy.lock")
# What the base install has: neither processors nor engines.
SOURCES = os.pathsep.join(
    str(Path(__file__).parents[3] / part) for part in ("schemas", "producers")
)
MASTER_KEY = "sk-master-of-the-proxy-test"
START_SECONDS = 120.0
STOP_SECONDS = 30.0


def proxy_environment() -> Path:
    """Folder of a virtual environment with LiteLLM's proxy and our base dependencies, exactly those
    of the lock file: LiteLLM had releases that steal credentials."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = hashlib.sha256(LOCK.read_bytes() + version.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "gatebook" / f"litellm-{name}"
    if not folder.exists():
        _build(folder)
    return folder


def _build(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".litellm-", dir=folder.parent))
    uv = [sys.executable, "-m", "uv", "--quiet"]
    try:
        subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(draft)], check=True)
        install = [*uv, "pip", "install", "--python", str(draft / "bin" / "python")]
        exact = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCK)]
        subprocess.run([*install, *exact], check=True)
        # If we die before this, the next run builds anew; of two at once, one is thrown away.
        draft.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def litellm_proxy(environment: Path, config: Path, **settings: str) -> Iterator[str]:
    """A proxy that reads `config`, with our source beside its own packages; gives its address.

    Stopped by SIGINT, after which Python's exit handlers run: LiteLLM's server ends a SIGTERM by
    killing itself, and what is open then is left to the spool.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = config.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(environment / "bin" / "python"),
                # The script's own first line names the folder it was built in.
                *("-c", "import sys; from litellm import run_server; sys.exit(run_server())"),
                *("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
            ],
            env=_variables(config.parent, settings),
            cwd=config.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(f"LiteLLM's proxy, see {log}", lambda: _alive(process, url), START_SECONDS)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


def _variables(home: Path, settings: dict[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": SOURCES,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched
        "NO_PROXY": "*",
        **settings,
    }


def _alive(process: subprocess.Popen[bytes], url: str) -> bool:
    assert process.poll() is None, "the proxy ended"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health/liveliness", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
