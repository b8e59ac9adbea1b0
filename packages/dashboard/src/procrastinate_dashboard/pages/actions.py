"""What changes something: each is asked about on a page of its own, done by POST, and logged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from procrastinate import Job, Status
from procrastinate.model.queue_names import EVERY_QUEUE, SPARED
from procrastinate.model.text.printable import counted, line, shown
from procrastinate_dashboard.asking import (
    FILTERS,
    TIMES,
    address,
    age_from,
    given_filters,
    job_filters,
    time_from,
)
from procrastinate_dashboard.messages import Request, Response, redirect
from procrastinate_dashboard.pages.job import find
from procrastinate_dashboard.problems import Refused
from procrastinate_dashboard.showing import moment
from procrastinate_dashboard.site import Site, now

logger = logging.getLogger("procrastinate.dashboard")

#: Jobs that one click changes. If there are more, the page says so, and a further click goes on.
MOST_AT_ONCE = 10_000
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Words:
    """How an action on a job is asked about and told, and which jobs it is for."""

    statuses: frozenset[Status]
    button: str
    question: str
    done: str
    refused: str


ON_JOB = {
    "retry": Words(
        frozenset({Status.TODO, Status.FAILED, Status.CANCELLED, Status.ABORTED}),
        "Retry",
        "It becomes due now, with as many attempts as a new job.",
        "is due now",
        "cannot be retried: it runs, has succeeded, or is gone",
    ),
    "cancel": Words(
        frozenset({Status.TODO}),
        "Cancel",
        "It will not run. A cancelled job can be retried later.",
        "is cancelled",
        "cannot be cancelled: it runs, has ended, or is gone",
    ),
    "abort": Words(
        frozenset({Status.DOING}),
        "Abort",
        "Its task is asked to end. A task that does not obey goes on.",
        "is asked to end",
        "cannot be aborted: it does not run",
    ),
}

#: States of jobs that are left alone by a change of many, so that it would change none.
_NOT_RETRIED = frozenset({"running", "succeeded"})
_NOT_CANCELLED = frozenset({"running", "succeeded", "failed", "cancelled", "aborted"})

ON_JOBS = {"retry": ("Retry", "retried"), "cancel": ("Cancel", "cancelled")}


# --- one job --------------------------------------------------------------------------------------


def ask_for_job(site: Site, request: Request, id: str, what: str) -> Response:
    """Ask whether to change a job."""
    job = find(site, id)
    _check_status(job, what)
    words = ON_JOB[what]
    return _confirm(
        site,
        request,
        headline=f"{words.button} job {job.id}?",
        subject=f"{line(job.task_name, 120)} in queue {line(job.queue, 80)}, {job.state}",
        advice=words.question,
        button=f"{words.button} job {job.id}",
        back=f"{request.root}jobs/{job.id}",
    )


def act_on_job(site: Site, request: Request, id: str, what: str) -> Response:
    """Change a job, and show it."""
    job, manager = find(site, id), site.app.job_manager
    _check_status(job, what)
    number = job.id
    if what == "retry":
        done = manager.retry_job_by_id(number)
    else:
        done = manager.cancel_job_by_id(number, abort=what == "abort")
    if not done:
        raise _not_so(number, what)
    _log(site, request, f"{what} job {number}")
    return redirect(address(f"{request.root}jobs/{number}", done=what))


def _check_status(job: Job, what: str) -> None:
    if job.status not in ON_JOB[what].statuses:
        raise _not_so(job.id, what)


def _not_so(number: int, what: str) -> Refused:
    return Refused(409, f"Job {number} {ON_JOB[what].refused}", "Nothing was changed.")


# --- many jobs ------------------------------------------------------------------------------------


def ask_for_jobs(site: Site, request: Request, what: str) -> Response:
    """Ask whether to change all jobs that match, as they are now, with their number."""
    given = given_filters(request.query)
    count = _count(site, _checked(given, what))
    button, _ = ON_JOBS[what]
    subject = ", ".join(f"{name} {_written(name, value)}" for name, value in given.items())
    return _confirm(
        site,
        request,
        headline=f"{button} {count} {'job' if count == '1' else 'jobs'}?",
        subject=subject,
        advice=_advice(what),
        button=f"{button} {count} {'job' if count == '1' else 'jobs'}",
        back=address(f"{request.root}jobs", **given),
        hidden=given,
        is_empty=count == "0",
    )


def _advice(what: str) -> str:
    text = {
        "retry": "They become due now, with as many attempts as new jobs.",
        "cancel": "They will not run. Cancelled jobs can be retried later.",
    }[what]
    return f"{text} At most {MOST_AT_ONCE:,} are changed at once, the oldest first."


def act_on_jobs(site: Site, request: Request, what: str) -> Response:
    """Change all jobs that match, and show the list."""
    given = given_filters(request.form)
    filters = _checked(given, what)
    manager = site.app.job_manager
    change = manager.retry_jobs if what == "retry" else manager.cancel_jobs
    changed = change(limit=MOST_AT_ONCE, **filters)
    _log(site, request, f"{what} {counted(len(changed), 'job')}", **given)
    kept = {name: value for name, value in given.items() if name != "until"}
    page = f"{request.root}jobs"
    return redirect(address(page, **kept, done=what, count=len(changed)))


def _written(name: str, value: str) -> str:
    """Return a filter as people read it: a time to the second."""
    if name in TIMES and age_from(value) is None:
        return f"{moment(time_from(name, value, now()))} UTC"
    return line(value, 120)


def _checked(given: Mapping[str, str], what: str) -> dict[str, Any]:
    """Return the filters of a change. Raises `Refused` without one, and for jobs that it cannot."""
    filters = job_filters(given, now())
    if "state" in filters and filters["state"] in (
        _NOT_RETRIED if what == "retry" else _NOT_CANCELLED
    ):
        raise Refused(409, f"Jobs that are {filters['state']} cannot be {ON_JOBS[what][1]}")
    if not filters.keys() - {"until", "since"}:
        raise Refused(400, "Which jobs?", "A change of many jobs needs a filter beside the time.")
    return filters


def _count(site: Site, filters: dict[str, Any]) -> str:
    return str(site.app.job_manager.count_jobs(**filters))


# --- a queue --------------------------------------------------------------------------------------


_ABOUT_ONE = {
    "pause": "Workers begin none of its jobs until it is resumed. Jobs that run go on.",
    "resume": "Workers begin its jobs again.",
}
_ABOUT_ALL = {
    "pause": f"Workers begin no job until all are resumed, but for those of the queue {SPARED!r}."
    " Jobs that run go on.",
    "resume": "Workers begin jobs again, but for those of queues that are paused by name.",
}


def ask_for_queue(site: Site, request: Request, what: str) -> Response:
    """Ask whether to pause a queue, and why, or to resume it."""
    queue = _queue(request.query)
    words = "all queues" if queue == EVERY_QUEUE else f"queue {line(queue, 80)}"
    advice = _ABOUT_ALL if queue == EVERY_QUEUE else _ABOUT_ONE
    return _confirm(
        site,
        request,
        headline=f"{what.title()} {words}?",
        advice=advice[what],
        button=f"{what.title()} {words}",
        back=f"{request.root}queues",
        hidden={"queue": queue},
        asks_reason=what == "pause",
    )


def act_on_queue(site: Site, request: Request, what: str) -> Response:
    """Pause or resume a queue, and show the queues."""
    queue = _queue(request.form)
    manager = site.app.queue_manager
    done = what
    if what == "resume":
        done = "resume" if manager.resume(queue) else "nothing"
    else:
        reason = request.form.get("reason", "").strip()[:_LONGEST_REASON] or None
        user = request.access.user if request.access else None
        manager.pause(queue, reason=reason, until=_until(request), by=user)
    _log(site, request, f"{what} queue {line(queue, 80)}")
    return redirect(address(f"{request.root}queues", done=done, named=queue))


def _queue(values: Mapping[str, str]) -> str:
    queue = values.get("queue", "")
    if not queue:
        raise Refused(400, "Which queue?")
    return queue


def _until(request: Request) -> datetime | None:
    """Return when a pause ends by itself: the form says in how long, as an age is written."""
    text = request.form.get("for", "").strip()
    if not text:
        return None
    length = age_from(text)
    if length is None:
        said = f"A pause lasts for a time such as 30m, 2h or 7d, not {shown(text)}."
        raise Refused(400, "That is no length of time", said)
    return now() + length


def _confirm(site: Site, request: Request, **values: Any) -> Response:
    defaults = {"subject": "", "hidden": {}, "asks_reason": False, "is_empty": False}
    return site.page(request, "confirm.html", **{**defaults, **values})


def _log(site: Site, request: Request, what: str, **given: str) -> None:
    """Note who did what, and forget the answers from before it."""
    site.shared.forget()
    user = line(request.access.user, 80) if request.access else "?"
    filters = {name: line(given[name], 200) for name in FILTERS if name in given}
    logger.info(
        "%s from %s: %s%s",
        user,
        request.remote or "?",
        what,
        f" ({', '.join(f'{name}={value}' for name, value in filters.items())})" if filters else "",
        extra={"action": "dashboard_action", "user": user},
    )
