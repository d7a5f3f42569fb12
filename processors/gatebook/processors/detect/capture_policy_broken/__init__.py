"""A producer cannot use its capture policy."""
