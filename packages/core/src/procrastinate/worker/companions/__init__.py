"""Threads beside the event loop, each with a connection of its own: signs of life, and ticks."""
