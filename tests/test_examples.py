"""The applications in examples/ do what their pages say: real servers, workers and requests."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from examples import ROOT, Example, Process, free_port, request, wait_until
from packaging.requirements import Requirement
from psycopg2.extensions import make_dsn
from readers import environment

from procrastinate_embedded import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLES = ROOT / "examples"
Ask = Callable[..., tuple[int, Any]]

MUG = {"item": "mug", "quantity": 1, "email": "ann@example.org"}


def application(name: str, folder: Path, server: Server, *commands: str) -> Iterator[Example]:
    """Give an example a database of its own, and run the commands that make its tables."""
    with server.database() as dsn:
        example = Example(name, folder, environment(dsn))
        for command in commands:
            example.run(command)
        yield example


def answers(ask: Ask, path: str, **expected: Any) -> bool:
    """Whether a page's JSON has these values."""
    status, found = ask("GET", path)
    assert status == 200, found
    return {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_what_an_example_asks_for_is_what_it_is_run_with(name: str):
    for line in (EXAMPLES / name / "requirements.txt").read_text("utf-8").splitlines():
        requirement = Requirement(line)
        assert requirement.specifier.contains(metadata.version(requirement.name)), line


# --- Flask and SQLAlchemy -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, procrastinate_server: Server
) -> Iterator[Example]:
    """The shop with its tables."""
    yield from application(
        "flask-sqlalchemy",
        tmp_path_factory.mktemp("shop"),
        procrastinate_server,
        "python -m shop.database",
        "procrastinate --app=shop.tasks.app schema",
    )


@pytest.fixture(scope="module")
def ask_shop(shop: Example) -> Iterator[Ask]:
    """The shop's server, to be asked; it ends well."""
    port = free_port()
    ask = partial(request, port)
    with shop.running("gunicorn", shows="Booting worker", port=port) as server:
        wait_until(lambda: answers_at_all(ask, "/orders/1"))
        yield ask
        assert server.stop() == 0


def answers_at_all(ask: Ask, path: str) -> bool:
    try:
        return ask("GET", path)[0] < 500
    except ConnectionError:
        return False


def shop_worker(shop: Example) -> Any:
    return shop.running("procrastinate --app=shop.worker.app worker", shows="starts: queues")


def test_an_order_is_confirmed_by_a_worker(shop: Example, ask_shop: Ask):
    status, placed = ask_shop("POST", "/orders", MUG)
    order, job = f"/orders/{placed['order']}", f"/jobs/{placed['job']}"
    assert status == 202
    assert ask_shop("GET", job) == (200, {"status": "todo", "attempts": 0, "last_error": None})
    assert ask_shop("GET", order) == (200, {"item": "mug", "quantity": 1, "confirmed_at": None})
    with shop_worker(shop) as worker:
        wait_until(lambda: answers(ask_shop, job, status="succeeded", attempts=1))
        assert not answers(ask_shop, order, confirmed_at=None)
        sent = f"mail to ann@example.org: Your order {placed['order']}: 1 x mug"
        assert sent in worker.output
        assert worker.stop() == 0


def test_an_order_that_is_rolled_back_leaves_no_job(shop: Example, ask_shop: Ask):
    _, before = ask_shop("POST", "/orders", MUG)
    assert ask_shop("POST", "/orders", MUG | {"quantity": 11})[0] == 409
    _, after = ask_shop("POST", "/orders", MUG)
    # Order and job had been inserted: their ids are used up.
    assert after == {"order": before["order"] + 2, "job": before["job"] + 2}
    assert ask_shop("GET", f"/orders/{before['order'] + 1}")[0] == 404
    assert ask_shop("GET", f"/jobs/{before['job'] + 1}")[0] == 404
    with shop_worker(shop) as worker:
        wait_until(lambda: answers(ask_shop, f"/jobs/{after['job']}", status="succeeded"))
        assert worker.stop() == 0
        assert worker.output.count("mail to") == 2


def test_an_order_that_cannot_be_is_refused(ask_shop: Ask):
    assert ask_shop("POST", "/orders", {"item": "mug"})[0] == 400
    assert ask_shop("POST", "/orders", MUG | {"quantity": -1})[0] == 400


def test_a_mail_that_cannot_be_sent_is_tried_again(shop: Example, ask_shop: Ask):
    _, placed = ask_shop("POST", "/orders", MUG | {"email": "ann@nowhere"})
    job = f"/jobs/{placed['job']}"
    with shop_worker(shop) as worker:
        wait_until(lambda: answers(ask_shop, job, last_error="there is no way to ann@nowhere"))
        assert worker.stop() == 0
    assert answers(ask_shop, f"/orders/{placed['order']}", confirmed_at=None)
    assert ask_shop("GET", job)[1]["status"] == "todo"


