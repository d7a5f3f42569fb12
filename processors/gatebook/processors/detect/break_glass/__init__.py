"""A capture level was raised, or somebody tried."""
