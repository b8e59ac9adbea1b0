"""Values and exceptions as text that is safe to store, to log and to show."""
