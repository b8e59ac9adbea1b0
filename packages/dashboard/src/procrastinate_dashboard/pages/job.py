"""One job: its life, its attempts and errors, its arguments, and why it waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from procrastinate import Job, WaitReason
from procrastinate.errors import InvalidArguments, JobNotFound
from procrastinate.model.job import UnreadableArguments
from procrastinate_dashboard import showing
from procrastinate_dashboard.messages import Request, Response
from procrastinate_dashboard.problems import Refused
from procrastinate_dashboard.site import Site, now

_LARGEST_ID = 2**63 - 1
#: Characters of arguments, a result or a traceback on the page; the whole is behind a link.
SHOWN = 4_000


@dataclass(frozen=True)
class Moment:
    """A point of a job's life: when, what happened, and how long it took to get there."""

    at: datetime
    what: str
    css: str = ""
    after: timedelta | None = None
    detail: str = ""


@dataclass(frozen=True)
class Text:
    """A long text: what is shown of it, and whether that is all."""

    shown: str
    is_whole: bool


def job(site: Site, request: Request, id: str) -> Response:
    """Show one job."""
    found = site.ask(("job", id), lambda: find(site, id))
    ended = found.status.is_final
    reasons = [] if ended else site.ask(("why", id), lambda: _reasons(site, found))
    return site.page(
        request,
        "job.html",
        job=found,
        life=life(found, now()),
        reasons=reasons,
        arguments=_cut(arguments_of(site, found)),
        unreadable=_unreadable(found),
        result=_cut(result_of(site, found)) if found.has_result else None,
        progress=_cut(_data_of(site, found)) if found.progress and found.progress.data else None,
        errors=[_error(site, each) for each in reversed(found.errors)],
    )


def whole(site: Site, request: Request, id: str, what: str) -> Response:
    """Show arguments, a result or errors in full, as plain text."""
    found = find(site, id)
    if what == "arguments":
        text = arguments_of(site, found)
    elif what == "result":
        text = result_of(site, found)
    else:
        text = "\n\n".join(_error_text(site, each) for each in reversed(found.errors))
    plain = showing.block(text, None) + "\n"
    return Response(
        plain.encode("utf-8", "backslashreplace"), content_type="text/plain; charset=utf-8"
    )


def find(site: Site, id: str) -> Job:
    """Return a job, also one whose arguments cannot be read. Raises `JobNotFound`."""
    number = int(id)
    if number > _LARGEST_ID:
        raise JobNotFound(f"there is no job {number}")
    try:
        return site.app.job_manager.get_job(number)
    except InvalidArguments:  # a list shows them as they are
        for found in site.app.job_manager.list_jobs(id=number, limit=1):
            return found
        raise


def arguments_of(site: Site, job: Job) -> str:
    """Return a job's arguments as JSON, without secrets."""
    if isinstance(job.task_kwargs, UnreadableArguments):
        return site.redaction.json(job.task_kwargs.text)
    return showing.pretty(site.redaction.values(job.task_name, job.task_kwargs))


def result_of(site: Site, job: Job) -> str:
    """Return a job's result as JSON, without secrets. Raises `Refused` if it has none."""
    if not job.has_result:
        raise Refused(404, "This job has no result")
    return showing.pretty(site.redaction.values(job.task_name, job.result))


def life(job: Job, now: datetime) -> list[Moment]:
    """Return what is known of a job's life, in order of time."""
    moments = [] if job.deferred_at is None else [Moment(job.deferred_at, "deferred")]
    if job.started_at:
        moments.append(Moment(job.started_at, f"attempt {max(job.attempts, 1)} started", "running"))
    moments += _failed_attempts(job)
    if job.finished_at:
        detail = _type_of(job.errors[-1]) if job.status == "failed" and job.errors else ""
        status = str(job.status)
        moments.append(Moment(job.finished_at, status, status, detail=detail))
    if job.status == "todo" and job.scheduled_at:
        what = "due" if job.scheduled_at > now else "due since then"
        moments.append(Moment(job.scheduled_at, what, "scheduled"))
    moments.sort(key=lambda each: each.at)
    return [_placed(moment, moments[at - 1] if at else None) for at, moment in enumerate(moments)]


def _failed_attempts(job: Job) -> Iterator[Moment]:
    """Return the failures, but for the one that the job has ended with."""
    for error in job.errors[:-1] if job.status == "failed" else job.errors:
        at = _time_of(error)
        if at is not None:
            what = f"attempt {error.get('attempt', '?')} failed"
            yield Moment(at, what, "failed", detail=_type_of(error))


def _type_of(error: dict[str, Any]) -> str:
    return showing.line(error.get("type") or "", 80)


def _placed(moment: Moment, before: Moment | None) -> Moment:
    after = None if before is None else moment.at - before.at
    return Moment(moment.at, moment.what, moment.css, after, moment.detail)


def _time_of(error: dict[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(error.get("at")))
    except ValueError:
        return None


def _reasons(site: Site, job: Job) -> list[WaitReason]:
    """Return why a job waits, or that one that runs was asked to end; its state is shown anyway."""
    try:
        found = site.app.job_manager.why_waiting(job.id)
    except JobNotFound:
        return []
    return [each for each in found if each.kind not in ("running", "ended")]


def _unreadable(job: Job) -> str | None:
    arguments = job.task_kwargs
    return arguments.reason if isinstance(arguments, UnreadableArguments) else None


def _data_of(site: Site, job: Job) -> str:
    data = job.progress.data if job.progress else {}
    return showing.pretty(site.redaction.values(job.task_name, data))


def _cut(text: str) -> Text:
    return Text(showing.block(text, SHOWN), len(text) <= SHOWN)


def _error(site: Site, error: dict[str, Any]) -> dict[str, Any]:
    return {
        "attempt": error.get("attempt"),
        "at": _time_of(error),
        "type": error.get("type") or "an error",
        "message": _cut(site.redaction.text(str(error.get("message") or ""))),
        "traceback": _cut(site.redaction.text(str(error.get("traceback") or ""))),
        "omitted": error.get("omitted"),
    }


def _error_text(site: Site, error: dict[str, Any]) -> str:
    head = f"attempt {error.get('attempt')}, {error.get('at')}: {error.get('type')}"
    parts = (head, error.get("message"), error.get("traceback"))
    return site.redaction.text("\n".join(str(each) for each in parts if each))
