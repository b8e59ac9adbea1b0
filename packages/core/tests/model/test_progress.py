"""What a task may say of its progress."""

from __future__ import annotations

import math
from typing import Any

import pytest

from procrastinate import json_codec
from procrastinate.errors import InvalidArguments, InvalidOption
from procrastinate.model.progress import Report, report


def reported(fraction: Any, message: Any = None, **data: Any) -> Report:
    return report(fraction, message, data, said_at=5.0, dumps=json_codec.dumps)


@pytest.mark.parametrize(
    ("fraction", "millionths"),
    [(0, 0), (1, 1_000_000), (0.4, 400_000), (1 / 3, 333_333), (-0.0, 0), (1e-300, 0)],
)
def test_a_fraction_is_kept_to_six_places(fraction: float, millionths: int) -> None:
    assert reported(fraction) == Report(millionths, None, None, 5.0)


def test_a_message_and_data_go_with_it() -> None:
    assert reported(0.5, "page é", pages=[1, 2], of={"all": None}) == Report(
        500_000, "page é", '{"pages":[1,2],"of":{"all":null}}', 5.0
    )


@pytest.mark.parametrize(
    "fraction",
    [-0.001, 1.001, 2, -1, math.nan, math.inf, -math.inf, True, "0.5", None, 10**400, [0.5]],
    ids=repr,
)
def test_another_fraction_is_refused(fraction: Any) -> None:
    with pytest.raises(InvalidOption, match="fraction must be a number from 0 to 1, not"):
        reported(fraction)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (7, "message must be a str, not int 7"),
        (b"page", "message must be a str, not bytes"),
        ("x" * 1_001, "message must have at most 1000 characters"),
        ("a\0b", "message must not contain a NUL character"),
        ("\ud800", "message must be valid Unicode text"),
    ],
)
def test_another_message_is_refused(message: Any, why: str) -> None:
    with pytest.raises(InvalidOption, match=why):
        reported(0.5, message)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"of": set()}, r"the data 'of' of a report of progress cannot be kept: .* type set"),
        ({"of": math.nan}, "Out of range float values"),
        ({"of": "\0"}, "it has a NUL character"),
        ({"of": "\ud800"}, "half of a surrogate pair"),
        ({"a": 1, "of": "x" * 8_192}, r"the data 'a', 'of' .* 8,192 is the limit"),
    ],
)
def test_data_that_cannot_be_kept_is_refused(data: Any, why: str) -> None:
    with pytest.raises(InvalidArguments, match=why):
        reported(0.5, **data)


def test_data_may_be_as_large_as_said() -> None:
    assert len(reported(1, of="x" * (8_192 - 9)).data or "") == 8_192
