"""Masks personal data and credentials in what was said to and by a model."""

from .engine import JSON, Redacted, RedactionLimits, Redactor
from .errors import RedactionFailed, RuleInvalid
from .masks import Pseudonyms
from .rules import SECRET_KINDS, Rule, default_rules, load_rules

__all__ = [
    "JSON",
    "SECRET_KINDS",
    "Pseudonyms",
    "Redacted",
    "RedactionFailed",
    "RedactionLimits",
    "Redactor",
    "Rule",
    "RuleInvalid",
    "default_rules",
    "load_rules",
]
