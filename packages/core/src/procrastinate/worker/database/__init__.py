"""How a worker reaches the database: limits on calls, silence, and partitions that are away."""
