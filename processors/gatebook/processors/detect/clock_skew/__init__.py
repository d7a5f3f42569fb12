"""A producer's clock is ahead."""
