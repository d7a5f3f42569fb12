"""One caller takes out far more than it usually does."""
