"""``procrastinate healthchecks``: whether an app could work, told in one line for each question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import click

from procrastinate.app.app import App
from procrastinate.cli.options import option
from procrastinate.cli.settings import Settings, settings_of
from procrastinate.connector import AsyncConnector
from procrastinate.errors import InsufficientPrivilege, ProcrastinateException
from procrastinate.loop_thread import LoopThreadConnector
from procrastinate.model.text.printable import counted
from procrastinate.storage.schema import schema_state

Check = tuple[str, Callable[[], str]]


@click.command("healthchecks")
@option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    help="Fail if fewer workers are alive. Without it none needs to be.",
)
@click.pass_context
def healthchecks(ctx: click.Context, workers: int) -> None:
    """Check that the app can be loaded, its database reached, and that the tables fit.

    Each check is a line, "ok" or "fail"; those after a failure are not made. The failure itself is
    told on stderr, and the exit code is its own. What defers jobs is well without a worker: ask for
    some with --workers to hear that none runs.
    """
    for name, check in _checks(settings_of(ctx), workers):
        try:
            detail = check()
        except ProcrastinateException:
            click.echo(f"fail  {name}")
            raise
        click.echo(f"ok    {name}: {detail}")


def _checks(settings: Settings, workers: int) -> Iterator[Check]:
    """Yield the checks in their order; each relies on those before it."""
    apps: list[App] = []
    yield "app", lambda: _app(settings, apps)
    app = apps[0]
    yield "connection", lambda: _connection(app)
    if isinstance(app.connector, AsyncConnector):
        yield "asynchronous connection", lambda: asyncio.run(_connection_async(app))
    yield "schema", lambda: _schema(app)
    yield "workers", lambda: _workers(app, workers)


def _app(settings: Settings, apps: list[App]) -> str:
    app = settings.load_app()
    app.perform_import_paths()
    apps.append(app)
    return f"{settings.app}, with {counted(len(app.tasks), 'task')}"


def _connection(app: App) -> str:
    with app.open():
        app._gateway.run(schema_state())
        connector = app._gateway.sync_connector()
    return (
        connector.words if isinstance(connector, LoopThreadConnector) else type(connector).__name__
    )


async def _connection_async(app: App) -> str:
    async with app.open_async():
        await app._gateway.run_async(schema_state())
    return type(app.connector).__name__


def _schema(app: App) -> str:
    with app.open():
        return f"version {max(app.schema_manager.check().versions)}"


def _workers(app: App, wanted: int) -> str:
    """Read the workers' signs of life, which an enqueue-only role may not be allowed to."""
    with app.open():
        try:
            workers = app.job_manager.list_workers()
            stalled = app.job_manager.get_stalled_jobs()
        except InsufficientPrivilege:
            if wanted:
                raise
            return "not checked, as this role has no right to: it can only enqueue"
    alive = sum(each.is_alive for each in workers)
    found = f"{counted(alive, 'worker')} alive" if alive else "none is alive"
    if alive < wanted:
        raise ProcrastinateException(
            f"{found}, and {wanted} should be: start `procrastinate worker`"
        )
    held = counted(len(stalled), "job") if stalled else "no job"
    return f"{found}, {held} held by lost workers"
