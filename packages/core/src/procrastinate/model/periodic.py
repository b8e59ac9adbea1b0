"""Cron schedules: which moments they name, which of these are due, and which are too old.

Rules

1. A tick is a moment that a cron expression names in its time zone, here always in UTC. The
   expression is evaluated by `cronsim`, and does what Debian's cron does when clocks change. For
   fixed times of the day cronsim knows how. An expression that follows the clock is evaluated on a
   calendar without zones, and each of its times stands for the moments at which clocks show it:
   none, one or two (cronsim itself loses some where clocks change by half an hour).
   Seconds are added here: six fields are the ticks of the last five, times the first. So an
   expression with seconds meets a change of clocks as the same one without them does.
2. Ticks up to a schedule's ``done_until`` are settled: deferred, or given up. It is the database's
   to say, and it only moves on.
3. A tick that is older than ``max_delay`` when it is found is given up.
4. A schedule can be put off, if its jobs have nowhere to go for a while. Nothing of it is due but
   by `due_again`, until some of its ticks are settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from heapq import heappop, heappush
from itertools import islice
from typing import Any, TypeAlias

from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.job import NewJob
from procrastinate.model.text.printable import shown

#: Ticks that are deferred in one statement at the most.
TICKS_AT_ONCE = 1_000
#: Ticks that are counted at the most when they are given up: a year of seconds would take long.
COUNTED = 1_000

_MICROSECOND = timedelta(microseconds=1)
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)
#: More than clocks are ever put back by.
_PUT_BACK = timedelta(hours=3)

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

Key: TypeAlias = tuple[str, str]  # the name of a task, and the periodic_id


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression in a time zone, checked; made by `schedule_from`.

    ``cron`` is the expression, with its seconds first if it has any, and ``minutes`` its last five
    fields.
    """

    cron: str = field(compare=False)
    minutes: str
    seconds: tuple[int, ...]
    zone: tzinfo

    @property
    def follows_clock(self) -> bool:
        """Whether it stands for "every so often", and not for fixed times of the day."""
        minute, hour, *_ = self.minutes.split()
        return minute.startswith("*") or hour.startswith("*")


def schedule_from(cron: Any, timezone: Any, seconds: Any = None) -> Schedule:
    """Return the schedule of an expression: five fields, six with seconds, or a name.

    ``seconds`` says where they stand among six fields, "first" or "last". Without it they stand
    first, and an expression that means something else with the seconds last is refused. Raises
    `InvalidOption` naming the option and the value, also for an expression that never matches.
    """
    fields = _fields(cron)
    _check_place(cron, fields, seconds)
    if seconds == "last":
        fields = _seconds_first(fields)
        return _schedule(cron, " ".join(fields), fields, timezone)
    if len(fields) == 6 and seconds is None:
        _check_order(cron, fields, timezone)
    return _schedule(cron, cron.strip(), fields, timezone)


def stored_schedule(cron: str, timezone: str) -> Schedule:
    """Return the schedule that the `cron` of another one means. Raises `InvalidOption`."""
    return schedule_from(cron, timezone, "first" if len(cron.split()) == 6 else None)


def _check_place(cron: str, fields: list[str], seconds: Any) -> None:
    if seconds not in (None, "first", "last"):
        raise InvalidOption(f'seconds must be "first" or "last", not {shown(seconds)}')
    if seconds is not None and len(fields) != 6:
        raise InvalidOption(
            f"seconds={shown(seconds)} is for a cron of six fields, not for {shown(cron)}"
        )


def _check_order(cron: str, fields: list[str], timezone: Any) -> None:
    """Raise if six fields mean something with the seconds last, and not the same with them first.

    That was the order of releases up to 3.x.
    """
    first = _schedule_if_any(cron, fields, timezone)
    last = _schedule_if_any(cron, _seconds_first(fields), timezone)
    if last is None or first == last:
        return
    if first is None:
        raise InvalidOption(
            f"cron {shown(cron)} has its seconds last, as in Procrastinate 3, and they are expected"
            ' first: write seconds="last"'
        )
    raise InvalidOption(
        f"cron {shown(cron)} can be read with the seconds first or, as in Procrastinate 3, last:"
        ' write seconds="first" or seconds="last"'
    )


