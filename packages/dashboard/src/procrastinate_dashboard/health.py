"""How workers and schedules are, in a word: pure functions of their rows."""

from __future__ import annotations

from procrastinate import WorkerInfo


def serves(worker: WorkerInfo, queue: str) -> bool:
    """Whether a worker is alive and takes jobs of a queue."""
    return worker.is_alive and (worker.queues is None or queue in worker.queues)


def state_of(worker: WorkerInfo) -> tuple[str, str]:
    """Return how a worker is, in a word, and the class that shows it."""
    match worker.state:
        case "silent":
            return "silent", "failed"
        case "blocked":
            return "blocked", "aborted"
        case "untrusted":
            return "not trusted", "aborted"
        case "alive":
            return ("working", "running") if worker.busy else ("idle", "succeeded")
