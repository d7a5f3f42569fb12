"""An answer holds a command that runs foreign code."""
