"""A process with open tabs of a dashboard: ``python -m benchmarks.tabs '{"dsn": ..., "tabs": 5}'``.

Each tab asks for its page every two seconds, as the dashboard's script does, and they come one
after the other: one in ``EVERY / tabs`` seconds. They share the server's short memory of answers,
as tabs do. It writes ``{"open": n}`` to its standard output when all have seen their page once.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import procrastinate
from benchmarks.worker import say
from procrastinate_dashboard import Access, Dashboard, Request

EVERY = 2.0  # seconds
PAGES = ("/", "/jobs", "/queues", "/failures", "/workers")


def look(dashboard: Dashboard, path: str) -> None:
    """Load a page, and fail if it cannot be had."""
    answer = dashboard.respond(Request(method="GET", path=path))
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}")


def keep_open(dashboard: Dashboard, path: str, delay: float) -> None:
    """Look at a page again and again."""
    time.sleep(delay)
    while True:
        began = time.monotonic()
        look(dashboard, path)
        time.sleep(max(0.0, began + EVERY - time.monotonic()))


def main(dsn: str, tabs: int) -> None:
    """Open the tabs, and keep them open until the process is ended."""
    connector = procrastinate.Psycopg2Connector(dsn=dsn)
    with procrastinate.App(connector=connector).open() as app:
        dashboard = Dashboard(app, access=lambda _: Access("bench", may="read"))
        paths = [PAGES[number % len(PAGES)] for number in range(tabs)]
        for path in paths:
            look(dashboard, path)
        for number, path in enumerate(paths):
            options = (dashboard, path, number * EVERY / tabs)
            threading.Thread(target=keep_open, args=options, daemon=True).start()
        say(open=tabs)
        threading.Event().wait()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
