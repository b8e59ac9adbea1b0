"""The job manager's view of what ended in each minute."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from procrastinate.app.job_filters import name_or_none
from procrastinate.connector import CallerConnection
from procrastinate.drive import Flow
from procrastinate.errors import InvalidOption
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.monitoring.minutes import MINUTE, Throughput
from procrastinate.model.text.printable import shown
from procrastinate.storage import minutes as flows

LONGEST_STEP = timedelta(days=366)
#: What throughput is told apart by.
By = Literal["queue", "task"]
_BY = ("queue", "task")


class ReadingThroughput:
    """Looking at how much was done, and how fast."""

    _gateway: Gateway

    def throughput(
        self,
        *,
        since: datetime,
        until: datetime | None = None,
        step: timedelta = timedelta(minutes=1),
        queue: str | None = None,
        task: str | None = None,
        by: By | Iterable[By] = (),
        connection: CallerConnection | None = None,
    ) -> list[Throughput]:
        """Return what ended at workers from ``since`` until ``until`` (both aware), in steps.

        ``step`` is a number of whole minutes; steps are aligned to 1970-01-01 in UTC. All queues
        and tasks are summed up, unless ``by`` is ``"queue"``, ``"task"`` or both. A step in which
        nothing ended is left out. Of what is older than a day only whole hours are kept: there, a
        shorter step is an hour.

        A day takes about 20 ms and a month 30 ms, however many queues and tasks there are. ``by``
        reads a row for each minute and each of what is told apart: a day of 20 takes 0.2 to 0.5 s.
        Workers write their counts once a minute, up to five seconds after it. What a worker has
        counted since then is lost if it is killed. Raises `InvalidOption`.
        """
        flow = _throughput(since, until, step, queue, task, by)
        return self._gateway.run(flow, connection=connection)

    async def throughput_async(
        self,
        *,
        since: datetime,
        until: datetime | None = None,
        step: timedelta = timedelta(minutes=1),
        queue: str | None = None,
        task: str | None = None,
        by: By | Iterable[By] = (),
        connection: CallerConnection | None = None,
    ) -> list[Throughput]:
        """Return what ended at workers, in steps of time; see `throughput`."""
        flow = _throughput(since, until, step, queue, task, by)
        return await self._gateway.run_async(flow, connection=connection)


def _throughput(
    since: Any, until: Any, step: Any, queue: Any, task: Any, by: Any
) -> Flow[list[Throughput]]:
    return flows.throughput(
        since=checks.check_aware("since", since),
        until=None if until is None else checks.check_aware("until", until),
        step=_step_seconds(step),
        queue=name_or_none("queue", queue),
        task=name_or_none("task", task),
        by=_checked_by(by),
    )


def _step_seconds(step: Any) -> int:
    minutes = step / timedelta(seconds=MINUTE) if isinstance(step, timedelta) else 0
    if minutes < 1 or minutes % 1 or step > LONGEST_STEP:
        raise InvalidOption(
            "step must be a timedelta of whole minutes, from one to those of a year, not"
            f" {shown(step)}"
        )
    return int(minutes) * MINUTE


def _checked_by(by: Any) -> tuple[str, ...]:
    names = (by,) if isinstance(by, str) or not isinstance(by, Iterable) else tuple(by)
    for name in names:
        if not isinstance(name, str) or name not in _BY:
            raise InvalidOption(f"by must be of {', '.join(_BY)}, not {shown(name)}")
    return names
