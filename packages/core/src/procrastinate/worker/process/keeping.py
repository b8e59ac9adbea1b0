"""A worker kept running for the length of a block, in another program's process.

Rules

1. Entering ends with the first of three: LISTEN is in force, it has failed, the worker has ended.
   The last two raise.
2. Each run is a task, and what follows its end is decided in a callback. A task that did this could
   be cancelled by code that cancels all tasks, and then nothing would restart the worker.
3. A worker that was told to stop has not failed, whatever it raises on its way out.
4. Leaving stops the worker and waits for its end. A cancellation meanwhile means "now".
5. The block's own exception goes on its way, except the cancellation that ``on_failure="cancel"``
   has caused: `WorkerFailed` takes its place.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from procrastinate.errors import (
    ConnectionFailed,
    ConnectionLost,
    PoolTimeout,
    ProcrastinateException,
    WorkerFailed,
)
from procrastinate.model.liveness import restarts
from procrastinate.model.liveness.guests import OnFailure
from procrastinate.model.text import failure, printable
from procrastinate.worker.log import logger

UNREACHABLE = (ConnectionFailed, ConnectionLost, PoolTimeout, TimeoutError)


class Kept(Protocol):
    """What the keeper needs of the worker that it keeps."""

    @property
    def name(self) -> str: ...

    def stop(self) -> None: ...

    def stop_now(self) -> None: ...


class Keeper:
    """Keeps one worker running from `enter` to `leave`.

    ``run`` makes the coroutine of one run. That calls the function it is given once it listens
    (with None) or cannot listen (with the exception).
    """

    def __init__(
        self,
        *,
        worker: Kept,
        run: Callable[[Callable[[Exception | None], None]], Coroutine[Any, Any, None]],
        was_told_to_stop: Callable[[], bool],
        on_failure: OnFailure,
    ) -> None:
        self._worker = worker
        self._run = run
        self._was_told_to_stop = was_told_to_stop
        self._action = on_failure if isinstance(on_failure, str) else "call"
        self._function = None if isinstance(on_failure, str) else on_failure
        self._loop = asyncio.get_running_loop()
        self._host = asyncio.current_task()
        self._entered = False
        self._has_cancelled_host = False
        self._restarts = restarts.Restarts()
        self._entering: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._running: asyncio.Task[None] | None = None
        self._ended_meanwhile: asyncio.Task[None] | None = None
        self._heard = False  # whether the present run has reached the database
        self._next_start: asyncio.TimerHandle | None = None
        self._answering: set[asyncio.Future[Any]] = set()
        self.failure: BaseException | None = None

    # Entering and leaving

    async def enter(self) -> None:
        """Return once the worker is registered and listening; raise what prevents it."""
        self._start()
        try:
            reason = await self._entering
        except asyncio.CancelledError:
            self._worker.stop_now()
            await self._until_it_ends()
            raise
        if reason is not None:
            self._worker.stop_now()
            await self._until_it_ends()
            raise reason
        self._entered = True
        if self._ended_meanwhile is not None:  # after it began to listen, before this line
            self._has_ended(self._ended_meanwhile)

    async def leave(self, exc: BaseException | None) -> None:
        """Stop the worker and wait for its end; ``exc`` is what the block has raised."""
        self._worker.stop()
        if self._next_start is not None:
            self._next_start.cancel()
        await self._until_it_ends()
        if self._has_cancelled_host:
            await self._take_cancellation_back(exc)
        own_exception = exc is not None and not isinstance(exc, asyncio.CancelledError)
        if self._action == "cancel" and self.failure is not None and not own_exception:
            raise WorkerFailed(_ended(self._worker.name, self.failure)) from self.failure

    async def _until_it_ends(self) -> None:
        cancellation = None
        while self._running is not None and not self._running.done():
            try:
                await asyncio.wait([self._running])
            except asyncio.CancelledError as exc:
                cancellation = exc
                self._worker.stop_now()
        if cancellation is not None:
            raise cancellation

    async def _take_cancellation_back(self, exc: BaseException | None) -> None:
        """Undo the host's cancellation; raise CancelledError if something else cancelled it too."""
        assert self._host is not None
        if not isinstance(exc, asyncio.CancelledError):
            try:  # without this, Python 3.11 and 3.12 raise it at the host's next await
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                pass
        if self._host.uncancel() > 0:
            raise asyncio.CancelledError

    # One run after the other

    def _start(self) -> None:
        self._heard = False
        self._running = self._loop.create_task(self._run(self._listens), name=self._worker.name)
        self._running.add_done_callback(self._has_ended)

    def _listens(self, reason: Exception | None) -> None:
        """Hear that the worker listens, or why it cannot; the listener itself tries again."""
        if not self._entering.done():
            self._entering.set_result(reason)
        elif not self._heard and self.failure is not None:
            logger.warning("worker %s runs again", self._worker.name)
        self._heard, self.failure = True, None
        self._restarts.started()

    def _has_ended(self, run: asyncio.Task[None]) -> None:
        reason = _reason(run, self._worker.name)
        if not self._entered:
            if self._entering.done():
                self._ended_meanwhile = run
            else:
                self._entering.set_result(None if self._was_told_to_stop() else reason)
        elif self._was_told_to_stop():
            if not run.cancelled() and run.exception() is not None:
                log_end(self._worker.name, reason)
        else:
            self._failed(reason)

    def _failed(self, reason: BaseException) -> None:
        self.failure = reason
        if self._action == "restart":
            self._restart(reason)
            return
        log_end(self._worker.name, reason)
        if self._function is not None:
            self._tell(self._function, reason)
        elif self._action == "cancel":
            self._cancel_host()
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def _restart(self, reason: BaseException) -> None:
        unreachable = not self._heard and isinstance(reason, UNREACHABLE)
        pause = self._restarts.after_failure(self._loop.time(), unreachable=unreachable)
        if pause is None:
            log_end(
                self._worker.name,
                reason,
                f"; it is not started again, after {restarts.LIMIT} restarts within an hour",
            )
            return
        log_end(self._worker.name, reason, f"; it is started again in {pause:g} s")
        self._next_start = self._loop.call_later(pause, self._start_unless_stopped)

    def _start_unless_stopped(self) -> None:
        if not self._was_told_to_stop():
            self._start()

    def _cancel_host(self) -> None:
        if self._host is not None and self._host.cancel():
            self._has_cancelled_host = True

    def _tell(self, function: Callable[[BaseException], object], reason: BaseException) -> None:
        try:
            answer = function(reason)
        except Exception:
            logger.exception("on_failure of worker %s raised", self._worker.name)
            return
        if inspect.isawaitable(answer):
            answering = asyncio.ensure_future(self._awaited(answer))
            self._answering.add(answering)  # the loop itself keeps no task alive
            answering.add_done_callback(self._answering.discard)

    async def _awaited(self, answer: Any) -> None:
        try:
            await answer
        except Exception:
            logger.exception("on_failure of worker %s raised", self._worker.name)


