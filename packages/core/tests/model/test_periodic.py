"""Which moments cron expressions name, across changes of clocks too, and which ticks are due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from procrastinate.errors import InvalidOption
from procrastinate.model import periodic
from procrastinate.model.job import NewJob
from procrastinate.model.periodic import (
    DueTick,
    Periodic,
    Timetable,
    schedule_from,
    stored_schedule,
    ticks,
)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def local(cron: str, timezone: str, after: str, hours: float) -> list[str]:
    """The ticks after a local time, as local times with their offsets."""
    zone = ZoneInfo(timezone)
    start = datetime.fromisoformat(after).replace(tzinfo=zone).astimezone(UTC)
    found = ticks(stored_schedule(cron, timezone), start, start + timedelta(hours=hours))
    return [tick.astimezone(zone).strftime("%d %H:%M:%S%z")[:-2] for tick in found]


# --- what a cron expression may be ---------------------------------------------------------------


@pytest.mark.parametrize(
    "cron",
    [
        *(
            "",
            "* * * *",
            "* * * * * * *",
            "@reboot",
            "daily",
            "@ daily",
            "every day",
            "60 * * * *",
            "* * * * 8",
        ),
        *("60 * * * * *", "*/0 * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "* * */20 * 1L"),
        *("٣ * * * *", "0 0 5-3 * *", None, 5, b"* * * * *", ["*"] * 5),
    ],
)
def test_a_bad_expression_is_an_error_that_shows_it(cron: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^cron ") as caught:
        schedule_from(cron, "UTC")
    assert repr(cron) in str(caught.value)


@pytest.mark.parametrize(
    "timezone", ["", "Mars/Olympus", "Europe", "../UTC", "/etc", "\0", None, 1]
)
def test_an_unknown_time_zone_is_an_error_that_shows_it(timezone: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^timezone ") as caught:
        schedule_from("* * * * *", timezone)
    assert repr(timezone) in str(caught.value)


@pytest.mark.parametrize(
    "name, cron",
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        (" @Daily\n", "0 0 * * *"),
    ],
)
def test_some_expressions_have_names(name: str, cron: str) -> None:
    assert schedule_from(name, "Europe/Berlin") == schedule_from(cron, "Europe/Berlin")


def test_an_unknown_name_is_told_which_there_are() -> None:
    with pytest.raises(InvalidOption, match=r"@hourly, @daily, .*, not '@reboot'"):
        schedule_from("@reboot", "UTC")


def test_seconds_are_the_first_of_six_fields() -> None:
    schedule = schedule_from("*/20,5 0 12 * * *", "UTC", "first")
    found = list(ticks(schedule, NOON - SECOND, NOON + timedelta(days=1)))
    assert found == [NOON + second * SECOND for second in (0, 5, 20, 40)] + [
        NOON + timedelta(days=1)
    ]


def test_a_date_that_is_rare_is_found() -> None:
    found = ticks(schedule_from("0 0 * 2 MON#5", "UTC"), NOON, NOON + timedelta(days=366 * 15))
    assert next(found) == datetime(2044, 2, 29, tzinfo=UTC)


# --- when clocks change --------------------------------------------------------------------------

#: On 30 March 2025 in Berlin 02:00 is followed by 03:00, on 9 March 2025 in New York as well; on
#: 26 October in Berlin 03:00 is followed by 02:00, on 2 November in New York 02:00 by 01:00.
SPRING = [("Europe/Berlin", "2025-03-30", 30), ("America/New_York", "2025-03-09", 9)]


@pytest.mark.parametrize("timezone, day, number", SPRING)
@pytest.mark.parametrize(
    "cron, expected",
    [
        ("30 2 * * *", ["03:00:00"]),  # skipped by the clock, so as soon as it is possible
        ("0 30 2 * * *", ["03:00:00"]),
        ("0,30 2 * * *", ["03:00:00"]),
        ("*/20 30 2 * * *", ["03:00:00", "03:00:20", "03:00:40"]),
        ("30 1-3 * * *", ["01:30:00", "03:00:00", "03:30:00"]),
        ("0 * * * *", ["01:00:00", "03:00:00", "04:00:00"]),
        ("30 * * * *", ["00:30:00", "01:30:00", "03:30:00"]),
        ("*/30 2 * * *", []),
        ("0 12 * * *", []),
    ],
)
def test_in_spring(timezone: str, day: str, number: int, cron: str, expected: list[str]) -> None:
    """Between 00:00 and 04:00, which is three hours."""
    found = local(cron, timezone, f"{day}T00:00:00", hours=3)
    assert [tick[:11] for tick in found] == [f"{number:02} {each}" for each in expected]


AUTUMN = [
    ("Europe/Berlin", "2025-10-26", 2, ("+02", "+01")),
    ("America/New_York", "2025-11-02", 1, ("-04", "-05")),
]


@pytest.mark.parametrize("timezone, day, hour, offsets", AUTUMN)
@pytest.mark.parametrize(
    "cron, expected",
    [
        ("30 {hour} * * *", ["{hour}:30:00{first}"]),
        ("15 30 {hour} * * *", ["{hour}:30:15{first}"]),
        ("0,30 {hour} * * *", ["{hour}:00:00{first}", "{hour}:30:00{first}"]),
        ("0 * * * *", ["{hour}:00:00{first}", "{hour}:00:00{second}", "{next}:00:00{second}"]),
        (
            "*/30 {hour} * * *",
            [
                *("{hour}:00:00{first}", "{hour}:30:00{first}"),
                *("{hour}:00:00{second}", "{hour}:30:00{second}"),
            ],
        ),
    ],
)
def test_in_autumn(
    timezone: str, day: str, hour: int, offsets: tuple[str, str], cron: str, expected: list[str]
) -> None:
    """From a minute before the hour that comes twice to that after it."""
    words = {"hour": f"{hour:02}", "next": f"{hour + 1:02}"}
    words |= {"first": offsets[0], "second": offsets[1]}
    found = local(
        cron.format(hour=hour), timezone, f"{day}T{hour - 1:02}:59:00", hours=2 + 1.5 / 60
    )
    assert found == [f"{day[-2:]} {each.format(**words)}" for each in expected]


def test_what_ran_in_the_first_hour_does_not_run_in_the_second() -> None:
    """Also for who begins to look in between: a worker that starts at 02:10 for the second time."""
    between = datetime(2025, 10, 26, 1, 10, tzinfo=UTC)
    found = ticks(
        schedule_from("5,30 2 * * *", "Europe/Berlin"), between, between + timedelta(hours=20)
    )
    assert list(found) == []


#: On 5 October 2025 on Lord Howe Island 02:00 is followed by 02:30, on 6 April 02:00 by 01:30.
@pytest.mark.parametrize(
    "after, cron, expected",
    [
        ("2025-10-05T01:29", "0,30 * * * *", ["01:30+1030", "02:30+1100", "03:00+1100"]),
        ("2025-10-05T01:29", "*/15 * * * *", ["01:30+1030", "01:45+1030", "02:30+1100"]),
        ("2025-10-05T01:29", "0 * * * *", ["03:00+1100", "04:00+1100", "05:00+1100"]),
        ("2025-10-05T01:29", "15 2 * * *", ["02:30+1100"]),
        ("2025-04-06T01:29", "0,30 * * * *", ["01:30+1100", "01:30+1030", "02:00+1030"]),
        ("2025-04-06T01:44", "*/15 * * * *", ["01:45+1100", "01:30+1030", "01:45+1030"]),
        ("2025-04-06T00:59", "0 * * * *", ["01:00+1100", "02:00+1030", "03:00+1030"]),
        ("2025-04-06T00:59", "45 1 * * *", ["01:45+1100"]),
    ],
)
def test_where_clocks_change_by_half_an_hour(after: str, cron: str, expected: list[str]) -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    start = datetime.fromisoformat(after).replace(tzinfo=zone)
    found = ticks(schedule_from(cron, "Australia/Lord_Howe"), start, start + 4 * 60 * MINUTE)
    shown = [tick.astimezone(zone).strftime("%H:%M%z") for tick in found]
    assert shown[: len(expected)] == expected


# --- properties ----------------------------------------------------------------------------------

FIELD = {"second": 59, "minute": 59, "hour": 23}
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/St_Johns"]


@st.composite
def fields(draw: st.DrawFn, name: str) -> str:
    """A star, a step, a number, a range, or a list."""
    number = st.integers(0, FIELD[name])
    kind = draw(st.sampled_from(["star", "step", "number", "range", "list"]))
    if kind == "star":
        return "*"
    if kind == "step":
        return f"*/{draw(st.integers(1, FIELD[name]))}"
    if kind == "range":
        low, high = sorted((draw(number), draw(number)))
        return f"{low}-{high}"
    return ",".join(map(str, draw(st.lists(number, min_size=1, max_size=3))))


def matching(field: str, value: int) -> bool:
    """Whether a field of those above matches, by the simplest of means."""
    for term in field.split(","):
        head, _, step = term.partition("/")
        if head == "*" and value % int(step or 1) == 0:
            return True
        low, _, high = head.partition("-")
        if head != "*" and int(low) <= value <= int(high or low):
            return True
    return False


def brute_force(cron: str, zone: Any, after: datetime, until: datetime) -> Iterator[datetime]:
    second, minute, hour, *_ = cron.split()
    moment = after.replace(microsecond=0) + SECOND
    while moment <= until:
        there = moment.astimezone(zone)
        if (
            matching(second, there.second)
            and matching(minute, there.minute)
            and matching(hour, there.hour)
        ):
            yield moment
        moment += SECOND


CRON = st.builds("{} {} {} * * *".format, *(fields(name) for name in FIELD))
#: Times of the year in which no clock is changed in any of the zones.
QUIET = st.datetimes(datetime(2025, 6, 1), datetime(2025, 9, 1), timezones=st.just(UTC))


@settings(max_examples=60, deadline=None)
@given(CRON, st.sampled_from(ZONES), QUIET, st.integers(0, 4 * 3600))
def test_ticks_are_those_that_brute_force_finds(
    cron: str, timezone: str, after: datetime, seconds: int
) -> None:
    until = after + seconds * SECOND
    found = list(ticks(stored_schedule(cron, timezone), after, until))
    assert found == list(brute_force(cron, ZoneInfo(timezone), after, until))


ALL_YEAR = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))
#: Near the changes of clocks, which random times hardly meet.
CHANGES = st.builds(
    lambda change, minutes: datetime.fromisoformat(change) + minutes * MINUTE,
    st.sampled_from(
        [
            *("2025-03-30T01:00Z", "2025-10-26T01:00Z", "2025-03-09T07:00Z", "2025-11-02T06:00Z"),
            *("2025-10-04T15:30Z", "2025-04-05T15:00Z"),
        ]
    ),
    st.integers(-300, 300),
)
#: Whose clocks change at the times above, by an hour and by half an hour.
CHANGING = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]


@settings(max_examples=60, deadline=None)
@given(CRON, st.sampled_from(CHANGING), CHANGES, st.integers(0, 4 * 3600))
def test_what_follows_the_clock_is_what_brute_force_finds_when_clocks_change(
    cron: str, timezone: str, after: datetime, seconds: int
) -> None:
    """Every moment at which clocks show a time that matches, whether it comes once or twice."""
    schedule, until = stored_schedule(cron, timezone), after + seconds * SECOND
    assume(schedule.follows_clock)
    assert list(ticks(schedule, after, until)) == list(
        brute_force(cron, ZoneInfo(timezone), after, until)
    )


@settings(max_examples=200, deadline=None)
@given(
    CRON,
    st.sampled_from([*ZONES, "America/Santiago", "Africa/Casablanca", "Australia/Lord_Howe"]),
    st.one_of(ALL_YEAR, CHANGES),
    st.lists(st.integers(0, 4 * 3600), min_size=2, max_size=2),
)
def test_ticks_ascend_and_do_not_depend_on_where_one_begins(
    cron: str, timezone: str, after: datetime, seconds: list[int]
) -> None:
    """None comes twice, and stopping in between loses none and adds none."""
    schedule = stored_schedule(cron, timezone)
    between = after + seconds[0] * SECOND
    until = between + seconds[1] * SECOND
    found = list(ticks(schedule, after, until))
    assert found == sorted(set(found))
    assert found == [*ticks(schedule, after, between), *ticks(schedule, between, until)]
    assert all(after < tick <= until and tick.tzinfo is UTC for tick in found)


# --- what is due ---------------------------------------------------------------------------------


def job_at(tick: datetime) -> NewJob:
    return NewJob("task", args=f'{{"timestamp": {int(tick.timestamp())}}}')


def every(cron: str, max_delay: float = 600, periodic_id: str = "") -> Periodic:
    delay = timedelta(seconds=max_delay)
    return Periodic("task", periodic_id, schedule_from(cron, "UTC"), delay, job_at)


def test_ticks_up_to_max_delay_are_made_up_for_and_older_ones_are_counted() -> None:
    minutely = every("* * * * *", max_delay=120)
    due = periodic.due_ticks(minutely, done_until=NOON - 10 * MINUTE, now=NOON, limit=10)
    assert due == [
        DueTick(minutely, NOON - 2 * MINUTE - timedelta(microseconds=1), None, given_up=7),
        *(DueTick(minutely, tick, job_at(tick)) for tick in (NOON - 2 * MINUTE, NOON - MINUTE)),
        DueTick(minutely, NOON, job_at(NOON)),
    ]


def test_a_long_absence_is_counted_up_to_a_limit() -> None:
    secondly = every("* * * * * *", max_delay=1)
    due = periodic.due_ticks(
        secondly, done_until=NOON - timedelta(days=3650), now=NOON, limit=periodic.TICKS_AT_ONCE
    )
    assert [each.given_up for each in due] == [periodic.COUNTED, 0, 0]


def test_nothing_is_due_between_ticks() -> None:
    assert periodic.due_ticks(every("0 * * * *"), done_until=NOON, now=NOON + MINUTE, limit=9) == []


def test_a_timetable_gives_out_what_is_due_in_order_and_a_share_of_each() -> None:
    """So that a long absence of one schedule does not hold up the others."""
    timetable = Timetable([every("* * * * * *", 10**6, "seconds"), every("* * * * *")])
    assert (timetable.complete, timetable.next_due(), timetable.due(NOON)) == (False, None, [])
    timetable.settled(("task", "seconds"), NOON - timedelta(hours=1))
    timetable.settled(("task", ""), NOON - MINUTE)
    assert timetable.complete
    assert timetable.next_due() == NOON - timedelta(hours=1) + SECOND
    due = timetable.due(NOON)
    assert len(due) == periodic.TICKS_AT_ONCE // 2 + 1
    assert due == sorted(due, key=lambda each: each.tick)
    assert (due[-1].periodic.periodic_id, due[-1].tick) == ("", NOON)


def test_a_timetable_waits_for_the_first_tick_that_is_not_settled() -> None:
    timetable = Timetable([every("0 * * * *")])
    timetable.settled(("task", ""), NOON)
    assert timetable.next_due() == NOON + timedelta(hours=1)
    timetable.forget(("task", ""))
    assert (timetable.complete, timetable.next_due()) == (False, None)


def test_a_schedule_that_has_come_to_its_end_is_never_due() -> None:
    timetable = Timetable([every("0 0 29 2 MON#5")])
    timetable.settled(("task", ""), datetime(9990, 1, 1, tzinfo=UTC))
    assert timetable.due(datetime(9990, 1, 2, tzinfo=UTC)) == []


@pytest.mark.parametrize("cron", ["*/10 * * * * *", "0 0 4 * * *", "0 * * * * *", "1 2 3 4 5 6"])
def test_six_fields_that_can_be_read_in_two_ways_are_refused(cron: str) -> None:
    with pytest.raises(InvalidOption, match='seconds="first" or seconds="last"'):
        schedule_from(cron, "UTC")


@pytest.mark.parametrize("cron", ["* * * * * *", "0 30 4 * * MON", "59 0 0 1 1 *"])
def test_six_fields_that_can_be_read_in_one_way_begin_with_the_seconds(cron: str) -> None:
    assert schedule_from(cron, "UTC") == schedule_from(cron, "UTC", "first")


@pytest.mark.parametrize("cron", ["30 4 * * MON 0", "0 4 * * 1-5 30"])
def test_six_fields_with_the_seconds_last_say_so(cron: str) -> None:
    with pytest.raises(InvalidOption, match=r'write seconds="last"$'):
        schedule_from(cron, "UTC")


def test_the_seconds_stand_where_one_says() -> None:
    last = schedule_from(" 0  4 * * * */15 ", "UTC", "last")

    assert last == schedule_from("*/15 0 4 * * *", "UTC", "first")
    assert last.cron == "*/15 0 4 * * *"
    assert stored_schedule(last.cron, "UTC") == last
    assert stored_schedule("@daily", "UTC") == schedule_from("0 0 * * *", "UTC")


@pytest.mark.parametrize("seconds", ["middle", 1, ["first"]])
def test_the_seconds_stand_first_or_last(seconds: Any) -> None:
    with pytest.raises(InvalidOption, match='"first" or "last"'):
        schedule_from("* * * * * *", "UTC", seconds)


@pytest.mark.parametrize("cron", ["* * * * *", "@daily"])
def test_a_place_of_the_seconds_is_for_six_fields(cron: str) -> None:
    with pytest.raises(InvalidOption, match="for a cron of six fields"):
        schedule_from(cron, "UTC", "first")
