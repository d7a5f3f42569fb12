"""One caller asks one model very often."""
