"""Durations, and JSON logs, as values."""

from __future__ import annotations

import json
import logging
import sys
from datetime import timedelta

import click
import pytest

from procrastinate.cli.logs import JsonFormatter
from procrastinate.cli.values import Duration


@pytest.mark.parametrize(
    "text, expected",
    [
        ("90", timedelta(seconds=90)),
        ("0.5", timedelta(milliseconds=500)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("1w2d3h4m5s", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5)),
        (" 2D ", timedelta(days=2)),
    ],
)
def test_durations_are_seconds_or_numbers_with_units(text: str, expected: timedelta) -> None:
    assert Duration().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", "-5", "5 m", "m", "1h30", "1e3", "5y", "٣"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration"):
        Duration().convert(text, None, None)


def test_a_json_line_holds_extra_fields_and_the_exception_in_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.getLogger("a.b").makeRecord(
            "a.b", logging.ERROR, "file", 1, "a %s\n", ("message",), sys.exc_info(),
            extra={"job_id": 7, "odd": {1, 2}.__class__, "level": "not this", "time": "nor this"},
        )  # fmt: skip
    record.created = 0.0
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert line.pop("exception").endswith("ValueError: two\nlines")
    assert line == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "error",
        "logger": "a.b",
        "message": "a message\n",
        "job_id": 7,
        "odd": "<class 'set'>",
    }
