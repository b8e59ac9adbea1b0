"""Checks of what is published: pure functions that return complaints (rule 2)."""

from __future__ import annotations
