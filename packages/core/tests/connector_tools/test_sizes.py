"""Checks of the size of a pool, and of how long to wait for a connection of it."""

from __future__ import annotations

from typing import Any

import pytest

from procrastinate.connector_tools.sizes import check_room_for_worker, check_seconds, check_sizes
from procrastinate.errors import InvalidOption


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 1), (3, 10**400)])
def test_sizes_that_can_be(low: int, high: int) -> None:
    check_sizes(least=("low", low), most=("high", high))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        *((low, 5, f"low={low!r} is not a number of connections") for low in (-1, True, 1.0, "1")),
        *((2, high, "must be a number, 1 or more, from low up") for high in (1, 0, False, None)),
    ],
)
def test_sizes_that_cannot_be(low: Any, high: Any, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        check_sizes(least=("low", low), most=("high", high))


def test_zero_is_no_limit_if_the_pool_has_none() -> None:
    check_sizes(least=("low", 2), most=("high", 0), unlimited=True)
    with pytest.raises(InvalidOption, match="0 is no limit"):
        check_sizes(least=("low", 2), most=("high", 1), unlimited=True)


@pytest.mark.parametrize(("size", "listens"), [(3, True), (100, True), (None, True), (2, False)])
def test_pools_with_room_for_a_worker(size: int | None, listens: bool) -> None:
    check_room_for_worker(size, "the pool", option="most", listens=listens)


@pytest.mark.parametrize(("size", "listens", "takes"), [(2, True, 3), (1, True, 3), (1, False, 2)])
def test_pools_without_room_for_a_worker(size: int, listens: bool, takes: int) -> None:
    said = rf"the pool may have {size} connections \(most\), and a worker takes {takes}: raise it"
    with pytest.raises(InvalidOption, match=said):
        check_room_for_worker(size, "the pool", option="most", listens=listens)


@pytest.mark.parametrize("value", [0, 0.5, 30])
def test_seconds_that_can_be(value: Any) -> None:
    check_seconds("wait", value)


@pytest.mark.parametrize(
    "value", [-1, 10**400, float("inf"), float("nan"), 1e300, True, None, "1", [1]]
)
def test_seconds_that_cannot_be(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r"wait=.* is not a number of seconds"):
        check_seconds("wait", value)
