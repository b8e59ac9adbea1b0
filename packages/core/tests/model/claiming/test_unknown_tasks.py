"""Names of tasks that a worker does not know."""

from __future__ import annotations

from procrastinate.model.claiming.unknown_tasks import ASK_AGAIN, MOST_NAMES, UnknownTasks


def test_a_name_is_left_out_for_a_minute() -> None:
    unknown = UnknownTasks()
    assert unknown.left_out(0.0) == []
    assert unknown.met("b", 0.0)
    assert unknown.met("a", 1.0)
    assert unknown.left_out(ASK_AGAIN - 0.1) == ["a", "b"]
    assert unknown.left_out(ASK_AGAIN + 0.1) == ["a"]
    assert unknown.left_out(ASK_AGAIN + 1.1) == []
    assert not unknown


def test_a_name_is_news_once() -> None:
    unknown = UnknownTasks()
    assert [unknown.is_news("a"), unknown.is_news("a"), unknown.is_news("b")] == [True, False, True]


def test_claims_carry_a_limited_number_of_names() -> None:
    unknown = UnknownTasks()
    assert all(unknown.met(f"t{number}", 0.0) for number in range(MOST_NAMES))
    assert not unknown.met("one more", 0.0)
    assert unknown.met("t0", 30.0)  # it is among them
    assert unknown.met("one more", ASK_AGAIN + 1.0)  # the others have been asked for again
    assert unknown.left_out(ASK_AGAIN + 2.0) == ["one more", "t0"]


def test_no_end_of_names_does_not_fill_the_memory() -> None:
    unknown = UnknownTasks()
    told = [unknown.is_news(f"t{number}") for number in range(5_000)]
    assert sum(told) == 10 * MOST_NAMES
