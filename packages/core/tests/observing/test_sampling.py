"""Which lines about jobs that end alike are said one by one."""

from __future__ import annotations

from procrastinate.observing.sampling import Sampler, Sum


def test_up_to_the_limit_all_are_said_and_no_sum_follows() -> None:
    sampler = Sampler[str](3, per_key=False)
    assert [sampler.take(["a"], 10.0 + n / 10) for n in range(3)] == [1, 1, 1]
    assert sampler.due(11.5) == []


def test_one_limit_holds_for_all_keys_together_and_the_rest_is_counted_by_key() -> None:
    sampler = Sampler[str](3, per_key=False)
    assert sampler.take(["a", "b"], 10.0) == 2
    assert sampler.take(["a", "b", "a", "b", "b"], 10.5) == 1
    assert sampler.due(10.9) == []
    assert sampler.due(11.5) == [Sum("b", 3, 1.5), Sum("a", 1, 1.5)]
    assert sampler.due(13.0) == []


def test_each_key_may_have_a_limit_of_its_own() -> None:
    sampler = Sampler[str](2, per_key=True)
    assert [sampler.take([key], 0.0) for key in "aaabba"] == [1, 1, 0, 1, 1, 0]
    assert sampler.due(1.0) == [Sum("a", 2, 1.0)]


def test_a_second_begins_with_the_first_of_it() -> None:
    sampler = Sampler[str](1, per_key=False)
    sampler.take(["a"], 0.0)
    assert sampler.due(100.0) == []
    assert sampler.take(["a", "a"], 100.0) == 1
    assert sampler.due(100.9) == []
    assert sampler.due(101.0) == [Sum("a", 1, 1.0)]


def test_what_is_left_can_be_had_at_once() -> None:
    sampler = Sampler[str](1, per_key=False)
    sampler.take(["a", "a", "a"], 5.0)
    assert sampler.due(5.25, at_once=True) == [Sum("a", 2, 0.25)]
    assert sampler.due(5.25, at_once=True) == []


def test_nothing_is_left_out_and_nothing_said_twice() -> None:
    sampler = Sampler[int](10, per_key=False)
    said = counted = 0
    for step in range(500):
        now = step / 20
        counted += sum(each.count for each in sampler.due(now))
        said += sampler.take([step % 3] * (step % 7), now)
    counted += sum(each.count for each in sampler.due(25.0, at_once=True))
    assert said + counted == sum(step % 7 for step in range(500))
    assert said <= 10 * 25
