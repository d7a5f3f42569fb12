"""One caller used up its token budget of a day."""
