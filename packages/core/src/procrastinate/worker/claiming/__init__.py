"""Asking for jobs: when, which scan, and what a lost answer leaves behind."""
