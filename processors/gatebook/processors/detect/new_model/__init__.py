"""A caller uses a model it never used."""
