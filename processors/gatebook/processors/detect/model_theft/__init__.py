"""One caller asks a model ever new questions on a large scale."""
