"""One caller floods a service with large requests."""
