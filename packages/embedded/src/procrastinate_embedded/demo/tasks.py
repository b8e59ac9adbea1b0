"""The application: its task, and the app that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import procrastinate
from procrastinate_embedded.demo import files, visits
from procrastinate_embedded.demo.tables import Tables

#: The task's name in the app.
READ_FILE = "demo:read_file"
QUEUE = "files"

blueprint = procrastinate.Blueprint()


@blueprint.task(
    name="read_file",
    queue=QUEUE,
    retry=procrastinate.RetryStrategy(max_attempts=2, wait=0.3),
    pass_context=True,
)
def read_file(context: procrastinate.JobContext, path: str) -> None:
    """Read one file and store its size, lines and digest. ``path`` is encoded."""
    tables: Tables = context.additional_context["tables"]
    pieces = files.chunks(files.decoded(path))
    tables.store(path, files.measure(_until_aborted(context, pieces)))


def _until_aborted(context: procrastinate.JobContext, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Let a worker that has to end do so in the middle of a huge file."""
    for piece in pieces:
        if context.should_abort():
            raise procrastinate.JobAborted("the worker has to end")
        yield piece


def make_app(dsn: str, schema: str, *, application_name: str) -> procrastinate.App:
    """Return the app for a database (libpq's URL or keywords) and a schema of it."""
    connector = procrastinate.AiopgConnector(
        dsn=dsn, schema=schema, application_name=application_name
    )
    app = procrastinate.App(connector=connector)
    app.add_tasks_from(blueprint, namespace="demo")
    app.add_tasks_from(visits.blueprint, namespace="demo")
    return app
