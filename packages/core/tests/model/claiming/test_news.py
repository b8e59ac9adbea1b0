"""What the payload of a notification says."""

from __future__ import annotations

import pytest

from procrastinate.model.claiming.news import queue_and_partition


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("mail@31", ("mail", 31)),
        ("a@b@0", ("a@b", 0)),
        ("@0@0", ("@0", 0)),
        ("@31", ("", 31)),
        ("mail", None),
        ("mail@", None),
        ("mail@5", None),  # no partition
        ("mail@-1", None),
        ("mail@+0", None),
        ("mail@ 0", None),
        ("mail@\u0663\u0661", None),  # digits, but not ours
        ("mail@" + "9" * 5_000, None),
        ("", None),
    ],
)
def test_a_payload_names_a_queue_and_a_partition(
    payload: str, said: tuple[str, int] | None
) -> None:
    assert queue_and_partition(payload, (0, 31)) == said
