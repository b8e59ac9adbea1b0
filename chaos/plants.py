"""Bugs to plant, so that it can be shown that the books complain. CHAOS_PLANT names one.

A plant changes what the connectors of workers and deferrers send, and what workers hear, and no
code of the product's. One that finds nothing to change raises: then the product has changed, and
the plant must follow.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, cast

from chaos import connectors
from procrastinate.connector import AsyncConnector, Notification, Query

Change = Callable[[Query], Query]
_NOTHING = "select 1 where false"


def without_fence(query: Query) -> Query:
    """Let endings be written even if another worker holds the job."""
    if not query.name.startswith(("finish_jobs", "settle_jobs")):
        return query
    sql, workers = re.subn(
        r"job\.worker_id = (%\(worker_id\)s::bigint)", r"\1 is not null", query.sql
    )
    sql, leases = re.subn(r"job\.(?:attempts|lease) = ((?:\w+\.|%\()\S+)", r"\1 is not null", sql)
    if not workers or not leases:
        raise RuntimeError(f"no fence is found in {query.name}")
    return replace(query, sql=sql)


def without_lease(query: Query) -> Query:
    """Let a worker give no sign of life after its first one, and believe that it has."""
    if query.name != "heartbeat":
        return query
    beat = r"set last_heartbeat = statement_timestamp\(\)"
    sql, count = re.subn(beat, "set last_heartbeat = worker.last_heartbeat", query.sql)
    if not count:
        raise RuntimeError("no sign of life is found in heartbeat")
    return replace(query, sql=sql)


_endings = itertools.count(1)


def without_some_endings(query: Query) -> Query:
    """Let every tenth write of endings find nothing to change."""
    if not query.name.startswith(("finish_jobs", "settle_jobs")) or next(_endings) % 10:
        return query
    sql, count = re.subn(
        r"job\.partition = %\(partition\)s::smallint and", "job.partition = -1 and", query.sql
    )
    if not count:
        raise RuntimeError(f"no condition is found in {query.name}")
    return replace(query, sql=sql)


def without_pauses(query: Query) -> Query:
    """Let a worker read that no queue is paused."""
    if query.name != "list_pauses":
        return query
    sql, count = re.subn(r"where pause\.partition = 0", "where pause.partition = -1", query.sql)
    if not count:
        raise RuntimeError("no pauses are found in list_pauses")
    return replace(query, sql=sql)


def with_other_results(query: Query) -> Query:
    """Let a worker write results that no task has returned."""
    if not query.name.endswith("_with_results"):
        return query
    results = "string_to_array(%(results)s::text, chr(30), ''::text)"
    if results not in query.sql:
        raise RuntimeError(f"no results are found in {query.name}")
    other = f"""array(select case when each is not null then '"another"'::text end
        from unnest({results}) as each)"""
    return replace(query, sql=query.sql.replace(results, other))


def without_patience(query: Query) -> Query:
    """Let a process that waits take a job that is to be tried again for one that has ended."""
    if query.name not in ("look_at_jobs", "read_jobs"):
        return query
    sql, count = re.subn(
        r"^select job\.id, job\.status::text",
        "select job.id, case when job.status = 'todo' and job.attempts > 0 then 'failed'"
        " else job.status::text end",
        query.sql,
        flags=re.MULTILINE,
    )
    if not count:
        raise RuntimeError(f"no status is found in {query.name}")
    return replace(query, sql=sql)


def without_removing(query: Query) -> Query:
    """Let a process that waits remove none of its rows."""
    if query.name != "remove_waits":
        return query
    sql, count = re.subn(
        r"where wait\.partition = %\(partition\)s", r"where wait.partition = -1", query.sql
    )
    if not count:
        raise RuntimeError("no condition is found in remove_waits")
    return replace(query, sql=sql)


def unchanged(query: Query) -> Query:
    """Change nothing that is sent."""
    return query


class Plant(NamedTuple):
    """A bug, and the rules of the books of which at least one must complain."""

    change: Change
    rules: frozenset[str]
    faults: tuple[str, ...]
    jobs: int = 300
    long_share: float = 0.05  # of jobs that take seconds


PLANTS: Mapping[str, Plant] = {
    "no-fence": Plant(
        without_fence,
        frozenset({"ended by another run", "extra run"}),
        ("stop for long",),
        jobs=150,
        long_share=0.6,
    ),
    "no-lease": Plant(without_lease, frozenset({"extra run"}), ("sessions: cancel",)),
    "lost-endings": Plant(without_some_endings, frozenset({"did not end"}), ("restart",)),
    "no-pause": Plant(
        without_pauses, frozenset({"began while paused"}), ("pause of a queue",), jobs=900
    ),
    "other-results": Plant(with_other_results, frozenset({"wrong result"}), ("restart",)),
    "hasty-waits": Plant(without_patience, frozenset({"told wrong"}), ("restart",), jobs=900),
    "left-waits": Plant(without_removing, frozenset({"left behind"}), ("restart",)),
    "lost-notify": Plant(unchanged, frozenset({"late in calm"}), ("terminate",)),
}


class Changing:
    """An executor that changes what it is told to execute."""

    def __init__(self, executor: Any, change: Change) -> None:
        self._executor = executor
        self._change = change

    def execute(self, query: Query, /) -> Any:
        """Execute the changed query, on either kind of executor."""
        return self._executor.execute(self._change(query))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


def connector(name: str, dsn: str, listen_dsn: str | None) -> Any:
    """Return the worker's connector, with the planted bug if there is one."""
    made = connectors.for_worker(name, dsn, listen_dsn)
    plant = os.environ.get("CHAOS_PLANT")
    if plant:
        made.__class__ = planted(type(made), PLANTS[plant].change, deaf=plant == "lost-notify")
    return made


def deferrer_s_connector(name: str, dsn: str, plant: str) -> Any:
    """Return the connector of a process that defers and waits, with the planted bug if any."""
    made = connectors.for_deferrer(name, dsn)
    if plant:
        change = PLANTS[plant].change
        is_async = isinstance(made, AsyncConnector)
        made.__class__ = (
            planted(type(made), change, deaf=False)
            if is_async
            else planted_sync(type(made), change)
        )
    return made


def planted(kind: Any, change: Change, *, deaf: bool) -> Any:
    """Return the class of a connector that changes its queries, or hears nothing."""

    class Planted(kind):  # type: ignore[misc]
        @asynccontextmanager
        async def session_async(self, **options: Any) -> AsyncIterator[Any]:
            async with super().session_async(**options) as executor:
                yield Changing(executor, change)

        def sync_connector(self, **options: Any) -> Any:
            made: Any = super().sync_connector(**options)
            made.__class__ = planted_sync(type(made), change)
            return made

        def listen(
            self, channels: Sequence[str]
        ) -> AbstractAsyncContextManager[AsyncIterator[Notification]]:
            heard: Any = super().listen(["chaos_hears_nothing"] if deaf else channels)
            return cast(AbstractAsyncContextManager[AsyncIterator[Notification]], heard)

    return Planted


def planted_sync(kind: Any, change: Change) -> Any:
    """Return the class of a synchronous connector that changes its queries."""

    class Planted(kind):  # type: ignore[misc]
        @contextmanager
        def session(self, **options: Any) -> Iterator[Any]:
            with super().session(**options) as executor:
                yield Changing(executor, change)

    return Planted
