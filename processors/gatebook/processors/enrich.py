"""Adds what is known about the caller, the service, the client and the address. Pure.

The event comes in as a nested dict with ECS names and is not changed; a new one goes out. What the
producer said always stands: only fields that are empty are filled. Two TOML files are the source:

    [[user]]                          [[service]]
    id = "u-17"                       name = "chat"
    name = "ada"                      component = "gateway"
    full_name = "Ada Lovelace"        team = "assistants"
    email = "ada@example.com"         environment = "production"
    roles = ["analyst"]               criticality = "high"
    organization = "acme"
    organization_name = "Acme Ltd"
    key_ids = ["key-7"]

A mail address is never kept: it becomes `user.hash`, a keyed pseudonym, while the file is read.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

Event = Mapping[str, Any]
HashEmail = Callable[[str], str]
"""Turns a mail address in lower case into its pseudonym, as `Pseudonyms.of("email", ...)` does."""
T = TypeVar("T", bound=msgspec.Struct)
MAX_FILE_BYTES = 64 * 1024 * 1024


class CatalogInvalid(ValueError):
    """A directory or catalogue file cannot be used. Names the file and the place, no content."""


class _User(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    name: str = ""
    full_name: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    organization: str = ""
    organization_name: str = ""
    key_ids: tuple[str, ...] = ()


class _Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    component: str = ""
    team: str = ""
    environment: str = ""
    criticality: Literal["", "low", "medium", "high", "critical"] = ""


class _UserFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: tuple[_User, ...] = ()


class _ServiceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: tuple[_Service, ...] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """One user of the directory; `email_hash` is a keyed pseudonym, or empty."""

    id: str
    name: str = ""
    full_name: str = ""
    email_hash: str = ""
    roles: tuple[str, ...] = ()
    organization: str = ""
    organization_name: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """People by user id and by API key id."""

    by_id: Mapping[str, Person] = field(default_factory=dict)
    by_key_id: Mapping[str, Person] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """What the service catalogue says about one service."""

    component: str = ""
    team: str = ""
    environment: str = ""
    criticality: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that enrichment looks up. Empty by default: then only derived fields are added."""

    directory: Directory = field(default_factory=Directory)
    services: Mapping[str, ServiceEntry] = field(default_factory=dict)

    @classmethod
    def load(
        cls, directory: Path | None, services: Path | None, hash_email: HashEmail | None = None
    ) -> Catalog:
        """Read both files; either may be left out. Raises CatalogInvalid.

        Without `hash_email` no `user.hash` is added: there is no hash without a key.
        """
        return cls(
            load_directory(directory, hash_email) if directory else Directory(),
            load_services(services) if services else {},
        )


# ---- files -------------------------------------------------------------------------------------


def load_directory(path: Path, hash_email: HashEmail | None = None) -> Directory:
    """Read a directory file. Raises CatalogInvalid on bad TOML, fields, or an id used twice."""
    users = _read(path, _UserFile).user
    people = [_person(user, hash_email) for user in users]
    keys = [
        (key, person) for user, person in zip(users, people, strict=True) for key in user.key_ids
    ]
    return Directory(
        _unique(path, "user id", ((person.id, person) for person in people)),
        _unique(path, "key id", keys),
    )


def load_services(path: Path) -> dict[str, ServiceEntry]:
    """Read a service catalogue file. Raises CatalogInvalid."""
    entries = (
        (s.name, ServiceEntry(s.component, s.team, s.environment, s.criticality))
        for s in _read(path, _ServiceFile).service
    )
    return _unique(path, "service name", entries)


def _person(user: _User, hash_email: HashEmail | None) -> Person:
    email = user.email.strip().lower()
    return Person(
        id=user.id,
        name=user.name,
        full_name=user.full_name,
        email_hash=hash_email(email) if email and hash_email else "",
        roles=user.roles,
        organization=user.organization,
        organization_name=user.organization_name,
    )


