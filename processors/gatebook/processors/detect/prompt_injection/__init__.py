"""Prompt injection in what was asked."""
