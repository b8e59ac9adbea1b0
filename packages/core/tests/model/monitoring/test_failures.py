"""Errors that differ in numbers and names only are one kind of failure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from procrastinate.model.monitoring.failures import FailureGroup, grouped, normalised, pattern
from procrastinate.model.monitoring.search import Count

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GROUP = FailureGroup("send", "ValueError", "no host *", Count(2), NOON, NOON, 7)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("order 17 of 3.50 at 12:30:01", "order * of * at *"),
        ("no host 'db-1'", "no host *"),
        ('key "a b" is not in {"c": 1}', "key * is not in {*: *}"),
        ("object at 0x7FB57bff3790>", "object at *>"),
        ("job 6f9619ff-8b86-d011-b42d-00c04fc964ff is gone", "job * is gone"),
        ("commit deadbee7 and facade", "commit * and facade"),
        ("  first\nsecond 2", "first"),
        ("it's one's own", "it*s own"),
        ("no * is here", "no * is here"),
        ("", ""),
        (None, ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_what_differs_from_job_to_job_is_left_out(message: str | None, expected: str) -> None:
    assert normalised(message) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100%", r"%100\%%"), ("a_b", r"%a\_b%"), ("a*b", "%a%b%"), ("\\", "%\\\\%")],
)
def test_a_text_is_found_as_it_is_but_for_the_star(text: str, expected: str) -> None:
    assert pattern(text) == expected


def test_groups_that_are_the_same_are_joined_and_the_latest_comes_first() -> None:
    later = replace(
        GROUP, count=Count(1, False), first_at=None, last_at=NOON + timedelta(1), newest_job_id=5
    )
    other = replace(GROUP, task_name="report", last_at=NOON + timedelta(2))
    timeless = replace(GROUP, task_name="odd", first_at=None, last_at=None)
    joined = replace(GROUP, count=Count(3, False), last_at=NOON + timedelta(1))
    assert grouped([GROUP, timeless, later, other]) == [other, joined, timeless]


def test_a_group_has_the_filters_that_find_its_jobs() -> None:
    assert GROUP.filters == {
        "task": "send",
        "state": "failed",
        "error": "ValueError: no host *",
        "until": NOON + timedelta(microseconds=1),
    }
    bare = replace(GROUP, error_type="", error_text="", last_at=None)
    assert bare.filters == {"task": "send", "state": "failed"}