def _read(path: Path, kind: type[T]) -> T:
    """`from None` throughout: the causes quote the file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CatalogInvalid(f"{path.name}: larger than {MAX_FILE_BYTES} bytes")
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except OSError as error:
        raise CatalogInvalid(f"{path.name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CatalogInvalid(f"{path.name}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise CatalogInvalid(f"{path.name}: not TOML {_toml_place(str(error))}") from None
    except msgspec.ValidationError as error:
        raise CatalogInvalid(f"{path.name}: {_field_fault(str(error))}") from None


_TOML_PLACE = re.compile(r"\(at (line \d+, column \d+|end of document)\)\Z")
_FIELD_PLACE = re.compile(r" - at `(\$[^`]*)`\Z")
_FIELD_FAULTS = (
    ("Object contains unknown field", "unknown field"),
    ("Object missing required field", "required field missing"),
    ("Invalid enum value", "value not allowed"),
    ("Expected", "wrong type"),
)


def _toml_place(message: str) -> str:
    place = _TOML_PLACE.search(message)
    return f"(at {place[1]})" if place else ""


def _field_fault(message: str) -> str:
    """Tell fault and place (`$.user[3].roles`) without the value that msgspec may quote."""
    fault = next((text for start, text in _FIELD_FAULTS if message.startswith(start)), "invalid")
    place = _FIELD_PLACE.search(message)
    return f"{fault} at {place[1] if place else '$'}"


def _unique(path: Path, what: str, entries: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for number, (name, entry) in enumerate(entries, 1):
        if not name:
            raise CatalogInvalid(f"{path.name}: {what} number {number} is empty")
        if name in result:
            raise CatalogInvalid(f"{path.name}: {what} number {number} was used before")
        result[name] = entry
    return result


# ---- the event ---------------------------------------------------------------------------------


def enrich(event: Event, catalog: Catalog) -> dict[str, Any]:
    """Return a new event with what is known added; nothing the producer filled is changed.

    An empty string, list, mapping or None counts as not filled. Adds `user.*`, `organization.*`,
    `service.environment`, `user_agent.{name,version}`, `gatebook.source.address_class` and
    `gatebook.service.{component,team,criticality}`. Raises nothing on odd values: it adds less.
    """
    additions = (
        _identity(event, catalog.directory),
        _service(event, catalog.services),
        _user_agent(event),
        _address(event),
    )
    result = dict(event)
    for addition in additions:
        result = _filled(result, addition)
    return result


def _filled(event: Event, additions: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(event)
    for name, value in additions.items():
        present = event.get(name)
        if isinstance(value, Mapping) and (not present or isinstance(present, Mapping)):
            merged = _filled(present or {}, value)
            if merged:
                result[name] = merged
        elif _is_empty(present) and not _is_empty(value):
            result[name] = value
    return result


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def _get(event: Event, *path: str) -> str:
    value: Any = event
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def _identity(event: Event, directory: Directory) -> dict[str, Any]:
    person = _find_person(event, directory)
    if person is None:
        return {}
    known = {"id": person.id, "name": person.name, "full_name": person.full_name}
    added: dict[str, Any] = {"user": {**known, "hash": person.email_hash}}
    if _get(event, "gatebook", "identity", "assurance") == "asserted":
        # Whoever only claims to be somebody gets a name by that claim, and no rights.
        return added
    added["user"]["roles"] = list(person.roles)
    if _get(event, "organization", "id") in ("", person.organization):
        added["organization"] = {"id": person.organization, "name": person.organization_name}
    return added


def _find_person(event: Event, directory: Directory) -> Person | None:
    """Look up the user id, and the key id only where no user is named.

    A key's owner is never mixed into an event that names somebody else.
    """
    user_id = _get(event, "user", "id")
    if user_id:
        return directory.by_id.get(user_id)
    return directory.by_key_id.get(_get(event, "gatebook", "identity", "key_id"))


def _service(event: Event, services: Mapping[str, ServiceEntry]) -> dict[str, Any]:
    entry = services.get(_get(event, "service", "name"))
    if entry is None:
        return {}
    about = {"component": entry.component, "team": entry.team, "criticality": entry.criticality}
    return {"service": {"environment": entry.environment}, "gatebook": {"service": about}}


def _user_agent(event: Event) -> dict[str, Any]:
    name, version = parse_user_agent(_get(event, "user_agent", "original"))
    return {"user_agent": {"name": name, "version": version}} if name else {}


def _address(event: Event) -> dict[str, Any]:
    address = _get(event, "source", "ip")
    return {"gatebook": {"source": {"address_class": address_class(address)}}} if address else {}


# ---- addresses ---------------------------------------------------------------------------------

_PRIVATE = tuple(
    ipaddress.ip_network(net)
    for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_SHARED = ipaddress.ip_network("100.64.0.0/10")


@lru_cache(maxsize=16_384)
def address_class(address: str) -> str:
    """Return loopback, private, link_local, shared, public, reserved or invalid.

    `shared` is carrier-grade NAT; `reserved` is what no caller can have (multicast,
    documentation, unspecified). An IPv4 address in an IPv6 one is classed as IPv4.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "invalid"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return "loopback"
    if ip.is_link_local:
        return "link_local"
    if any(ip.version == net.version and ip in net for net in _PRIVATE):
        return "private"
    if ip.version == 4 and ip in _SHARED:
        return "shared"
    return "public" if ip.is_global and not ip.is_multicast else "reserved"


