"""Pausing and resuming queues, as the queue manager does it, in memory and on a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate.app.queue_manager import QueueManager
from procrastinate.testing import InMemoryConnector

Now = Callable[[], datetime]


@pytest.fixture(params=["memory", "database"])
async def app(request: pytest.FixtureRequest) -> AsyncIterator[procrastinate.App]:
    connector: Any = InMemoryConnector()
    if request.param == "database":
        connector = procrastinate.PsycopgConnector(conninfo=request.getfixturevalue("dsn"))
    async with procrastinate.App(connector=connector).open_async() as app:
        yield app


@pytest.fixture
def queues(app: procrastinate.App) -> QueueManager:
    return app.queue_manager


def in_hours(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


async def test_a_queue_is_paused_until_it_is_resumed(queues: QueueManager) -> None:
    made = await queues.pause_async("mail", reason="printer on fire", by="Ada")
    assert (made.queue, made.until, made.by, made.reason) == (
        *("mail", None, "Ada", "printer on fire"),
    )
    assert made.paused_at.tzinfo is UTC
    assert await queues.list_pauses_async() == [made]
    assert await queues.resume_async("mail") is True
    assert await queues.resume_async("mail") is False
    assert await queues.list_pauses_async() == []


def test_a_plain_call_does_the_same(queues: QueueManager) -> None:
    made = queues.pause("mail", until=in_hours(1))
    assert queues.list_pauses() == [made]
    assert (queues.resume("mail"), queues.resume("mail"), queues.list_pauses()) == (True, False, [])


async def test_to_pause_again_replaces_all_but_its_beginning(queues: QueueManager) -> None:
    first = await queues.pause_async("mail", reason="a", until=in_hours(1), by="b")
    again = await queues.pause_async("mail", reason="c")
    assert again == procrastinate.Pause("mail", first.paused_at, None, None, "c")
    assert await queues.list_pauses_async() == [again]


async def test_pauses_are_listed_by_name(queues: QueueManager) -> None:
    for name in ("z", "*", "a"):
        await queues.pause_async(name)
    assert sorted(each.queue for each in await queues.list_pauses_async()) == ["*", "a", "z"]


async def test_an_end_in_the_past_is_refused(queues: QueueManager) -> None:
    for hours in (-1.0, -1_000_000.0):
        with pytest.raises(procrastinate.InvalidOption, match="until must lie in the future"):
            await queues.pause_async("mail", until=in_hours(hours))
    assert await queues.list_pauses_async() == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"queue": ""}, "queue"),
        ({"queue": 3}, "queue"),
        ({"queue": "q" * 129}, "queue"),
        ({"reason": "r" * 2_001}, "reason must have at most 2000"),
        ({"reason": b"r"}, "reason must be a str"),
        ({"by": "\0"}, "by must not contain"),
        ({"until": datetime(2100, 1, 1)}, "until must have a time zone"),
        ({"until": 3.0}, "until must be a datetime"),
    ],
)
def test_what_cannot_be_is_refused(queues: QueueManager, given: Any, text: str) -> None:
    kinds = procrastinate.InvalidOption, procrastinate.InvalidTimestamp
    with pytest.raises(kinds, match=text):
        queues.pause(**({"queue": "mail"} | given))
    assert queues.list_pauses() == []


def test_a_pause_ends_by_itself() -> None:
    connector = InMemoryConnector()
    app = procrastinate.App(connector=connector)
    connector.clock.freeze()
    until = connector.clock.now() + timedelta(minutes=5)
    first = app.queue_manager.pause("mail", until=until)
    connector.clock.move(timedelta(minutes=4, seconds=59))
    assert app.queue_manager.list_pauses() == [first]
    connector.clock.move(timedelta(seconds=1))
    assert app.queue_manager.list_pauses() == []
    assert app.queue_manager.resume("mail") is False
    again = app.queue_manager.pause("mail")
    assert again.paused_at == until  # it is another pause


async def test_the_callers_transaction_decides(dsn: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
    async with app.open_async(), await psycopg.AsyncConnection.connect(dsn) as connection:
        await app.queue_manager.pause_async("mail", connection=connection)
        assert await app.queue_manager.list_pauses_async() == []
        await connection.rollback()
        assert await app.queue_manager.list_pauses_async() == []
        await app.queue_manager.pause_async("mail", connection=connection)
        await connection.commit()
        assert [each.queue for each in await app.queue_manager.list_pauses_async()] == ["mail"]
        assert await app.queue_manager.resume_async("mail", connection=connection) is True
        await connection.rollback()
        assert len(await app.queue_manager.list_pauses_async()) == 1
