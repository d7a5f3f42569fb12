"""`gatebook proxy`: records accesses to a model server that one cannot change."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import click

from gatebook.schemas.errors import Fatal

if TYPE_CHECKING:
    from gatebook.producers.adapters.proxy import ProxySettings
    from gatebook.producers.recorder import Recorder

API_KEY_VARIABLE = "GATEBOOK_PROXY_UPSTREAM_API_KEY"
_DRAIN_SECONDS = 30
_BACKLOG = 2048
_MILLION = 10**6


@click.command()
@click.option(
    "--upstream",
    required=True,
    envvar="GATEBOOK_PROXY_UPSTREAM_URL",
    help="URL of the model server: llama.cpp, vLLM, ollama, TGI, ... (without /v1).",
)
@click.option("--host", default="127.0.0.1", show_default=True, envvar="GATEBOOK_PROXY_HOST")
@click.option(
    "--port",
    default=8090,
    show_default=True,
    type=click.IntRange(0, 65_535),
    envvar="GATEBOOK_PROXY_PORT",
    help="0 takes a free port.",
)
@click.option(
    "--timeout-seconds",
    default=600.0,
    show_default=True,
    type=click.FloatRange(0, _MILLION, min_open=True),
    envvar="GATEBOOK_PROXY_TIMEOUT_SECONDS",
    help="Patience for the answer to begin (then 504), and for each later silence.",
)
@click.option(
    "--upstream-ca-file",
    default="",
    envvar="GATEBOOK_PROXY_UPSTREAM_CA_FILE",
    help="PEM file of the authority that signed the upstream's certificate.",
)
@click.option(
    "--provenance/--no-provenance",
    default=True,
    show_default=True,
    envvar="GATEBOOK_PROXY_PROVENANCE",
    help="Ask the upstream in the background which model, engine and weights it serves.",
)
def proxy(
    upstream: str,
    host: str,
    port: int,
    timeout_seconds: float,
    upstream_ca_file: str,
    provenance: bool,
) -> None:
    """Forward every path to a model server and record each access.

    Point clients at this address instead of the server's. Bytes pass unchanged; callers' keys go
    to the upstream as they are, and into the record as keyed digests only. The producer's settings
    come from the GATEBOOK_ environment. Where the upstream wants a key even for questions about
    itself, put one into GATEBOOK_PROXY_UPSTREAM_API_KEY: it is used for model provenance alone.

    Stops on SIGTERM and SIGINT, after the requests under way; what the broker did not take by then
    stays in the spool and is sent at the next start.
    """
    from gatebook.producers.adapters.proxy import ProxySettings
    from gatebook.producers.config import ProducerSettings
    from gatebook.producers.recorder import Recorder

    settings = ProxySettings(
        upstream_url=upstream,
        timeout_seconds=timeout_seconds,
        upstream_ca_file=upstream_ca_file,
        upstream_api_key=os.environ.get(API_KEY_VARIABLE, ""),
        provenance=provenance,
    ).check()
    recorder = Recorder(ProducerSettings.from_env())
    _serve(settings, recorder, _listen(host, port))
    _report(recorder)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that name it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # before it is announced: who comes early waits, not fails
    except OSError as error:
        listener.close()
        raise Fatal(
            f"cannot listen on {host} port {port}: {error.strerror}",
            "choose another with --host and --port",
        ) from None
    return listener


def _serve(settings: ProxySettings, recorder: Recorder, listener: socket.socket) -> None:
    import uvicorn

    from gatebook.producers.adapters.proxy import create_proxy

    config = uvicorn.Config(
        create_proxy(settings, recorder),
        log_level="critical",  # its errors would quote paths; ours are recorded
        access_log=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,  # X-Forwarded-For counts by GATEBOOK_TRUSTED_PROXIES alone
        server_header=False,  # the upstream's own pass through
        date_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    # For a signal before uvicorn listens to them, and when it raises them again at its end.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: setattr(server, "should_exit", True))
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"listening http://{shown}:{port} -> {settings.upstream_url}")
    server.run(sockets=[listener])


def _report(recorder: Recorder) -> None:
    recorder.close()
    found = recorder.counters()
    dropped = sum(found.dropped.values())
    click.echo(
        f"recorded {found.emitted} accesses: {found.acknowledged} acknowledged, "
        f"{found.on_the_way} in the spool, {dropped} dropped"
    )


COMMANDS = [proxy]
