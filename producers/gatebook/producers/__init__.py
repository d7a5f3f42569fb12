"""Capture accesses to a model service and publish them, off the request path."""
