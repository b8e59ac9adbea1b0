"""One run of a worker."""
