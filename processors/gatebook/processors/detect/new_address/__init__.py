"""A caller comes from a network it never came from."""
