"""Workers: on every connector that can run one, and in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procrastinate
from procrastinate.testing import InMemoryConnector

APP = Path(__file__).with_name("crash_app.py")


@pytest.fixture(params=["postgresql", "memory"])
async def any_app(request: pytest.FixtureRequest) -> AsyncIterator[procrastinate.App]:
    """An open app, on aiopg and in memory."""
    if request.param == "memory":
        connector: procrastinate.connectors.Connector = InMemoryConnector()
    else:
        dsn = request.getfixturevalue("dsn")
        connector = procrastinate.AiopgConnector(dsn=dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        yield app


@pytest.fixture
def start(dsn: str) -> Iterator[Any]:
    """Start a worker of `crash_app` in a process of its own, with these options."""
    started: list[subprocess.Popen[str]] = []

    def run(**options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(APP), dsn, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def once() -> Callable[[procrastinate.App, str, Callable[[], Awaitable[None]]], Callable[[], int]]:
    """Await something before the first flow of a name; what is returned says how many there were.

    If it raises, that flow fails with it.
    """

    def before_first(
        app: procrastinate.App, name: str, do: Callable[[], Awaitable[None]]
    ) -> Callable[[], int]:
        run, runs = app._gateway.run_async, 0

        async def run_async(flow: Any, **options: Any) -> Any:
            nonlocal runs
            if flow.__name__ == name:
                runs += 1
                if runs == 1:
                    try:
                        await do()
                    except BaseException:
                        flow.close()
                        raise
            return await run(flow, **options)

        app._gateway.run_async = run_async  # type: ignore[method-assign]
        return lambda: runs

    return before_first
