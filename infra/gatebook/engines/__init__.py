"""Real Kafka and Elasticsearch for a laptop or a test run."""
