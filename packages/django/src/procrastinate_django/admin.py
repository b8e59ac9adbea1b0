"""Jobs in Django's admin: found within a budget, shown, retried, cancelled and aborted.

The list is a search of `app.job_manager.search_jobs`, which reads a limited number of rows however
many there are. So it has the newest `SHOWN` of the jobs that match, and never counts a whole table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.utils.html import format_html

from procrastinate import AlreadyEnqueued
from procrastinate.errors import InvalidOption, ProcrastinateException
from procrastinate.model.states import State
from procrastinate_django.models import Job
from procrastinate_django.project import project_app

SHOWN = 1_000  # jobs in a list
_ID = re.compile(r"[0-9]{1,19}")
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
        *("all_errors", "kept_result", "result_error"),
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
        self._act(request, queryset, "retried", project_app().job_manager.retry_job_by_id)

    @admin.action(description="Cancel the selected jobs that wait", permissions=["act"])
    def cancel(self, request: Any, queryset: Any) -> None:
        self._act(request, queryset, "cancelled", project_app().job_manager.cancel_job_by_id)

    @admin.action(description="Abort the selected jobs, also if they run", permissions=["act"])
    def abort(self, request: Any, queryset: Any) -> None:
        cancel = project_app().job_manager.cancel_job_by_id
        self._act(request, queryset, "aborted or cancelled", lambda id: cancel(id, abort=True))

    def _act(self, request: Any, queryset: Any, done: str, act: Callable[[int], bool]) -> None:
        ids = list(queryset.values_list("pk", flat=True))
        count = 0
        for job_id in ids:
            try:
                count += act(job_id)
            except AlreadyEnqueued:  # a twin waits: it will do the work
                continue
            except ProcrastinateException as exc:
                self.message_user(request, f"job {job_id}: {exc}", messages.ERROR)
        level = messages.SUCCESS if count == len(ids) else messages.WARNING
        self.message_user(request, f"{count} of {len(ids)} jobs were {done}", level)

    @admin.display(description="arguments")
    def arguments(self, job: Job) -> str:
        return _block(json.dumps(job.task_kwargs, indent=2, ensure_ascii=False))

    @admin.display(description="errors")
    def all_errors(self, job: Job) -> str:
        texts = [str(each.get("traceback") or each.get("message")) for each in job.errors or ()]
        return _block("\n".join(texts)) if texts else "-"

    @admin.display(description="result")
    def kept_result(self, job: Job) -> str:
        return "-" if job.result is None else _block(json.dumps(job.result, ensure_ascii=False))


def _block(text: str) -> str:
    return format_html("<pre>{}</pre>", text)
