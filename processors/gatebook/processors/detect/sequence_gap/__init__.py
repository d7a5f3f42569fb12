"""Events of a producer are missing."""
