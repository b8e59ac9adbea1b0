"""The worker's options."""

from __future__ import annotations

import dataclasses
import decimal
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import pytest

import procrastinate
from procrastinate.errors import InvalidOption
from procrastinate.model.text.printable import shown
from procrastinate.model.worker_options import WorkerOptions, worker_options
from procrastinate.testing import InMemoryConnector


def test_the_defaults() -> None:
    assert worker_options() == WorkerOptions(
        queues=None,
        name=None,
        concurrency=1,
        wait=True,
        listen_notify=True,
        fetch_job_polling_interval=5.0,
        abort_job_polling_interval=5.0,
        shutdown_graceful_timeout=None,
        delete_jobs="never",
        update_heartbeat_interval=10,
        stalled_worker_timeout=30,
        unknown_task_patience=3600,
        install_signal_handlers=True,
        additional_context=None,
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queues", "default"),
        ("queues", []),
        ("queues", [""]),
        ("queues", [7]),
        ("name", ""),
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", 1.5),
        ("wait", "yes"),
        ("fetch_job_polling_interval", 0),
        ("fetch_job_polling_interval", float("inf")),
        ("shutdown_graceful_timeout", -1),
        ("fetch_job_polling_interval", 1e20),
        ("stalled_worker_timeout", 1e13),
        ("delete_jobs", "sometimes"),
        ("update_heartbeat_interval", 10.1),
        ("stalled_worker_timeout", 29.9),
        ("unknown_task_patience", -1),
        ("unknown_task_patience", None),
        ("queues", itertools.repeat("default")),
        ("fetch_job_polling_interval", 10**400),
        ("additional_context", ["a"]),
        ("colour", "red"),
    ],
)
def test_a_bad_option_is_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option):
        worker_options(**{option: value})


def test_the_old_name_of_the_polling_interval_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="fetch_job_polling_interval"):
        options = worker_options(timeout=2.0)

    assert options.fetch_job_polling_interval == 2.0


def test_the_old_name_together_with_the_new_one_is_refused() -> None:
    with (
        pytest.warns(DeprecationWarning, match="timeout"),
        pytest.raises(InvalidOption, match="give one"),
    ):
        worker_options(timeout=2.0, fetch_job_polling_interval=3.0)


@pytest.mark.parametrize("heartbeat", [0.1, 0.3, 1, 7, 1e-3, 333.3])
def test_three_heartbeats_are_enough(heartbeat: float) -> None:
    options = worker_options(
        update_heartbeat_interval=heartbeat, stalled_worker_timeout=3 * heartbeat
    )
    assert options.stalled_worker_timeout == 3 * heartbeat


def test_what_is_kept_is_of_pythons_own_types() -> None:
    """A subclass may do something else each time that it is asked."""

    class Text(str):
        pass

    class Number(int):
        pass

    class Real(float):
        pass

    options = worker_options(
        queues=(Text(name) for name in "ab"),
        name=Text("till"),
        concurrency=Number(7),
        fetch_job_polling_interval=Real(2.5),
        update_heartbeat_interval=Number(3),
        delete_jobs=Text("always"),
    )
    kept = [getattr(options, field.name) for field in dataclasses.fields(options)]
    assert {type(each) for each in kept} <= {str, int, float, bool, tuple, type(None)}
    assert [type(name) for name in options.queues or ()] == [str, str]


# --- Nasty values ---------------------------------------------------------------------------------


class Burst(BaseException):
    """What nobody expects from a value that is only looked at."""


def burst(*_: Any, **__: Any) -> Any:
    raise Burst("looked at")


ALL = [
    *(
        "__repr__",
        "__str__",
        "__format__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
    ),
    *("__hash__", "__bool__", "__len__", "__iter__", "__next__", "__getitem__", "__contains__"),
    *("__call__", "__index__", "__int__", "__float__", "__add__", "__mul__"),
]


def bursting(base: type, name: str, *args: Any, methods: list[str] = ALL, **more: Any) -> Any:
    """Return a value of a subclass whose methods all raise."""
    return type(name, (base,), {**dict.fromkeys(methods, burst), **more})(*args)


