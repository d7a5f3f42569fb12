"""Masks personal data and credentials in what was said to and by a model."""

from .ahead import Redacted
from .allow import Allowed, AllowList
from .engine import Finding, RedactionLimits, Redactor
from .errors import RedactionFailed, RuleInvalid
from .masks import Pseudonyms
from .ner import NerLimits, NerPool
from .policy import build_redactor
from .rules import SECRET_KINDS, Rule, default_rules, load_rules
from .walk import JSON

__all__ = [
    "JSON",
    "SECRET_KINDS",
    "AllowList",
    "Allowed",
    "Finding",
    "NerLimits",
    "NerPool",
    "Pseudonyms",
    "Redacted",
    "RedactionFailed",
    "RedactionLimits",
    "Redactor",
    "Rule",
    "RuleInvalid",
    "build_redactor",
    "default_rules",
    "load_rules",
]
