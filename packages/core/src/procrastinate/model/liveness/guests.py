"""A worker in another program's process: what `App.worker` is given beside a worker's options.

Rules

1. ``async with`` keeps a worker for the length of a block, so it must wait for jobs.
2. The host stops it by leaving the block. It handles no signals, and it ends within `MAY_FINISH`
   seconds unless told otherwise, because what stops a server waits for about 30.
3. ``on_failure`` is for the block alone: `Worker.run` raises to its caller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, Literal, TypeAlias, cast

from procrastinate.errors import InvalidOption
from procrastinate.model.text.printable import shown
from procrastinate.model.worker_options import WorkerOptions

MAY_FINISH = 25.0  # seconds that running jobs may take once the block is left
ACTIONS: tuple[Literal["restart", "cancel", "terminate"], ...] = ("restart", "cancel", "terminate")

#: What follows when a worker ends by itself. A function is given the exception that ended it; it
#: is called on the event loop, and what it returns is awaited if it can be.
OnFailure: TypeAlias = Literal["restart", "cancel", "terminate"] | Callable[[BaseException], object]


def check_on_failure(value: Any) -> OnFailure:
    """Return an action as a plain ``str``, or a function; raise `InvalidOption` for all else."""
    if isinstance(value, str):
        text = str.__str__(value)  # a subclass may override whatever is asked of it
        for action in ACTIONS:
            if text == action:
                return action
    elif callable(value):
        return cast("Callable[[BaseException], object]", value)
    raise InvalidOption(
        f"on_failure must be one of {', '.join(ACTIONS)}, or a function, not {shown(value)}"
    )


def check_for_block(options: WorkerOptions, given: Collection[str]) -> None:
    """Raise `InvalidOption` for options that contradict ``async with``.

    ``given`` names the options that were given for this very worker.
    """
    if not options.wait:
        raise InvalidOption(
            "wait=False ends a worker once no job is ready, but `async with app.worker()` keeps one"
            " for its block: give wait=True, or `await app.run_worker_async(wait=False)`"
        )
    if options.install_signal_handlers and "install_signal_handlers" in given:
        raise InvalidOption(
            "install_signal_handlers=True contradicts `async with app.worker()`: leaving the block"
            " stops the worker, and signals are its host's; leave it out, or"
            " `await app.run_worker_async()`"
        )


def for_block(options: WorkerOptions, given: Collection[str]) -> WorkerOptions:
    """Return the options of a worker that lives in a block."""
    check_for_block(options, given)
    may_finish = options.shutdown_graceful_timeout
    if may_finish is None and "shutdown_graceful_timeout" not in given:
        may_finish = MAY_FINISH
    return dataclasses.replace(
        options, install_signal_handlers=False, shutdown_graceful_timeout=may_finish
    )
