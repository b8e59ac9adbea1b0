"""``procrastinate schema``: create, migrate, check or print the tables."""

from __future__ import annotations

from collections.abc import Callable

import click

from procrastinate.app.schema_manager import SchemaManager
from procrastinate.cli import exit_codes
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.options import option
from procrastinate.cli.settings import Settings, settings_of
from procrastinate.errors import InsufficientPrivilege, SchemaError
from procrastinate.model.text.printable import counted
from procrastinate.storage import schema as flows
from procrastinate.storage.distributing import check_places
from procrastinate.storage.sequences import check_sequences

_CHECK_CODES = (
    ExitCode.OK,
    ExitCode.ERROR,
    ExitCode.SCHEMA_NOT_APPLIED,
    ExitCode.SCHEMA_OUTDATED,
    ExitCode.SCHEMA_TOO_NEW,
)
#: What is told of what is no migration.
_DONE = {
    "records": "wrote the missing records of migrations that the tables have",
    "settings": "wrote the missing row of settings",
    "functions": "made the functions anew",
}


@click.command("schema", epilog=exit_codes.table(_CHECK_CODES))
@option("--apply", is_flag=True, help="Create the tables, or migrate those that are there.")
@option("--migrate", is_flag=True, help="Migrate the tables that are there; create none.")
@option("--check", is_flag=True, help="Say by the exit code whether the tables fit this code.")
@option(
    "--for-distribution",
    is_flag=True,
    help="With --check: also list the tasks whose jobs a distributed database refuses, or whose"
    " jobs must have ended before.",
)
@option("--distribute", is_flag=True, help="Distribute the jobs over the nodes of a Citus cluster.")
@option("--read", is_flag=True, help="Print the whole schema as SQL; needs no database.")
@option("--migrations-path", is_flag=True, help="Print the folder of the migrations; needs no app.")
@click.pass_context
def schema(ctx: click.Context, /, *, for_distribution: bool, **chosen: bool) -> None:
    """Create, migrate, check or print procrastinate's tables.

    Give exactly one of the options. New tables are made in one transaction, and migrations one
    after the other: what was interrupted goes on the next time. Any number of processes may do it
    at once.
    """
    names = [name for name, given in chosen.items() if given]
    if len(names) != 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in _ACTIONS)
        raise click.UsageError(f"give exactly one of {options}", ctx)
    if for_distribution and not chosen["check"]:
        raise click.UsageError("--for-distribution goes with --check only", ctx)
    _ACTIONS[names[0]](settings_of(ctx))
    if for_distribution:
        _check_for_distribution(settings_of(ctx))


def _apply(settings: Settings) -> None:
    app = settings.load_app()
    with app.open():
        _tell_applied(app.schema_manager.apply_schema())


def _migrate(settings: Settings) -> None:
    app = settings.load_app()
    with app.open():
        _tell_applied(app.schema_manager.migrate())


def _tell_applied(names: list[str]) -> None:
    for name in names:
        click.echo(_DONE.get(name) or f"applied {name}")
    if not names:
        click.echo(f"nothing to do: the schema is at version {flows.latest_version()}")


def _check(settings: Settings) -> None:
    app = settings.load_app()
    with app.open():
        state = app.schema_manager.check()
        nodes = app._gateway.run(check_places())
        app._gateway.run(check_sequences())
    if not state.partitions.are_many:
        how = "not distributed"
    elif nodes:
        how = f"distributed in {state.partitions.count} partitions"
    else:
        how = f"{state.partitions.count} partitions, all on this server"
    click.echo(f"the schema fits: version {max(state.versions)}, {how}")


def _check_for_distribution(settings: Settings) -> None:
    app = settings.load_app()
    app.perform_import_paths()
    names = app._refused_if_distributed()
    if names:
        raise SchemaError(
            "a distributed database refuses the jobs of these tasks, because their lock and their"
            f" queueing lock belong to different partitions: {', '.join(names)}. Give each a"
            " partition_key, and the same one to all tasks that share the lock or the queueing lock"
        )
    try:
        with app.open():
            to_drain = app._to_drain_before_distribution()
    except InsufficientPrivilege as exc:
        raise InsufficientPrivilege(
            "this role may not read the jobs, so it is not known whether some must have ended"
            " before they are distributed. Ask as a role that has SELECT on procrastinate_jobs,"
            f" such as that of a worker, or the tables' owner ({exc})"
        ) from exc
    if to_drain:
        counts = ", ".join(f"{name} ({counted(count, 'job')})" for name, count in to_drain.items())
        raise SchemaError(
            "jobs of tasks with a partition_key wait or run with a lock or a queueing lock. The key"
            " is not stored before the jobs are distributed, so those deferred later would be in"
            f" another partition, where these locks are not seen: {counts}. Let these jobs run, or"
            " cancel them, and defer no more of them before"
        )
    click.echo("no task has locks that a distributed database refuses")


def _distribute(settings: Settings) -> None:
    app = settings.load_app()
    with app.open():
        done = app.schema_manager.distribute()
    where = f"in {done.partitions.count} partitions on {counted(done.nodes, 'node')}"
    click.echo(
        f"distributed the jobs: {where}"
        if done.is_new
        else f"nothing to do: the jobs are distributed, {where}"
    )


def _read(settings: Settings) -> None:
    """Print the schema: for the app's own PostgreSQL schema where an app is given."""
    if settings.app:
        click.echo(settings.load_app().schema_manager.get_schema())
    else:
        click.echo(flows.current_schema_sql(None))


def _migrations_path(settings: Settings) -> None:
    click.echo(SchemaManager.get_migrations_path())


_ACTIONS: dict[str, Callable[[Settings], None]] = {
    "apply": _apply,
    "migrate": _migrate,
    "check": _check,
    "distribute": _distribute,
    "read": _read,
    "migrations_path": _migrations_path,
}
