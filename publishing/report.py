"""What each step found, and the summary at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """What a step found: one sentence about what it did, and its complaints."""

    step: str
    done: str
    complaints: Sequence[str] = ()
    #: False if it could not be done (rule 3): no fault, and no success either.
    was_done: bool = True

    @property
    def outcome(self) -> str:
        if self.complaints:
            return f"{len(self.complaints)} complaints"
        return "well" if self.was_done else "NOT DONE"


def summary(said: Iterable[Said]) -> str:
    """Return one line for each step, and each complaint on a line below its step."""
    lines = []
    for each in said:
        lines.append(f"{each.step}: {each.outcome}. {each.done}")
        lines += [f"  - {complaint}" for complaint in each.complaints]
    return "\n".join(lines)


def succeeded(said: Iterable[Said]) -> bool:
    """Whether there is no complaint."""
    return not any(each.complaints for each in said)
