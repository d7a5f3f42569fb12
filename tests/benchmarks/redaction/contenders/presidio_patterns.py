"""presidio-analyzer's pattern recognisers, with a blank spaCy model: no named entities.

All recognisers of the kinds that are scored are asked in English, those of other countries too,
which its defaults leave out; of overlapping answers the one with the higher score stays, as its
anonymizer has it. Of score thresholds, that with its best F1 on the half for tuning.
"""

from __future__ import annotations

import logging

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from serve import Spans, serve

KINDS = {
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "ssn",
    "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone",
    "MAC_ADDRESS": "mac",
    "CRYPTO": "crypto",
}
RECOGNIZERS = [
    "CreditCard", "Iban", "UsSsn", "Email", "Ip", "Phone", "MacAddress", "Crypto", "AuTfn",
    "CaSin", "DeTaxId", "DeSocialSecurity", "EsNie", "EsNif", "FiPersonalIdentityCode",
    "InAadhaar", "InPan", "ItFiscalCode", "KrRrn", "Nhs", "UkNino", "PlPesel", "SePersonnummer",
    "SgFin", "TrNationalId", "ThTnin", "UsItin", "ZaIdNumber",
]  # fmt: skip


class Blank(SpacyNlpEngine):
    """Words only: a tokenizer needs no model to be downloaded."""

    def __init__(self) -> None:
        super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
        self.nlp = {"en": spacy.blank("en")}

    def load(self) -> None: ...


def analyzer() -> AnalyzerEngine:
    recognizers = [
        getattr(predefined_recognizers, f"{name}Recognizer")(supported_language="en")
        for name in RECOGNIZERS
    ]
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])


logging.disable(logging.WARNING)
ANALYZER = analyzer()
SCORE_THRESHOLD = 0.35


def find(text: str) -> Spans:
    spans: Spans = []
    results = ANALYZER.analyze(text, language="en", score_threshold=SCORE_THRESHOLD)
    for result in sorted(results, key=lambda result: -result.score):
        if all(result.end <= start or end <= result.start for _, start, end in spans):
            kind = KINDS.get(result.entity_type, "national_id")
            spans.append((kind, result.start, result.end))
    return spans


if __name__ == "__main__":
    serve(find)
