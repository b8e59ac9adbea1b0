"""The worker's options: name, type, default, help and limits, once.

`WorkerOptions` feeds `App.run_worker`, the command line and the documentation.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.checks import Check
from procrastinate.model.middleware import AnyMiddleware, check_order, middlewares
from procrastinate.model.text.printable import shown

DELETE_JOBS = ("never", "successful", "always")
LOG_JOBS = ("all", "sampled", "none")
FORMER_NAMES = {
    "timeout": "fetch_job_polling_interval",
    "worker_middleware": "middleware",
}
MAX_CONCURRENCY = 10_000  # jobs at once in one process
MIN_HEARTBEATS = 3  # that must fail before a worker is taken for dead


def _option(default: Any, help: str, check: Check) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "check": check})


def _optional(check: Check) -> Check:
    return lambda option, value: None if value is None else check(option, value)


def _concurrency(option: str, value: Any) -> int:
    return checks.check_int(option, value, 1, MAX_CONCURRENCY)


def _seconds_from_0(option: str, value: Any) -> float:
    return checks.check_seconds(option, value, zero=True)


def _port(option: str, value: Any) -> int:
    return checks.check_int(option, value, 0, 65_535)


def _host(option: str, value: Any) -> str:
    return checks.check_name(option, value)


def _which_to_delete(option: str, value: Any) -> str:
    return _one_of(DELETE_JOBS, option, value)


def _which_to_log(option: str, value: Any) -> str:
    return _one_of(LOG_JOBS, option, value)


def _one_of(choices: Sequence[str], option: str, value: Any) -> str:
    if not isinstance(value, str) or str.__str__(value) not in choices:
        known = ", ".join(choices)
        raise InvalidOption(f"{option} must be one of {known}, not {shown(value)}")
    return str.__str__(value)


def _mapping(option: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidOption(f"{option} must be a dict, not {shown(value)}")
    return value


def _middleware(_: str, value: Any) -> tuple[AnyMiddleware, ...]:
    given = middlewares(value)
    check_order(given)
    return given


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How a worker works. Times are seconds."""

    queues: tuple[str, ...] | None = _option(
        None, "queues to work on; all of them by default", _optional(checks.check_names)
    )
    name: str | None = _option(
        None, "name of the worker, for logs and people", _optional(checks.check_name)
    )
    concurrency: int = _option(1, "how many jobs run at the same time", _concurrency)
    wait: bool = _option(True, "wait for jobs; else end when no job is ready", checks.check_flag)
    listen_notify: bool = _option(
        True, "be woken by the database when a job arrives", checks.check_flag
    )
    fetch_job_polling_interval: float = _option(
        5.0,
        "seconds between looks for jobs where nothing wakes the worker",
        checks.check_seconds,
    )
    abort_job_polling_interval: float = _option(
        5.0,
        "seconds between looks for running jobs that are to be aborted",
        checks.check_seconds,
    )
    shutdown_graceful_timeout: float | None = _option(
        None,
        "seconds that running jobs may take to end once the worker stops; by default for ever",
        _optional(_seconds_from_0),
    )
    delete_jobs: str = _option(
        "never",
        "which jobs to delete when they end: never, successful, always; those of tasks with result="
        " stay",
        _which_to_delete,
    )
    update_heartbeat_interval: float = _option(
        10, "seconds between signs of life", checks.check_seconds
    )
    stalled_worker_timeout: float = _option(
        30,
        "seconds without a sign of life after which a worker is taken for dead",
        checks.check_seconds,
    )
    unknown_task_patience: float = _option(
        3600,
        "seconds that a job may wait for a worker that knows its task, before it is failed",
        _seconds_from_0,
    )
    log_jobs: str = _option(
        "sampled",
        "which jobs to log: all, none, or sampled (what exceeds 100 successes or 19 equal failures"
        " in a second is summed up)",
        _which_to_log,
    )
    keep_throughput: float = _option(
        30 * 86_400,
        "seconds for which it is kept how many jobs ended in each hour; 0: they are not counted",
        _seconds_from_0,
    )
    http_port: int | None = _option(
        None,
        "answer /healthz, /readyz and /metrics on this port; by default on none",
        _optional(_port),
    )
    http_host: str = _option("127.0.0.1", "the address of the HTTP port", _host)
    install_signal_handlers: bool = _option(
        True, "stop gracefully on SIGINT and SIGTERM", checks.check_flag
    )
    additional_context: Mapping[str, Any] | None = _option(
        None, "values that every job finds in its context", _optional(_mapping)
    )
    middleware: tuple[AnyMiddleware, ...] = _option(
        (), "functions that wrap every job, outermost first", _middleware
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = checks.guarded(field.metadata["check"], field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        shortest = MIN_HEARTBEATS * self.update_heartbeat_interval
        if self.stalled_worker_timeout < shortest * (1 - 1e-9):  # 3 * 0.1 is above 0.3
            raise InvalidOption(
                f"stalled_worker_timeout ({self.stalled_worker_timeout:g} s) must be at least"
                f" {MIN_HEARTBEATS} times update_heartbeat_interval"
                f" ({self.update_heartbeat_interval:g} s), or a worker that is late with one sign"
                " of life would be taken for dead"
            )


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
    log_jobs: Literal["all", "sampled", "none"]
    update_heartbeat_interval: float
    stalled_worker_timeout: float
    unknown_task_patience: float
    keep_throughput: float
    http_port: int | None
    http_host: str
    install_signal_handlers: bool
    additional_context: Mapping[str, Any] | None
    middleware: AnyMiddleware | Iterable[AnyMiddleware] | None
    timeout: float  # the old name of fetch_job_polling_interval


def worker_options(**given: Any) -> WorkerOptions:
    """Return checked options. Raises `InvalidOption` naming the option and the value."""
    given = renamed(given)
    known = {each.name for each in dataclasses.fields(WorkerOptions)}
    for name in given:
        if name == "task_middleware":
            raise InvalidOption(
                "a worker's task_middleware= and worker_middleware=, which Procrastinate 3 had, are"
                " both middleware= now: plain functions wrap plain tasks, in their threads, and"
                " `async def` ones wrap all tasks, on the event loop"
            )
        if name not in known:
            raise InvalidOption(
                f"a worker has no option {shown(name)} (known: {', '.join(sorted(known))})"
            )
    return WorkerOptions(**given)


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under their present names, with a warning for an old one."""
    options = dict(given)
    for old, new in FORMER_NAMES.items():
        if old not in options:
            continue
        warnings.warn(
            f"the worker option `{old}` is now called `{new}`", DeprecationWarning, stacklevel=4
        )
        if new in options:
            raise InvalidOption(f"{old} is the old name of {new}; give one")
        options[new] = options.pop(old)
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
