"""Other queues on PostgreSQL, each at its best documented settings.

Rules

1. Every queue, ours included, is a small script of its own in ``scripts/``, which any author of a
   peer can read in a minute. It imports nothing of this package, and is run as
   ``SCRIPT ACTION COUNT ...``; libpq's environment variables lead to a new, empty database.
   It writes one line of JSON to its standard output:

   - ``setup 0``: makes the tables; ``{}``
   - ``enqueue N``: ``{"seconds": s}`` for N jobs that are enqueued one by one, each committed
   - ``drain N``: ``{"seconds": s}`` from the call that starts the worker to the entry into the body
     of the last of N jobs, which were there before. Writing the last results is not in it.
   - ``latency N``: ``{"milliseconds": [...]}`` from before each of N calls to enqueue, made while
     the worker is idle, to the entry into the body. Worker and caller share a process.
   - ``work N SLOTS MILLISECONDS``: ``{"seconds": s}`` for N jobs that were there before and sleep
     for so long, in so many slots, from the entry into the body of the first to the end of the
     last. These are jobs of W15, and a bare loop is measured with them.

2. Each runs with its own defaults for durability, and in an environment of its own, where its
   released version is pinned. A setting that differs from the default cites the page that advises
   it.
3. The rounds are interleaved: each queue in turn, then the next round.
"""

from __future__ import annotations

from dataclasses import dataclass

ACTIONS = ("drain", "enqueue", "latency")  # of a queue


@dataclass(frozen=True, slots=True)
class Peer:
    """A queue to compare with: what to install, and with what script to run it.

    ``share`` is the part of the drain's jobs that it gets, for one that would need minutes.
    """

    name: str
    title: str
    package: str
    script: str
    requirements: tuple[str, ...] = ()
    runtime: str = "python"
    share: float = 1.0
    note: str = ""
    actions: tuple[str, ...] = ACTIONS


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "procrastinate",
            "procrastinate",
            "procrastinate",
            "ours.py",
            runtime="here",
            note="concurrency 100, finished jobs kept",
            actions=(*ACTIONS, "work"),
        ),
        Peer(
            "graphile-worker",
            "graphile-worker",
            "graphile-worker",
            "graphile_worker.cjs",
            ("graphile-worker@0.17.3",),
            runtime="node",
            note="local queue of 500, batched completion, finished jobs deleted",
            actions=(*ACTIONS, "work"),
        ),
        Peer(
            "bare-loop",
            "no queue: a bare asyncio loop",
            "procrastinate",
            "bare_loop.py",
            runtime="here",
            note="as many coroutines as slots, the limit of W15",
            actions=("work",),
        ),
        Peer(
            "pgqueuer",
            "PgQueuer",
            "pgqueuer",
            "pgqueuer_asyncpg.py",
            ("pgqueuer[asyncpg]==1.6.0", "uvloop==0.23.0"),
            note="asyncpg, uvloop, batches of 100, finished jobs moved to a log",
        ),
        Peer(
            "dramatiq-pg",
            "Dramatiq with PostgreSQL",
            "dramatiq-pg",
            "dramatiq_postgres.py",
            ("dramatiq-pg==0.12.0", "dramatiq==1.18.0", "psycopg2-binary==2.9.13"),
            share=0.1,
            note="8 threads, no results",
        ),
        Peer(
            "saq",
            "SAQ on PostgreSQL",
            "saq",
            "saq_postgres.py",
            ("saq[postgres]==0.26.4", "psycopg[binary,pool]==3.3.9", "uvloop==0.23.0"),
            share=0.05,
            note="concurrency 10, pool of 20",
        ),
        Peer(
            "procrastinate-3",
            "Procrastinate, released:",
            "procrastinate",
            "procrastinate_3.py",
            ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"),
            share=0.05,
            note="concurrency 100, finished jobs kept",
        ),
    )
}
