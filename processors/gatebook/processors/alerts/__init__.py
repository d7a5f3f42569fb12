"""Alert targets: where findings go so that a person on call sees them."""
