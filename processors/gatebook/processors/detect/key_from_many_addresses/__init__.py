"""One key is used from many networks."""
