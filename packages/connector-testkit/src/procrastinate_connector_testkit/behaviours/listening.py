"""Listening: notifications arrive, a loss is told, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from procrastinate import errors
from procrastinate.connector import ListeningConnector, Notification
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.errors import check_cause
from procrastinate_connector_testkit.behaviours.losses import terminate_all
from procrastinate_connector_testkit.driving import PATIENCE, entered
from procrastinate_connector_testkit.queue import HOUR_US, Queue
from procrastinate_connector_testkit.subject import Subject

CONTRACT = "ListeningConnector.listen"
JOBS = "procrastinate_jobs"
ABORTS = "procrastinate_aborts"

#: Channels that have to be quoted, up to the 63 bytes that a name may have.
CHANNELS = ("kit", "Kit", 'kit "quoted"', "kit'apostrophe", "kit-é 🦆 %s", "k" * 63)
#: Up to the 7999 bytes that a payload may have.
PAYLOADS = ("", "default", "it's", 'a "b" \\ %s %(x)s $1', "é🦆\n", "x" * 7_999, "é" * 3_999)


@asynccontextmanager
async def listening(db: Subject, *channels: str) -> AsyncIterator[AsyncIterator[Notification]]:
    assert isinstance(db.connector, ListeningConnector)
    async with db.connector.listen(channels) as notifications:
        yield notifications


async def heard(notifications: AsyncIterator[Notification], count: int) -> list[Notification]:
    """Return the next notifications."""
    found: list[Notification] = []
    async with asyncio.timeout(PATIENCE):
        async for notification in notifications:
            found.append(notification)
            if len(found) == count:
                break
    assert len(found) == count, f"the iterator ended after {found!r}"
    return found


async def notify(db: Subject, channel: str, *payloads: str) -> None:
    """Notify from another connection, each in a transaction of its own."""
    for payload in payloads:
        await db.outside("select pg_notify(%(c)s::text, %(p)s::text)", c=channel, p=payload)


def news_of(queue: Queue, name: str) -> Notification:
    """Return what is told of ready jobs of a queue; their partition, if there are many."""
    place = f"@{queue.statements.partition}" if queue.statements.distributed else ""
    return Notification(JOBS, f"{name}{place}")


async def assert_lost(notifications: AsyncIterator[Notification]) -> None:
    """Assert that the iterator raises ConnectionLost, soon."""
    with pytest.raises(errors.ConnectionLost) as caught:
        async with asyncio.timeout(PATIENCE):
            async for _ in notifications:
                pass
    check_cause(caught.value)


class ListeningToTheQueue:
    """What the queue tells its workers."""

    @behaviour(CONTRACT, ways="own")
    async def test_listening_hears_of_deferred_jobs(self, db: Subject, queue: Queue) -> None:
        """A job that is due is announced with the name of its queue; a batch once per queue."""
        async with listening(db, JOBS) as notifications:
            await queue.defer(queue="one")
            assert await heard(notifications, 1) == [news_of(queue, "one")]
            await queue.defer(queue="later", schedule_in_us=HOUR_US)
            await queue.defer(queue="two")
            assert await heard(notifications, 1) == [news_of(queue, "two")]

    @behaviour(CONTRACT, ways="own")
    async def test_listening_hears_of_requests_to_abort(self, db: Subject, queue: Queue) -> None:
        job_id = await queue.defer()
        await queue.claim(await queue.worker())
        async with listening(db, JOBS, ABORTS) as notifications:
            assert await queue.cancel(job_id, abort=True) == {job_id}
            assert await heard(notifications, 1) == [Notification(ABORTS, str(job_id))]

    @behaviour(CONTRACT, ways="own")
    async def test_listening_hears_of_promoted_jobs(self, db: Subject, queue: Queue) -> None:
        await queue.defer(queue="soon", schedule_in_us=120 * 1_000_000)
        job_id = (await queue.ids())[0]
        async with listening(db, JOBS) as notifications:
            await queue.retry_by_hand(job_id)
            assert await heard(notifications, 1) == [news_of(queue, "soon")]

    @behaviour(CONTRACT, ways="own")
    async def test_listening_ends_when_its_task_is_cancelled(
        self, db: Subject, queue: Queue
    ) -> None:
        """While it waits; and another listener hears as before."""
        inside = asyncio.Event()

        async def work() -> None:
            async with listening(db, JOBS) as notifications:
                inside.set()
                async for _ in notifications:
                    pass

        task = asyncio.create_task(work())
        await inside.wait()
        await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
        assert done, f"the listener did not end within {PATIENCE:g} seconds"
        assert task.cancelled()
        async with listening(db, JOBS) as notifications:
            await queue.defer(queue="one")
            assert await heard(notifications, 1) == [news_of(queue, "one")]


class Listening(ListeningToTheQueue):
    """LISTEN and NOTIFY themselves."""

    @behaviour(CONTRACT, ways="own")
    async def test_listening_is_in_force_once_the_block_is_entered(self, db: Subject) -> None:
        """Also when many are notified at once, before anybody asks for them."""
        async with listening(db, "kit") as notifications:
            await notify(db, "kit", *(str(n) for n in range(50)))
            expected = [Notification("kit", str(n)) for n in range(50)]
            assert await heard(notifications, 50) == expected

    @pytest.mark.parametrize("channel", CHANNELS, ids=range(len(CHANNELS)))
    @behaviour(CONTRACT, ways="own")
    async def test_listening_takes_any_channel_name(self, db: Subject, channel: str) -> None:
        async with listening(db, channel) as notifications:
            await notify(db, channel, "x")
            assert await heard(notifications, 1) == [Notification(channel, "x")]

    @behaviour(CONTRACT, ways="own")
    async def test_listening_brings_any_payload(self, db: Subject) -> None:
        async with listening(db, "kit") as notifications:
            await notify(db, "kit", *PAYLOADS)
            found = await heard(notifications, len(PAYLOADS))
        assert found == [Notification("kit", payload) for payload in PAYLOADS]

    @behaviour(CONTRACT, ways="own")
    async def test_listening_to_several_channels(self, db: Subject) -> None:
        """And to no others."""
        async with listening(db, "kit_a", "kit_b") as notifications:
            for channel in ("kit_a", "kit_other", "kit_b", "kit_a"):
                await notify(db, channel, "x")
            found = [each.channel for each in await heard(notifications, 3)]
        assert found == ["kit_a", "kit_b", "kit_a"]

    @behaviour(CONTRACT, ways="own")
    async def test_listening_waits_for_the_commit(self, db: Subject) -> None:
        async with listening(db, "kit") as notifications:
            async with entered(db.session(transaction=True)) as session:
                await session.sql("select pg_notify('kit', 'first')")
                await notify(db, "kit", "second")
            found = [each.payload for each in await heard(notifications, 2)]
        assert found == ["second", "first"]

    @behaviour(CONTRACT, ways="own")
    async def test_listening_leaves_the_sessions_alone(self, db: Subject) -> None:
        """It has a connection of its own: sessions work beside it, and none of them listens."""
        async with listening(db, "kit"):
            for _ in range(8):
                async with entered(db.session(transaction=True)) as session:
                    assert list(await session.sql("select pg_listening_channels()")) == []

    @behaviour(CONTRACT, ways="own")
    async def test_listening_leaves_nothing_behind(self, db: Subject) -> None:
        """However the block ends: no connection of the pool's listens afterwards."""
        for error in (None, ZeroDivisionError(), None):
            with contextlib.suppress(ZeroDivisionError):
                async with listening(db, "kit"):
                    if error is not None:
                        raise error
        channels = await asyncio.gather(
            *(db.sql("select pg_listening_channels() from pg_sleep(0.05)") for _ in range(4))
        )
        assert [list(each) for each in channels] == [[]] * 4
        sql = (
            "select count(*) = 0 from pg_stat_activity where datname = current_database()"
            " and query ilike 'listen%' and pid <> pg_backend_pid()"
        )

        async def nobody_listens() -> bool:
            return bool((await db.outside(sql))[0][0])

        await db.eventually("no connection has LISTEN for its last statement", nobody_listens)

    @behaviour(CONTRACT, ways="own")
    async def test_listening_may_begin_again(self, db: Subject) -> None:
        """Each block hears what is said while it lasts, and nothing from before."""
        for n in range(3):
            async with listening(db, "kit") as notifications:
                await notify(db, "kit", f"inside {n}")
                found = await heard(notifications, 1)
            assert found == [Notification("kit", f"inside {n}")]
            await notify(db, "kit", f"outside {n}")

    @behaviour(6, CONTRACT, ways="own")
    async def test_listening_tells_of_a_lost_connection(self, db: Subject) -> None:
        """The iterator raises ConnectionLost, soon; a new block works."""
        async with listening(db, "kit") as notifications:
            await notify(db, "kit", "before")
            assert await heard(notifications, 1) == [Notification("kit", "before")]
            lost = asyncio.create_task(assert_lost(notifications))
            await asyncio.sleep(0)
            await terminate_all(db)
            await lost
        async with listening(db, "kit") as notifications:
            await notify(db, "kit", "after")
            assert await heard(notifications, 1) == [Notification("kit", "after")]

    @behaviour(6, CONTRACT, ways="own")
    async def test_listening_tells_of_a_connection_lost_before_it_was_asked(
        self, db: Subject
    ) -> None:
        async with listening(db, "kit") as notifications:
            await terminate_all(db)
            await assert_lost(notifications)

    @behaviour(6, CONTRACT, ways="own")
    async def test_listening_in_vain_is_connection_failed(self, db: Subject) -> None:
        dsn = "postgresql://kit@127.0.0.1:1/kit?connect_timeout=3"
        subject = db.another(db.adapter.connector(dsn), dsn)
        with pytest.raises(errors.ConnectionFailed):
            await subject.open()
            async with listening(subject, "kit"):
                pass

    @behaviour(CONTRACT, ways="own")
    async def test_listening_to_many_at_once(self, db: Subject) -> None:
        """Two listeners of one connector hear the same."""
        async with listening(db, "kit") as one, listening(db, "kit") as two:
            await notify(db, "kit", "x")
            found: Sequence[list[Notification]] = [await heard(one, 1), await heard(two, 1)]
        assert found == [[Notification("kit", "x")]] * 2
