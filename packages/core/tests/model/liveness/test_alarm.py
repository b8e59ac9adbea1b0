"""An alarm: what is due, and what rings while somebody is busy with it."""

from __future__ import annotations

import pytest

from procrastinate.model.liveness.alarm import Alarm


def rung_while_busy(alarm: Alarm) -> None:
    alarm.begin()
    alarm.ring()
    alarm.end(20.0)


def busy(alarm: Alarm) -> None:
    alarm.begin()


def done(alarm: Alarm) -> None:
    alarm.begin()
    alarm.end(20.0)


def set_while_busy(alarm: Alarm) -> None:
    alarm.begin()
    alarm.set(15.0)
    alarm.end(20.0)


def rung_then_set(alarm: Alarm) -> None:
    alarm.ring()
    alarm.set(20.0)


def rung_twice_while_busy(alarm: Alarm) -> None:
    rung_while_busy(alarm)
    alarm.begin()
    alarm.end(30.0)


@pytest.mark.parametrize(
    ("happened", "due_from"),
    [
        (lambda alarm: None, 0.0),
        (done, 20.0),
        (busy, None),
        (rung_while_busy, 0.0),
        (set_while_busy, 15.0),
        (rung_then_set, 20.0),
        (rung_twice_while_busy, 30.0),
    ],
)
def test_an_alarm_is_due_at_its_time_or_at_once_if_it_rang_meanwhile(
    happened: object, due_from: float | None
) -> None:
    alarm = Alarm()

    assert callable(happened)
    happened(alarm)

    times = (0.0, 14.9, 15.0, 19.9, 20.0, 29.9, 30.0, 1e9)
    expected = [due_from is not None and time >= due_from for time in times]
    assert [alarm.due(time) for time in times] == expected
