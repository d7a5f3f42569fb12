"""Requests for the system prompt."""
