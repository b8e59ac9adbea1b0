"""The worker: claims jobs, runs their tasks, writes what became of them.

The way of a job through these modules

1. `claiming` is the loop that asks for jobs. The `fetcher` sends the scan that
   `procrastinate.model.scans` chooses.
2. The `backlog` holds what was claimed. It starts each job in one of the `slots`, or lets a thread
   take it from the `offers`.
3. `slots` makes an attempt (`execution`), which runs as a task of the loop or in one of the
   `threads`.
4. When the attempt has ended, `endings` decides what becomes of the job. The slot is free then, and
   calls ``when_free``, by which the backlog starts the next job.
5. The `writer` writes what has ended meanwhile, in batches. It tells the loop of `claiming`.

`shift` makes all of these for one run of the worker, and connects them. Beside them run the
`companions`, threads with connections of their own, such as the `heartbeat`.
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
