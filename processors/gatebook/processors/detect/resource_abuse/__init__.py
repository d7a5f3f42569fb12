"""One caller runs many large requests."""
