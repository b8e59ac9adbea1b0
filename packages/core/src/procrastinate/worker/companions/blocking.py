"""What keeps an event loop from turning, as another thread sees it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from procrastinate.model.job import Job
from procrastinate.model.text import printable
from procrastinate.worker.running.attempt import Attempt


@dataclass(frozen=True, slots=True)
class Blocking:
    """What the loop runs: which job it is of, if any, and a description for people."""

    job: Job | None
    text: str


class LoopSight:
    """Looks at the event loop that runs in the thread that makes this."""

    def __init__(self, running: Callable[[], Iterable[Attempt]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._running = running

    def look(self) -> Blocking:
        """Return what the loop runs now. From any thread; never raises."""
        try:
            attempt = self._attempt()
            job = None if attempt is None else attempt.job
            return Blocking(job, f"{self._name(job)}, {self._place()}")
        except BaseException:  # for instance a list that changes meanwhile
            return Blocking(None, "something that cannot be told")

    def _attempt(self) -> Attempt | None:
        task = asyncio.current_task(self._loop)
        on_loop = [each for each in self._running() if each.on_loop and not each.over]
        of_task = [each for each in on_loop if each.task is task and task is not None]
        # The task of an attempt in its very first step is not known yet.
        return next(iter(of_task or [each for each in on_loop if each.task is None]), None)

    def _name(self, job: Job | None) -> str:
        if job is not None:
            return job.call_string
        task = asyncio.current_task(self._loop)
        if task is None:
            return "a callback of the loop"
        return f"the asyncio task {printable.shown(task.get_name())}"

    def _place(self) -> str:
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            return "in a thread that has ended"
        code = frame.f_code
        return printable.line(f"at {code.co_filename}:{frame.f_lineno} in {code.co_name}")
