"""More requests than the principal usually makes."""
