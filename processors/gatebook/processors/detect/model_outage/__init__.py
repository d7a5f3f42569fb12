"""A model is failing."""
