"""Archives: documents out of the index into signed files, verified offline, and back again."""
