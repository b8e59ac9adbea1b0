"""What shells complete, and the prompt: names of tasks and queues that the app knows.

They come from the app and not from the database, which may be far away, or large. Whatever goes
wrong with the app is not told while somebody types: there is nothing to complete then.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import click

from procrastinate.app.app import App
from procrastinate.cli.settings import Settings, settings_of


def task_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the app's tasks that begin like this."""
    app = _app(settings_of(ctx))
    names = app.tasks if app else ()
    return sorted(name for name in names if name.startswith(incomplete))


def queue_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the queues of the app's tasks that begin like this."""
    app = _app(settings_of(ctx))
    names = {task.definition.queue for task in app.tasks.values()} if app else set()
    return sorted(name for name in names if name.startswith(incomplete))


def _app(settings: Settings) -> App | None:
    """Return the app with all its tasks, or None. What its modules print is not for the shell."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            app = settings.opened or settings.load_app()
            app.perform_import_paths()
        except (Exception, SystemExit):
            return None
    return app
