"""A long prompt brought no answer."""
