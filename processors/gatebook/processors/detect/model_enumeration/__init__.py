"""One caller tries out models."""
