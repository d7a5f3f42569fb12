"""Where documents end: Elasticsearch, or files."""
