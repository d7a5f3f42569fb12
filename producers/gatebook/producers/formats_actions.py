"""What a path asks for: event.action."""

from __future__ import annotations

import re
from functools import lru_cache

# Path suffix -> event.action. The longest that fits counts; what is not listed is `unknown`.
ACTIONS = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/messages": "chat",
    "/api/chat": "chat",
    "/completions": "text_completion",
    "/completion": "text_completion",
    "/infill": "text_completion",
    "/api/generate": "text_completion",
    "/generate": "text_completion",
    "/generate_stream": "text_completion",
    "/embeddings": "embeddings",
    "/embedding": "embeddings",
    "/embed": "embeddings",
    "/rerank": "rerank",
    "/reranking": "rerank",
    "/files": "file",
    "/models": "list_models",
    "/api/tags": "list_models",
    "/api/ps": "list_models",
    "/api/show": "list_models",
    "/tokenize": "tokenize",
    "/detokenize": "tokenize",
    "/count_tokens": "tokenize",
    "/api/create": "manage_model",
    "/api/copy": "manage_model",
    "/api/delete": "manage_model",
    "/api/pull": "manage_model",
    "/api/push": "manage_model",
    "/load_lora_adapter": "manage_model",
    "/unload_lora_adapter": "manage_model",
}
# Of a resource that has an id in its path.
_BY_PART = (
    (re.compile(r"/files/[^/]+(/content)?$"), "file"),
    (re.compile(r"/models/[^/]+(/[^/]+)?$"), "list_models"),
    (re.compile(r"/api/blobs/[^/]+$"), "manage_model"),
)
UPLOAD = "upload_file"
EXECUTE_TOOL = "execute_tool"  # no path tells it: said by who records a call by hand
# Every event.action that this package sets by itself, and `unknown`.
KNOWN_ACTIONS = frozenset({*ACTIONS.values(), UPLOAD, EXECUTE_TOOL})
OPERATIONS = frozenset({"chat", "text_completion", "embeddings", "rerank", EXECUTE_TOOL})


@lru_cache(maxsize=1024)
def action_of(path: str, method: str = "") -> str:
    """What a path asks for. Prefixes of gateways do not matter."""
    path = path.rstrip("/")
    found = [suffix for suffix in ACTIONS if path.endswith(suffix)]
    if found:
        action = ACTIONS[max(found, key=len)]
        return UPLOAD if action == "file" and method == "POST" else action
    return next((action for part, action in _BY_PART if part.search(path)), "unknown")
