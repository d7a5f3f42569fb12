"""Attempts to make the model drop its limits."""
