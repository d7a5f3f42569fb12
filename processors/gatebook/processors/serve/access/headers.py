"""Headers of every answer: nothing is kept, framed, sniffed, or run but the console's own files."""

from __future__ import annotations

from email.utils import formatdate

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURE_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex",
}
STRICT_TRANSPORT = "max-age=31536000"
NO_STORE = "no-store"
IMMUTABLE = "public, max-age=31536000, immutable"
ASSETS = "/assets/"  # built files, with a digest in their names


def secured(
    headers: list[tuple[bytes, bytes]], path: str, status: int, has_tls: bool
) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with ours, which win.

    Its date is of now: servers make one every second or so, later where they are busy, and the
    console corrects a wrong clock of its browser by it.
    """
    kept = path.startswith(ASSETS) and status == 200
    ours = {
        **SECURE_HEADERS,
        "cache-control": IMMUTABLE if kept else NO_STORE,
        "date": formatdate(usegmt=True),
    }
    if has_tls:
        ours["strict-transport-security"] = STRICT_TRANSPORT
    mine = {name.encode(): value.encode() for name, value in ours.items()}
    theirs = [(name, value) for name, value in headers if name.lower() not in {*mine, b"server"}]
    return theirs + list(mine.items())