def _reason(run: asyncio.Task[None], worker_name: str) -> BaseException:
    """Return what ended a run: a task that was cancelled or just returned gets an exception too."""
    if run.cancelled():
        return WorkerFailed(f"worker {worker_name} ended because something cancelled its task")
    return run.exception() or WorkerFailed(
        f"worker {worker_name} ended although it was not told to stop"
    )


def log_end(worker_name: str, reason: BaseException, what_follows: str = "") -> None:
    """Log at ERROR that a worker has ended by itself; with a traceback if it is no known error.

    `WorkerFailed` is known: the shift has logged what its part died of.
    """
    text = f"{_ended(worker_name, reason)}{what_follows}"
    extra = {"action": "worker_failed", "worker_name": worker_name}
    if isinstance(reason, ProcrastinateException):
        logger.error("%s", text, extra=extra)
    else:
        traceback = failure.traceback_of(reason)
        logger.failure(
            logging.ERROR, "%s", text, exception=reason, traceback=traceback, extra=extra
        )


def log_refusal(reason: Exception) -> None:
    """Log at ERROR why no worker could be made."""
    name = failure.type_name(reason).rpartition(".")[2]
    logger.error(
        "the worker cannot start: %s",
        printable.line(failure.headline(name, failure.message_of(reason))),
        extra={"action": "worker_failed"},
    )


def _ended(worker_name: str, reason: BaseException) -> str:
    """Say in one line that a worker has ended, and why."""
    message = failure.message_of(reason)
    if isinstance(reason, WorkerFailed):
        return printable.line(message)
    name = failure.type_name(reason).rpartition(".")[2]
    return f"worker {worker_name} has ended: {printable.line(failure.headline(name, message))}"
