"""One caller tries out endpoints."""
