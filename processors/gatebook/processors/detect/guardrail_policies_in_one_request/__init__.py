"""One request broke several guardrail policies."""
