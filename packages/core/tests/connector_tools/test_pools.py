"""Pools over connections that are numbers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from procrastinate.connector_tools.pools import AsyncPool, WaitingPool
from procrastinate.errors import AppNotOpen, ConnectionFailed, PoolTimeout


class Maker:
    """Makes connections 1, 2, 3, ... and knows which are closed, and which have died."""

    def __init__(self) -> None:
        self.made = 0
        self.closed: list[int] = []
        self.dead: set[int] = set()
        self.refuses = False

    def connect(self) -> int:
        if self.refuses:
            raise ConnectionFailed("no")
        self.made += 1
        return self.made

    async def connect_async(self) -> int:
        return self.connect()

    def is_good(self, connection: int) -> bool:
        return connection not in self.dead


class Waited:
    """A pool for threads with the methods of the asynchronous one, so that a test is one text."""

    def __init__(self, pool: WaitingPool[int]) -> None:
        self.pool = pool
        self.release, self.discard_idle, self.close = pool.release, pool.discard_idle, pool.close

    async def fill(self) -> None:
        self.pool.fill()

    async def acquire(self, timeout: float | None = None) -> int:
        return await asyncio.to_thread(self.pool.acquire, timeout)


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture(params=["threads", "loop"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def pool_of(kind: str, maker: Maker, **options: Any) -> Any:
    options = {"minimum": 1, "maximum": 2, "timeout": 30.0, **options}
    common: Any = {"close": maker.closed.append, "is_good": maker.is_good, **options}
    if kind == "threads":
        return Waited(WaitingPool(maker.connect, **common))
    return AsyncPool(maker.connect_async, **common)


async def test_the_first_ones_are_made_at_once_and_used_again(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, minimum=2)
    await pool.fill()
    assert maker.made == 2
    first = await pool.acquire()
    pool.release(first)
    assert await pool.acquire() == first
    assert maker.made == 2


async def test_a_pool_in_use_makes_its_users_wait_and_then_raises(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, maximum=1, size_option="most")
    await pool.fill()
    await pool.acquire()
    with pytest.raises(PoolTimeout, match=r"all 1 .* for 0 seconds: raise most or pool_timeout"):
        await pool.acquire(0.0)


async def test_a_waiter_gets_what_comes_back(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, maximum=1)
    connection = await pool.acquire()
    waiter = asyncio.ensure_future(pool.acquire())
    await asyncio.sleep(0)
    pool.release(connection)
    assert await waiter == connection


async def test_a_waiter_makes_another_where_one_was_discarded(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, maximum=1)
    connection = await pool.acquire()
    waiter = asyncio.ensure_future(pool.acquire())
    await asyncio.sleep(0)
    pool.release(connection, discard=True)
    assert await waiter == connection + 1
    assert maker.closed == [connection]


async def test_dead_ones_are_replaced(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, minimum=2)
    await pool.fill()
    maker.dead = {1, 2}
    assert await pool.acquire() == 3
    assert sorted(maker.closed) == [1, 2]


async def test_a_refusal_leaves_room_for_the_next_one(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, minimum=0, maximum=1)
    maker.refuses = True
    with pytest.raises(ConnectionFailed):
        await pool.acquire()
    maker.refuses = False
    assert await pool.acquire() == 1


async def test_idle_ones_can_be_closed(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, minimum=2)
    await pool.fill()
    used = await pool.acquire()
    pool.discard_idle()
    assert maker.closed == [3 - used]
    pool.release(used)
    assert await pool.acquire() == used


async def test_a_closed_pool_gives_nothing(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker)
    await pool.fill()
    pool.close()
    assert maker.closed == [1]
    with pytest.raises(AppNotOpen):
        await pool.acquire()


async def test_who_waits_when_it_is_closed_hears_of_it(kind: str, maker: Maker) -> None:
    pool = pool_of(kind, maker, maximum=1)
    used = await pool.acquire()
    waiter = asyncio.ensure_future(pool.acquire())
    await asyncio.sleep(0)
    pool.close()
    with pytest.raises(AppNotOpen):
        await waiter
    pool.release(used)
    assert used in maker.closed


async def test_what_a_cancelled_waiter_was_given_goes_to_the_next(maker: Maker) -> None:
    pool = pool_of("loop", maker, maximum=1)
    connection = await pool.acquire()
    first, second = (asyncio.ensure_future(pool.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    pool.release(connection)
    first.cancel()
    assert await second == connection
    assert first.cancelled()


async def test_a_loop_s_pool_without_a_limit_makes_any_number(maker: Maker) -> None:
    pool = pool_of("loop", maker, maximum=0)
    assert [await pool.acquire() for _ in range(20)] == list(range(1, 21))


def test_a_failed_fill_closes_what_was_made() -> None:
    maker = Maker()

    def connect() -> int:
        maker.refuses = maker.made == 1
        return maker.connect()

    pool = WaitingPool(
        connect,
        close=maker.closed.append,
        is_good=maker.is_good,
        minimum=2,
        maximum=2,
        timeout=None,
    )
    with pytest.raises(ConnectionFailed):
        pool.fill()
    assert maker.closed == [1]


def test_a_renewed_pool_has_a_lock_and_connections_of_its_own(maker: Maker) -> None:
    pool: WaitingPool[int] = pool_of("threads", maker, maximum=1).pool
    assert pool.acquire() == 1
    with pool._freed:
        assert pool.renewed().acquire(0.0) == 2


def test_many_threads_share_few_connections(maker: Maker) -> None:
    pool: WaitingPool[int] = pool_of("threads", maker, maximum=3, timeout=None).pool
    seen: list[int] = []
    in_use: set[int] = set()

    def use() -> None:
        for _ in range(200):
            connection = pool.acquire()
            assert connection not in in_use
            in_use.add(connection)
            seen.append(connection)
            in_use.discard(connection)
            pool.release(connection)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 * 200
    assert set(seen) <= {1, 2, 3}
