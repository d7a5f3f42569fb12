"""A producer records less than its policy says."""
