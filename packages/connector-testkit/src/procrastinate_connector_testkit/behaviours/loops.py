"""The event loop to which an asynchronous connector belongs while it is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from procrastinate import errors
from procrastinate_connector_testkit.adapter import Adapter
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.forks import FORKS, in_child
from procrastinate_connector_testkit.behaviours.losses import fill_pool
from procrastinate_connector_testkit.subject import Subject

PID = "select pg_backend_pid()"


def another_loop(adapter: Adapter, function: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a coroutine function returns in an event loop of its own, which then ends."""

    async def use() -> Any:
        async with asyncio.timeout(20):
            return await function()

    with asyncio.Runner(loop_factory=adapter.event_loop) as runner:
        return runner.run(use())


class Loops:
    """Of asynchronous connectors that run SQL."""

    @behaviour("open: a loop that has ended does not matter", ways="own")
    def test_loops_that_have_ended_do_not_matter(self, db: Subject) -> None:
        """It was not closed there, and is opened or closed in the next."""
        subject = db.another(db.adapter.connector(db.dsn))

        async def used() -> Any:
            await subject.open()
            return await subject.value("select 1")

        assert [another_loop(db.adapter, used) for _ in range(3)] == [1, 1, 1]
        another_loop(db.adapter, subject.close)
        assert subject.run(used()) == 1

    @behaviour("open: in one event loop", ways="own")
    async def test_loops_beside_the_one_that_runs_are_refused(self, db: Subject) -> None:
        """To open it, to use it and to close it. It goes on where it was opened."""

        async def session() -> None:
            await db.value("select 1")

        for attempt in (session, db.open, db.close):
            with pytest.raises(errors.ConfigurationError, match="another event loop"):
                await asyncio.to_thread(another_loop, db.adapter, attempt)
        assert await db.value("select 1") == 1

    @behaviour("open: what is refused leaves it closed", ways="own")
    async def test_loops_in_which_opening_was_refused_do_not_matter(self, db: Subject) -> None:
        """It may be opened in another loop while that one runs, and in that one."""
        subject = db.another(db.adapter.connector(db.dsn))
        with pytest.raises(errors.InvalidOption):
            await subject.open(object())

        async def used() -> Any:
            await subject.open()
            value = await subject.value("select 1")
            await subject.close()
            return value

        assert await asyncio.to_thread(another_loop, db.adapter, used) == 1
        assert await used() == 1


class ForkedLoops:
    """Where the system can fork."""

    @behaviour("open: a fork gives the child connections of its own", ways="own")
    async def test_loops_of_a_forked_child_have_their_own_connections(self, db: Subject) -> None:
        """It has to be opened there. The parent goes on with its own when the child has ended."""
        parents = await fill_pool(db)

        def child() -> str:
            asyncio.events._set_running_loop(None)  # that is the parent's
            return json.dumps(another_loop(db.adapter, used))

        async def used() -> list[int]:
            with pytest.raises((errors.AppNotOpen, errors.ConfigurationError)):
                await db.value("select 1")
            await db.open()
            pids = await fill_pool(db)
            await db.close()
            return sorted(pids)

        answer = in_child(child)
        assert answer.startswith("["), f"the child failed: {answer}"
        assert not parents & set(json.loads(answer)), "the child used the parent's connections"
        assert await fill_pool(db) == parents


LOOPS: tuple[type, ...] = (Loops, ForkedLoops) if FORKS else (Loops,)