# --- Django ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orders(
    tmp_path_factory: pytest.TempPathFactory, procrastinate_server: Server
) -> Iterator[Example]:
    """The orders with their tables, and with connections that are kept: these can break."""
    folder = tmp_path_factory.mktemp("orders")
    for example in application("django", folder, procrastinate_server, "python manage.py migrate"):
        (example.folder / "keeping.py").write_text(
            "from project.settings import *\nDATABASES['default']['CONN_MAX_AGE'] = None\n"
        )
        example.environment["DJANGO_SETTINGS_MODULE"] = "keeping"
        yield example


@pytest.fixture(scope="module")
def ask_orders(orders: Example) -> Iterator[Ask]:
    port = free_port()
    ask = partial(request, port)
    with orders.running("gunicorn", shows="Booting worker", port=port) as server:
        wait_until(lambda: answers_at_all(ask, "/orders/1"))
        yield ask
        assert server.stop() == 0


def orders_worker(orders: Example) -> Any:
    return orders.running("python manage.py procrastinate worker", shows="starts: queues")


def ask_again(ask: Ask, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Ask, and again if that was the first request on a connection that the test before broke.

    Each of the server's two processes has kept one. The tests may run in any order.
    """
    status, said = ask(method, path, body)
    for _ in range(2):
        if status == 500:
            status, said = ask(method, path, body)
    return status, said


def place_order(ask: Ask, item: str = "mug") -> int:
    status, placed = ask_again(ask, "POST", "/orders", MUG | {"item": item})
    assert status == 202
    return int(placed["order"])


def await_orders(ask: Ask, *numbers: int) -> None:
    """Wait until a plain task has confirmed each order, and a coroutine has weighed it."""

    def has_both(number: int) -> bool:
        status, order = ask("GET", f"/orders/{number}")
        return status == 200 and bool(order["confirmed_at"] and order["weighed_at"])

    for number in numbers:
        wait_until(partial(has_both, number))


def test_orders_of_django_are_written_with_their_jobs(orders: Example, ask_orders: Ask):
    ask = partial(ask_again, ask_orders)
    _, first = ask("POST", "/orders", MUG)
    assert ask("POST", "/orders", MUG | {"quantity": 11})[0] == 409
    second = {"order": first["order"] + 2, "job": first["job"] + 4}  # the refused one took numbers
    assert ask("POST", "/orders", MUG) == (202, second)
    assert ask("GET", f"/orders/{first['order'] + 1}")[0] == 404
    with orders_worker(orders) as worker:
        await_orders(ask, first["order"], second["order"])
        assert worker.stop() == 0
        assert worker.output.count("mail to ann@example.org: 1 x mug") == 2


def test_tasks_that_use_the_orm_go_on_after_the_database_was_away(
    orders: Example, ask_orders: Ask, procrastinate_server: Server
):
    """Plain functions and coroutines, on connections that Django keeps for ever."""
    with orders_worker(orders) as worker:
        await_orders(ask_orders, place_order(ask_orders))
        with away(orders, procrastinate_server):
            assert not answers_at_all(ask_orders, "/orders/1")
        # Each thread of the worker meets what it had kept.
        await_orders(ask_orders, *[place_order(ask_orders) for _ in range(8)])
        assert worker.stop() == 0
        assert "django.db.utils" not in worker.output


@contextlib.contextmanager
def away(example: Example, server: Server) -> Iterator[None]:
    """Take the database away as a restart does: sessions end, and new ones are refused."""
    name = example.environment["PGDATABASE"]
    with contextlib.closing(psycopg2.connect(server.dsn)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f'alter database "{name}" allow_connections false')
        try:
            cursor.execute(
                "select pg_terminate_backend(pid, 30000) from pg_stat_activity where datname = %s",
                (name,),
            )
            yield
        finally:
            cursor.execute(f'alter database "{name}" allow_connections true')


def test_a_worker_of_django_runs_what_a_changed_file_says(orders: Example, ask_orders: Ask):
    """In development: ``manage.py procrastinate worker --reload``."""
    tasks = orders.folder / "orders" / "tasks.py"
    before = tasks.read_text("utf-8")
    command = [*orders.documented("python manage.py procrastinate worker"), "--reload"]
    worker = Process(command, orders.folder, orders.environment)
    try:
        worker.wait_for("starts: queues")
        changed = tasks.with_suffix(".new")
        changed.write_text(before.replace('"mail to %s', '"letter to %s'), "utf-8")
        changed.replace(tasks)  # at once: a worker that starts must not read half of it
        worker.wait_for("tasks.py changed: reloading")
        wait_until(lambda: worker.output.count("starts: queues") >= 2)
        place_order(ask_orders)
        worker.wait_for("letter to ann@example.org")
        assert worker.stop() == 0
    finally:
        worker.kill()
        tasks.write_text(before, "utf-8")


def test_the_admin_and_the_dashboard_of_django_show_the_jobs(orders: Example):
    orders.run("env DJANGO_SUPERUSER_PASSWORD=correct-horse")
    port = free_port()
    with (
        orders.running("gunicorn", shows="Booting worker", port=port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as browser,
    ):
        wait_until(lambda: answers_at_all(partial(request, port), "/orders/1"))
        place_order(partial(request, port), "pot")  # which a worker of another test may run
        assert "Log in" in browser.get("/queue/").text
        form = {"username": "ann", "password": "correct-horse", "next": "/queue/"}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        dashboard = browser.post("/admin/login/", data=form)
        assert str(dashboard.url).endswith("/queue/")
        for page in ("/queue/jobs", "/admin/procrastinate_django/job/"):
            assert "orders.tasks.confirm" in browser.get(page).text, page


# --- Starlette and aiopg --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, procrastinate_server: Server
) -> Iterator[Example]:
    """The reports with their tables."""
    yield from application(
        "starlette-aiopg",
        tmp_path_factory.mktemp("reports"),
        procrastinate_server,
        "python -m reports.database",
        "procrastinate --app=reports.tasks.app schema",
    )


@pytest.fixture(scope="module")
def ask_reports(reports: Example) -> Iterator[Ask]:
    """The reports' server, to be asked; it ends well."""
    port = free_port()
    with reports.running(
        "uvicorn reports.web:web", shows="Uvicorn running on", port=port
    ) as server:
        yield partial(request, port)
        # It ends gracefully, and then passes the signal on to itself.
        assert server.stop() == -signal.SIGTERM
        assert "Application shutdown complete" in server.output


def test_a_report_is_written_in_the_servers_own_process(reports: Example):
    port = free_port()
    command = "uvicorn reports.together:web"
    with reports.running(command, shows="Uvicorn running on", port=port) as server:
        ask = partial(request, port)
        report = ordered(ask, "Sales", 5)
        wait_until(lambda: answers(ask, report, job="succeeded", written=5, attempts=1))
        long = ordered(ask, "Long", 50)
        wait_until(lambda: not answers(ask, long, written=0))
        assert server.stop() == -signal.SIGTERM  # which it passes on to itself at its end
        assert "Application shutdown complete" in server.output
    with reports.running("uvicorn reports.web:web", shows="Uvicorn running on", port=port):
        # Its job came to its end before the server did.
        assert answers(ask, long, job="succeeded", written=50, attempts=1)


def reports_worker(reports: Example) -> Any:
    return reports.running("python -m reports.worker", shows="starts: queues")


def ordered(ask: Ask, title: str, pages: int) -> str:
    """Order a report; return the path of its page."""
    status, placed = ask("POST", "/reports", {"title": title, "pages": pages})
    assert status == 202
    return f"/reports/{placed['report']}"


def test_a_report_is_written_by_a_worker(reports: Example, ask_reports: Ask):
    report = ordered(ask_reports, "Sales", 5)
    waiting = {"title": "Sales", "pages": 5, "written": 0, "job": "todo", "attempts": 0}
    assert ask_reports("GET", report) == (200, waiting)
    with reports_worker(reports) as worker:
        wait_until(lambda: answers(ask_reports, report, job="succeeded", written=5, attempts=1))
        assert ask_reports("DELETE", report)[0] == 409
        assert worker.stop() == 0


def test_a_report_that_cannot_be_is_refused(ask_reports: Ask):
    assert ask_reports("POST", "/reports", {"title": "Sales", "pages": "many"})[0] == 400
    assert ask_reports("GET", "/reports/1000")[0] == 404


def test_a_report_is_called_off_while_it_waits_and_while_it_is_written(
    reports: Example, ask_reports: Ask
):
    waiting = ordered(ask_reports, "Everything", 100_000)
    running = ordered(ask_reports, "Everything", 100_000)
    assert ask_reports("DELETE", waiting)[0] == 202
    assert answers(ask_reports, waiting, job="cancelled", written=0)
    with reports_worker(reports) as worker:
        wait_until(lambda: not answers(ask_reports, running, written=0))
        assert ask_reports("DELETE", running)[0] == 202
        wait_until(lambda: answers(ask_reports, running, job="aborted", attempts=1))
        assert worker.stop() == 0
    assert answers(ask_reports, waiting, job="cancelled", written=0)


def test_a_report_goes_on_where_a_stopped_worker_left_it(
    reports: Example, ask_reports: Ask, procrastinate_server: Server
):
    """aiopg may swallow an abortion: then the job is handed back, but its task goes on until then.

    So it has pages for longer than a worker waits. The second worker has a few.
    """
    report = ordered(ask_reports, "Long", 2_000)
    with reports_worker(reports) as worker:
        wait_until(lambda: not answers(ask_reports, report, written=0))
        worker.ask_to_stop()
        worker.wait_for("stopping: no more jobs")
        assert worker.stop() == 0  # a second signal means "now"
    _, left = ask_reports("GET", report)
    assert (left["job"], left["attempts"]) == ("todo", 1)
    assert 0 < left["written"] < 2_000, left
    end = left["written"] + 20
    dsn = make_dsn(procrastinate_server.dsn, dbname=reports.environment["PGDATABASE"])
    with contextlib.closing(psycopg2.connect(dsn)) as connection, connection:
        connection.cursor().execute("update reports set pages = %s where title = 'Long'", [end])
    with reports_worker(reports) as worker:
        wait_until(lambda: answers(ask_reports, report, job="succeeded", attempts=2, written=end))
        assert worker.stop() == 0


# --- FastAPI and asyncpg --------------------------------------------------------------------------

CONCERT = {
    "event": "Concert",
    "email": "ann@example.org",
    "begins_at": "2130-05-01T20:00:00+02:00",
}


@pytest.fixture(scope="module")
def bookings(
    tmp_path_factory: pytest.TempPathFactory, procrastinate_server: Server
) -> Iterator[Example]:
    """The bookings with their table."""
    yield from application(
        "fastapi-asyncpg",
        tmp_path_factory.mktemp("bookings"),
        procrastinate_server,
        "python -m bookings.database",
        "procrastinate --app=bookings.tasks.app schema",
    )


@pytest.fixture(scope="module")
def ask_bookings(bookings: Example) -> Iterator[Ask]:
    """The bookings' server, to be asked; it ends well."""
    port = free_port()
    command = "uvicorn bookings.web:web"
    with bookings.running(command, shows="Uvicorn running on", port=port) as server:
        yield partial(request, port)
        assert server.stop() == -signal.SIGTERM  # which it passes on to itself at its end
        assert "Application shutdown complete" in server.output


def bookings_worker(bookings: Example) -> Any:
    return bookings.running("python -m bookings.worker", shows="starts: queues")


def booked(ask: Ask, **changes: str) -> dict[str, int]:
    """Book a seat; return the numbers of the booking and its jobs."""
    status, placed = ask("POST", "/bookings", CONCERT | changes)
    assert status == 202, placed
    numbers: dict[str, int] = placed
    return numbers


def test_a_ticket_is_sent_and_a_reminder_waits(bookings: Example, ask_bookings: Ask):
    placed = booked(ask_bookings)
    with bookings_worker(bookings) as worker:
        ticket = f"/jobs/{placed['ticket_job']}"
        wait_until(lambda: answers(ask_bookings, ticket, status="succeeded", attempts=1))
        assert "mail to ann@example.org: Your ticket for Concert" in worker.output
        assert worker.stop() == 0
    assert answers(ask_bookings, f"/jobs/{placed['reminder_job']}", status="todo", attempts=0)


def test_a_booking_that_is_called_off_cancels_its_reminder(ask_bookings: Ask):
    placed = booked(ask_bookings)
    assert ask_bookings("DELETE", f"/bookings/{placed['booking']}")[0] == 204
    assert answers(ask_bookings, f"/jobs/{placed['reminder_job']}", status="cancelled")
    assert ask_bookings("DELETE", f"/bookings/{placed['booking']}")[0] == 404


def test_a_booking_whose_request_fails_leaves_no_job(ask_bookings: Ask):
    before = booked(ask_bookings)
    # A day before that there is no time. Row and ticket have been inserted when it is found out.
    status, _ = ask_bookings("POST", "/bookings", CONCERT | {"begins_at": "0001-01-01T20:00:00Z"})
    assert status == 500
    after = booked(ask_bookings)
    assert after["booking"] > before["booking"] + 1  # it had been inserted: its number is used up
    assert ask_bookings("DELETE", f"/bookings/{before['booking'] + 1}")[0] == 404
    assert ask_bookings("GET", f"/jobs/{before['reminder_job'] + 1}")[0] == 404


def test_a_booking_that_cannot_be_is_refused(ask_bookings: Ask):
    assert ask_bookings("POST", "/bookings", CONCERT | {"event": ""})[0] == 422
    assert ask_bookings("POST", "/bookings", CONCERT | {"begins_at": "2030-05-01T20:00"})[0] == 422
    assert ask_bookings("GET", "/jobs/1000000")[0] == 404


def test_a_ticket_is_sent_in_the_servers_own_process(bookings: Example):
    port = free_port()
    command = "uvicorn bookings.together:web"
    with bookings.running(command, shows="Uvicorn running on", port=port) as server:
        ask = partial(request, port)
        placed = booked(ask)
        ticket = f"/jobs/{placed['ticket_job']}"
        wait_until(lambda: answers(ask, ticket, status="succeeded", attempts=1))
        assert server.stop() == -signal.SIGTERM
        assert "Application shutdown complete" in server.output
