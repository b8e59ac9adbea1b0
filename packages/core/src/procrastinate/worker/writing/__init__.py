"""Writing what became of attempts, in batches, fenced by the lease."""
