"""The worker's options: name, type, default, help and limits, once.

`WorkerOptions` feeds `App.run_worker`, the command line and the documentation.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.middleware import AnyMiddleware, check_order, middlewares

DELETE_JOBS = ("never", "successful", "always")
MAX_CONCURRENCY = 10_000  # jobs at once in one process


def _option(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How a worker works. Times are seconds."""

    queues: tuple[str, ...] | None = _option(None, "queues to work on; all of them by default")
    name: str | None = _option(None, "name of the worker, for logs and people")
    concurrency: int = _option(1, "how many jobs run at the same time")
    wait: bool = _option(True, "wait for jobs; else end when no job is ready")
    listen_notify: bool = _option(True, "be woken by the database when a job arrives")
    fetch_job_polling_interval: float = _option(
        5.0, "seconds between looks for jobs where nothing wakes the worker"
    )
    abort_job_polling_interval: float = _option(
        5.0, "seconds between looks for running jobs that are to be aborted"
    )
    shutdown_graceful_timeout: float | None = _option(
        None, "seconds that running jobs may take to end once the worker stops; by default for ever"
    )
    delete_jobs: str = _option(
        "never", "which jobs to delete when they end: never, successful, always"
    )
    update_heartbeat_interval: float = _option(10, "seconds between signs of life")
    stalled_worker_timeout: float = _option(
        30, "seconds without a sign of life after which a worker is taken for dead"
    )
    install_signal_handlers: bool = _option(True, "stop gracefully on SIGINT and SIGTERM")
    additional_context: Mapping[str, Any] | None = _option(
        None, "values that every job finds in its context"
    )
    middleware: tuple[AnyMiddleware, ...] = _option(
        (), "functions that wrap every job, outermost first"
    )

    def __post_init__(self) -> None:
        if self.queues is not None:
            object.__setattr__(self, "queues", _queue_names(self.queues))
        if self.name is not None:
            checks.check_name("name", self.name)
        _check_int("concurrency", self.concurrency, 1, MAX_CONCURRENCY)
        for option in ("wait", "listen_notify", "install_signal_handlers"):
            checks.check_flag(option, getattr(self, option))
        for option in ("fetch_job_polling_interval", "abort_job_polling_interval"):
            _check_seconds(option, getattr(self, option))
        _check_seconds("update_heartbeat_interval", self.update_heartbeat_interval)
        _check_seconds("stalled_worker_timeout", self.stalled_worker_timeout)
        if self.shutdown_graceful_timeout is not None:
            _check_seconds("shutdown_graceful_timeout", self.shutdown_graceful_timeout, zero=True)
        if self.delete_jobs not in DELETE_JOBS:
            raise InvalidOption(
                f"delete_jobs must be one of {', '.join(DELETE_JOBS)}, not {self.delete_jobs!r}"
            )
        if self.stalled_worker_timeout <= self.update_heartbeat_interval:
            raise InvalidOption(
                f"stalled_worker_timeout ({self.stalled_worker_timeout:g} s) must be longer than"
                f" update_heartbeat_interval ({self.update_heartbeat_interval:g} s), or every"
                " worker would be taken for dead"
            )
        if self.additional_context is not None and not isinstance(self.additional_context, Mapping):
            raise InvalidOption(
                f"additional_context must be a dict, not {self.additional_context!r}"
            )
        object.__setattr__(self, "middleware", middlewares(self.middleware))
        check_order(self.middleware)


class WorkerArguments(TypedDict, total=False):
    """What `App.worker` and `App.run_worker` accept, for type checkers.

    Each is an option of `WorkerOptions`, in the forms in which it may be given.
    """

    queues: Iterable[str] | None
    name: str | None
    concurrency: int
    wait: bool
    listen_notify: bool
    fetch_job_polling_interval: float
    abort_job_polling_interval: float
    shutdown_graceful_timeout: float | None
    delete_jobs: Literal["never", "successful", "always"]
    update_heartbeat_interval: float
    stalled_worker_timeout: float
    install_signal_handlers: bool
    additional_context: Mapping[str, Any] | None
    middleware: AnyMiddleware | Iterable[AnyMiddleware] | None
    timeout: float  # the old name of fetch_job_polling_interval


def worker_options(**given: Any) -> WorkerOptions:
    """Return checked options. Raises `InvalidOption` naming the option and the value."""
    given = renamed(given)
    known = {each.name for each in dataclasses.fields(WorkerOptions)}
    for name in given:
        if name not in known:
            raise InvalidOption(
                f"a worker has no option {name!r} (known: {', '.join(sorted(known))})"
            )
    return WorkerOptions(**given)


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under their present names, with a warning for an old one."""
    options = dict(given)
    if "timeout" in options:
        warnings.warn(
            "the worker option `timeout` is now called `fetch_job_polling_interval`",
            DeprecationWarning,
            stacklevel=4,
        )
        if "fetch_job_polling_interval" in options:
            raise InvalidOption("timeout is the old name of fetch_job_polling_interval; give one")
        options["fetch_job_polling_interval"] = options.pop("timeout")
    return options


def help_of(option: str) -> str:
    """Return the one-line help of a worker option."""
    fields = {each.name: each for each in dataclasses.fields(WorkerOptions)}
    text: str = fields[option].metadata["help"]
    return text


def default_of(option: str) -> Any:
    """Return the default of a worker option."""
    fields = {each.name: each for each in dataclasses.fields(WorkerOptions)}
    return fields[option].default


def _queue_names(queues: Any) -> tuple[str, ...]:
    if isinstance(queues, str) or not isinstance(queues, Iterable):
        raise InvalidOption(f"queues must be a list of names, not {queues!r}")
    names = tuple(dict.fromkeys(checks.check_name("queues", name) for name in queues))
    if not names:
        raise InvalidOption("queues must name at least one queue; leave it out for all queues")
    return names


def _check_int(option: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidOption(f"{option} must be an int from {low} to {high}, not {value!r}")


def _check_seconds(option: str, value: Any, *, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "from 0" if zero else "above 0"
        raise InvalidOption(f"{option} must be a number of seconds {least}, not {value!r}")
    if value > checks.LONGEST_DELAY.total_seconds():  # else the server could not compute with it
        raise InvalidOption(f"{option} must be at most 1000 years, not {value!r} seconds")
