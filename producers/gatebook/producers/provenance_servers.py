"""How each kind of model server tells about its models.

A server is recognised by a question only it answers in its way. Facts are fields of gatebook.model;
what a server does not tell is left out. A weights hash says what kind it is: `sha256:` of the
weights file, or `revision:` of the repository the server loaded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from gatebook.producers.provenance_http import Probe
from gatebook.producers.values import mapping, sequence, text

_BLOB = re.compile(r"^(FROM|ADAPTER)\s+\S*?sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)
_GGUF = b"GGUF"
_HASH_CHUNK_BYTES = 1024 * 1024


class Server(Protocol):
    """One recognised server."""

    def has(self, model: str) -> bool:
        """Whether a request may name this model, as far as the server lists them."""

    def facts(self, probe: Probe, model: str) -> dict[str, str]:
        """Fields of gatebook.model; an empty name is the server's own choice of model."""


def recognise(probe: Probe) -> Server | None:
    """The server behind the address; None where it is none of these, or does not answer."""
    for kind in (LlamaCpp, Ollama, Vllm, Tgi):
        found = kind.recognise(probe)
        if found is not None:
            return found
    return None


def _fields(**fields: object) -> dict[str, str]:
    found = {name: text(value) for name, value in fields.items()}
    return {name: value for name, value in found.items() if value}


class LlamaCpp:
    """llama.cpp's llama-server: GET /props. One model, whatever a request calls it."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = properties

    @classmethod
    def recognise(cls, probe: Probe) -> LlamaCpp | None:
        properties = mapping(probe.get("/props"))
        return cls(properties) if "model_path" in properties else None

    def has(self, model: str) -> bool:
        return not model

    def facts(self, probe: Probe, model: str) -> dict[str, str]:
        path = text(self._properties.get("model_path"), 4096)
        name = text(self._properties.get("model_alias")) or Path(path).name
        return _fields(
            engine="llama_cpp",
            engine_version=self._properties.get("build_info"),
            quantization=self._properties.get("model_ftype"),
            weights_hash=file_digest(path) if probe.is_local else "",
            adapter=_adapters(probe.get("/lora-adapters")),
            resolved=name,
        )


def _adapters(found: Any) -> str:
    """The names of the adapters that are switched on."""
    rows = [mapping(row) for row in sequence(found)]
    return ",".join(Path(text(row.get("path"), 4096)).name for row in rows if row.get("scale"))


class Ollama:
    """Ollama: GET /api/version and /api/tags, POST /api/show."""

    def __init__(self, version: str, models: Mapping[str, Mapping[str, Any]]) -> None:
        self._version = version
        self._models = models

    @classmethod
    def recognise(cls, probe: Probe) -> Ollama | None:
        version = mapping(probe.get("/api/version")).get("version")
        listed = mapping(probe.get("/api/tags")).get("models")
        if not isinstance(version, str) or not isinstance(listed, list):
            return None
        rows = [mapping(row) for row in listed]
        return cls(version, {text(row.get("name")): row for row in rows if row.get("name")})

    def _full(self, model: str) -> str:
        return model if ":" in model.rpartition("/")[2] else f"{model}:latest"

    def has(self, model: str) -> bool:
        return self._full(model) in self._models

    def facts(self, probe: Probe, model: str) -> dict[str, str]:
        if not model:
            return _fields(engine="ollama", engine_version=self._version)
        name = self._full(model)
        row = self._models[name]
        shown = mapping(probe.post("/api/show", {"model": name}))
        # The digest of the list is that of the manifest: it changes with template and parameters
        # too, so it stands in only where the weights' own is not told.
        blobs = dict(_BLOB.findall(text(shown.get("modelfile"), 65_536)))
        details = {**mapping(row.get("details")), **mapping(shown.get("details"))}
        manifest = text(row.get("digest")).removeprefix("sha256:")
        return _fields(
            engine="ollama",
            engine_version=self._version,
            quantization=details.get("quantization_level"),
            weights_hash=_prefixed("sha256", blobs.get("FROM")) or _prefixed("manifest", manifest),
            adapter=_prefixed("sha256", blobs.get("ADAPTER")),
            resolved=name,
        )


def _prefixed(kind: str, value: object) -> str:
    return f"{kind}:{value}" if value else ""


class Vllm:
    """vLLM: GET /version, and /v1/models, whose `parent` tells a LoRA adapter from a base model."""

    def __init__(self, version: str, models: Mapping[str, Mapping[str, Any]]) -> None:
        self._version = version
        self._models = models

    @classmethod
    def recognise(cls, probe: Probe) -> Vllm | None:
        version = mapping(probe.get("/version")).get("version")
        rows = [mapping(row) for row in sequence(mapping(probe.get("/v1/models")).get("data"))]
        if not isinstance(version, str) or not any(r.get("owned_by") == "vllm" for r in rows):
            return None
        return cls(version, {text(row.get("id")): row for row in rows if row.get("id")})

    def has(self, model: str) -> bool:
        return model in self._models

    def facts(self, probe: Probe, model: str) -> dict[str, str]:
        row = self._models.get(model, {})
        parent = text(row.get("parent"))
        base = self._models.get(parent, row)
        return _fields(
            engine="vllm",
            engine_version=self._version,
            adapter=(text(row.get("root")) or model) if parent else "",
            resolved=text(base.get("root")) or parent or model,
        )


class Tgi:
    """Hugging Face's text-generation-inference: GET /info. One model."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._info = info

    @classmethod
    def recognise(cls, probe: Probe) -> Tgi | None:
        info = mapping(probe.get("/info"))
        return cls(info) if "model_id" in info and "version" in info else None

    def has(self, model: str) -> bool:
        return not model

    def facts(self, probe: Probe, model: str) -> dict[str, str]:
        return _fields(
            engine="tgi",
            engine_version=self._info.get("version"),
            quantization=self._info.get("quantize") or self._info.get("model_dtype"),
            weights_hash=_prefixed("revision", self._info.get("model_sha")),
            resolved=self._info.get("model_id"),
        )


_digests: dict[tuple[str, int, int], str] = {}


def file_digest(path: str) -> str:
    """`sha256:` of a weights file on this machine; empty where there is none. Only GGUF files are
    read, whatever path a server names. Unchanged files are read once a process."""
    try:
        state = Path(path).stat()
        key = (path, state.st_size, state.st_mtime_ns)
        if key not in _digests:
            _digests[key] = _read_digest(path)
        return _digests[key]
    except OSError:
        return ""


def _read_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        head = file.read(len(_GGUF))
        if head != _GGUF:
            return ""
        digest.update(head)
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
