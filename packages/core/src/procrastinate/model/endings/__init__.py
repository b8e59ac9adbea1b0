"""What becomes of an attempt, and what those are told who wait for it."""
