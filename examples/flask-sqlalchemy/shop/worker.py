"""The app for workers, which are asynchronous: other connector, same tasks."""

from __future__ import annotations

import procrastinate
from shop.tasks import app as queue

app = queue.with_connector(procrastinate.AiopgConnector())