def _seconds_first(fields: list[str]) -> list[str]:
    return [fields[-1], *fields[:-1]]


def _schedule_if_any(cron: str, fields: list[str], timezone: Any) -> Schedule | None:
    try:
        return _schedule(cron, " ".join(fields), fields, timezone)
    except InvalidOption:
        return None


def _schedule(cron: str, text: str, fields: list[str], timezone: Any) -> Schedule:
    """Return the schedule of fields with the seconds first; errors show the ``cron`` as given."""
    try:
        minutes = " ".join(fields[-5:])
        schedule = Schedule(text, minutes, _seconds(fields), _zone(timezone))
        matches = next_tick(schedule, _ANY_TIME) is not None
    except InvalidOption:
        raise
    except Exception as exc:  # cronsim's own error, and others for odd combinations
        raise InvalidOption(f"cron {shown(cron)} is no cron expression: {exc}") from exc
    if not matches:
        raise InvalidOption(f"cron {shown(cron)} matches no date at all")
    return schedule


def _fields(cron: Any) -> list[str]:
    text = cron.strip() if isinstance(cron, str) else ""
    fields = NICKNAMES.get(text.lower(), text).split()
    if len(fields) not in (5, 6):
        raise InvalidOption(
            "cron must be a text of five fields (minute, hour, day of the month, month, day of the"
            f" week), of six with seconds, or one of {', '.join(NICKNAMES)},"
            f" not {shown(cron)}"
        )
    return fields


def _seconds(fields: list[str]) -> tuple[int, ...]:
    """Return the seconds of each minute: of the first of six fields, else 0."""
    from cronsim import CronSim

    if len(fields) == 5:
        return (0,)
    before = _ANY_TIME - timedelta(seconds=1)
    found = islice(CronSim(f"{fields[0]} * * * * *", before), 60)
    return tuple(tick.second for tick in found if tick < _ANY_TIME + timedelta(minutes=1))


def _zone(name: Any) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name == "UTC":
        return UTC  # also if there is no time zone data
    if not isinstance(name, str):
        raise InvalidOption(f"timezone must be a name such as 'Europe/Berlin', not {shown(name)}")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InvalidOption(
            f"timezone {shown(name)} is not known: it must be a name such as 'Europe/Berlin' (and a"
            " system without time zone data needs `pip install tzdata`)"
        ) from exc


