"""Another model answered than was asked for."""
