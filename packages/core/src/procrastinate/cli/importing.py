"""``procrastinate import``: take over the jobs of Procrastinate 3 and older."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from procrastinate.cli.options import option
from procrastinate.cli.settings import settings_of
from procrastinate.errors import ProcrastinateException
from procrastinate.model.text.printable import counted
from procrastinate.storage.importing import Imported, are_running


@click.command("import")
@option(
    "--from-schema",
    default="public",
    show_default=True,
    metavar="SCHEMA",
    help="The schema of the old release's tables, in the same database.",
)
@option("--prepare", is_flag=True, help="Only let new ids begin above the old ones.")
@option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@option("--history", is_flag=True, help="Copy jobs that have ended, too.")
@option("--leave-running", is_flag=True, help="Leave jobs that run to the old workers, and go on.")
@option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    from_schema: str,
    prepare: bool,
    dry_run: bool,
    history: bool,
    leave_running: bool,
    as_json: bool,
) -> None:
    """Take over the jobs of Procrastinate 3 and older.

    Jobs that wait, or are scheduled, come into the app's schema, with their ids. In the old tables
    they are cancelled then, so that no old worker runs them. So are the marks of schedules taken
    over. Nothing is deleted, and it can be done again.

    Exits with 1 if jobs had to be left behind; it says which, and why. While old workers run jobs
    it refuses, and a dry run says so.
    """
    if prepare and (dry_run or history or leave_running):
        raise click.UsageError("--prepare goes with --from-schema only", ctx)
    with settings_of(ctx).open_app() as app:
        manager = app.schema_manager
        if prepare:
            above = manager.prepare_import(from_schema)
            click.echo(json.dumps({"ids_above": above}) if as_json else _above(above))
            return
        done = manager.import_jobs(
            from_schema, history=history, leave_running=leave_running, dry_run=dry_run
        )
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, **asdict(done)}))
    else:
        _tell(done, "would import" if dry_run else "imported", leave_running)
    if dry_run and done.running and not leave_running:
        raise ProcrastinateException(
            f"the import would refuse: {are_running(done.running, from_schema)}"
        )
    if done.left:
        count = counted(sum(each.count for each in done.left), "job")
        raise ProcrastinateException(
            f"{count} cannot be imported, and stayed in the schema {from_schema}"
        )


def _tell(done: Imported, verb: str, leave_running: bool) -> None:
    click.echo(f"{verb} {counted(done.ready, 'ready job')}")
    for count, what in (
        (done.scheduled, "scheduled job"),
        (done.ended, "ended job"),
        (done.schedules, "schedule"),
    ):
        if count:
            click.echo(f"{verb} {counted(count, what)}")
    if done.running and leave_running:
        click.echo(f"left to the old workers: {counted(done.running, 'running job')}")
    for left in done.left:
        ids = ", ".join(map(str, left.ids)) + (", ..." if left.count > len(left.ids) else "")
        click.echo(f"left behind: {counted(left.count, 'job')}, because {left.reason} (ids: {ids})")
    click.echo(_above(done.ids_above))


def _above(job_id: int) -> str:
    return f"ids of new jobs are above {job_id:,}"
