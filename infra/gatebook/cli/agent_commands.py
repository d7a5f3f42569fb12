"""`gatebook agent`: access events over HTTP or a Unix socket, from services in any language."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gatebook.producers.adapters.agent import Agent
    from gatebook.producers.recorder import Recorder


@click.command()
@click.option("--listen", help="host:port for HTTP [127.0.0.1:4320]; '' for none.")
@click.option("--socket", help="Path of a Unix socket, too; its file mode says who may send.")
@click.option("--token-file", help="File with the bearer token [keys/agent.token in home].")
def agent(listen: str | None, socket: str | None, token_file: str | None) -> None:
    """Take access events over HTTP, from services that are not written in Python.

    POST /v1/events takes a JSON object, a JSON array, or one object a line (NDJSON), each an
    access event with the nested names of FIELDS.md: times in ISO 8601 or in nanoseconds since
    1970, unknown fields refused. What follows from the rest (outcome from the status code,
    duration from the end) may be left out. With an event.id of your own, a UUID, and a @timestamp,
    an event may be sent again: it is stored once.

    \b
      export TOKEN=$(cat ~/.local/share/gatebook/keys/agent.token)
      curl --fail-with-body http://127.0.0.1:4320/v1/events \\
        -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
        -d '{"event": {"action": "chat", "duration": 801000000},
             "user": {"id": "ada"}, "source": {"ip": "10.20.4.18"},
             "http": {"response": {"status_code": 200}},
             "gen_ai": {"request": {"model": "slm"},
                        "usage": {"input_tokens": 9, "output_tokens": 40}}}'
      curl --unix-socket /run/gatebook/agent.sock http://localhost/v1/events -d @event.json

    \b
    Where a service may be killed in the middle of a call, it says beforehand that it begins:
      {"gatebook": {"phase": "intent"}, "user": {"id": "ada"}, "event": {"action": "chat"}}
    The answer's `id` is the event.id that the event after the call is to have. An intent that
    no such event follows is found by `gatebook reconcile` and stands in the index as incomplete.

    What was said goes into `content`: any of these parts, messages as the model's API has them.

    \b
      {"event": {"action": "chat"}, "user": {"id": "ada"},
       "content": {"system_instructions": "Be brief.",
                   "input_messages": [{"role": "user", "content": "Why?"}],
                   "output_messages": [{"role": "assistant", "content": "Because."}],
                   "tools": [], "error_text": ""}}
    It is kept where the agent's GATEBOOK_CAPTURE_LEVEL is redacted or full and there are keys to
    seal it for (`gatebook keys new`), and in no other field. At the default level, metadata, only
    digests of it are.

    Without @timestamp an event counts as of now. Several objects, one a line, go with the type
    application/x-ndjson.

    \b
    Answers have a result for each event: accepted, invalid (with what is wrong), retry.
      200  what is accepted is fsynced (delivery mode best_effort: in memory)
      400  no event could be read, or none was valid     401  token missing or wrong
      413  more than GATEBOOK_AGENT_BODY_MAX_BYTES       408  came in too slowly
      429  full: send those marked retry again after Retry-After seconds
      503  nothing can be made durable now

    A sender does not decide what is captured (gatebook.capture is replaced), who the producer is,
    nor how much its word counts: identity is `asserted` at most. GET /healthz and /metrics need
    no token and say nothing of events.
    """
    from gatebook.producers.adapters.agent import Agent
    from gatebook.producers.adapters.agent_intake import make_intake
    from gatebook.producers.adapters.agent_settings import AgentSettings, read_token, token_path
    from gatebook.producers.config import ProducerSettings
    from gatebook.producers.recorder import Recorder

    settings = AgentSettings.from_env(listen=listen, socket=socket, token_file=token_file)
    producer = ProducerSettings.from_env()
    token = read_token(settings, producer.home_path) if settings.listen else b""
    recorder = Recorder(producer)
    made = Agent(settings, make_intake(producer, recorder), token)
    if settings.listen:
        click.echo(f"token in {token_path(settings, producer.home_path)}", err=True)
    asyncio.run(_run(made, recorder))


async def _run(made: Agent, recorder: Recorder) -> None:
    """Until SIGTERM or Ctrl-C. If we are killed, the next process sends what the spool holds."""
    await asyncio.to_thread(recorder.start)
    for address in await made.start():
        click.echo(f"listening on {address}", err=True)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, made.stop)
    await made.serve()
    report = await asyncio.to_thread(recorder.close)
    if not report.complete:
        waiting = report.unacknowledged + report.unspooled
        click.echo(f"{waiting} events wait in the spool for the next start", err=True)


COMMANDS = [agent]
