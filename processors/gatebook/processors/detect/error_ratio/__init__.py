"""Most requests to a service fail."""
