"""Many failed accesses of one caller."""
