"""Enrich, redact, check and index access events."""
