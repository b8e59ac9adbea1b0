"""What a worker hears of its own writes does not make it look twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate
from procrastinate.connector import Query, Rows
from procrastinate.worker.echoes import Echoes
from procrastinate_aiopg.sessions import Session

Run = Callable[..., list[tuple[Any, ...]]]


def test_each_expected_notification_is_taken_once() -> None:
    echoes = Echoes()
    echoes.expect(["a", "b"])
    echoes.expect(["a"])
    assert [echoes.take(queue) for queue in "abcaab"] == [True, True, False, True, False, False]


def test_what_was_forgotten_is_news_again() -> None:
    echoes = Echoes()
    echoes.expect(["a"])
    echoes.forget()
    assert not echoes.take("a")


async def test_a_step_of_a_line_takes_one_claim(
    app: procrastinate.App, query: Run, working: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 jobs of one lock: the worker heard of each lock that it gave up, and claimed again."""
    counted: Counter[str] = Counter()
    execute = Session.execute

    async def counting(self: Session, each: Query, /) -> Rows:
        counted[each.name] += 1
        return await execute(self, each)

    monkeypatch.setattr(Session, "execute", counting)

    @app.task(name="in_line", lock="line")
    async def in_line() -> None:
        pass

    await in_line.batch_defer_async(*[{}] * 40)
    async with working(app, concurrency=2):
        await until(
            lambda: (
                query("select count(*) from procrastinate_jobs where status = 'succeeded'")
                == [(40,)]
            )
        )
    claims = sum(count for name, count in counted.items() if name.startswith("claim_"))
    looks = counted["any_ready"] + counted["ready_queues"]
    assert counted["release_locks"] == 40
    assert claims + looks < 60, counted
