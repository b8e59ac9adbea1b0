"""Which entries of a batch the database refuses: found by halves, never one by one.

A batch is refused as a whole, and does not say for which of its entries. So a part of it is
written. If that is accepted, the culprit is in the rest; if not, in the part. What is no longer in
doubt is set apart and written at the end, in one statement. So one culprit among 500 is found with
9 statements, and 2 more write the others.

This is only the search. The writer says after each part whether it was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
#: Gives the parts to be written, and is sent whether each of them was accepted.
Search: TypeAlias = Generator[Sequence[T], bool, None]

#: Culprits that one search looks for. What is then left waits for the next search.
CULPRITS = 3


def by_kind(refused: Sequence[T], kind_of: Callable[[T], Hashable]) -> Search[T]:
    """Write a refused batch again, each kind by itself, and then by halves."""
    kinds: dict[Hashable, list[T]] = {}
    for entry in refused:
        kinds.setdefault(kind_of(entry), []).append(entry)
    if len(kinds) == 1:
        yield from by_halves(refused)
        return
    for part in kinds.values():
        yield from whole_first(part)


def whole_first(entries: Sequence[T]) -> Search[T]:
    """Write entries together and, if they are refused, by halves."""
    if not (yield entries) and len(entries) > 1:
        yield from by_halves(entries)


def by_halves(refused: Sequence[T], culprits: int = CULPRITS) -> Search[T]:
    """Find the culprits of a refused batch, and write the others."""
    suspects, others = list(refused), list[T]()
    alone = len(suspects) == 1  # whether the culprit was refused alone
    while len(suspects) > 1:
        half = len(suspects) // 2
        if (yield suspects[:half]):
            suspects, alone = suspects[half:], False
        else:
            others = suspects[half:] + others
            suspects, alone = suspects[:half], half == 1
    if not alone:
        yield suspects  # it may have been refused because of what has passed meanwhile
    if others and not (yield others) and len(others) > 1 and culprits > 1:
        yield from by_halves(others, culprits - 1)


class Doubtful(Generic[T]):
    """Entries of which some may be refused, and the search that finds out."""

    def __init__(self, entries: Iterable[T], search: Search[T]) -> None:
        self._search = search
        self._undecided = {id(entry): entry for entry in entries}
        self.part: Sequence[T] | None = next(search, None)  # what to write next; None: the end

    @property
    def undecided(self) -> list[T]:
        """Return what is neither written nor refused alone, in its order."""
        return list(self._undecided.values())

    def accepted(self) -> None:
        """Note that the part was written."""
        self._decide()
        self._go_on(accepted=True)

    def refused(self) -> T | None:
        """Note that the part was refused. Returns the entry if it was alone: a culprit."""
        assert self.part is not None
        culprit = self.part[0] if len(self.part) == 1 else None
        if culprit is not None:
            self._decide()
        self._go_on(accepted=False)
        return culprit

    def _decide(self) -> None:
        for entry in self.part or ():
            self._undecided.pop(id(entry), None)

    def _go_on(self, *, accepted: bool) -> None:
        try:
            self.part = self._search.send(accepted)
        except StopIteration:
            self.part = None
