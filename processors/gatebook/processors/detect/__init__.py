"""Detection: pure windows over accesses, one folder per detector."""
