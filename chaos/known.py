"""What is known to be wrong, and does not fail a campaign. This list only shrinks.

Each entry: the complaint's rule, a pattern that its text matches, and which fault of the product it
is. An entry that no campaign meets any more is removed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from chaos.records import Complaint


class Known(NamedTuple):
    """One thing that is known to be wrong."""

    rule: str
    pattern: str
    reason: str


KNOWN: Sequence[Known] = ()


def is_known(complaint: Complaint, known: Sequence[Known] = KNOWN) -> bool:
    """Return whether a complaint is of something known."""
    return any(
        each.rule == complaint.rule and re.search(each.pattern, complaint.text) for each in known
    )
