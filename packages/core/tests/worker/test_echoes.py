"""What a worker hears of its own writes does not make it look twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import procrastinate
from procrastinate.worker.claiming import claiming
from procrastinate.worker.writing.echoes import Echoes


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


async def test_a_worker_takes_what_it_hears_of_its_own_releases_for_echoes(
    app: procrastinate.App, query: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lock is given up 40 times, most often with parked jobs in its line."""
    monkeypatch.setattr(claiming, "LINES_EXPECTED_FOR", 0.0)  # else it is handed over
    expected: list[str] = []
    heard: list[bool] = []
    expect, take = Echoes.expect, Echoes.take

    def expecting(self: Echoes, queues: Sequence[str]) -> None:
        expected.extend(queues)
        expect(self, queues)

    def taking(self: Echoes, queue: str) -> bool:
        heard.append(take(self, queue))
        return heard[-1]

    monkeypatch.setattr(Echoes, "expect", expecting)
    monkeypatch.setattr(Echoes, "take", taking)

    @app.task(name="in_line", lock="line")
    async def in_line() -> None:
        pass

    async with app.worker(concurrency=2):  # it listens when the block is entered
        await in_line.batch_defer_async(*[{}] * 40)
        await until(
            lambda: (
                query("select count(*) from procrastinate_jobs where status = 'succeeded'")
                == [(40,)]
                and heard.count(True) == len(expected)
            )
        )
    assert len(expected) > 20
    assert heard.count(False) <= 1  # of the deferred jobs
