"""The internal error, for modules that also run in the supervisor, where core is not imported."""

from __future__ import annotations


class LaunchFailed(Exception):
    """What went wrong, and what to do about it, in words for the user."""
