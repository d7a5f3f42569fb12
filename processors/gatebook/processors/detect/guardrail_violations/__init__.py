"""Guardrail refused one caller's requests to a model."""
