"""What a workload is, and what it needs to run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.databases import Server
from benchmarks.measures import Measure, Sample

Round = Mapping[str, Sample]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to do: every size is a full size times ``factor``, within bounds of its own."""

    name: str
    factor: float
    repeat: int

    def of(self, full: int, *, at_least: int = 1) -> int:
        """Return the size that stands for ``full``."""
        return max(min(full, at_least), round(full * self.factor))


FULL = Scale("full", 1.0, repeat=5)
QUICK = Scale("quick", 0.1, repeat=3)
#: To see that everything runs, in the tests: the figures mean nothing.
TINY = Scale("tiny", 0.004, repeat=1)


@dataclass(frozen=True, slots=True)
class Bench:
    """The server, the sizes, and where to tell what is going on."""

    server: Server
    scale: Scale
    say: Callable[[str], None]


class Workload(ABC):
    """One workload of the list in README.md.

    A round takes every measure once, the limit's half of each pair right before ours.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    #: A few words, for the chart.
    short: ClassVar[str]
    #: What ours is compared with, and what exactly is timed.
    limit: ClassVar[str]
    timed: ClassVar[str]
    measures: ClassVar[tuple[Measure, ...]]
    #: Rounds at most, where one takes minutes.
    most_rounds: ClassVar[int | None] = None

    @abstractmethod
    def run(self, bench: Bench) -> Round:
        """Take one round, and return a sample for each measure."""

    def rounds(self, repeat: int) -> int:
        """Return how many rounds to take if ``repeat`` are asked for."""
        return repeat if self.most_rounds is None else min(repeat, self.most_rounds)
