"""Jobs and counts for other programs: JSON Lines, and lines of fields separated by tabs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from procrastinate.connector import Connector
from procrastinate.model.job import Job, UnreadableArguments
from procrastinate.model.progress import Progress
from procrastinate.model.text.failure import headline
from procrastinate.storage.jobs import Counts


def job_line(job: Job, connector: Connector) -> str:
    """Return a job as one line of JSON: all that `Job` has, times in ISO 8601, UTC.

    The line is ASCII, so that no terminal's or pipe's encoding can spoil it.
    """
    record = {field.name: _plain(getattr(job, field.name)) for field in fields(Job)}
    del record["hold"]
    record["state"] = job.state.value
    record["task_kwargs"] = _decoded(arguments(job, connector))
    record["result"] = _decoded(_text(job.result, connector))
    return json.dumps(record, separators=(",", ":"))


def _decoded(text: str) -> Any:
    """Return what a JSON text says; the text itself if it cannot be decoded."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def json_of(value: Any, connector: Connector) -> str:
    """Return a value as one line of JSON in ASCII: as the app would write it, if it can."""
    return json.dumps(_decoded(_text(value, connector)), separators=(",", ":"))


def counts_line(counts: Counts) -> str:
    """Return the counts of a queue, task or lock as one line of JSON."""
    return json.dumps(asdict(counts), separators=(",", ":"))


def arguments(job: Job, connector: Connector) -> str:
    """Return a job's arguments as JSON text: as the app would write it, where it can."""
    if isinstance(job.task_kwargs, UnreadableArguments):
        return job.task_kwargs.text
    return _text(job.task_kwargs, connector)


def result(job: Job, connector: Connector) -> str | None:
    """Return a job's result as JSON text; None if it has none."""
    return _text(job.result, connector) if job.has_result else None


def _text(value: Any, connector: Connector) -> str:
    try:
        return connector.json_dumps(value)
    except Exception:  # a json_dumps of the user's own may raise anything; people want to look
        return json.dumps(value, default=str, ensure_ascii=False)


def iso(moment: datetime | None) -> str:
    """Return a time in ISO 8601 to the microsecond, with its zone; empty for none."""
    return "" if moment is None else moment.isoformat(timespec="microseconds")


def tabbed(values: Iterable[Any]) -> str:
    """Return values as a line of fields separated by tabs; None is empty."""
    return "\t".join("" if value is None else printable(str(value)) for value in values)


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped (a line's end as ``\n``).

    A name must neither break a line nor give orders to a terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def last_error(job: Job) -> str:
    """Return the type and message of a job's last error; empty where it has none."""
    if not job.errors:
        return ""
    error = job.errors[-1]
    return headline(error.get("type"), error.get("message"))


def _plain(value: Any) -> Any:
    if isinstance(value, Progress):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return iso(value) if isinstance(value, datetime) else value


def lines(texts: Sequence[str]) -> str:
    """Return texts as lines, each ended."""
    return "".join(f"{text}\n" for text in texts)
