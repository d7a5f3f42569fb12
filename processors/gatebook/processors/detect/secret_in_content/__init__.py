"""Secrets in prompts and answers."""
