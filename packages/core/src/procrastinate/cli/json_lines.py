"""Jobs from lines of JSON: read, checked and inserted piece by piece.

Rules

1. By default everything is one transaction: a broken line, an interruption or a lost connection
   leaves nothing behind. The input is never held in memory as a whole, only its ids are.
2. With ``commit_every`` each so many lines are a transaction of their own, for input that is
   endless or slow; an error then says how many jobs were deferred before it.
3. Every error names the line, counted from 1 with the blank ones, where one line is to blame.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from procrastinate.app.deferring import JobDeferrer, new_job
from procrastinate.connector import Connector
from procrastinate.drive import Flow
from procrastinate.errors import (
    AlreadyEnqueued,
    ConnectionLost,
    InvalidArguments,
    ProcrastinateException,
)
from procrastinate.model.job import NewJob
from procrastinate.model.text.printable import counted
from procrastinate.storage import defer as flows

JOBS_PER_STATEMENT = 1_000

_BOM = b"\xef\xbb\xbf"


class Progress:
    """Is told how far the work is, in a ``with`` block; this one does not show it."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def update(self, jobs: int, read: int) -> None:
        """Show how many jobs were inserted and how many bytes were read."""


@dataclass
class Deferred:
    """What became of the lines: ids of new jobs, and how many were waiting already."""

    ids: list[int] = field(default_factory=list)
    ignored: int = 0


@dataclass
class _Reader:
    """The input's lines as jobs. ``line`` and ``read`` say how far it has come."""

    lines: Iterator[bytes]
    job_of: Callable[[Mapping[str, Any]], NewJob]
    connector: Connector
    line: int = 0
    read: int = 0

    def jobs(self) -> Iterator[NewJob]:
        for raw in self.lines:
            self.line += 1
            self.read += len(raw)
            raw = raw.removeprefix(_BOM) if self.line == 1 else raw
            if raw.strip():
                yield self._job(raw)

    def _job(self, raw: bytes) -> NewJob:
        try:
            return self.job_of(arguments(_decoded(raw), self.connector))
        except InvalidArguments as exc:
            raise InvalidArguments(f"line {self.line}: {exc}") from exc


def defer_lines(
    deferrer: JobDeferrer[..., Any],
    lines: Iterable[bytes],
    *,
    one_by_one: bool,
    commit_every: int | None,
    progress: Progress,
) -> Deferred:
    """Defer a job for each line and return their ids in that order. The app must be open.

    ``one_by_one`` leaves out jobs whose queueing lock is taken. Raises `InvalidArguments` and
    `AlreadyEnqueued`; what was committed before stays deferred, and the message says so.
    """
    gateway = deferrer._gateway

    def job_of(kwargs: Mapping[str, Any]) -> NewJob:
        return new_job(deferrer.options, kwargs, gateway.connector)

    reader = _Reader(iter(lines), job_of, gateway.connector)
    jobs = reader.jobs()
    deferred = Deferred()

    def transaction() -> Flow[Deferred]:
        """One transaction: reads until the input or ``commit_every`` jobs are at their end."""
        new = Deferred()
        mine = itertools.islice(jobs, commit_every)
        while some := list(itertools.islice(mine, JOBS_PER_STATEMENT)):
            yield from insert(some, new)
            progress.update(len(deferred.ids) + len(new.ids), reader.read)
        return new

    def insert(some: list[NewJob], new: Deferred) -> Flow[None]:
        if not one_by_one:
            new.ids += yield from flows.defer_jobs(some)
            return
        for job in some:
            try:
                new.ids.append((yield from flows.defer_job(job)))
            except AlreadyEnqueued:
                new.ignored += 1

    try:
        while (new := gateway.run(transaction(), transaction=True)) != Deferred():
            deferred.ids += new.ids
            deferred.ignored += new.ignored
    except ProcrastinateException as exc:
        raise _with_outcome(exc, deferred) from exc
    return deferred


def arguments(text: str, connector: Connector) -> dict[str, Any]:
    """Return a task's arguments from JSON text. Raises `InvalidArguments`."""
    try:
        value = connector.json_loads(text)
    except Exception as exc:  # a json_loads of the user's own may raise anything
        raise InvalidArguments(
            f"the arguments are not JSON: {_reason(exc)}: {_shortened(text)}"
        ) from exc
    if not isinstance(value, dict):
        raise InvalidArguments(
            "the arguments are not a JSON object of names and values, such as"
            f' {{"n": 1}}: {_shortened(text)}'
        )
    return value


def _reason(exc: Exception) -> str:
    """What is wrong, without a second line number beside the input's."""
    if isinstance(exc, json.JSONDecodeError) and exc.lineno == 1:
        return f"{exc.msg} at column {exc.colno}"
    return str(exc)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode().strip()
    except UnicodeDecodeError as exc:
        raise InvalidArguments(f"the line is not UTF-8: {exc}") from exc


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _with_outcome(exc: ProcrastinateException, deferred: Deferred) -> ProcrastinateException:
    """The same kind of error, saying also how much was deferred before.

    A connection that is lost while it commits leaves that transaction's fate unknown.
    """
    count = len(deferred.ids)
    if isinstance(exc, ConnectionLost):
        outcome = f"known to be deferred: {counted(count, 'job')}"
    else:
        outcome = f"{counted(count, 'job')} had been deferred" if count else "nothing was deferred"
    return type(exc)(f"{str(exc).removesuffix('; nothing was deferred')}; {outcome}")
