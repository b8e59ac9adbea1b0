"""The observer on the page about Sentry reports what it says, against the real SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import snippets
from readers import environment

PAGE = Path(__file__).parents[1] / "docs/howto/sentry.md"

#: A program of its own, since the SDK changes threads and the log of the whole process.
PROGRAM = """
import asyncio, json, logging, sys
import procrastinate, sentry_sdk
from sentry_observer import SentryObserver
from sentry_sdk.transport import Transport

reports = []

class Collecting(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            reports.append(event)

sentry_sdk.init(dsn="https://key@sentry.invalid/1", transport=Collecting)
logging.basicConfig(level="INFO", stream=sys.stderr)
observer = SentryObserver()
app = procrastinate.App(connector="memory", observers=[observer])
together = asyncio.Event()

def begin(customer):
    sentry_sdk.set_tag("customer", customer)
    sentry_sdk.add_breadcrumb(message=f"billing {customer}")

async def coroutine(customer):
    begin(customer)
    together.begun += 1
    if together.begun == 2:
        together.set()
    await together.wait()
    raise ValueError(f"no money from {customer}")

def function(customer):
    begin(customer)
    raise ValueError(f"no money from {customer}")

def aborting():
    raise procrastinate.JobAborted

def second_time(context):
    if context.job.attempts == 1:
        raise ValueError("not yet")

kind = {"coroutine": coroutine, "function": function}[sys.argv[1]]
task = app.task(name="bill", queue="mail", retry=1)(kind)
others = [
    app.task(name="aborting")(aborting),
    app.task(name="second time", retry=1, pass_context=True)(second_time),
]

async def main():
    together.begun = 0
    async with app.open_async():
        await task.batch_defer_async({"customer": "ann"}, {"customer": "bob"})
        for other in others:
            await other.defer_async()
        await app.run_worker_async(wait=False, concurrency=4)

asyncio.run(main())
assert observer._scopes == {}, observer._scopes
print(json.dumps(sorted((
    {
        "said": [each["value"] for each in event["exception"]["values"]],
        "tags": event["tags"],
        "job": event["contexts"]["job"],
        "transaction": event["transaction"],
        "crumbs": [each["message"] for each in event["breadcrumbs"]["values"]
                   if each["message"].startswith("billing")],
    }
    for event in reports
), key=lambda each: each["job"]["id"])))
"""


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_each_failed_job_is_reported_once_in_its_own_scope(kind: str, tmp_path: Path) -> None:
    (shown,) = [each for each in snippets.parse(PAGE.read_text("utf-8")) if each.name]
    (tmp_path / "sentry_observer.py").write_text(shown.text, "utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    done = subprocess.run(
        [sys.executable, "program.py", kind],
        cwd=tmp_path,
        env=environment(""),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [report(1, "ann"), report(2, "bob")]


def report(job_id: int, customer: str) -> dict[str, Any]:
    return {
        "said": [f"no money from {customer}"],
        "tags": {"task": "bill", "queue": "mail", "customer": customer},
        "job": {"id": job_id, "attempt": 2, "lock": None},
        "transaction": "bill",
        "crumbs": [f"billing {customer}"],
    }
