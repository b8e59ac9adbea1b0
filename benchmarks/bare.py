"""W15's limit: ``python -m benchmarks.bare '{"lengths": ..., "slots": ..., "count": ...}'``.

As many coroutines as there are slots (or threads) take job after job from one list and sleep for as
long as it takes. There is no queue and no database, and nothing else runs beside it. It imports
nothing of procrastinate and writes one line of JSON: ``{"seconds": s}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator

from benchmarks.lengths import seconds_of


async def on_a_loop(jobs: Iterator[float], slots: int) -> float:
    """Return the seconds that coroutines take for these jobs."""

    async def work() -> None:
        for seconds in jobs:
            await asyncio.sleep(seconds)

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(slots)))
    return time.monotonic() - began


def in_threads(jobs: Iterator[float], slots: int) -> float:
    """Return the seconds that threads take for these jobs; they are started before."""
    gate = threading.Barrier(slots + 1)

    def work() -> None:
        gate.wait()
        for seconds in jobs:  # the iterator of a list may be shared by threads
            time.sleep(seconds)

    threads = [threading.Thread(target=work) for _ in range(slots)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    return time.monotonic() - began


def main() -> None:
    """Run the jobs that the first argument describes."""
    options = json.loads(sys.argv[1])
    jobs = iter(seconds_of(options["lengths"], options["count"]))
    if options["threads"]:
        seconds = in_threads(jobs, options["slots"])
    else:
        seconds = asyncio.run(on_a_loop(jobs, options["slots"]))
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
