"""Content could not be opened."""
