"""Jobs as a model and in the admin."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, override_settings

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
    "query",
    [
        *("state=sleeping", "q=" + "9" * 19, "q=" + "9" * 5000, "q=a%00b", "queue=%00"),
        *("status=bogus", "status__exact=bogus", "status__in=todo,bogus", "status=a%00b"),
        *("lock=%00", "id=x", "id=" + "9" * 30, "hold=bogus", "priority=x", "worker_id=x"),
    ],
)
def test_what_cannot_be_asked_for_is_no_failure(client: Client, query: str) -> None:
    defer()
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
    ("action", "before", "after", "done"),
    [
        ("cancel", "todo", "cancelled", "cancelled"),
        ("abort", "todo", "cancelled", "aborted or cancelled"),
        ("retry", "cancelled", "todo", "retried"),
    ],
)
def test_actions_change_the_selected_jobs(
    client: Client,
    action: str,
    before: str,
    after: str,
    done: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen, other = defer(), defer()
    if before == "cancelled":
        app.job_manager.cancel_job_by_id(chosen)
    with caplog.at_level("INFO", "procrastinate.admin"):
        answer = post(client, action, chosen, ids=str(chosen))
    assert f"1 of 1 jobs were {done}".encode() in answer.content
    assert app.job_manager.get_job_status(chosen) == after
    assert app.job_manager.get_job_status(other) == "todo"
    assert noted() == [("root", str(chosen), done.capitalize())]
    (record,) = caplog.records
    said = f"root from 127.0.0.1: {done} 1 jobs in the admin (ids: {chosen})"
    assert (record.getMessage(), record.__dict__["user"]) == (said, "root")
    history = client.get(f"{LIST}{chosen}/history/")
    assert done.capitalize().encode() in history.content


def post(client: Client, action: str, *ids: int, query: str = "", **fields: str) -> Any:
    form = {"action": action, "_selected_action": ids, **fields}
    return client.post(LIST + query, form, follow=True)


def noted() -> list[tuple[str, str, str]]:
    """Return what Django's log of changes has: the user, the job and the text."""
    rows = LogEntry.objects.order_by("pk")
    return list(rows.values_list("user__username", "object_id", "change_message"))


def test_the_name_of_a_user_forges_no_line_of_the_log(
    tables: None, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("ann\n2026-01-01 root"))
    with caplog.at_level("INFO", "procrastinate.admin"):
        post(client, "cancel", defer())
    assert caplog.records[0].getMessage().startswith("ann\\n2026-01-01 root from")


def test_jobs_are_aborted_once_that_is_confirmed(client: Client) -> None:
    waits, runs = defer(), defer("<b>runs")
    run(f"update procrastinate_jobs set status = 'doing' where id = {runs}")
    asked = client.post(LIST, {"action": "abort", "_selected_action": [waits, runs]})
    assert asked.status_code == 200
    assert b"1 of 2 run now" in asked.content
    assert b"&lt;b&gt;runs" in asked.content
    assert app.job_manager.get_job_status(waits) == "todo"
    assert noted() == []
    (field,) = re.findall(rb'name="ids" value="([0-9,]+)"', asked.content)
    # A filter that the jobs do not fit any more leaves none out that was shown.
    answer = post(client, "abort", waits, query="?state=cancelled", ids=field.decode())
    assert b"2 of 2 jobs were aborted" in answer.content
    assert app.job_manager.get_job_status(waits) == "cancelled"
    with connection.cursor() as cursor:
        cursor.execute("select id from procrastinate_jobs where abort_requested")
        assert cursor.fetchall() == [(runs,)]
    assert {job for _, job, _ in noted()} == {str(waits), str(runs)}


@pytest.mark.parametrize("ids", ["", "1,", "x", "1;2", ",", "1 or 1"])
def test_ids_that_are_none_abort_nothing(client: Client, ids: str) -> None:
    job_id = defer()
    assert b"Abort 1 job" in post(client, "abort", job_id, ids=ids).content
    assert app.job_manager.get_job_status(job_id) == "todo"


def test_more_jobs_are_aborted_than_a_form_may_have_fields(client: Client) -> None:
    app.configure_task("task").batch_defer(*[{"n": 1}] * 600)
    select = {"action": "abort", "select_across": "1", "_selected_action": [defer()]}
    asked = client.post(LIST, select).content.decode()
    (ids,) = re.findall(r'name="ids" value="([0-9,]+)"', asked)
    assert (ids.count(","), asked.count("<li><a")) == (600, 50)


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_secrets_are_hidden(client: Client) -> None:
    job_id = app.configure_task("task").defer(
        password="s3cret", iban="DE1-of-an-account", deep=[{"token": "x9-hidden-token"}]
    )
    errors = json.dumps([{"message": "no dsn password=s3cret"}])
    run(
        "update procrastinate_jobs set status = 'failed', finished_at = now(),"
        f" result_error = 'postgresql://ann:s3cret@db/x', errors = '{errors}' where id = {job_id}"
    )
    page = client.get(f"{LIST}{job_id}/change/").content.decode()
    assert "s3cret" not in page
    assert "x9-hidden-token" not in page
    assert "DE1-of-an-account" in page
    with override_settings(PROCRASTINATE={"REDACT": ["iban"]}):
        assert "DE1-of-an-account" not in client.get(f"{LIST}{job_id}/change/").content.decode()


def test_nothing_is_shown_if_the_function_that_hides_fails(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = app.configure_task("task").defer(iban="DE1-of-an-account")
    with override_settings(PROCRASTINATE={"REDACT": lambda task, arguments: arguments["x"]}):
        assert "DE1-of-an-account" not in client.get(f"{LIST}{job_id}/change/").content.decode()
    assert "PROCRASTINATE['REDACT'] failed for a job of task" in caplog.text


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
