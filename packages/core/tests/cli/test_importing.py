"""``procrastinate import``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import older_schemas
import pytest

pytestmark = pytest.mark.one_partition("it makes tables of its own, which are not distributed")
Query = Callable[..., Any]


@pytest.fixture
def beside(bare_program: Program, procrastinate_dsn: str, query: Query) -> Program:
    """The program with tables in the schema "queue", beside those of an old release."""
    query(older_schemas.release("3.10"))
    code = (
        "import os, procrastinate\n"
        "app = procrastinate.App(connector=procrastinate.Psycopg2Connector(\n"
        "    dsn=os.environ['SHOP_DSN'], schema='queue'))\n"
    )
    (bare_program.folder / "beside.py").write_text(code, "utf-8")
    bare_program.env |= {"SHOP_DSN": procrastinate_dsn, "PROCRASTINATE_APP": "beside.app"}
    assert bare_program("schema", "--apply").returncode == 0
    return bare_program


JSON = {
    "ready": 1,
    "scheduled": 1,
    "ended": 0,
    "schedules": 0,
    "running": 0,
    "left": [{"reason": "its arguments are not a JSON object", "count": 1, "ids": [3]}],
    "ids_above": 1_000_003,
}


def test_it_says_what_it_did_and_what_it_could_not(beside: Program, query: Query) -> None:
    query(
        "insert into public.procrastinate_jobs (queue_name, task_name, args, scheduled_at)"
        " values ('q', 't', '{}', null), ('q', 't', '{}', '2100-01-01'), ('q', 't', '[]', null)"
    )
    said = """\
{0} 1 ready job
{0} 1 scheduled job
left behind: 1 job, because its arguments are not a JSON object (ids: 3)
ids of new jobs are above 1,000,003
"""
    error = "error: 1 job cannot be imported, and stayed in the schema public\n"
    for options, verb in [(["--dry-run"], "would import"), ([], "imported")]:
        done = beside("import", *options)
        assert (done.returncode, done.stdout) == (1, said.format(verb))
        assert done.stderr == error
        query("update public.procrastinate_jobs set status = 'todo'")
        query("delete from queue.procrastinate_jobs")
        done = beside("import", *options, "--json")
        assert (done.returncode, json.loads(done.stdout)) == (1, {"dry_run": bool(options), **JSON})
        assert done.stderr == error
    query("delete from public.procrastinate_jobs where id = 3")
    done = beside("import", "--prepare")
    assert (done.returncode, done.stdout) == (0, "ids of new jobs are above 1,000,003\n")
    assert json.loads(beside("import", "--prepare", "--json").stdout) == {"ids_above": 1_000_003}
    assert beside("import", "--prepare", "--dry-run").returncode == 2
    refused = beside("import", "--from-schema", "nowhere")
    assert refused.returncode == 1
    assert refused.stderr == "error: there is no schema named nowhere in this database\n"


def test_a_dry_run_says_that_the_import_would_refuse(beside: Program, query: Query) -> None:
    query(
        "insert into public.procrastinate_jobs (queue_name, task_name, args, status)"
        " values ('q', 't', '{}', 'doing')"
    )
    why = "1 job in the schema public is running: stop the old workers"
    real, dry = beside("import"), beside("import", "--dry-run")
    assert (real.returncode, real.stdout) == (1, "")
    assert real.stderr.startswith(f"error: {why}")
    assert (dry.returncode, dry.stdout.splitlines()[0]) == (1, "would import 0 ready jobs")
    assert dry.stderr.startswith(f"error: the import would refuse: {why}")
    assert "left to the old workers" not in dry.stdout
    left = beside("import", "--dry-run", "--leave-running")
    assert (left.returncode, left.stderr) == (0, "")
    assert "left to the old workers: 1 running job" in left.stdout
