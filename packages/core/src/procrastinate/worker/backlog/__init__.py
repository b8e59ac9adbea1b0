"""Claimed jobs that wait for a slot."""
