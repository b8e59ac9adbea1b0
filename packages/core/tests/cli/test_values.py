"""Durations, times, and JSON logs, as values."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime, timedelta

import click
import pytest

from procrastinate.cli.logs import JsonFormatter, TextFormatter
from procrastinate.cli.values import Coming, Duration, Past, past


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


def test_a_time_to_come_is_a_duration_from_now_or_a_moment() -> None:
    earliest = datetime.now(UTC) + timedelta(hours=2)
    found = Coming().convert(" 2H ", None, None)
    assert earliest <= found <= datetime.now(UTC) + timedelta(hours=2)
    moment = datetime(2999, 1, 31, 8, tzinfo=UTC)
    assert Coming().convert("2999-01-31T08:00Z", None, None) == moment
    assert Coming().convert(moment, None, None) == moment


@pytest.mark.parametrize(
    ("text", "message"),
    [("99999999d", "is too long"), ("9999999999999w", "is too long"), ("90", "is no date")],
)
def test_other_texts_are_no_time_to_come(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        Coming().convert(text, None, None)


UNSAFE = "\n\r\x1b[31m\x9b\u202e\u2028\x00"
FORGED = "2026-01-01 00:00:00,000 ERROR forged"


def record_of(message: str, exception: BaseException | None = None) -> logging.LogRecord:
    about = None if exception is None else (type(exception), exception, exception.__traceback__)
    return logging.LogRecord("log", logging.ERROR, __file__, 1, message, None, about)


def test_a_text_log_is_free_of_control_characters_and_forged_lines() -> None:
    record = record_of(f"{UNSAFE}\n{FORGED}", ValueError(f"{UNSAFE}\n{FORGED}"))
    text = TextFormatter().format(record)

    assert text.replace("\n", "").isprintable()
    assert all(line.startswith("  ") for line in text.splitlines()[1:])
    assert text.count(FORGED) == 2


def test_a_json_log_is_free_of_control_characters_and_loses_none() -> None:
    text = JsonFormatter().format(record_of(UNSAFE))

    assert text.isprintable()
    assert json.loads(text)["message"] == UNSAFE


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_exception_that_was_formatted_is_not_formatted_again(
    formatter: logging.Formatter,
) -> None:
    record = record_of("failed", ValueError("x" * 50_000_000))
    record.exc_text = "  Traceback:\n    capped"

    text = formatter.format(record)
    assert "Traceback:" in text
    assert len(text) < 1_000


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", "2026-05-06T10:30"),
        ("1d12h", "2026-05-05T00:30"),
        (" 90S ", "2026-05-06T12:28:30"),
        ("now", "2026-05-06T12:30"),
        ("Today", "2026-05-06T00:00"),
        ("yesterday", "2026-05-05T00:00"),
        ("12:30", "2026-05-06T12:30"),
        ("9:05", "2026-05-06T09:05"),
        ("12:30:01", "2026-05-05T12:30:01"),
        ("23:00", "2026-05-05T23:00"),
        ("2026-05-01", "2026-05-01T00:00"),
        ("2026-05-01T08:00", "2026-05-01T08:00"),
        ("2026-05-01 08:00:00Z", "2026-05-01T08:00:00+00:00"),
        ("2026-05-01T08:00+02:00", "2026-05-01T08:00+02:00"),
    ],
)
def test_a_time_that_has_been_may_be_said_in_many_ways(text: str, expected: str) -> None:
    now = datetime(2026, 5, 6, 12, 30).astimezone()
    assert past(text, now) == datetime.fromisoformat(expected).astimezone()


@pytest.mark.parametrize("text", ["", "soon", "25:00", "12:61", "5", "-2h", "2026-13-01", "1e9d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time: write 2h"):
        Past().convert(text, None, None)
