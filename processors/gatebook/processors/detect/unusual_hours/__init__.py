"""A caller is active at hours it never was."""
