"""The applications in examples/ do what their pages say: real servers, workers and requests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from examples import Example, Process, free_port, request, wait_until
from readers import environment

pytestmark = pytest.mark.slow

Ask = Callable[..., tuple[int, Any]]

MUG = {"item": "mug", "quantity": 1, "email": "ann@example.org"}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def ask(port: int) -> Ask:
    """Send a request to the server."""
    return lambda method, path, body=None: request(port, method, path, body)


def answers(ask: Ask, path: str, **expected: Any) -> bool:
    """Whether a page's JSON has these values."""
    status, found = ask("GET", path)
    assert status == 200, found
    return {name: found[name] for name in expected} == expected


# --- Flask and SQLAlchemy -------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, procrastinate_dsn: str) -> Example:
    """The shop with its tables."""
    example = Example("flask-sqlalchemy", tmp_path, environment(procrastinate_dsn))
    example.run("python -m shop.database")
    example.run("procrastinate --app=shop.tasks.app schema")
    return example


@pytest.fixture
def shop_server(shop: Example, port: int, ask: Ask) -> Iterator[Process]:
    with shop.running("gunicorn", shows="Booting worker", port=port) as server:
        wait_until(lambda: answers_at_all(ask, "/orders/1"))
        yield server


def answers_at_all(ask: Ask, path: str) -> bool:
    try:
        return ask("GET", path)[0] < 500
    except ConnectionError:
        return False


def shop_worker(shop: Example) -> Any:
    return shop.running("procrastinate --app=shop.worker.app worker", shows="starts: queues")


def test_an_order_is_confirmed_by_a_worker(shop: Example, shop_server: Process, ask: Ask):
    status, placed = ask("POST", "/orders", MUG)
    order, job = f"/orders/{placed['order']}", f"/jobs/{placed['job']}"
    assert status == 202
    assert ask("GET", job) == (200, {"status": "todo", "attempts": 0, "last_error": None})
    assert ask("GET", order) == (200, {"item": "mug", "quantity": 1, "confirmed_at": None})
    with shop_worker(shop) as worker:
        wait_until(lambda: answers(ask, job, status="succeeded", attempts=1))
        assert not answers(ask, order, confirmed_at=None)
        assert "mail to ann@example.org: Your order 1: 1 x mug" in worker.output
        assert worker.stop() == 0
    assert shop_server.stop() == 0


def test_an_order_that_is_rolled_back_leaves_no_job(shop: Example, shop_server: Process, ask: Ask):
    assert ask("POST", "/orders", MUG | {"quantity": 11})[0] == 409
    assert ask("GET", "/orders/1")[0] == 404
    assert ask("GET", "/jobs/1")[0] == 404
    # Both had been inserted: the ids that they had are not used again.
    assert ask("POST", "/orders", MUG) == (202, {"order": 2, "job": 2})
    with shop_worker(shop) as worker:
        wait_until(lambda: answers(ask, "/jobs/2", status="succeeded"))
        assert worker.stop() == 0
        assert worker.output.count("mail to") == 1


def test_a_mail_that_cannot_be_sent_is_tried_again(shop: Example, shop_server: Process, ask: Ask):
    ask("POST", "/orders", MUG | {"email": "ann@nowhere"})
    with shop_worker(shop) as worker:
        wait_until(lambda: answers(ask, "/jobs/1", last_error="there is no way to ann@nowhere"))
        assert answers(ask, "/jobs/1", status="todo", attempts=1)
        assert answers(ask, "/orders/1", confirmed_at=None)
        assert worker.stop() == 0


# --- Starlette and aiopg --------------------------------------------------------------------------


@pytest.fixture
def reports(tmp_path: Path, procrastinate_dsn: str) -> Example:
    """The reports with their tables."""
    example = Example("starlette-aiopg", tmp_path, environment(procrastinate_dsn))
    example.run("python -m reports.database")
    example.run("procrastinate --app=reports.tasks.app schema")
    return example


@pytest.fixture
def reports_server(reports: Example, port: int) -> Iterator[Process]:
    with reports.running("uvicorn", shows="Uvicorn running on", port=port) as server:
        yield server


def reports_worker(reports: Example) -> Any:
    return reports.running("python -m reports.worker", shows="starts: queues")


def test_a_report_is_written_by_a_worker(reports: Example, reports_server: Process, ask: Ask):
    assert ask("POST", "/reports", {"title": "Sales", "pages": 5}) == (202, {"report": 1, "job": 1})
    waiting = {"title": "Sales", "pages": 5, "written": 0, "job": "todo", "attempts": 0}
    assert ask("GET", "/reports/1") == (200, waiting)
    with reports_worker(reports) as worker:
        wait_until(lambda: answers(ask, "/reports/1", job="succeeded", written=5, attempts=1))
        assert ask("DELETE", "/reports/1")[0] == 409
        assert worker.stop() == 0
    # uvicorn ends gracefully, and then passes the signal on to itself.
    assert reports_server.stop() == -signal.SIGTERM
    assert "Application shutdown complete" in reports_server.output


def test_a_report_is_called_off_while_it_waits_and_while_it_is_written(
    reports: Example, reports_server: Process, ask: Ask
):
    for _ in range(2):
        ask("POST", "/reports", {"title": "Everything", "pages": 100_000})
    assert ask("DELETE", "/reports/1")[0] == 202
    assert answers(ask, "/reports/1", job="cancelled", written=0)
    with reports_worker(reports) as worker:
        wait_until(lambda: not answers(ask, "/reports/2", written=0))
        assert ask("DELETE", "/reports/2")[0] == 202
        wait_until(lambda: answers(ask, "/reports/2", job="aborted", attempts=1))
        assert worker.stop() == 0
    assert answers(ask, "/reports/1", job="cancelled", written=0)


def test_a_report_goes_on_where_a_stopped_worker_left_it(
    reports: Example, reports_server: Process, ask: Ask
):
    ask("POST", "/reports", {"title": "Long", "pages": 200})
    with reports_worker(reports) as worker:
        wait_until(lambda: not answers(ask, "/reports/1", written=0))
        worker.ask_to_stop()
        worker.wait_for("stopping: no more jobs")
        assert worker.stop() == 0  # a second signal means "now"
    _, left = ask("GET", "/reports/1")
    assert (left["job"], left["attempts"]) == ("todo", 1)
    assert 0 < left["written"] < 200
    with reports_worker(reports) as worker:
        wait_until(lambda: answers(ask, "/reports/1", job="succeeded", attempts=2, written=200))
        assert worker.stop() == 0
