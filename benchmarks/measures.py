"""What is measured, and whether it is good enough: pure values, no clock and no database.

A measure is taken in rounds. A round of a *ratio* holds two values taken one right after the other,
ours and that of the limit (or of the reference that the target names); the machine's mood of that
moment is in both, so that the ratio of the pair says more than either. A round of an *amount* holds
ours alone, which the target bounds directly.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Whether a measure is compared with a limit, or is an amount that counts by itself."""

    RATIO = "ratio"
    AMOUNT = "amount"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that the median must keep; ``at_least`` where more is better."""

    bound: float
    at_least: bool

    def is_met_by(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    return Target(bound, at_least=False)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a workload: its name there, its unit, and its target (None: for information).

    ``against`` says in words what a ratio's other half is.
    """

    name: str
    unit: str
    target: Target | None
    kind: Kind = Kind.RATIO
    against: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one measure, in the measure's unit; ``limit`` is None for an amount."""

    ours: float
    limit: float | None = None

    @property
    def value(self) -> float:
        """What is compared with the target: the ratio, or the amount."""
        if self.limit is None:
            return self.ours
        return self.ours / self.limit if self.limit else math.inf


@dataclass(frozen=True, slots=True)
class Summary:
    """The median of a measure's rounds, and the lowest and highest: with a handful of rounds, these
    say more than a deviation."""

    median: float
    low: float
    high: float
    ours: float
    limit: float | None


def summary_of(samples: Sequence[Sample]) -> Summary:
    """Return the summary of at least one round."""
    values = [sample.value for sample in samples]
    limits = [sample.limit for sample in samples if sample.limit is not None]
    return Summary(
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        ours=statistics.median(sample.ours for sample in samples),
        limit=statistics.median(limits) if limits else None,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed (the nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
