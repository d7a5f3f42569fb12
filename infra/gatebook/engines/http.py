"""Ask Elasticsearch a question with nothing but the standard library."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import msgspec

from gatebook.engines.errors import BadSetting
from gatebook.engines.settings import EngineSettings

TIMEOUT_SECONDS = 5.0


class Answer(msgspec.Struct, frozen=True):
    """Status and body; the body is None where it is not JSON."""

    status: int
    body: Any


def get(urls: str, path: str, login: EngineSettings | None = None) -> Answer | None:
    """The first answer from `urls` (one address, or several separated by commas), whatever its
    status; None where nobody answers in time.

    `login` has the credentials to send; leave it out for engines of our own. Proxies in the
    environment are not used, as the workers use none. Raises BadSetting for what is no URL.
    """
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=_tls(login)))
    for url in urls.split(","):
        request = _request(f"{url.strip().rstrip('/')}{path}", login)
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                return Answer(response.status, json.loads(response.read()))
        except HTTPError as error:
            return Answer(error.code, None)
        except (OSError, HTTPException, ValueError):
            continue  # the next address, if there is one
    return None


def _request(url: str, login: EngineSettings | None) -> Request:
    if not url.startswith(("http://", "https://")):
        raise BadSetting("GATEBOOK_ELASTICSEARCH_URL is no http(s) URL.", "correct it")
    return Request(url, headers=_headers(login))  # noqa: S310 - the scheme is checked above


def _headers(login: EngineSettings | None) -> dict[str, str]:
    if login is None:
        return {}
    if login.elasticsearch_api_key:
        return {"Authorization": f"ApiKey {login.elasticsearch_api_key}"}
    if login.elasticsearch_username:
        pair = f"{login.elasticsearch_username}:{login.elasticsearch_password}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}


def _tls(login: EngineSettings | None) -> ssl.SSLContext:
    file = login.elasticsearch_ca_file if login else ""
    try:
        return ssl.create_default_context(cafile=file or None)
    except OSError as error:  # ssl.SSLError is one
        raise BadSetting(
            "The file of GATEBOOK_ELASTICSEARCH_CA_FILE cannot be read as certificates.",
            "set it to the PEM file of the authority that signed Elasticsearch's certificate",
        ) from error
