"""Everything about one job, with its errors and their tracebacks."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from procrastinate.app.app import App
from procrastinate.cli import records
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.fleet import duration
from procrastinate.connector import Connector
from procrastinate.errors import JobNotFound
from procrastinate.model.job import Job, Status, UnreadableArguments
from procrastinate.model.monitoring.why import Why
from procrastinate.model.text.failure import headline

SHOWN = 1_000  # characters of a result, and of arguments that cannot be decoded


def show(app: App, ids: Sequence[int], *, as_json: bool) -> ExitCode:
    """Print each of these jobs; the exit code says whether all of them are there."""
    found = {job.id: job for job in app.job_manager.list_jobs(id=ids, limit=len(ids))}
    ids = list(dict.fromkeys(ids))
    known = [job_id for job_id in ids if job_id in found]
    if as_json:
        texts = [records.job_line(found[each], app.connector) for each in known]
        sys.stdout.write(records.lines(texts))
    else:
        blocks = [records.lines(list(_block(app, found[each]))) for each in known]
        sys.stdout.write("\n".join(blocks))
    sys.stdout.flush()
    return missing([each for each in ids if each not in found])


def missing(ids: Sequence[int]) -> ExitCode:
    """Tell of the ids that no job has."""
    for job_id in ids:
        click.echo(f"error: there is no job {job_id}", err=True)
    return ExitCode.ERROR if ids else ExitCode.OK


def _block(app: App, job: Job) -> Iterator[str]:
    """Yield the lines for one job: what there is to know, and then its errors."""
    connector = app.connector
    rows = [
        ("job", f"{job.id}, {job.state}"),
        ("task", job.task_name),
        ("queue", job.queue),
        ("arguments", _arguments(job, connector)),
        ("priority", job.priority),
        ("lock", job.lock),
        ("queueing lock", job.queueing_lock),
        ("attempts", job.attempts),
        ("worker", job.worker),
        ("deferred", local(job.deferred_at)),
        ("scheduled", local(job.scheduled_at)),
        ("started", local(job.started_at)),
        *_run(app, job),
        # A job that waits again keeps the time of its last end in the table.
        ("ended", local(job.finished_at) if job.status.is_final else None),
        ("progress", _progress(job)),
        ("result", _cut(records.result(job, connector))),
        ("no result", job.result_error),
    ]
    for name, value in rows:
        if value is not None:
            yield f"{name:<14} {records.printable(str(value))}"
    for error in job.errors:
        yield ""
        yield from _error(error)


def _run(app: App, job: Job) -> Iterator[tuple[str, str]]:
    """Yield for how long a job runs, and whether it was asked to end."""
    if job.status is not Status.DOING:
        return
    if job.started_at is not None:
        yield "running for", duration((datetime.now(UTC) - job.started_at).total_seconds())
    with contextlib.suppress(JobNotFound):  # it has ended and was deleted since
        kinds = {reason.kind for reason in app.job_manager.why_waiting(job.id)}
        if Why.ABORT_REQUESTED in kinds:
            yield "asked to end", "yes, and its task has not obeyed yet"


def _arguments(job: Job, connector: Connector) -> str:
    if not isinstance(job.task_kwargs, UnreadableArguments):
        return records.arguments(job, connector)
    text, reason = job.task_kwargs.text, job.task_kwargs.reason
    return f"cannot be decoded ({reason}): {_cut(text)}"


def _progress(job: Job) -> str | None:
    """Return how far a running job said that it is."""
    if job.progress is None:
        return None
    said = job.progress
    data = json.dumps(said.data, default=str, ensure_ascii=False) if said.data else None
    at = None if said.updated_at is None else f"at {local(said.updated_at)}"
    parts = [f"{said.fraction:.1%}", said.message, _cut(data), at]
    return ", ".join(part for part in parts if part)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _error(error: dict[str, Any]) -> Iterator[str]:
    at = _moment(error.get("at"))
    when = f", {at}" if at else ""
    yield from _told(f"attempt {error.get('attempt')}{when}", error)
    retry_error = error.get("retry_error")
    if isinstance(retry_error, dict):
        yield from _told("no retry, as its strategy failed", retry_error)


def _moment(at: Any) -> str | None:
    """Return the time of an error as it is shown; by hand, anything may stand there."""
    try:
        return local(datetime.fromisoformat(at)) if at else None
    except (TypeError, ValueError, OverflowError):
        return str(at)


def _told(what: str, error: dict[str, Any]) -> Iterator[str]:
    yield records.printable(f"{what}: {headline(error.get('type'), error.get('message'))}")
    for line in str(error.get("traceback") or "").splitlines():
        yield f"  {records.printable(line)}"


def local(moment: datetime | None) -> str | None:
    """Return a time in the local zone, with its distance from UTC."""
    return None if moment is None else moment.astimezone().isoformat(" ", "milliseconds")
