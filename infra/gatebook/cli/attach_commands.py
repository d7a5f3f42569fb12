"""`gatebook attach`: the exact few lines that attach a service, with the settings of this place."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.producers.config import ProducerSettings

ADAPTERS = "gatebook.producers.adapters"
CHECK = "gatebook doctor --producer"
# Values that may be printed: they are no secrets, and the service needs the same.
SHOWN = (
    "kafka_bootstrap", "namespace", "delivery_mode", "capture_level", "capture_policy",
    "spool_dir", "trusted_proxies", "service_environment", "sealing_public_keys",
)  # fmt: skip
ALWAYS = ("kafka_bootstrap", "namespace")
NOT_PRINTED = (
    "GATEBOOK_KEY_DIGEST_SECRET", "GATEBOOK_KEY_DIGEST_SECRET_FILE", "GATEBOOK_IDENTITY_KEYS_FILE",
    "SCHEMA_REGISTRY_URL",
)  # fmt: skip
SHOWN_PROPERTIES = frozenset({"security.protocol", "sasl.mechanism", "sasl.mechanisms"})


@dataclass(frozen=True)
class Service:
    """How one kind of service is attached. `place` is where `lines` go; `needs` a module that has
    to be installed here for the service to be listed; `upstream` an address to put in."""

    name: str
    about: str
    place: str
    language: str
    lines: str
    needs: str = "gatebook.producers.asgi"
    install: str = "pip install gatebook"
    provider: str = ""


def _proxied(name: str, title: str, port: int, provider: str) -> Service:
    return Service(
        name=name,
        about=f"{title}, which one does not change: a proxy before it",
        place=f"a shell; clients then use http://127.0.0.1:8090 instead of :{port}",
        language="sh",
        lines=f"gatebook proxy --upstream http://127.0.0.1:{port} --host 127.0.0.1 --port 8090\n",
        needs=f"{ADAPTERS}.proxy",
        install="pip install 'gatebook[proxy]'",
        provider=provider,
    )


SERVICES = (
    Service(
        name="fastapi",
        about="a FastAPI application",
        place="the module that makes `app`, after all other add_middleware calls",
        language="python",
        lines="from gatebook.producers.asgi import attach\n\nattach(app)\n",
    ),
    Service(
        name="starlette",
        about="a Starlette application; any other ASGI app: app = GatebookMiddleware(app)",
        place="the module that makes `app`, after all other add_middleware calls",
        language="python",
        lines="from gatebook.producers.asgi import attach\n\nattach(app)\n",
    ),
    Service(
        name="wsgi",
        about="a WSGI application; Flask: app.wsgi_app = GatebookWsgiMiddleware(app.wsgi_app)",
        place="the module that the WSGI server loads, behind what makes `app`",
        language="python",
        lines="from gatebook.producers.adapters.wsgi import GatebookWsgiMiddleware\n\n"
        "app = GatebookWsgiMiddleware(app)\n",
        needs=f"{ADAPTERS}.wsgi",
    ),
    _proxied("llama.cpp", "llama.cpp's llama-server", 8080, "llama_cpp"),
    _proxied("vllm", "vLLM", 8000, "vllm"),
    _proxied("ollama", "ollama", 11434, "ollama"),
    _proxied("tgi", "Text Generation Inference", 3000, "tgi"),
    Service(
        name="litellm",
        about="LiteLLM's proxy, by a callback",
        place="config.yaml of the proxy (install into the proxy's own environment)",
        language="yaml",
        lines="litellm_settings:\n  callbacks: gatebook.producers.adapters.litellm.callback\n",
        needs=f"{ADAPTERS}.litellm",
    ),
    Service(
        name="openai-client",
        about="code that calls a model with the openai package",
        place="behind what makes `client` (OpenAI or AsyncOpenAI)",
        language="python",
        lines="from gatebook.producers.adapters.openai_client import recorded\n\n"
        "client = recorded(client)\n",
        needs=f"{ADAPTERS}.openai_client",
    ),
    Service(
        name="in-process",
        about="code that calls a model in its own process",
        place="around the call",
        language="python",
        lines="from gatebook.producers.adapters.call import record_call\n\n"
        'with record_call("chat", model=model, user=user) as call:\n'
        "    call.request(messages=messages)\n"
        "    text = generate(messages)\n"
        "    call.output(text)\n",
        needs=f"{ADAPTERS}.call",
    ),
    Service(
        name="other-language",
        about="a service that is not written in Python: it posts its events",
        place="one agent a host, and a request for each access (gatebook agent --help)",
        language="sh",
        lines="gatebook agent --listen 127.0.0.1:4320 &\n"
        "until curl --silent --fail http://127.0.0.1:4320/healthz; do sleep 1; done\n"
        "curl --fail-with-body http://127.0.0.1:4320/v1/events \\\n"
        '  -H "Authorization: Bearer $(cat {token})" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{{"event": {{"action": "chat"}}, "user": {{"id": "ada"}},'
        ' "http": {{"response": {{"status_code": 200}}}},'
        ' "gen_ai": {{"request": {{"model": "slm"}}}}}}\'\n'
        "# What was said goes beside these, and is kept at capture level redacted or full:\n"
        '#   "content": {{"input_messages": [{{"role": "user", "content": "Why?"}}],\n'
        '#               "output_messages": [{{"role": "assistant", "content": "Because."}}]}}\n',
        needs=f"{ADAPTERS}.agent",
    ),
    Service(
        name="existing-logs",
        about="access logs that exist already",
        place="a shell, or cron: each run takes what has been added (gatebook import --help)",
        language="sh",
        lines="gatebook import /var/log/nginx/access.log\n",
        needs=f"{ADAPTERS}.importer",
    ),
)


@click.command()
@click.argument("service", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def attach(service: str | None, as_json: bool) -> None:
    """Print the few lines that attach SERVICE, with the settings of this environment filled in.

    Without SERVICE it lists what can be attached. Secrets are not printed: their variables are
    named. Exit codes: 0 fine; 2 there is no such service, or a setting is wrong.
    """
    known = {one.name: one for one in available()}
    if service is None:
        _list(known, as_json)
        return
    if service not in known:
        click.echo(f"gatebook: {service!r} is not known; known are: {', '.join(known)}", err=True)
        sys.exit(2)
    from gatebook.producers.config import ProducerSettings

    found = instructions(known[service], ProducerSettings.from_env(), os.environ)
    click.echo(json.dumps(found, indent=2) if as_json else as_text(found), nl=as_json)


COMMANDS = [attach]


def available() -> list[Service]:
    """The services whose adapter is there."""
    return [one for one in SERVICES if importlib.util.find_spec(one.needs) is not None]


def instructions(
    service: Service, settings: ProducerSettings, environ: Mapping[str, str]
) -> dict[str, Any]:
    """What to do: install, environment, lines and where they go, and how to check."""
    token = environ.get("GATEBOOK_AGENT_TOKEN_FILE") or settings.home_path / "keys" / "agent.token"
    lines = service.lines
    if service.name == "other-language":
        lines = lines.format(token=token)
    return {
        "service": service.name,
        "about": service.about,
        "install": _install(service, settings),
        "environment": _environment(service, settings, environ),
        "secrets": _secrets(settings, environ),
        "place": service.place,
        "language": service.language,
        "lines": lines,
        "check": CHECK,
    }


def _install(service: Service, settings: ProducerSettings) -> str:
    """With what seals content, where there is to be any."""
    if not settings.may_want_content:
        return service.install
    if "'gatebook[" in service.install:
        return service.install.replace("]'", ",sealing]'")
    return service.install.replace("gatebook", "'gatebook[sealing]'")


def as_text(found: Mapping[str, Any]) -> str:
    """The same for people: comments say where, the rest can be pasted."""
    exports = "".join(f"export {name}={value}\n" for name, value in found["environment"].items())
    secrets = ""
    if found["secrets"]:
        secrets = f"# and these, as they are set here: {', '.join(found['secrets'])}\n"
    return (
        f"# 1. Where the service is installed\n{found['install']}\n\n"
        f"# 2. The environment of the service\n{exports}{secrets}\n"
        f"# 3. In {found['place']}\n{found['lines']}\n"
        f"# 4. Does an event come through? In the same environment:\n{found['check']}\n"
    )


def _environment(
    service: Service, settings: ProducerSettings, environ: Mapping[str, str]
) -> dict[str, str]:
    import shlex

    from gatebook.producers.config import ProducerSettings

    usual = ProducerSettings()
    pairs: dict[str, Any] = {"service_name": _service_name(service, settings)}
    for name in SHOWN:
        if name in ALWAYS or getattr(settings, name) != getattr(usual, name):
            pairs[name] = getattr(settings, name)
    if service.provider or settings.provider_name:
        pairs["provider_name"] = service.provider or settings.provider_name
    if environ.get("GATEBOOK_HOME"):
        pairs["home"] = settings.home
    for name, value in settings.kafka_properties.items():
        if name in SHOWN_PROPERTIES:
            pairs[f"kafka_{name.replace('.', '_')}"] = value
    return {f"GATEBOOK_{name.upper()}": shlex.quote(_written(v)) for name, v in pairs.items()}


def _service_name(service: Service, settings: ProducerSettings) -> str:
    from gatebook.producers.config import ProducerSettings

    unset = settings.service_name == ProducerSettings().service_name
    return service.name.replace(".", "-") if unset else settings.service_name


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _secrets(settings: ProducerSettings, environ: Mapping[str, str]) -> list[str]:
    """Variables whose values the service needs and that are not printed."""
    hidden = [name for name in settings.kafka_properties if name not in SHOWN_PROPERTIES]
    names = [f"GATEBOOK_KAFKA_{name.upper().replace('.', '_')}" for name in hidden]
    return sorted([*names, *(name for name in NOT_PRINTED if environ.get(name))])


def _list(known: Mapping[str, Service], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({name: one.about for name, one in known.items()}, indent=2))
        return
    width = max(map(len, known))
    for name, one in known.items():
        click.echo(f"{name:<{width}}  {one.about}")
    click.echo("\ngatebook attach SERVICE prints what to do.")
