"""Guardrail blocked one caller with high confidence, again and again."""
