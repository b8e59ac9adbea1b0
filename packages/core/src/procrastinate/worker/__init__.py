"""The worker: claims jobs, runs their tasks, writes what became of them."""
