"""Attempts: each from taking a slot to its ending, on the event loop or in a thread."""
