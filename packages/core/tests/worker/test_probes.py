"""What a worker's HTTP port says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest

import procrastinate
from procrastinate import Observer
from procrastinate.errors import ConfigurationError, ConnectorBroken
from procrastinate.observing import exposing
from procrastinate.testing import InMemoryConnector
from procrastinate.worker.companions.companions import Companions
from procrastinate.worker.process import probes
from procrastinate.worker.process.http_port import Answer, HttpPort

Until = Callable[..., Awaitable[None]]


class Probed:
    def __init__(self, sick: tuple[str, ...] = (), hindered: tuple[str, ...] = ()) -> None:
        self.sicknesses = lambda: sick
        self.hindrances = lambda: hindered


def answer_of(probed: Any, path: str) -> Answer:
    found: Any = probes.routes(probed)[path]("")
    assert isinstance(found, Answer)
    return found


@pytest.mark.parametrize(
    "probed, healthz, readyz",
    [
        (Probed(), (200, b"ok\n"), (200, b"ok\n")),
        (Probed(hindered=("it stops",)), (200, b"ok\n"), (503, b"it stops\n")),
        (Probed(("a is dead", "b\n")), (503, b"a is dead\nb\\n\n"), (503, b"a is dead\nb\\n\n")),
    ],
)
def test_only_a_sick_worker_fails_the_probe_of_its_life(
    probed: Probed, healthz: tuple[int, bytes], readyz: tuple[int, bytes]
) -> None:
    for path, expected in ((probes.HEALTH, healthz), (probes.READY, readyz)):
        answer = answer_of(probed, path)
        assert (answer.status.value, answer.body) == expected


class Counting(Observer):
    def __init__(self) -> None:
        self.ended = 0
        self.busy: list[int] = []

    def on_ended(self, event: Any) -> None:
        self.ended += len(event.attempts)

    def on_busy(self, event: Any) -> None:
        self.busy.append(event.busy)


class Exposition:
    def __init__(self) -> None:
        self.counting = Counting()

    def observer(self) -> Observer:
        return self.counting

    def text(self, accept: str) -> tuple[str, bytes]:
        return "text/x", f"ended {self.counting.ended}\n".encode()


@pytest.fixture
def exposition(monkeypatch: pytest.MonkeyPatch) -> Exposition:
    found = Exposition()
    monkeypatch.setattr(exposing, "exposition", lambda: found)
    return found


@pytest.fixture
def no_exposition(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("procrastinate.connectors.entry_points", lambda group: {})
    exposing.exposition.cache_clear()
    yield
    exposing.exposition.cache_clear()


def test_without_a_package_metrics_say_what_to_install(no_exposition: None) -> None:
    answer = answer_of(Probed(), probes.METRICS)
    assert answer.status is HTTPStatus.NOT_FOUND
    assert b"pip install procrastinate-prometheus" in answer.body


@pytest.fixture
async def app() -> AsyncIterator[procrastinate.App]:
    async with procrastinate.App(connector=InMemoryConnector()).open_async() as app:
        yield app


async def get(path: str, ports: list[HttpPort]) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", ports[-1].port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[HttpPort]:
    """Return the ports that are opened."""
    opened: list[HttpPort] = []
    start = HttpPort.start

    def noted(port: HttpPort, **options: bool) -> None:
        opened.append(port)
        start(port, **options)

    monkeypatch.setattr(HttpPort, "start", noted)
    return opened


async def test_a_worker_answers_while_it_runs(
    app: procrastinate.App, ports: list[HttpPort], exposition: Exposition, until: Until
) -> None:
    go_on = asyncio.Event()

    @app.task
    async def work() -> None:
        await go_on.wait()

    await work.defer_async()
    async with app.worker(http_port=0):
        await until(lambda: exposition.counting.busy)
        go_on.set()
        await until(lambda: exposition.counting.ended)
        assert await get("/healthz", ports) == (200, "ok\n")
        assert await get("/readyz", ports) == (200, "ok\n")
        assert await get("/metrics", ports) == (200, "ended 1\n")
    assert exposition.counting.busy[0] == 1
    assert exposition.counting.busy[-1] == 0
    with pytest.raises(OSError, match=r"."):
        await get("/healthz", ports)


async def test_an_observer_that_the_app_has_counts_once(exposition: Exposition) -> None:
    app = procrastinate.App(connector=InMemoryConnector(), observers=[exposition.counting])

    @app.task
    async def work() -> None: ...

    async with app.open_async():
        await work.defer_async()
        await app.run_worker_async(wait=False, http_port=0)
    assert exposition.counting.ended == 1


async def test_a_worker_without_a_port_counts_nothing(
    app: procrastinate.App, exposition: Exposition
) -> None:
    @app.task
    async def work() -> None: ...

    await work.defer_async()
    await app.run_worker_async(wait=False)
    assert exposition.counting.ended == 0


async def test_a_port_that_is_taken_keeps_a_worker_from_starting(app: procrastinate.App) -> None:
    port = HttpPort("127.0.0.1", 0, {})
    try:
        with pytest.raises(ConfigurationError, match=f"cannot listen on port {port.port}"):
            await app.run_worker_async(wait=False, http_port=port.port)
    finally:
        port.close()
    assert await app.job_manager.list_workers_async() == []


async def test_a_package_of_metrics_that_is_broken_leaves_no_worker_behind(
    app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ConnectorBroken("metrics cannot be imported")

    monkeypatch.setattr(exposing, "exposition", broken)
    with pytest.raises(ConnectorBroken):
        await app.run_worker_async(wait=False, http_port=0)
    assert await app.job_manager.list_workers_async() == []


async def test_a_dead_companion_is_a_sickness(
    app: procrastinate.App, ports: list[HttpPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.worker(http_port=0):
        monkeypatch.setattr(Companions, "dead", lambda self: ["heartbeat"])
        found = await get("/healthz", ports)
        monkeypatch.undo()
    assert found == (503, "the thread of heartbeat is dead\n")


async def test_a_loop_that_does_not_turn_is_a_hindrance_and_then_a_sickness(
    app: procrastinate.App, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    async with app.worker() as worker:
        shift = worker._shift
        assert shift is not None
        await until(lambda: shift._crew.paused.is_known)
        assert (worker.sicknesses(), worker.hindrances()) == ([], [])
        monkeypatch.setattr(shift.health, "silence", lambda: 10.2)
        assert worker.sicknesses() == []
        assert worker.hindrances() == ["the event loop has not turned for 10 s"]
        monkeypatch.setattr(shift.health, "silence", lambda: 62.0)
        assert worker.sicknesses() == ["the event loop has not turned for 62 s"]
        assert worker.hindrances() == []


async def test_without_an_answer_to_its_sign_of_life_a_worker_is_not_ready(
    app: procrastinate.App, until: Until
) -> None:
    async with app.worker() as worker:
        shift = worker._shift
        assert shift is not None
        await until(lambda: shift._crew.paused.is_known)
        shift._crew.vitals.answered = False
        assert (worker.sicknesses(), worker.hindrances()) == ([], ["the database does not answer"])
        shift._crew.vitals.answered, shift._crew.paused.is_known = True, False
        assert worker.hindrances() == ["it was not read yet which queues are paused"]
        shift._crew.paused.is_known = True
    assert worker.hindrances() == ("the worker is not registered",)


async def test_threads_that_have_ended_with_the_worker_are_no_sickness(
    app: procrastinate.App,
) -> None:
    async with app.worker() as worker:
        shift = worker._shift
        assert shift is not None
    assert shift._companions.dead() == []


async def test_a_worker_that_stops_is_not_ready(app: procrastinate.App, until: Until) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    @app.task
    async def work() -> None:
        running.set()
        await go_on.wait()

    await work.defer_async()
    async with app.worker() as worker:
        await running.wait()
        worker.stop()
        await until(lambda: "the worker stops" in worker.hindrances())
        assert worker.sicknesses() == []
        go_on.set()


@pytest.mark.parametrize(
    "given", [{"http_port": -1}, {"http_port": 65_536}, {"http_port": "80"}, {"http_host": ""}]
)
def test_a_wrong_option_is_named(given: dict[str, Any]) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    with pytest.raises(procrastinate.InvalidOption, match=next(iter(given))):
        app.worker(**given)
