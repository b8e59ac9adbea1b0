"""Jobs as a model and in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from procrastinate_django import app
from procrastinate_django.admin import JobAdmin
from procrastinate_django.models import Job, ReadOnly

LIST = "/admin/procrastinate_django/job/"


@pytest.fixture
def client(tables: None) -> Client:
    """A superuser's browser."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def of_staff(*permissions: str) -> Client:
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def shown(client: Client, query: str = "") -> list[int]:
    """Return the ids in the list."""
    response = client.get(LIST + query)
    assert response.status_code == 200
    return [job.pk for job in response.context["cl"].result_list]


def defer(task: str = "task", **options: Any) -> int:
    return app.configure_task(task, **options).defer(n=1)


def test_the_model_reads_jobs(tables: None) -> None:
    job_id = defer(queue="mail", priority=3)
    job = Job.objects.get(pk=job_id)
    assert (job.state, job.queue, job.task_kwargs) == ("ready", "mail", {"n": 1})
    assert list(Job.objects.filter(status="todo", queue="mail")) == [job]
    assert str(job) == f"task[{job_id}]"


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job.save(),
        lambda job: job.delete(),
        lambda job: Job.objects.create(id=1),
        lambda job: Job.objects.bulk_create([job]),
        lambda job: Job.objects.all().update(priority=1),
        lambda job: Job.objects.all().delete(),
    ],
)
def test_the_model_changes_nothing(tables: None, change: Any) -> None:
    job = Job.objects.get(pk=defer())
    with pytest.raises(ReadOnly, match="job_manager"):
        change(job)
    assert Job.objects.count() == 1


def test_the_list_is_filtered_and_searched(client: Client) -> None:
    mail, later = defer(queue="mail"), defer(schedule_in={"days": 1})
    cancelled = defer("another")
    app.job_manager.cancel_job_by_id(cancelled)
    assert shown(client) == [cancelled, later, mail]
    assert shown(client, "?queue=mail") == [mail]
    assert shown(client, "?state=scheduled") == [later]
    assert shown(client, "?state=cancelled&queue=default") == [cancelled]
    assert shown(client, "?queue=nowhere") == []
    assert shown(client, f"?q={later}") == [later]
    assert shown(client, "?q=an+error+that+none+has") == []


@pytest.mark.parametrize(
    "query", ["state=sleeping", "q=" + "9" * 19, "q=" + "9" * 5000, "q=a%00b", "queue=%00"]
)
def test_what_cannot_be_asked_for_is_no_failure(client: Client, query: str) -> None:
    assert client.get(f"{LIST}?{query}", follow=True).status_code == 200


def test_a_list_that_is_cut_off_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procrastinate_django.admin.SHOWN", 2)
    ids = [defer() for _ in range(3)]
    assert shown(client) == [ids[2], ids[1]]
    assert b"The newest 2 of the jobs that match" in client.get(LIST).content


def test_a_job_is_shown_and_cannot_be_edited(client: Client) -> None:
    job_id = app.configure_task("task").defer(text="<script>")
    response = client.get(f"{LIST}{job_id}/change/")
    assert response.status_code == 200
    assert b"&lt;script&gt;" in response.content
    assert b"<script>&quot;" not in response.content
    assert b'name="_save"' not in response.content


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("cancel", "todo", "cancelled"),
        ("abort", "todo", "cancelled"),
        ("retry", "cancelled", "todo"),
    ],
)
def test_actions_change_the_selected_jobs(
    client: Client, action: str, before: str, after: str
) -> None:
    chosen, other = defer(), defer()
    if before == "cancelled":
        app.job_manager.cancel_job_by_id(chosen)
    answer = client.post(LIST, {"action": action, "_selected_action": [chosen]}, follow=True)
    assert b"1 of 1 jobs were" in answer.content
    assert app.job_manager.get_job_status(chosen) == after
    assert app.job_manager.get_job_status(other) == "todo"


def test_what_could_not_be_done_is_said(client: Client) -> None:
    job_id = defer()
    answer = client.post(LIST, {"action": "cancel", "_selected_action": [job_id]}, follow=True)
    answer = client.post(
        f"{LIST}?state=cancelled", {"action": "cancel", "_selected_action": [job_id]}, follow=True
    )
    assert b"0 of 1 jobs were cancelled" in answer.content


def test_who_may_only_view_has_no_actions(tables: None) -> None:
    client = of_staff("view_job")
    job_id = defer()
    assert shown(client) == [job_id]
    assert client.get(LIST).context["action_form"] is None
    client.post(LIST, {"action": "cancel", "_selected_action": [job_id]})
    assert app.job_manager.get_job_status(job_id) == "todo"


def test_who_may_change_jobs_may_act(tables: None) -> None:
    client = of_staff("view_job", "change_job")
    job_id = defer()
    client.post(LIST, {"action": "cancel", "_selected_action": [job_id]})
    assert app.job_manager.get_job_status(job_id) == "cancelled"


def test_who_is_no_staff_sees_nothing(tables: None) -> None:
    assert Client().get(LIST).status_code == 302
    assert of_staff().get(LIST).status_code == 403


def test_the_list_reads_no_texts() -> None:
    assert not {"errors", "result"} & set(JobAdmin.list_display)
