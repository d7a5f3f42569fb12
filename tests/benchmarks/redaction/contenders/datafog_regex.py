"""DataFog's regex engine, with its German patterns for the IBAN and national ids it has."""

from __future__ import annotations

from datafog.engine import scan
from serve import Spans, serve

KINDS = {
    "EMAIL": "email",
    "PHONE": "phone",
    "SSN": "ssn",
    "CREDIT_CARD": "card",
    "IP_ADDRESS": "ip",
    "DE_IBAN": "iban",
    "DE_TAX_ID": "national_id",
    "DE_SOCIAL_SECURITY_NUMBER": "national_id",
}


def find(text: str) -> Spans:
    found = scan(text, engine="regex", entity_types=list(KINDS), locales=["de"]).entities
    return [(KINDS[entity.type], entity.start, entity.end) for entity in found]


if __name__ == "__main__":
    serve(find)
