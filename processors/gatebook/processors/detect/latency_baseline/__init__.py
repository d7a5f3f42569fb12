"""A model answers far slower than it usually does."""
