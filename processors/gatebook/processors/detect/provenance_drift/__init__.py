"""A model changed unannounced."""
