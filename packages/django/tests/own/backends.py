"""Our backend where Django's tests use those that run at once, or only keep what was enqueued."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from procrastinate_django import ProcrastinateBackend, app
from procrastinate_django.project import worker_app


class Keeping(ProcrastinateBackend):
    """In place of the backend that only keeps what was enqueued."""

    def __init__(self, alias: str, params: Any) -> None:
        super().__init__(alias, params)
        self.results: list[Any] = []

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        result = super().enqueue(task, args, kwargs)
        self.results.append(result)
        return result

    def clear(self) -> None:
        for result in self.results:
            app.job_manager.cancel_job_by_id(int(result.id), delete_job=True)
        self.results.clear()


class Immediate(ProcrastinateBackend):
    """In place of the backend that runs what it is given: a worker does."""

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        result = super().enqueue(task, args, kwargs)
        thread = threading.Thread(target=lambda: asyncio.run(_work()))
        thread.start()
        thread.join()
        result.refresh()
        return result


async def _work() -> None:
    async with worker_app().open_async() as opened:
        await opened.run_worker_async(wait=False, install_signal_handlers=False)
