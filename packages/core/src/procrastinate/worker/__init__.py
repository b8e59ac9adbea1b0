"""The worker: claims jobs, runs their tasks, writes what became of them.

The way of a job through these folders

1. `claiming` asks for jobs: a loop, woken by news, sends the scan that
   `procrastinate.model.claiming.scans` chooses.
2. The `backlog` holds what was claimed. It starts each job in one of the slots, or lets a thread
   take it.
3. In `running`, the slots make an attempt, which runs as a task of the event loop or in a thread.
   When it has ended, the slot is free, and the backlog starts the next job.
4. `writing` writes what has ended meanwhile, in batches, and tells the loop of `claiming`.

A `shift` makes the parts for one run of the worker, and connects them. Beside the claiming run the
`helpers`, tasks of the event loop, and the `companions`, threads with connections of their own,
such as the heartbeat. All of them reach the `database` by calls with limits. `process` is about the
process around them: signals, forks, an HTTP port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate.worker.worker import Worker as Worker
else:

    def __getattr__(name: str) -> Any:
        """Return what releases up to 3.x had here."""
        if name == "Worker":
            from procrastinate.worker.worker import Worker

            return Worker
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
