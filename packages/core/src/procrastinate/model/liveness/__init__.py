"""Whether a worker lives, is trusted, and is to blame for a death."""