class Endless(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise Burst

    def __len__(self) -> int:
        return 1


class OneOption(Mapping[Any, Any]):
    """A mapping whose only key need not be one of a dict's."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def __getitem__(self, key: Any) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        return iter([self._key])

    def __len__(self) -> int:
        return 1


class LiesAboutItsClass:
    @property
    def __class__(self) -> type:
        raise Burst


@pytest.mark.parametrize("key", [1, None, b"wait", ("wait",)])
def test_worker_defaults_have_names(key: Any) -> None:
    with pytest.raises(InvalidOption, match="worker_defaults must have names of options"):
        procrastinate.App(connector=InMemoryConnector(), worker_defaults={key: 2})


def test_worker_defaults_are_kept_as_they_were_checked() -> None:
    """An iterator can be looked at only once."""
    app = procrastinate.App(
        connector=InMemoryConnector(), worker_defaults={"queues": iter(["a", "b"])}
    )
    assert app.worker_defaults == {"queues": ("a", "b")}
    assert app.worker().options.queues == ("a", "b")


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


class NoText:
    def __repr__(self) -> str:
        return 7  # type: ignore[return-value]


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise Burst


class Unnamed(metaclass=Meta):
    __repr__ = burst


#: Values that no option takes. Those made anew for each test come from a function.
NASTY: dict[str, Callable[[], Any]] = {
    "a huge int": lambda: 10**400,
    "a huge negative int": lambda: -(10**400),
    "an int that cannot be printed": lambda: 10**5000,
    "infinity": lambda: float("inf"),
    "no number": lambda: float("nan"),
    "less than nothing": lambda: -1e-300,
    "a complex number": lambda: 1j,
    "a decimal": lambda: decimal.Decimal("sNaN"),
    "bytes": lambda: b"default",
    "a surrogate": lambda: "\ud800",
    "a list with a surrogate": lambda: ["a", "\udfff"],
    "NUL": lambda: "\0",
    "a long text": lambda: "x" * 1_000_000,
    "an escape sequence": lambda: "\x1b[2J" * 100,
    "an object": object,
    "a raising repr": lambda: bursting(object, "Mute", methods=["__repr__"]),
    "a repr that is no text": NoText,
    "a raising everything": lambda: bursting(object, "Mine"),
    "a raising int": lambda: bursting(int, "MyInt", -5),
    "a raising float": lambda: bursting(float, "MyFloat", -5.0),
    "a raising str": lambda: bursting(str, "MyStr", "\0"),
    "a raising list": lambda: bursting(list, "MyList"),
    "a raising dict": lambda: bursting(dict, "MyDict", {"a": 1}, keys=burst, items=burst),
    "a raising tuple": lambda: bursting(tuple, "MyTuple"),
    "names that raise": lambda: [bursting(str, "Name", "\0")],
    "an iterator that raises": lambda: map(burst, [1]),
    "an endless iterator": lambda: itertools.repeat("default"),
    "an endless mapping": Endless,
    "a liar": LiesAboutItsClass,
    "a class without a name": Unnamed,
    "a class": lambda: Unnamed,
    "deep": deep,
    "looped": looped,
    "a huge list": lambda: [object()] * 1_000_000,
    "mock.call": lambda: mock.call,
    "a mock": lambda: mock.MagicMock(__bool__=burst, __repr__=burst, __class__=burst),
    "a callable that raises": lambda: bursting(object, "Callable", __signature__=property(burst)),
    "functions that raise": lambda: [bursting(object, "Callable", __signature__=property(burst))],
    "an ellipsis": lambda: ...,
    "a date": lambda: __import__("datetime").datetime.max,
}
OPTIONS = [field.name for field in dataclasses.fields(WorkerOptions)] + ["timeout"]
#: Values that an option may take after all: it never looks at them, or it is for callables.
#: Whether the latter are taken depends on what `inspect` asks of them, in each Python.
MAY_BE_TAKEN = {
    "additional_context": {"an endless mapping", "a raising dict"},
    "middleware": {
        "a mock", "names that raise", *(name for name in NASTY if name.startswith("a raising")),
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the worker option `timeout`:DeprecationWarning")
@pytest.mark.parametrize("nasty", NASTY)
def test_a_nasty_value_of_any_option_is_refused_by_name_whatever_it_does(nasty: str) -> None:
    """Nothing but `InvalidOption` is raised, in a message of one short line."""
    for option in OPTIONS:
        try:
            worker_options(**{option: NASTY[nasty]()})
        except InvalidOption as exc:
            message = str(exc)
        else:
            assert nasty in MAY_BE_TAKEN.get(option, ()), f"{option} was taken"
            continue
        assert ("fetch_job_polling_interval" if option == "timeout" else option) in message
        assert len(message) < 600
        assert message.isprintable()


@pytest.mark.filterwarnings("ignore:the worker option `timeout`:DeprecationWarning")
@pytest.mark.parametrize("nasty", NASTY)
def test_nasty_worker_defaults_are_refused_too(nasty: str) -> None:
    connector = InMemoryConnector()
    with pytest.raises(InvalidOption, match=r"worker_defaults|a worker has no option"):
        procrastinate.App(connector=connector, worker_defaults=NASTY[nasty]())
    with pytest.raises(InvalidOption, match=r"worker_defaults|a worker has no option"):
        procrastinate.App(connector=connector, worker_defaults=OneOption(NASTY[nasty]()))


@pytest.mark.parametrize("nasty", NASTY)
def test_any_value_can_be_shown_in_one_short_line(nasty: str) -> None:
    text = shown(NASTY[nasty]())
    assert text.isprintable()
    assert 1 < len(text) < 300


# --- What is checked elsewhere --------------------------------------------------------------------

APP = procrastinate.App(connector=InMemoryConnector())

#: Everything else that takes options. None of them looks at more than a value's text and size.
TAKERS: dict[str, Callable[[Any], object]] = {
    **{
        name: lambda value, name=name: APP.configure_task("t", **{name: value})  # type: ignore[misc]
        for name in (
            "queue", "priority", "lock", "queueing_lock", "task_kwargs", "schedule_at",
            "schedule_in", "allow_unknown",
        )
    },
    **{
        name: lambda value, name=name: procrastinate.RetryStrategy(**{name: value})  # type: ignore[misc]
        for name in (
            "max_attempts", "wait", "linear_wait", "exponential_wait", "max_wait", "jitter",
            "retry_exceptions",
        )
    },
    **{
        f"list {name}": lambda value, name=name: APP.job_manager.list_jobs(**{name: value})  # type: ignore[misc]
        for name in ("id", "queue", "task", "status", "lock", "worker_id")
    },
    "name": lambda value: APP.task(name=value),
    "timeout": lambda value: APP.task(timeout=value)(lambda: None),
    "retry": lambda value: APP.task(retry=value)(lambda: None),
    "aliases": lambda value: APP.task(aliases=value)(lambda: None),
    "cron": lambda value: APP.periodic(cron=value)(lambda: None),
    "import_paths": lambda value: procrastinate.App(
        connector=InMemoryConnector(), import_paths=value
    ),
    "periodic_defaults": lambda value: procrastinate.App(
        connector=InMemoryConnector(), periodic_defaults={"max_delay": value}
    ),
    "schema": lambda value: InMemoryConnector(schema=value),
    "connector": lambda value: procrastinate.App(connector=value),
    "namespace": lambda value: APP.add_tasks_from(procrastinate.Blueprint(), namespace=value),
}  # fmt: skip
ONLY_REPR = [
    "a huge int", "an int that cannot be printed", "infinity", "no number", "a surrogate",
    "a list with a surrogate", "a long text", "a raising repr", "a repr that is no text",
    "a class without a name", "deep", "looped", "mock.call", "a decimal",
]  # fmt: skip


@pytest.mark.parametrize("nasty", ONLY_REPR)
@pytest.mark.parametrize("taker", TAKERS)
def test_other_options_raise_errors_of_ours_only(taker: str, nasty: str) -> None:
    said = ""
    try:
        TAKERS[taker](NASTY[nasty]())  # some take some of them
    except procrastinate.ProcrastinateException as exc:
        said = str(exc)
    assert len(said) < 1_000
