"""What a worker scans and claims next, and how long it keeps what it has claimed."""
