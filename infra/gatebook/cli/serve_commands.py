"""`gatebook serve` and `gatebook token`."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gatebook.schemas.errors import Fatal, GatebookError

if TYPE_CHECKING:
    import uvicorn

    from gatebook.cli.token_check import IssuerTokens
    from gatebook.processors.config import WorkerSettings
    from gatebook.processors.serve.access.guard import Access
    from gatebook.processors.serve.access.link import LoginLink
    from gatebook.processors.serve.access.settings import AccessSettings
    from gatebook.processors.serve.access.state import ConsoleState
    from gatebook.processors.serve.access.tokens import TokenFacts, Tokens
    from gatebook.processors.sinks.connection import Connection
    from gatebook.producers.recorder import Recorder

T = TypeVar("T")
ROLES = ("viewer", "analyst", "privacy_officer", "admin")
EXIT_NOT_FOUND = 1
SIGNING_KEY_NAME = "serve.key"
DRAIN_SECONDS = 10
BACKLOG = 2048
FLUSH_SECONDS = 5.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class AddressTaken(GatebookError):
    """The service cannot listen where it is told to."""

    exit_code = 2
    next_step = "name another with --port (0 takes a free one) or --host"


@click.command()
@click.option("--host", help="Address to listen on; default: GATEBOOK_SERVE_HOST, 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Port; default: GATEBOOK_SERVE_PORT, 8321; 0 takes a free one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the console in a browser.")
def serve(host: str | None, port: int | None, open_browser: bool) -> None:
    """Search in the browser and by HTTP API (/api/v1/openapi.json), until Ctrl-C or SIGTERM.

    On this machine alone (the default) it prints a link that signs in once, where neither an
    identity provider nor an API token is there. To be reached from elsewhere it needs one of
    these, and TLS: GATEBOOK_SERVE_TLS_CERTIFICATE_FILE and _TLS_KEY_FILE, or a proxy that ends
    TLS, named by GATEBOOK_SERVE_TRUSTED_PROXIES and GATEBOOK_SERVE_PUBLIC_URL.

    Every search, view, reveal, export, verdict and refused request is an event of the log itself.
    Exit codes: 0 ended; 2 a setting is wrong or unsafe; 3 Elasticsearch does not answer; 6 acts
    cannot be recorded.
    """
    import msgspec

    from gatebook.processors.config import from_env
    from gatebook.processors.serve.access.settings import access_settings

    access = access_settings(_chosen(host, port))
    listening = _bind(access)
    bound_port = int(listening.getsockname()[1])
    access = msgspec.structs.replace(access, port=bound_port)
    try:
        asyncio.run(_serve(access, from_env(), listening, open_browser))
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        listening.close()


def _chosen(host: str | None, port: int | None) -> dict[str, str]:
    """The environment, with what stands on the command line."""
    import os

    given = {"GATEBOOK_SERVE_HOST": host, "GATEBOOK_SERVE_PORT": port}
    return dict(os.environ) | {name: str(v) for name, v in given.items() if v is not None}


def _bind(settings: AccessSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise AddressTaken(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
        ) from None
    listening.set_inheritable(True)
    return listening


async def _serve(
    settings: AccessSettings, worker: WorkerSettings, listening: socket.socket, open_browser: bool
) -> None:
    """Everything that belongs to one event loop, from its beginning to its end."""
    from gatebook.cli.token_check import bearer_check, id_token_check
    from gatebook.processors.sinks.connection import Connection
    from gatebook.processors.sinks.settings import elasticsearch_settings

    recorder = _recorder()
    checks = [id_token_check(settings), bearer_check(settings)]
    connection = Connection(elasticsearch_settings(url=worker.elasticsearch_url))
    try:
        link = await _way_in(settings, connection, worker.namespace)
        app = _app(settings, worker, connection, recorder, checks, link)
        server = _server(app, settings)
        listening.listen(BACKLOG)  # whoever reads the address may connect at once
        _tell(settings, link, open_browser)
        await _run(server, listening)
    finally:
        await connection.close()
        for check in checks:
            if check is not None:
                check.close()
        recorder.close(FLUSH_SECONDS)


class CannotRecord(GatebookError):
    """Without a spool nobody could be told from nobody."""

    exit_code = 6
    next_step = "see that GATEBOOK_SPOOL_DIR (default: spool in GATEBOOK_HOME) can be written"


def _recorder() -> Recorder:
    from gatebook.cli.audited import service_settings
    from gatebook.producers.recorder import Recorder

    try:
        recorder = Recorder(service_settings())
        ready = recorder.accepts_durably()
    except (Fatal, OSError) as error:
        raise CannotRecord(f"acts cannot be recorded ({error}), so none is served") from None
    if not ready:
        raise CannotRecord("acts cannot be recorded durably, so none is served")
    return recorder


async def _way_in(
    settings: AccessSettings, connection: Connection, namespace: str
) -> LoginLink | None:
    """A login link where there is no other way in, on loopback alone. Raises Fatal where nobody
    could get in, or anybody."""
    from gatebook.cli.privileged import operator
    from gatebook.processors.serve.access.link import LoginLink
    from gatebook.processors.serve.access.state import ConsoleState
    from gatebook.processors.serve.access.tokens import Tokens
    from gatebook.schemas.errors import WrongSetting

    has_tokens = await Tokens(ConsoleState(connection, namespace)).has_any()
    if settings.oidc_issuer or has_tokens:
        return None
    if not settings.is_loopback:
        raise WrongSetting(
            f"{settings.host} can be reached from outside, and nobody could sign in",
            "set GATEBOOK_SERVE_OIDC_ISSUER, or make a token with `gatebook token new`",
        )
    return LoginLink(operator(), settings.login_link_seconds)


def _app(
    settings: AccessSettings,
    worker: WorkerSettings,
    connection: Connection,
    recorder: Recorder,
    checks: list[IssuerTokens | None],
    link: LoginLink | None,
) -> Any:
    from gatebook.cli.audited import RecordedAudit
    from gatebook.cli.waiting import Waiting
    from gatebook.processors.config import read_or_make_key
    from gatebook.processors.serve.access.guard import (
        install,
        make_access,
        routes_without_permission,
    )
    from gatebook.processors.serve.access.revealing import Revealer
    from gatebook.processors.serve.app import create_app
    from gatebook.processors.serve.deps import Deps
    from gatebook.processors.serve.settings import ServeSettings

    audit = RecordedAudit(recorder)
    access: Access = make_access(
        settings,
        connection,
        worker.namespace,
        audit,
        id_tokens=checks[0],
        bearer=checks[1],
        link=link,
    )
    deps = Deps(
        connection=connection,
        namespace=worker.namespace,
        audit=audit,
        settings=ServeSettings.from_env(),
        install=lambda app: install(app, access),
        reveal=Revealer(connection, worker).opened,
        say=lambda record: asyncio.to_thread(_say, worker, record),
        waiting=Waiting(worker).roles,
        # Kept, so that an export that was cut off by a restart can be resumed after it.
        signing_key=read_or_make_key(worker.home_path / "keys" / SIGNING_KEY_NAME),
    )
    app = create_app(deps)
    if forgotten := routes_without_permission(app):
        raise Fatal(f"a route asks for no permission: {forgotten[0]}", "report it")
    return app


def _say(worker: WorkerSettings, record: dict[str, Any]) -> None:
    from gatebook.processors.alerts.verdicts import send
    from gatebook.processors.config import kafka_properties
    from gatebook.schemas.confluent import wire_from_env

    properties = kafka_properties(worker.kafka_bootstrap)
    send(record, worker.namespace, properties, wire_from_env(worker.namespace))


def _tell(settings: AccessSettings, link: LoginLink | None, open_browser: bool) -> None:
    """Where it is. The link goes to the terminal of whoever started it, and nowhere else."""
    address = settings.origin
    click.echo(f"console: {address}/")
    click.echo(f"API:     {address}/api/v1/openapi.json")
    goal = f"{address}/"
    if link is not None:
        goal = f"{address}/login?token={link.token}"
        click.echo(f"sign in, once, within {settings.login_link_seconds / 60:g} minutes: {goal}")
        link.forget_token()
    sys.stdout.flush()
    if open_browser and not webbrowser.open(goal):
        click.echo("gatebook: no browser can be opened here; open the address yourself", err=True)


async def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    # The server stops by itself, then raises the signal again, which would end the process before
    # what is recorded is sent.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    await server.serve(sockets=[listening])


def _server(app: Any, settings: AccessSettings) -> uvicorn.Server:
    """The server, with its certificate read. Raises Fatal."""
    import uvicorn

    config = uvicorn.Config(
        app,
        # Its lines would hold addresses with queries in them, and the link's token.
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        date_header=False,  # the gate's is of its moment
        # The gate reads what proxies say itself, so that it knows whom it believes.
        proxy_headers=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=settings.tls_certificate_file or None,
        ssl_keyfile=settings.tls_key_file or None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise Fatal(
            f"certificate and key cannot be used ({type(error).__name__})",
            "see that GATEBOOK_SERVE_TLS_CERTIFICATE_FILE and _TLS_KEY_FILE are PEM files that "
            "belong together",
        ) from None
    return uvicorn.Server(config)


# --- tokens ------------------------------------------------------------------------------------


@click.group()
def token() -> None:
    """API tokens of the search service: make, list, revoke; and ending sessions.

    Each command is an event of the log, durable before anything is done. A token is shown once
    and kept as a digest. Exit codes: 0 done; 1 no such token; 2 wrong usage; 3 Elasticsearch does
    not answer; 6 it could not be recorded.
    """


@token.command("new")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    required=True,
    help="What it may do; can be given several times.",
)
@click.option("--tenant", "tenants", multiple=True, help="organization.id it may see.")
@click.option("--all-tenants", is_flag=True, help="It may see every tenant.")
@click.option("--days", type=int, default=90, show_default=True, help="How long it holds.")
@json_option
def new_command(
    name: str,
    roles: tuple[str, ...],
    tenants: tuple[str, ...],
    all_tenants: bool,
    days: int,
    as_json: bool,
) -> None:
    """Make a token, for a program or a person. NAME says what it is for."""
    from gatebook.cli.privileged import operator
    from gatebook.processors.serve.access.tokens import NewToken

    if all_tenants == bool(tenants):
        raise click.UsageError("give --tenant (several are possible) or --all-tenants")
    new = NewToken(name, tuple(dict.fromkeys(roles)), None if all_tenants else tenants, days)
    new.check()

    async def make(tokens: Tokens) -> tuple[str, TokenFacts]:
        return await tokens.create(new, operator())

    shown = "all" if all_tenants else ",".join(tenants)
    details = {"name": name, "roles": ",".join(new.roles), "tenants": shown, "days": str(days)}
    made, facts = _with_tokens("token.new", details, make)
    if as_json:
        click.echo(json.dumps({"token": made, **_plain(facts)}))
        return
    click.echo(made)
    click.echo(
        f"token {facts.id}, until {_time(facts.expires_at)}; it is not shown again", err=True
    )


@token.command("list")
@click.option("--all", "with_ended", is_flag=True, help="Also those that hold no more.")
@json_option
def list_command(with_ended: bool, as_json: bool) -> None:
    """Show tokens, newest first."""
    found = _with_tokens("token.list", {}, lambda tokens: tokens.list())
    now = datetime.now(UTC).timestamp()
    shown = [one for one in found if with_ended or one.state(now) == "active"]
    if as_json:
        click.echo(json.dumps({"tokens": [_plain(one) for one in shown]}))
        return
    for one in shown:
        click.echo("  ".join(_cells(one, now)))
    if not shown:
        click.echo("no tokens", err=True)


def _cells(facts: TokenFacts, now: float) -> list[str]:
    from gatebook.processors.search.display import safe

    tenants = "all tenants" if facts.tenants is None else ",".join(facts.tenants)
    return [
        facts.id,
        f"{facts.state(now):<7}",
        safe(facts.name, 40),
        ",".join(facts.roles),
        safe(tenants, 60),
        f"until {_time(facts.expires_at)}",
        f"used {_time(facts.last_used_at)}" if facts.last_used_at else "never used",
    ]


class NoSuchToken(GatebookError):
    """No token has this id, and none ever had."""

    exit_code = EXIT_NOT_FOUND
    event_reason = "not_found"
    next_step = "`gatebook token list --all` shows all there ever were"

    def __init__(self, token_id: str) -> None:
        super().__init__(f"no token has the id {token_id}, so none was revoked")


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@json_option
def revoke_command(token_id: str, as_json: bool) -> None:
    """End a token and the sessions begun with it, for every process at once.

    ID is what `gatebook token list` shows, never the token itself. A token that was revoked before
    stays as it was: that is told, and is no failure.
    """
    from gatebook.cli.privileged import operator
    from gatebook.processors.serve.access.tokens import TokenError

    _refuse_no_id(token_id)

    async def revoke(tokens: Tokens) -> tuple[str, TokenFacts]:
        try:
            before = (await tokens.find(token_id)).state(datetime.now(UTC).timestamp())
            return before, await tokens.revoke(token_id, operator())
        except TokenError:
            raise NoSuchToken(token_id) from None

    before, facts = _with_tokens("token.revoke", {"token": token_id}, revoke)
    if as_json:
        click.echo(json.dumps({**_plain(facts), "state_before": before}))
    else:
        click.echo(_revoked(before, facts))


def _refuse_no_id(token_id: str) -> None:
    """Raises BadParameter, before anything of it is recorded: it may be a token itself."""
    from gatebook.processors.serve.access.tokens import is_id, is_token, short_id

    if is_token(token_id):
        raise click.BadParameter(
            "this is a token itself, which belongs in no command (shells remember them); "
            f"its id is {short_id(token_id)}",
            param_hint="ID",
        )
    if not is_id(token_id):
        raise click.BadParameter(
            "an id is 16 letters or digits; `gatebook token list` shows them", param_hint="ID"
        )


def _revoked(before: str, facts: TokenFacts) -> str:
    from gatebook.processors.search.display import safe

    who = f"{facts.id} ({safe(facts.name, 40)})"
    if before == "revoked":
        by = f" by {safe(facts.revoked_by, 40)}" if facts.revoked_by else ""
        when = _time(facts.revoked_at)
        return f"{who} was revoked already, at {when}{by}; nothing was changed"
    if before == "expired":
        return f"revoked {who}; it had held for nothing since {_time(facts.expires_at)}"
    return f"revoked {who}; it signs nobody in any more, and its sessions are ended"


@token.command("sign-out")
@click.argument("caller_id", metavar="CALLER")
@json_option
def sign_out_command(caller_id: str, as_json: bool) -> None:
    """End all sessions of a caller in the console, for every process at once.

    CALLER is user.id of the caller's events, as the identity provider names them. It keeps nobody
    from signing in again: take the role away at the provider first.
    """
    ended = _with_state("session.end", {"subject": caller_id[:256]}, lambda s: _end(s, caller_id))
    click.echo(json.dumps({"ended": ended}) if as_json else f"{ended} sessions ended")


async def _end(state: ConsoleState, caller_id: str) -> int:
    from gatebook.processors.serve.access.sessions import Sessions

    return await Sessions(state, 1.0, 1.0).end_all_of(caller_id)


def _with_tokens(action: str, details: dict[str, str], work: Callable[[Tokens], Awaitable[T]]) -> T:
    from gatebook.processors.serve.access.tokens import Tokens

    return _with_state(action, details, lambda state: work(Tokens(state)))


def _with_state(
    action: str, details: dict[str, str], work: Callable[[ConsoleState], Awaitable[T]]
) -> T:
    """Record, then do it. Raises NotRecorded, StateAway."""
    from gatebook.cli.cluster import run_on_cluster
    from gatebook.cli.privileged import act, witnessed
    from gatebook.processors.config import from_env
    from gatebook.processors.serve.access.state import ConsoleState

    with witnessed(act(action, details)):
        namespace = from_env().namespace
        return run_on_cluster(lambda connection: work(ConsoleState(connection, namespace)))


def _plain(facts: TokenFacts) -> dict[str, Any]:
    return {
        "id": facts.id,
        "name": facts.name,
        "roles": list(facts.roles),
        "tenants": None if facts.tenants is None else list(facts.tenants),
        "state": facts.state(datetime.now(UTC).timestamp()),
        "created_at": _time(facts.created_at),
        "created_by": facts.created_by,
        "expires_at": _time(facts.expires_at),
        "last_used_at": _time(facts.last_used_at),
        "revoked_at": _time(facts.revoked_at),
        "revoked_by": facts.revoked_by,
    }


def _time(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


COMMANDS = [serve, token]
