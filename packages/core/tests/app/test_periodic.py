"""Declaring periodic tasks: what is an error at once, and who knows of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate import Blueprint, errors
from procrastinate.testing import InMemoryConnector

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def memory() -> InMemoryConnector:
    """A connector whose clock stands at noon."""
    connector = InMemoryConnector()
    connector.clock.freeze(NOON)
    return connector


@pytest.fixture
def app(memory: InMemoryConnector) -> procrastinate.App:
    return procrastinate.App(connector=memory)


def after(app: procrastinate.App, memory: InMemoryConnector, **delta: float) -> list[Any]:
    """Let a worker see the schedules, move the clock, and return (name, arguments) of the jobs."""
    app.run_worker(wait=False, queues=["nobody's"])
    memory.clock.move(timedelta(**delta))
    app.run_worker(wait=False, queues=["nobody's"])
    return [(job.task_name, job.task_kwargs) for job in memory.jobs]


def at(**delta: float) -> int:
    return int((NOON + timedelta(**delta)).timestamp())


def test_the_decorator_returns_the_task_unchanged(app: procrastinate.App) -> None:
    @app.task(name="t")
    def task(timestamp: int) -> int:
        return timestamp

    assert app.periodic(cron="* * * * *")(task) is task
    assert (task(timestamp=3), task.name) == (3, "t")


def test_the_job_has_the_options_of_the_schedule_and_else_those_of_the_task(
    app: procrastinate.App, memory: InMemoryConnector
) -> None:
    @app.periodic(cron="0 * * * *", periodic_id="a", priority=5, lock=None, task_kwargs={"a": 1})
    @app.periodic(
        cron="30 * * * *", periodic_id="b", queue="other", queueing_lock="q", max_delay=3600
    )
    @app.task(name="t", queue="mine", priority=1, lock="l")
    def task(timestamp: int, a: int = 0) -> None: ...

    assert after(app, memory, hours=1) == [
        ("t", {"timestamp": at(minutes=30)}),
        ("t", {"a": 1, "timestamp": at(hours=1)}),
    ]
    columns = [(job.queue, job.priority, job.lock, job.queueing_lock) for job in memory.jobs]
    assert columns == [("other", 1, "l", "q"), ("mine", 5, None, None)]


def test_a_task_may_take_anything_by_name(
    app: procrastinate.App, memory: InMemoryConnector
) -> None:
    @app.periodic(cron="0 * * * *")
    @app.task(name="t", pass_context=True)
    def task(context: Any, **arguments: Any) -> None: ...

    assert after(app, memory, hours=1) == [("t", {"timestamp": at(hours=1)})]


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"cron": "61 * * * *"}, errors.InvalidOption, ["cron", "'61 * * * *'", "minute"]),
        ({"cron": "0 0 30 2 *"}, errors.InvalidOption, ["cron", "'0 0 30 2 *'"]),
        ({"cron": None}, errors.InvalidOption, ["cron", "None"]),
        ({"timezone": "Mars/Olympus"}, errors.InvalidOption, ["timezone", "'Mars/Olympus'"]),
        ({"periodic_id": 7}, errors.InvalidOption, ["periodic_id", "7"]),
        ({"periodic_id": "x" * 129}, errors.InvalidOption, ["periodic_id", "129"]),
        ({"periodic_id": "a\0"}, errors.InvalidOption, ["periodic_id", "NUL"]),
        ({"max_delay": 0}, errors.InvalidOption, ["max_delay", "0"]),
        ({"max_delay": True}, errors.InvalidOption, ["max_delay", "True"]),
        ({"max_delay": "5"}, errors.InvalidOption, ["max_delay", "'5'"]),
        ({"max_delay": float("nan")}, errors.InvalidOption, ["max_delay", "nan"]),
        ({"max_delay": 1e12}, errors.InvalidOption, ["max_delay", "1000 years"]),
        ({"schedule_in": {"hours": 1}}, errors.InvalidOption, ["schedule_in", "{'hours': 1}"]),
        ({"schedule_at": NOON}, errors.InvalidOption, ["schedule_at", "2030"]),
        ({"connection": "c"}, errors.InvalidOption, ["connection", "'c'"]),
        ({"every": 5}, errors.InvalidOption, ["every", "5", "known: cron"]),
        ({"queue": ""}, errors.InvalidOption, ["queue"]),
        ({"priority": "high"}, errors.InvalidOption, ["priority", "'high'"]),
        ({"lock": 1}, errors.InvalidOption, ["lock", "1"]),
        ({"queueing_lock": 1}, errors.InvalidOption, ["queueing_lock", "1"]),
        ({"task_kwargs": {"timestamp": 1}}, errors.InvalidOption, ["task_kwargs", "timestamp"]),
        ({"task_kwargs": [1]}, errors.InvalidArguments, ["[1]"]),
        ({"task_kwargs": {"b": 1}}, errors.InvalidArguments, ["'b'", "t(timestamp"]),
    ],
)
def test_bad_options_are_errors_at_definition_that_name_option_and_value(
    app: procrastinate.App,
    options: dict[str, Any],
    error: type[Exception],
    words: list[str],
) -> None:
    @app.task(name="t")
    def task(timestamp: int, a: int = 0) -> None: ...

    with pytest.raises(error) as caught:
        app.periodic(**{"cron": "* * * * *", **options})(task)
    assert [word for word in words if word not in str(caught.value)] == []
    app.periodic(cron="* * * * *")(task)  # nothing was registered


@pytest.mark.parametrize(
    "function",
    [lambda: None, lambda a: None, lambda timestamp, a: None, lambda timestamp, *, a: None],
)
def test_a_task_that_cannot_be_called_with_a_timestamp_is_an_error(
    app: procrastinate.App, function: Callable[..., Any]
) -> None:
    task = app.task(name="t")(function)
    with pytest.raises(errors.InvalidArguments, match=r"called with timestamp .* the task t\("):
        app.periodic(cron="* * * * *")(task)


def test_the_same_schedule_twice_is_an_error(app: procrastinate.App) -> None:
    @app.periodic(cron="* * * * *", periodic_id="a")
    @app.periodic(cron="* * * * *")
    @app.task(name="t")
    def task(timestamp: int) -> None: ...

    with pytest.raises(errors.InvalidOption, match=r"the task t has .* periodic_id 'a' already"):
        app.periodic(cron="5 * * * *", periodic_id="a")(task)


def test_the_decorators_in_the_wrong_order_are_an_error(app: procrastinate.App) -> None:
    with pytest.raises(errors.InvalidOption, match="stands above @task"):
        app.periodic(cron="* * * * *")(lambda timestamp: None)  # type: ignore[type-var]


def test_a_task_of_somebody_else_is_an_error(app: procrastinate.App) -> None:
    @Blueprint().task(name="theirs")
    def task(timestamp: int) -> None: ...

    with pytest.raises(errors.TaskNotFound, match="theirs"):
        app.periodic(cron="* * * * *")(task)


def test_arguments_that_are_not_json_are_an_error_of_the_worker_s_start(
    app: procrastinate.App,
) -> None:
    """Only there it is known how arguments are encoded."""

    @app.periodic(cron="* * * * *", task_kwargs={"a": object()})
    @app.task(name="t")
    def task(timestamp: int, a: Any) -> None: ...

    with pytest.raises(errors.InvalidArguments, match="'a' of task t is not JSON"):
        app.run_worker(wait=False)


# --- defaults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "defaults, words",
    [
        ({"max_delay": -1}, ["max_delay", "-1"]),
        ({"cron": "* * * * *"}, ["periodic_defaults", "'cron'", "'* * * * *'"]),
        ([1], ["periodic_defaults", "[1]"]),
    ],
)
def test_bad_defaults_are_errors(defaults: Any, words: list[str]) -> None:
    with pytest.raises(errors.InvalidOption) as caught:
        procrastinate.App(connector=InMemoryConnector(), periodic_defaults=defaults)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    "default, own, expected",
    [(None, None, 10), (120, None, 2), (120, 300, 5), (86400, None, 60)],
)
def test_max_delay_is_the_schedule_s_else_the_app_s_else_ten_minutes(
    memory: InMemoryConnector, default: float | None, own: float | None, expected: int
) -> None:
    defaults = None if default is None else {"max_delay": default}
    app = procrastinate.App(connector=memory, periodic_defaults=defaults)

    @app.periodic(cron="* * * * *", max_delay=own)
    @app.task(name="t")
    def task(timestamp: int) -> None: ...

    app.run_worker(wait=False)
    memory.clock.move(timedelta(hours=1, seconds=1))
    app.with_connector(memory).run_worker(wait=False)
    assert len(memory.jobs) == expected


# --- who knows of them ---------------------------------------------------------------------------


def test_a_blueprint_brings_its_schedules_along(
    app: procrastinate.App, memory: InMemoryConnector
) -> None:
    """Also through another blueprint, and under the names that the tasks get."""
    inner, outer = Blueprint(), Blueprint()

    @inner.periodic(cron="0 * * * *", task_kwargs={"a": 1})
    @inner.task(name="t")
    def task(timestamp: int, a: int) -> None: ...

    outer.add_tasks_from(inner, namespace="inner")
    app.add_tasks_from(outer, namespace="outer")
    assert after(app, memory, hours=1) == [("outer:inner:t", {"a": 1, "timestamp": at(hours=1)})]


def test_a_schedule_that_comes_after_the_blueprint_was_taken_up_is_an_error(
    app: procrastinate.App,
) -> None:
    """As with tasks, nobody would know of it."""
    blueprint = Blueprint()

    @blueprint.task(name="t")
    def task(timestamp: int) -> None: ...

    app.add_tasks_from(blueprint, namespace="n")
    with pytest.raises(errors.ConfigurationError, match="the task n:t becomes periodic after"):
        blueprint.periodic(cron="* * * * *")(task)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["here", "there"])
def test_apps_on_the_same_tasks_know_the_same_schedules(
    app: procrastinate.App, memory: InMemoryConnector, when: str, where: str
) -> None:
    def declare(on: procrastinate.App) -> None:
        @on.periodic(cron="0 * * * *")
        @on.task(name="t")
        def task(timestamp: int) -> None: ...

    if when == "before":
        declare(app)
        other = app.with_connector(memory)
        worker = other if where == "here" else app
    else:
        other = app.with_connector(memory)
        declare(app if where == "here" else other)
        worker = other if where == "here" else app
    assert after(worker, memory, hours=1) == [("t", {"timestamp": at(hours=1)})]


def test_schedules_of_imported_modules_are_known(
    memory: InMemoryConnector, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = procrastinate.App(connector=memory, import_paths=["periodic_module"])
    monkeypatch.setitem(sys.modules, "periodic_app_of_test", app)  # type: ignore[arg-type]
    tmp_path.joinpath("periodic_module.py").write_text(
        "import sys\napp = sys.modules['periodic_app_of_test']\n"
        "@app.periodic(cron='0 * * * *')\n@app.task(name='t')\ndef t(timestamp): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert after(app, memory, hours=1) == [("t", {"timestamp": at(hours=1)})]
    monkeypatch.delitem(sys.modules, "periodic_module")


# --- a clock that is wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("hours, expected", [(2, 0), (5, 3)])
def test_a_clock_that_was_set_back_by_more_than_three_hours_is_believed(
    app: procrastinate.App, memory: InMemoryConnector, hours: int, expected: int
) -> None:
    """By less than that, no tick comes twice: schedules wait until the clock is past the last."""

    @app.periodic(cron="*/10 * * * *", max_delay=3600)
    @app.task(name="t")
    def task(timestamp: int) -> None: ...

    app.run_worker(wait=False)
    memory.clock.move(timedelta(hours=-hours))
    assert len(after(app, memory, minutes=30)) == expected


# --- changes of clocks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timezone, start, cron, expected",
    [
        # 02:00 is followed by 03:00: what would have come in between comes at once, and once.
        ("Europe/Berlin", "2025-03-30T00:00+01:00", "30 2 * * *", ["01:00"]),
        ("America/New_York", "2025-03-09T00:00-05:00", "30 2 * * *", ["07:00"]),
        ("Europe/Berlin", "2025-03-30T00:30+01:00", "0 * * * *", ["00:00", "01:00", "02:00"]),
        # The hour that comes twice: once for a fixed time, twice for every hour.
        ("Europe/Berlin", "2025-10-26T00:30+02:00", "30 2 * * *", ["00:30"]),
        ("America/New_York", "2025-11-02T00:30-04:00", "30 1 * * *", ["05:30"]),
        ("Europe/Berlin", "2025-10-26T01:30+02:00", "0 * * * *", ["00:00", "01:00", "02:00"]),
    ],
)
def test_over_a_change_of_clocks(
    memory: InMemoryConnector, timezone: str, start: str, cron: str, expected: list[str]
) -> None:
    """Minute by minute by a virtual clock, for three hours; times are UTC."""
    app = procrastinate.App(connector=memory)

    @app.periodic(cron=cron, timezone=timezone)
    @app.task(name="t")
    def task(timestamp: int) -> None: ...

    memory.clock.freeze(datetime.fromisoformat(start))
    flow = app._defer_due_flow
    for _ in range(3 * 60 + 1):
        app._gateway.run(flow())
        memory.clock.move(60)
    found = [datetime.fromtimestamp(job.task_kwargs["timestamp"], UTC) for job in memory.jobs]
    assert [f"{tick:%H:%M}" for tick in found] == expected


def test_who_has_no_periodic_task_imports_no_cron_library() -> None:
    script = (
        "import sys, procrastinate; from procrastinate.testing import InMemoryConnector\n"
        "app = procrastinate.App(connector=InMemoryConnector()); app.run_worker(wait=False)\n"
        "sys.exit('cronsim' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
