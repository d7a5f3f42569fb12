"""Content could not be redacted and was dropped."""
