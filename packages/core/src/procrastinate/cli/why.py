"""``procrastinate jobs why``: what a job waits for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from procrastinate.cli import details, records
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.options import option
from procrastinate.cli.settings import settings_of
from procrastinate.cli.values import Id
from procrastinate.errors import JobNotFound
from procrastinate.model.monitoring.why import WaitReason


@click.command("why")
@click.argument("ids", type=Id(), nargs=-1, required=True, metavar="ID...")
@option("--json", is_flag=True, help="Print one JSON object a line, for each reason.")
@click.pass_context
def why(ctx: click.Context, /, ids: tuple[int, ...], **given: Any) -> ExitCode:
    """Say why jobs wait: what has to end first stands first.

    That is a time, a lock and the job that has it, a pause, that no live worker serves the queue or
    knows the task, that all its workers are busy or blocked, or only other jobs that come first.
    """
    unknown = []
    with settings_of(ctx).open_app() as app:
        for job_id in dict.fromkeys(ids):
            try:
                reasons = app.job_manager.why_waiting(job_id)
            except JobNotFound:
                unknown.append(job_id)
                continue
            lines = _json if given["json"] else _text
            sys.stdout.write(records.lines(list(lines(job_id, reasons))))
    sys.stdout.flush()
    return details.missing(unknown)


def _json(job_id: int, reasons: list[WaitReason]) -> Iterator[str]:
    for each in reasons:
        until = None if each.until is None else records.iso(each.until)
        record = {
            "id": job_id,
            "kind": str(each.kind),
            "text": each.text,
            "until": until,
            "job_id": each.job_id,
        }
        yield json.dumps(record, separators=(",", ":"))


def _text(job_id: int, reasons: list[WaitReason]) -> Iterator[str]:
    for each in reasons:
        until = f", until {details.local(each.until)}" if each.until else ""
        yield records.printable(f"job {job_id}: {each.text}{until}")
