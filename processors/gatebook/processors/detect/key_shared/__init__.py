"""One key is used by many people."""
