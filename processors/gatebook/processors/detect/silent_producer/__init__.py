"""A producer is not heard any more."""
