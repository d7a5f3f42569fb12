"""One caller probes slowly."""
