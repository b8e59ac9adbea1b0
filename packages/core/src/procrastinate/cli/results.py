"""Waiting for one job's end on the command line, and showing results."""

from __future__ import annotations

from datetime import timedelta

import click

from procrastinate.app.app import App
from procrastinate.app.calling import naming
from procrastinate.cli import records
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.model.endings import ended
from procrastinate.model.job import Job, Status


def wait_and_print(app: App, job_id: int, timeout: timedelta | None) -> ExitCode:
    """Wait until a job has ended, and print its result as one line of JSON.

    Raises a `JobUnsuccessful` if it did not succeed. An error of the database names the job.
    """
    try:
        click.echo(f"waiting for job {job_id}", err=True)
        with naming(job_id):
            job = app.job_manager.wait_until_ended(job_id, timeout=timeout)
    except TimeoutError as exc:
        click.echo(f"error: {exc}", err=True)
        return ExitCode.NOT_IN_TIME
    except KeyboardInterrupt:
        click.echo(f"job {job_id} stays as it is: `procrastinate jobs {job_id}` shows it", err=True)
        raise
    _print(app, job)
    return ExitCode.OK


def _print(app: App, job: Job) -> None:
    asked_for = job.has_result or job.result_error is not None
    if job.status is Status.SUCCEEDED and not asked_for:
        click.echo(f"job {job.id} has succeeded; its task keeps no result", err=True)
        return
    click.echo(records.json_of(ended.value_of(job), app.connector))
