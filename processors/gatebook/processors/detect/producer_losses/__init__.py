"""A producer dropped events."""
