"""One person uses many keys."""
