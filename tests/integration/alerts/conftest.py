"""A real Alertmanager for tests: the one on PATH, or Debian's package unpacked into a cache.

Where neither can be had, the tests run against the strict receiver instead, and their ids say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from tests.waiting import wait_until

from gatebook.cli.demo.alert_receiver import AlertReceiver
from gatebook.engines.processes import free_ports

PACKAGE = "prometheus-alertmanager"
NAMES = ("prometheus-alertmanager", "alertmanager")
FETCH_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 20
# Debian's build opens its page templates at an absolute path. In our unpacked copy that path is
# made relative (same length), so that nothing has to be installed.
TEMPLATES = b"/usr/share/prometheus/alertmanager"
RELATIVE_TEMPLATES = TEMPLATES[1:] + b"/"
CONFIG = """
route:
  receiver: hook
  group_by: [alertname, severity]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: hook
    webhook_configs:
      - url: {webhook_url}/webhook
        send_resolved: true
"""


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gatebook" / "alertmanager"


def _unpacked() -> Path | None:
    found = [path for name in NAMES for path in _cache_folder().glob(f"**/bin/{name}")]
    return found[0] if found else None


def _fetch() -> Path | None:
    """Download and unpack Debian's package; nothing is installed. None where that fails."""
    folder = _cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        try:
            for command in (["apt-get", "download", PACKAGE], ["dpkg", "-x", "{deb}", "out"]):
                deb = next(map(str, Path(work).glob("*.deb")), "")
                subprocess.run(
                    [part.format(deb=deb) for part in command],
                    cwd=work,
                    check=True,
                    capture_output=True,
                    timeout=FETCH_TIMEOUT_SECONDS,
                )
        except (OSError, subprocess.SubprocessError):
            return None
        for binary in Path(work, "out").glob(f"**/bin/{PACKAGE}"):
            binary.write_bytes(binary.read_bytes().replace(TEMPLATES, RELATIVE_TEMPLATES))
        shutil.rmtree(folder, ignore_errors=True)
        # Moved whole: a run that dies before this leaves no half of a package behind.
        (Path(work) / "out").rename(folder)
    return _unpacked()


@cache
def alertmanager_binary() -> Path | None:
    """The program, or None where it cannot be had on this machine."""
    on_path = next((found for name in NAMES if (found := shutil.which(name))), None)
    return Path(on_path) if on_path else _unpacked() or _fetch()


def _kind() -> str:
    return "alertmanager" if alertmanager_binary() else "strict-receiver"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name the receiver in the id of every test that uses it."""
    if "alertmanager" in metafunc.fixturenames:
        metafunc.parametrize("alertmanager", [_kind()], indirect=True)


def get_json(url: str) -> Any:
    """The answer of a GET."""
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


def post_status(url: str, body: bytes) -> int:
    """The status of a POST of JSON."""
    try:
        request = Request(url, data=body, headers={"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


class Alertmanager(Protocol):
    """What the tests see of either."""

    kind: str
    url: str
    webhook: WebhookReceiver


class WebhookReceiver:
    """Takes what Alertmanager sends out, by its webhook."""

    def __init__(self) -> None:
        self.notifications: list[dict[str, Any]] = []

    def __enter__(self) -> WebhookReceiver:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from threading import Thread

        kept = self.notifications

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                kept.append(json.loads(self.rfile.read(length)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class RealAlertmanager:
    """The real program on a loopback port, its data in a folder of its own."""

    kind = "alertmanager"

    def __init__(self, binary: Path, folder: Path, webhook: WebhookReceiver) -> None:
        self.webhook = webhook
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "alertmanager.yml"
        config.write_text(CONFIG.format(webhook_url=webhook.url))
        self._log = (folder / "alertmanager.log").open("wb")
        self._process = subprocess.Popen(
            [
                str(binary),
                f"--config.file={config}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            cwd=_cache_folder() if binary.is_relative_to(_cache_folder()) else folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def ready(self) -> bool:
        """Whether it answers."""
        assert self._process.poll() is None, "Alertmanager ended early"
        try:
            with urlopen(self.url + "/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def stop(self) -> None:
        """End it; returns when it is gone."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class StandIn(AlertReceiver):
    """The strict receiver, which groups and notifies in the simplest way."""

    kind = "strict-receiver"

    def __init__(self, webhook: WebhookReceiver) -> None:
        super().__init__()
        self.webhook = webhook

    def take(self, body: bytes, authorization: str) -> Any:
        """Judge, and send every accepted alert out as a group."""
        answer = super().take(body, authorization)
        for group in self.groups:
            notification = {
                "status": "firing",
                "groupLabels": group["labels"],
                "alerts": [{"status": "firing", **alert} for alert in group["alerts"]],
            }
            self.webhook.notifications.append(notification)
        return answer


@pytest.fixture
def alertmanager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Alertmanager]:
    """A running Alertmanager, or the stand-in where the program cannot be had."""
    with WebhookReceiver() as webhook:
        binary = alertmanager_binary()
        if request.param == "strict-receiver" or binary is None:
            with StandIn(webhook) as stand_in:
                yield stand_in
            return
        real = RealAlertmanager(binary, tmp_path, webhook)
        try:
            wait_until("Alertmanager is ready", real.ready, 30)
            yield real
        finally:
            real.stop()
