"""What people ask about jobs, queues and workers."""
