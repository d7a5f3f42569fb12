"""A model answers with nothing."""
