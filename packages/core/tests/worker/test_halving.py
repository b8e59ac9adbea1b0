"""How many writes it takes to find what a batch is refused for, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procrastinate.worker.writing.halving import CULPRITS, Doubtful, by_halves, by_kind, whole_first


class Entry:
    """Something to write; each is another, whatever its number."""

    def __init__(self, number: int) -> None:
        self.number = number


class Search:
    """A search among entries, of which some are refused, alone and with any others."""

    def __init__(
        self,
        count: int,
        culprits: Collection[int],
        how: Callable[..., object] = by_halves,
        *more: object,
    ) -> None:
        entries = [Entry(n) for n in range(count)]
        self.writes: list[int] = []  # the size of each
        self.written: list[int] = []
        self.found: list[int] = []
        doubtful: Doubtful[Entry] = Doubtful(entries, how(entries, *more))  # type: ignore[arg-type]
        while doubtful.part is not None:
            part = [each.number for each in doubtful.part]
            self.writes.append(len(part))
            if not set(part) & set(culprits):
                doubtful.accepted()
                self.written += part
            elif (culprit := doubtful.refused()) is not None:
                self.found.append(culprit.number)
        self.left = [each.number for each in doubtful.undecided]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 31, 32, 33, 499, 500])
def test_one_culprit_is_found_wherever_it_is_and_all_others_are_written(count: int) -> None:
    for culprit in range(count):
        search = Search(count, {culprit})
        assert (search.found, search.left) == ([culprit], [])
        assert sorted(search.written) == [n for n in range(count) if n != culprit]


def test_one_culprit_among_500_takes_12_writes_with_the_one_that_was_refused() -> None:
    assert max(len(Search(500, {culprit}).writes) for culprit in range(500)) + 1 == 12


def test_what_is_refused_no_longer_is_written() -> None:
    """Whatever was in the way of the batch has passed."""
    search = Search(500, ())
    assert (search.found, search.left, len(search.written)) == ([], [], 500)
    assert len(search.writes) <= 11


def test_a_batch_that_is_all_refused_is_not_written_one_by_one() -> None:
    search = Search(500, range(500))
    assert len(search.found) == CULPRITS
    assert len(search.left) == 500 - CULPRITS
    assert len(search.writes) <= 12 * CULPRITS


@given(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_every_entry_is_written_or_found_or_left_and_none_twice(case: tuple[int, set[int]]) -> None:
    count, culprits = case
    search = Search(count, culprits)
    assert sorted(search.written + search.found + search.left) == list(range(count))
    assert set(search.found) <= culprits
    assert not set(search.written) & culprits
    assert search.found or not culprits, "nothing was found out"
    assert search.left == [] or len(culprits) > CULPRITS


def test_each_kind_is_written_by_itself_before_it_is_halved() -> None:
    def kind_of(entry: Entry) -> Hashable:
        return entry.number < 100

    search = Search(500, {7}, by_kind, kind_of)
    assert search.writes[0] == 100
    assert search.writes[-1] == 400
    assert (search.found, len(search.written)) == ([7], 499)
    assert len(Search(500, {300}, by_kind, kind_of).writes) <= 12


def test_what_waited_is_tried_whole_first() -> None:
    assert Search(20, (), whole_first).writes == [20]
    assert Search(20, {3}, whole_first).found == [3]
    assert Search(1, {0}, whole_first).found == [0]
