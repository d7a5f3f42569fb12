"""A model answers slowly."""