# ---- user agents -------------------------------------------------------------------------------

MAX_USER_AGENT_CHARACTERS = 512
_SDK = re.compile(r"([A-Za-z][\w.-]{0,40}/[A-Za-z][\w.+-]{0,20}) v?(\d[\w.+-]{0,30})", re.A)
_PRODUCT = re.compile(
    r"([A-Za-z][\w!#$%&'*+.^`|~-]{0,60})(?:/v?([\w.+-]{1,40}))?(?=[\s;,)(]|\Z)", re.A
)
_VERSION = re.compile(r"[\w.+-]{1,40}", re.A)
_BOT = re.compile(r"compatible; ([A-Za-z][\w.-]{0,60})/v?([\w.+-]{1,40})", re.A)
_BROWSERS = (
    ("Edg/", "Edge"), ("EdgA/", "Edge"), ("EdgiOS/", "Edge"), ("Edge/", "Edge"),
    ("OPR/", "Opera"), ("Vivaldi/", "Vivaldi"), ("YaBrowser/", "Yandex Browser"),
    ("SamsungBrowser/", "Samsung Internet"), ("Electron/", "Electron"),
    ("HeadlessChrome/", "HeadlessChrome"), ("CriOS/", "Chrome"), ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Version/", "Safari"),
)  # fmt: skip
"""Most special first: each browser also names those it descends from."""
_RUNTIMES = frozenset({"Python", "Java", "Go", "node", "Node.js", "Deno", "Bun"})


@lru_cache(maxsize=4096)
def parse_user_agent(original: str) -> tuple[str, str]:
    """Return the client's name and version, each empty where it is not told.

    SDKs keep both parts of their name (`OpenAI/Python`, `1.2.3`); a runtime gives way to the
    library after it (`Python/3.12 aiohttp/3.9`); browsers go by their own name. The header is the
    caller's claim and proves nothing.
    """
    text = original[:MAX_USER_AGENT_CHARACTERS].strip()
    if text.startswith("Mozilla/"):
        return _browser(text)
    sdk = _SDK.match(text)
    if sdk:
        return sdk[1], sdk[2]
    products = [(name, version) for name, version in _PRODUCT.findall(_without_comments(text))]
    if not products or not text.startswith(products[0][0]):
        return "", ""
    libraries = [p for p in products if p[0] not in _RUNTIMES and p[1]]
    runtime_first = products[0][0] in _RUNTIMES
    return libraries[0] if runtime_first and libraries else products[0]


def _browser(text: str) -> tuple[str, str]:
    bot = _BOT.search(text)
    if bot:
        return bot[1], bot[2]
    for token, name in _BROWSERS:
        _, found, rest = text.partition(token)
        if found and (name != "Safari" or "Safari/" in rest):
            version = _VERSION.match(rest)
            return name, version[0] if version else ""
    return "Mozilla", ""


def _without_comments(text: str) -> str:
    return re.sub(r"\([^()]*\)", " ", text)
