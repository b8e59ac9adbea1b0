"""The app of workers with a task that is due every second: ``python periodic_app.py DSN``."""

from __future__ import annotations

import logging
import sys

import procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=sys.argv[1]))


@app.periodic(cron="* * * * * *")
@app.task(name="second")
async def second(timestamp: int) -> None: ...


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    app.run_worker()
