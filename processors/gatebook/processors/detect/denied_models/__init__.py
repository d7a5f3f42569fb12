"""One caller asked for models it may not use."""
