"""A cloud's metadata service is named in a prompt or an answer."""
