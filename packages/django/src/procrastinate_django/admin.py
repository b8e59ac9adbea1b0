"""Jobs in Django's admin: found within a budget, shown, retried, cancelled and aborted.

The list is a search of `app.job_manager.search_jobs`, which reads a limited number of rows however
many there are. So it has the newest `SHOWN` of the jobs that match, and never counts a whole table.
Secrets in arguments, results and errors are hidden, as in the dashboard.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import DataError, transaction
from django.template.response import TemplateResponse
from django.utils.html import format_html

from procrastinate.errors import InvalidOption
from procrastinate.model.states import State, Status
from procrastinate_django.acting import act
from procrastinate_django.conf import Redaction, read_conf
from procrastinate_django.models import Job
from procrastinate_django.project import project_app

SHOWN = 1_000  # jobs in a list
LISTED = 50  # of the jobs of which the page asks before they are aborted
_ID = re.compile(r"[0-9]{1,19}")
_IDS = re.compile(r"[0-9]{1,19}(,[0-9]{1,19})*")
_TEXTS = ("errors", "result")  # what a list does not read


class _ByState(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, state.value) for state in State]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset  # the search obeys it


class _ByQueue(_ByState):
    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        names = {info.name for info in project_app().queue_manager.list_queues()}
        asked = request.GET.get("queue")
        return [(name, name) for name in sorted(names | ({asked} if asked else set()))]


class JobList(ChangeList):
    """The jobs that a search finds."""

    is_cut_off = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.is_cut_off:
            self.title = f"The newest {self.result_count:,} of the jobs that match"

    def get_queryset(self, request: Any, *args: Any, **options: Any) -> Any:
        found = super().get_queryset(request, *args, **options)
        try:
            page = project_app().job_manager.search_jobs(limit=SHOWN, **self._wanted())
        except InvalidOption as exc:  # the admin answers with the whole list
            raise IncorrectLookupParameters(str(exc)) from exc
        self.is_cut_off = page.cursor is not None or not page.is_complete
        return found.filter(pk__in=[job.id for job in page.jobs]).defer(*_TEXTS)

    def get_results(self, request: Any) -> None:
        """Read the page's jobs; a value that the server refuses is a wrong question, as others."""
        try:
            with transaction.atomic(using=self.root_queryset.db):  # the request's own may go on
                super().get_results(request)
        except (DataError, ValueError) as exc:
            raise IncorrectLookupParameters(str(exc)) from exc

    def _wanted(self) -> dict[str, Any]:
        wanted = {name: self.params[name] for name in ("state", "queue") if self.params.get(name)}
        text = (self.query or "").strip()
        if _ID.fullmatch(text):
            wanted["id"] = int(text)
        elif text in set(project_app().tasks):
            wanted["task"] = text
        elif text:
            wanted["error"] = text
        return wanted


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """Shows jobs. Whoever may change jobs may retry, cancel and abort them."""

    list_display: ClassVar = (
        *("id", "state", "task_name", "queue", "attempts", "deferred_at", "finished_at"),
    )
    list_filter: ClassVar = (_ByState, _ByQueue)
    search_fields: ClassVar = ("id",)
    search_help_text = "An id, the name of a task, or a text of the last error."
    sortable_by: ClassVar = ()
    ordering: ClassVar = ("-id",)
    actions: ClassVar = ("retry", "cancel", "abort")
    list_per_page = 50
    show_full_result_count = False
    fields: ClassVar = (
        *("id", "state", "task_name", "arguments", "queue", "priority", "lock", "queueing_lock"),
        *("attempts", "worker_id", "deferred_at", "scheduled_at", "started_at", "finished_at"),
        *("all_errors", "kept_result", "why_no_result"),
    )
    readonly_fields: ClassVar = fields

    def get_changelist(self, request: Any, **options: Any) -> type[ChangeList]:
        return JobList

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> Any:
        return queryset, False  # the search obeys it

    def has_add_permission(self, request: Any, *args: Any) -> bool:
        return False

    def has_delete_permission(self, request: Any, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: Any, *args: Any) -> bool:
        return False  # of its fields: see `has_act_permission`

    def has_act_permission(self, request: Any) -> bool:
        """Return whether a user may retry, cancel and abort jobs."""
        return bool(request.user.has_perm("procrastinate_django.change_job"))

    @admin.action(description="Retry the selected jobs", permissions=["act"])
    def retry(self, request: Any, queryset: Any) -> None:
        act(request, queryset, "retried", project_app().job_manager.retry_job_by_id)

    @admin.action(description="Cancel the selected jobs that wait", permissions=["act"])
    def cancel(self, request: Any, queryset: Any) -> None:
        act(request, queryset, "cancelled", project_app().job_manager.cancel_job_by_id)

    @admin.action(description="Abort the selected jobs, also if they run…", permissions=["act"])
    def abort(self, request: Any, queryset: Any) -> TemplateResponse | None:
        ids = request.POST.get("ids", "")
        if not _IDS.fullmatch(ids):
            return self._ask(request, list(queryset))
        # Those that were shown, whatever has become of them: the list may have a filter.
        jobs = self.get_queryset(request).filter(pk__in=ids.split(",")).defer(*_TEXTS)
        cancel = project_app().job_manager.cancel_job_by_id
        act(request, jobs, "aborted or cancelled", functools.partial(cancel, abort=True))
        return None

    def _ask(self, request: Any, jobs: list[Job]) -> TemplateResponse | None:
        """Answer with the page that asks whether these jobs are to be aborted."""
        if not jobs:
            messages.warning(request, "no job is selected that is in this list still")
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": f"Abort {len(jobs)} job{'' if len(jobs) == 1 else 's'}?",
            "opts": self.opts,
            "jobs": jobs,
            "shown": jobs[:LISTED],
            "running": sum(job.status == Status.DOING for job in jobs),
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "procrastinate_django/abort.html", context)

    @admin.display(description="arguments")
    def arguments(self, job: Job) -> str:
        return _block(_pretty(_redaction().values(job.task_name, job.task_kwargs), indent=2))

    @admin.display(description="errors")
    def all_errors(self, job: Job) -> str:
        texts = [str(each.get("traceback") or each.get("message")) for each in job.errors or ()]
        return _block(_redaction().text("\n".join(texts))) if texts else "-"

    @admin.display(description="result")
    def kept_result(self, job: Job) -> str:
        if job.result is None:
            return "-"
        return _block(_pretty(_redaction().values(job.task_name, job.result)))

    @admin.display(description="why there is no result")
    def why_no_result(self, job: Job) -> str:
        return _redaction().text(job.result_error or "-")


def _redaction() -> Redaction:
    return Redaction(read_conf().redact)


def _pretty(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)


def _block(text: str) -> str:
    return format_html("<pre>{}</pre>", text)
