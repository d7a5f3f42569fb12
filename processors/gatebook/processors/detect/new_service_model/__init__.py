"""A service serves a model nobody there was served before."""
