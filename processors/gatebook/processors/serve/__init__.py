"""The search service: an HTTP API over the indices, and the console in front of it."""
