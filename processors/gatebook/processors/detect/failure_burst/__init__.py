"""Many failures of one principal within a short time."""
