"""The servers of a campaign, and the posts of its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos import debian
from chaos.bouncer import Bouncer
from chaos.clock import Clock
from chaos.cluster import DATABASE, ROLE, Cluster, Database
from chaos.fleet import Post
from chaos.guard import Guard
from chaos.jobs import QUEUES
from chaos.patroni import Patroni
from chaos.proxy import Proxy
from chaos.records import Terms
from chaos.world import PROXIED

DISK = 1_500  # megabytes of the disk that can be full
DIRECT, SHIFTED = "directly", "directly, by a clock of its own"
MODES = ("session", "transaction")


@dataclass
class Stage:
    """What the workers and deferrers work with."""

    cluster: Database
    proxy: Proxy
    proxied: str  # how to reach the server through the proxy
    bouncers: dict[str, Bouncer] = field(default_factory=dict)
    clock: Clock | None = None

    def close_bouncers(self) -> None:
        """End the PgBouncers, which would keep connections after all workers have ended."""
        for bouncer in self.bouncers.values():
            bouncer.kill()

    def posts(self, terms: Terms) -> list[Post]:
        """Return the posts: several processes, several ways to the database.

        Only the one behind the proxy serves all queues.
        """
        beats = (
            f"--heartbeat-interval={terms.heartbeat.total_seconds():g}",
            f"--stalled-worker-timeout={terms.stalled.total_seconds():g}",
        )
        direct = self.cluster.dsn()
        served = (*beats, *(f"--queues={queue}" for queue in (*QUEUES, "ticks")))
        impatient = ("--shutdown-graceful-timeout", "3")
        found = [
            Post("direct", DIRECT, direct, (*served, "-c", "4", *impatient)),
            Post("proxied", PROXIED, self.proxied, (*beats, "-c", "10")),
            Post("pair", DIRECT, direct, (*served, "-c", "4"), processes=2),
        ]
        for mode, bouncer in self.bouncers.items():
            listen = {"CHAOS_LISTEN": direct} if mode == "transaction" else {}
            options = (*served, "-c", "4")
            found.append(
                Post(f"bouncer-{mode}", bouncer.route, bouncer.dsn, options, environment=listen)
            )
        if self.clock is not None:
            options = (*served, "-c", "4")
            found.append(
                Post("clock", SHIFTED, direct, options, environment=self.clock.environment)
            )
        return found


@contextmanager
def plain(folder: Path, guard: Guard, logs: Path, *, with_debian: bool) -> Iterator[Stage]:
    """One server behind a proxy; with PgBouncers and a clock where they can be had."""
    with ExitStack() as stack:
        if with_debian:
            stack.enter_context(debian.small_disk(folder, DISK))
        cluster = Cluster(folder, guard, {"max_wal_size": "256MB"})
        cluster.log = logs / "server.log"
        cluster.start()
        stack.callback(cluster.stop)
        cluster.make_database()
        proxy = Proxy(lambda: asyncio.open_unix_connection(cluster.socket))
        proxy.start()
        stack.callback(proxy.close)
        proxied = f"postgresql://{ROLE}@127.0.0.1:{proxy.port}/{DATABASE}"
        found = Stage(cluster, proxy, proxied)
        if with_debian:
            for mode in MODES:
                found.bouncers[mode] = bouncer = Bouncer(mode, cluster, guard)
                bouncer.start()
                stack.callback(bouncer.kill)
            found.clock = Clock(folder)
        yield found


@contextmanager
def failing_over(folder: Path, guard: Guard) -> Iterator[Stage]:
    """Two nodes under Patroni. All workers reach them directly, and none uses the proxy."""
    with ExitStack() as stack:
        pair = Patroni(folder, guard)
        stack.callback(pair.stop)
        pair.start()
        pair.make_database()
        proxy = Proxy(lambda: asyncio.open_connection("127.0.0.1", pair.nodes[0].port))
        proxy.start()
        stack.callback(proxy.close)
        yield Stage(pair, proxy, pair.dsn())
