"""What is asked before jobs are changed by filter."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from procrastinate.cli.changes import RETRY, question_about
from procrastinate.model.monitoring.search import Count


@pytest.mark.parametrize(
    "counts, limit, expected",
    [
        ({"failed": Count(1)}, None, "1 job would be retried (1 failed)"),
        (
            {"failed": Count(1_200), "aborted": Count(2), "cancelled": Count(0)},
            None,
            "1,202 jobs would be retried (2 aborted, 1,200 failed)",
        ),
        ({"failed": Count(9)}, 2, "2 jobs would be retried (of 9 failed)"),
        ({"failed": Count(9)}, 9, "9 jobs would be retried (9 failed)"),
        ({"failed": Count(9)}, 10, "9 jobs would be retried (9 failed)"),
    ],
)
def test_the_question_says_how_many(
    counts: Mapping[str, Count], limit: int | None, expected: str
) -> None:
    assert question_about(RETRY, counts, limit) == expected


@pytest.mark.parametrize(
    "found, limit, said, of",
    [
        (3, None, "3+ jobs", "3+"),
        (0, None, "0+ jobs", "0+"),
        (1, None, "1+ jobs", "1+"),
        (3, 2, "2 jobs", "of 3+"),
        (3, 3, "3 jobs", "of 3+"),
        (3, 4, "3+ jobs", "3+"),
    ],
)
def test_it_says_so_if_there_may_be_more(found: int, limit: int | None, said: str, of: str) -> None:
    asked = question_about(RETRY, {"failed": Count(found, False)}, limit)
    looked = "no more than 50,000 of each were looked at"
    assert asked == f"{said} would be retried ({of} failed; {looked})"
