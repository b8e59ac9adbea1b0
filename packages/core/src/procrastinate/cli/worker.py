"""``procrastinate worker``: one worker, or a supervisor of several."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import click

import procrastinate_entry
from procrastinate.app.app import App
from procrastinate.cli import children_port, failures, processes
from procrastinate.cli.children_port import ChildrenPort
from procrastinate.cli.options import Option
from procrastinate.cli.reloading import Reloader
from procrastinate.cli.settings import Settings, settings_of
from procrastinate.cli.values import Queues
from procrastinate.errors import (
    ConnectorException,
    InvalidOption,
    LoadFromPathError,
    ProcrastinateException,
)
from procrastinate.model import worker_options as model
from procrastinate.model.worker_options import worker_options
from procrastinate.worker.process import own_loop
from procrastinate.worker.process.signals import kept
from procrastinate_entry.stopping import STOP

MAX_PROCESSES = 1_000
_SECONDS = click.FloatRange(min=0, min_open=True)


class Flag(NamedTuple):
    """How a worker option is written on the command line; the rest is in `model.worker_options`."""

    field: str
    names: tuple[str, ...]
    type: Any
    multiple: bool = False
    inverted: bool = False  # the flag given means False
    help: str | None = None  # instead of the option's own


_WAIT = "--one-shot: end when no job is ready. --wait (default): wait for more."

FLAGS = (
    Flag("queues", ("-q", "--queues"), Queues(), multiple=True),
    Flag("concurrency", ("-c", "--concurrency"), click.IntRange(1, model.MAX_CONCURRENCY)),
    Flag("name", ("-n", "--name"), str),
    Flag(
        "fetch_job_polling_interval",
        ("-p", "--polling-interval", "--fetch-job-polling-interval"),
        _SECONDS,
    ),
    Flag(
        "abort_job_polling_interval",
        ("--abort-polling-interval", "--abort-job-polling-interval"),
        _SECONDS,
    ),
    Flag("wait", ("--one-shot/--wait",), bool, inverted=True, help=_WAIT),
    Flag("listen_notify", ("--listen-notify/--no-listen-notify",), bool),
    Flag("delete_jobs", ("--delete-jobs",), click.Choice(model.DELETE_JOBS)),
    Flag("log_jobs", ("--log-jobs",), click.Choice(model.LOG_JOBS)),
    Flag("shutdown_graceful_timeout", ("--shutdown-graceful-timeout",), click.FloatRange(min=0)),
    Flag("update_heartbeat_interval", ("--heartbeat-interval",), _SECONDS),
    Flag("stalled_worker_timeout", ("--stalled-worker-timeout",), _SECONDS),
    Flag("unknown_task_patience", ("--unknown-task-patience",), click.FloatRange(min=0)),
    Flag("keep_throughput", ("--keep-throughput",), click.FloatRange(min=0)),
    Flag("http_port", ("--http-port",), click.IntRange(0, 65_535)),
    Flag("http_host", ("--http-host",), str),
)


def _option(flag: Flag) -> click.Option:
    """Return the option of the command line: None unless given, so that the app's defaults hold."""
    default = model.default_of(flag.field)
    return Option(
        [*flag.names],
        type=flag.type,
        default=None,
        multiple=flag.multiple,
        help=flag.help or f"{_capital(model.help_of(flag.field))}.{_default_text(flag, default)}",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _default_text(flag: Flag, default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        first, second = flag.names[-1].split("/")
        return f" Default: {first if default is not flag.inverted else second}."
    return (
        f" Default: {default:g}." if isinstance(default, int | float) else f" Default: {default}."
    )


def _name_of(option: click.Parameter) -> str:
    assert option.name is not None
    return option.name


_OPTIONS = [_option(flag) for flag in FLAGS]
_PROCESSES = Option(
    ["--processes"],
    type=click.IntRange(1, MAX_PROCESSES),
    default=1,
    help="Run this number of workers, each in a process of its own, and start again those that die."
    " Default: 1.",
)


_RELOAD = Option(
    ["--reload"],
    is_flag=True,
    help="For development: start the workers again when a Python file below the current folder"
    " changes.",
)


@click.command("worker", params=[*_OPTIONS, _PROCESSES, _RELOAD])
@click.pass_context
def worker(ctx: click.Context, /, processes: int, reload: bool, **given: Any) -> int | None:
    """Run jobs.

    The worker needs an app with an asynchronous connector. It stops on SIGINT (Ctrl-C) or
    SIGTERM: it fetches no more jobs, lets those that run come to their end, and exits with 0. A
    second signal aborts running jobs, or hands them back.

    Options that are not given here are those of the app's worker_defaults, and then the defaults
    named below. Times are seconds.
    """
    options = {
        flag.field: _value(flag, given[_name_of(option)])
        for flag, option in zip(FLAGS, _OPTIONS, strict=True)
        if given[_name_of(option)] not in (None, ())
    }
    try:
        worker_options(**options)
    except InvalidOption as exc:
        raise click.UsageError(str(exc), ctx) from exc
    if reload and not options.get("wait", True):
        raise click.UsageError("--reload is for workers that wait: leave out --one-shot", ctx)
    return _run(settings_of(ctx), options, processes, reload)


def _value(flag: Flag, value: Any) -> Any:
    if flag.multiple:
        return [name for names in value for name in names]
    return not value if flag.inverted else value


def _run(settings: Settings, options: dict[str, Any], count: int, reload: bool) -> int | None:
    child = processes.adopted()
    if child is not None:
        return _run_child(settings, options, child, is_one_of_many=count > 1)
    if reload:
        return Reloader(_command(settings), count, port=_port_for_all(options)).run()
    if count > 1:
        return _supervise(settings, options, count)
    with STOP.starting():
        app = settings.load_app()
    _work(app, options)
    return None


def _port_for_all(options: Mapping[str, Any]) -> ChildrenPort | None:
    if options.get("http_port") is None:
        return None
    return ChildrenPort(
        options.get("http_host", model.default_of("http_host")), options["http_port"]
    )


def _run_child(
    settings: Settings, options: dict[str, Any], number: int, *, is_one_of_many: bool
) -> int | None:
    folder = children_port.folder_of_siblings()
    try:
        with STOP.starting():
            if folder is not None:
                children_port.count_in(folder, number)
                options = options | {"http_port": None}
            app = settings.load_app()
        named = _named(app, options, number) if is_one_of_many else {}
        _work(app, options | named, folder, number)
    except processes.PERMANENT as exc:
        if _may_pass(exc):
            raise
        failures.report(exc, verbose=bool(settings.verbose))
        return processes.refused(exc)
    return None


def _may_pass(exc: ProcrastinateException) -> bool:
    """Whether it is what the user's own module raised, for a reason that only they know."""
    cause = exc.__cause__
    return (
        isinstance(exc, LoadFromPathError)
        and cause is not None
        and not isinstance(cause, ProcrastinateException)
    )


def _named(app: App, options: dict[str, Any], number: int) -> dict[str, str]:
    """The name of one worker among several: with its number, if there is a name to number."""
    name = options.get("name") or app.worker_defaults.get("name")
    return {"name": f"{name}-{number}"} if name else {}


def _command(settings: Settings) -> list[str]:
    """Return the command of one worker process: this very command, in a new interpreter."""
    return [sys.executable, "-m", "procrastinate", *settings.args]


def _work(app: App, options: dict[str, Any], folder: str | None = None, number: int = 0) -> None:
    """Run one worker in this process, which belongs to it.

    If it has siblings with a common HTTP port, they have a ``folder``, and it has a ``number``.
    """
    with STOP.starting():
        worker = app.worker(**options | {"install_signal_handlers": False})

    def stop(_: int) -> None:
        worker.stop_now() if worker.is_stopping else worker.stop()

    async def run() -> None:
        opened = app.open_async()
        try:
            with STOP.starting():
                await opened
            answering = (
                nullcontext()
                if folder is None
                else children_port.answering_supervisor(worker, folder, number)
            )
            with STOP.told(stop), kept(procrastinate_entry.take_back), answering:
                await worker.run_as_program()
        except ConnectorException:  # it raises one only while it starts: nothing was claimed
            if not STOP.asked:
                raise
            STOP.leave_with(0)
        finally:
            await app.close_async()

    own_loop.run(run())


def _supervise(settings: Settings, options: dict[str, Any], count: int) -> int:
    """Start the workers once it is clear that one could run here, and see them to their end.

    What is wrong for every worker is thus told once, and not again by each one that is started.
    """
    with STOP.starting():
        app = settings.load_app()
        options = options | _named(app, options, count)
        one = app.worker(**options).options  # or it refuses
        with app.open():
            if not app.check_connection():
                app.schema_manager.check()  # raises, and says why
    port = None if one.http_port is None else ChildrenPort(one.http_host, one.http_port)
    return processes.Supervisor(_command(settings), count, one_shot=not one.wait, port=port).run()
