"""The process around a worker: its signals, its event loop, forks, and its HTTP port."""
