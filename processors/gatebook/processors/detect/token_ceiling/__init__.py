"""A model's token use passed its ceiling."""
