"""A project on Procrastinate 3.10's part for Django moves to this release, and could go back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

PROJECT = Path(__file__).with_name("django_project")
Manage = Callable[..., subprocess.CompletedProcess[str]]

FILL = """
from django.db import transaction
from orders.jobs import confirm, confirm_async, fail, sweep
from orders.models import Order

ids = [Order.objects.create(item=f"mug {number}").pk for number in range(7)]
def place():
    with transaction.atomic():
        confirm.defer(order_id=ids[0])
place()
confirm.configure(lock="ann", priority=3).defer(order_id=ids[1])
confirm.configure(lock="ann").defer(order_id=ids[2])
confirm.configure(queueing_lock="q").defer(order_id=ids[3])
confirm.configure(schedule_in={"days": 3}).defer(order_id=ids[4])
confirm_async.defer(order_id=ids[5])
fail.defer()
sweep.configure(queue="mail").defer(timestamp=0)
"""
CONFIRMED = """
from orders.models import Order
print(list(Order.objects.order_by("pk").values_list("confirmed", flat=True)))
"""
ADMIN = """
from django.contrib.auth.models import User
from django.test import Client
from django.test.utils import setup_test_environment
setup_test_environment()
client = Client()
client.force_login(User.objects.create_superuser("root"))
page = client.get("/admin/procrastinate_django/job/")
print(page.status_code, sorted(job.pk for job in page.context["cl"].result_list))
"""
#: What the move changes in the settings, in the order in which the project complains.
OLD_ENTRY, NEW_ENTRY = '"procrastinate.contrib.django"', '"procrastinate_django"'
NEW = 'PROCRASTINATE = {"AUTODISCOVER": "jobs", "IMPORT_PATHS": ["orders.more_jobs"]}\n'
SCHEMA = 'PROCRASTINATE["SCHEMA"] = "queue"\n'


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with 3.10 and the Django that is installed here."""
    import django

    folder = tmp_path_factory.mktemp("django")
    subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = ["procrastinate[django]==3.10.*", f"django=={django.__version__}", "psycopg[binary]"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def database(dsn: str) -> str:
    given = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
    entry: dict[str, Any] = {name: str(given.get(key, "")) for name, key in names.items()}
    return json.dumps({"ENGINE": "django.db.backends.postgresql", **entry})


def manage(python: Path | str, folder: Path, dsn: str) -> Manage:
    """Return what runs manage.py of a project with an environment's Python."""

    def run(*arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python, "-W", "ignore", "manage.py", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
            env={**os.environ, "DATABASE": database(dsn)},
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done

    return run


def test_a_project_is_moved_step_by_step(
    python: Path, procrastinate_dsn: str, tmp_path: Path
) -> None:
    shutil.copytree(PROJECT, tmp_path / "old")
    shutil.copytree(PROJECT, tmp_path / "new")
    old = manage(python, tmp_path / "old", procrastinate_dsn)
    new = manage(sys.executable, tmp_path / "new", procrastinate_dsn)
    settings = tmp_path / "new" / "project" / "settings.py"
    connection = psycopg.connect(procrastinate_dsn, autocommit=True)

    def query(sql: str) -> list[Any]:
        return [row[0] for row in connection.execute(sql.encode()).fetchall()]

    old("migrate", "-v0")
    old("shell", "-v0", "-c", FILL)
    old("procrastinate", "worker", "--one-shot", "--queues=default")
    jobs = "select to_jsonb(job) from public.procrastinate_jobs as job order by id"
    tables = (
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace order by 1"
    )
    before, had = query(jobs), query(tables)
    assert [job["status"] for job in before] == [*["todo"] * 6, "failed", "todo"]

    # One complaint after the other, each of which says what to write.
    assert "write 'procrastinate_django' instead" in new("check", fails=True).stderr
    text = settings.read_text().replace(OLD_ENTRY, NEW_ENTRY)
    settings.write_text(text)
    said = new("check", fails=True).stderr
    for name in ("AUTODISCOVER_MODULE_NAME", "IMPORT_PATHS", "WORKER_DEFAULTS", "ON_APP_READY"):
        assert f"the setting PROCRASTINATE_{name} is of Procrastinate 3" in said
    text = text[: text.index("PROCRASTINATE_")] + NEW
    settings.write_text(text)
    new("check")
    for refused in (["check", "--database=default"], ["migrate"], ["migrate", "--skip-checks"]):
        assert "PROCRASTINATE = {'SCHEMA': 'jobs'}" in new(*refused, fails=True).stderr
    assert (
        "this release neither uses nor migrates"
        in new(*("procrastinate", "import", "--prepare"), fails=True).stderr
    )
    assert (query(jobs), query(tables)) == (before, had)
    settings.write_text(text + SCHEMA)

    # The jobs, which the modules of 3.10's time run as they are.
    new("migrate", "-v0")
    new("check", "--database=default")
    new("procrastinate", "import", "--prepare")
    dry = new("procrastinate", "import", "--dry-run", "--history").stdout
    assert dry.startswith("would import 6 ready jobs\nwould import 1 scheduled job\n")
    assert query(jobs) == before
    done = new("procrastinate", "import", "--history").stdout
    assert done == dry.replace("would import", "imported")
    new("procrastinate", "worker", "--one-shot")
    assert new("shell", "-v0", "-c", CONFIRMED).stdout.strip() == "[1, 1, 1, 1, 0, 1, 0]"
    ended = "select status::text from queue.procrastinate_jobs order by id"
    succeeded = ["succeeded"] * 4
    assert query(ended) == [*succeeded, "todo", "succeeded", "failed", "succeeded"]
    assert new("shell", "-v0", "-c", ADMIN).stdout.split(maxsplit=1) == [
        "200",
        "[1, 2, 3, 4, 5, 6, 7, 8]\n",
    ]

    # The trails of both apps are in one database, and the old code goes on with its tables.
    assert query(tables) == had
    old("migrate", "--check")
    new("migrate", "--check")
    again = "from orders.jobs import confirm; confirm.defer(order_id=7)"
    old("shell", "-v0", "-c", again)
    old("procrastinate", "worker", "--one-shot")
    assert old("shell", "-v0", "-c", CONFIRMED).stdout.strip() == "[1, 1, 1, 1, 0, 1, 1]"
    statuses = [job["status"] for job in query(jobs)]
    assert statuses == [*["cancelled"] * 6, "failed", "cancelled", "succeeded"]
    connection.close()
