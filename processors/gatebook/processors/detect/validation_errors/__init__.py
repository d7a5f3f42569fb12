"""One caller sends many invalid requests."""
