"""A store in Redis, or in a Redis Cluster."""