def ticks(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the ticks later than ``after`` and not later than ``until``, in order, in UTC."""
    for minute in _minutes(schedule, after):
        for second in schedule.seconds:
            tick = minute + timedelta(seconds=second)
            if tick > until:
                return
            if tick > after:
                yield tick


def _minutes(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the full minutes with ticks, from that of ``after`` on, in UTC."""
    minute = after.astimezone(UTC).replace(second=0, microsecond=0)
    latest = minute - timedelta(seconds=1)
    found = _as_the_clock_goes if schedule.follows_clock else _at_fixed_times
    for tick in found(schedule, latest):
        # From within the hour that comes twice, both begin with times of the first one.
        if tick > latest:
            latest = tick
            yield tick


def _at_fixed_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    from cronsim import CronSim  # not at the top, because apps without periodic tasks do without

    for local in CronSim(schedule.minutes, after.astimezone(schedule.zone)):
        yield local.astimezone(UTC)


def _as_the_clock_goes(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the moments, in UTC and in order, at which clocks show a time that matches."""
    from cronsim import CronSim

    zone, later = schedule.zone, list[datetime]()
    least = min(_shown(after, zone), _shown(after + _PUT_BACK, zone) - _PUT_BACK)
    for time in CronSim(schedule.minutes, least):
        first, second = (time.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if _shown(first, zone) != time:  # clocks skip it
            continue
        while later and later[0] < first:
            yield heappop(later)
        yield first
        if second != first:
            heappush(later, second)
    yield from sorted(later)


def _shown(moment: datetime, zone: tzinfo) -> datetime:
    """Return what clocks of a zone show at a moment."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def next_tick(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first tick later than ``after``, or None if none comes within 50 years."""
    try:
        return next(ticks(schedule, after, checks.LATEST), None)
    except OverflowError:  # after the year 9999
        return None


@dataclass(frozen=True)
class Periodic:
    """A schedule, and the jobs that it asks for: ``new_job(tick)``."""

    task_name: str
    periodic_id: str
    schedule: Schedule
    max_delay: timedelta
    new_job: Callable[[datetime], NewJob]
    queue: str = "default"

    @property
    def key(self) -> Key:
        return self.task_name, self.periodic_id


@dataclass(frozen=True)
class DueTick:
    """A tick that is due, with its job; or, without one, the end of ``given_up`` older ones."""

    periodic: Periodic
    tick: datetime
    job: NewJob | None
    given_up: int = 0


def due_ticks(
    periodic: Periodic, *, done_until: datetime, now: datetime, limit: int
) -> list[DueTick]:
    """Return what is due by now, the oldest first: what to give up, and ``limit`` ticks."""
    oldest = max(done_until, now - periodic.max_delay - _MICROSECOND)
    missed = sum(1 for _ in islice(ticks(periodic.schedule, done_until, oldest), COUNTED))
    due = [DueTick(periodic, oldest, None, given_up=missed)] if missed else []
    return due + [
        DueTick(periodic, tick, periodic.new_job(tick))
        for tick in islice(ticks(periodic.schedule, oldest, now), limit)
    ]


class Timetable:
    """When each of several schedules is due next, as far as the database has told."""

    def __init__(self, periodics: Iterable[Periodic]) -> None:
        self.periodics = {periodic.key: periodic for periodic in periodics}
        self._done_until: dict[Key, datetime] = {}
        self._next: dict[Key, datetime] = {}
        self._put_off: dict[Key, None] = {}  # the one to be tried next first

    @property
    def complete(self) -> bool:
        """Whether the database has told of every schedule."""
        return len(self._done_until) == len(self.periodics)

    def settled(self, key: Key, done_until: datetime) -> None:
        """Note that the ticks of a schedule are settled up to this one."""
        if done_until != self._done_until.get(key):
            self._put_off.pop(key, None)
        self._done_until[key] = done_until
        tick = next_tick(self.periodics[key].schedule, done_until)
        if tick is None:
            self._next.pop(key, None)
        else:
            self._next[key] = tick

    def forget(self, key: Key) -> None:
        """Note that the database knows nothing of a schedule any more."""
        self._done_until.pop(key, None)
        self._next.pop(key, None)
        self._put_off.pop(key, None)

    def put_off(self, key: Key) -> None:
        """Note that the ticks of a schedule that are due have to wait."""
        self._put_off.pop(key, None)  # the others first
        self._put_off[key] = None

    def next_due(self) -> datetime | None:
        """Return the time of the first tick that is not settled, nor put off."""
        return min((self._next[key] for key in self._next.keys() - self._put_off), default=None)

    def due(self, now: datetime) -> list[DueTick]:
        """Return what is due by now, for one statement: some of every schedule that is due."""
        keys = [key for key, tick in self._next.items() if tick <= now and key not in self._put_off]
        return self._due_of(keys[:TICKS_AT_ONCE], now)

    def due_again(self, now: datetime) -> list[DueTick]:
        """Return what is due by now of one schedule that was put off: each has its turn."""
        keys = [key for key in self._put_off if key in self._next and self._next[key] <= now]
        return self._due_of(keys[:1], now)

    def _due_of(self, keys: Sequence[Key], now: datetime) -> list[DueTick]:
        due = [
            each
            for key in keys
            for each in due_ticks(
                self.periodics[key],
                done_until=self._done_until[key],
                now=now,
                limit=TICKS_AT_ONCE // len(keys),
            )
        ]
        return sorted(due, key=lambda each: (each.tick, each.periodic.key))
