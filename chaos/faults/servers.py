"""Faults of the server itself: crashed, restarted, away."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING, ClassVar

import psutil
import psycopg2

from chaos.faults.base import SERVER, Fault
from chaos.records import Effect

if TYPE_CHECKING:
    from chaos.world import World


class Stopped(Fault):
    """The server ends in one of several ways, and is started again."""

    lane = SERVER
    signal: ClassVar[signal.Signals] = signal.SIGINT
    forgets: ClassVar[bool] = False

    def strike(self, world: World, chance: random.Random) -> None:
        effects = [Effect.AWAY, *([Effect.FORGETS] if self.forgets else [])]
        with world.trouble(self.name, *effects) as note:
            before = world.server.pid
            world.server.stop(self.signal)
            world.hold(self.seconds(world, chance))
            world.server.start()
            note.seen = world.server.pid != before

    def seconds(self, world: World, chance: random.Random) -> float:
        """Return how long it is away."""
        return 0.0


class KillServer(Stopped):
    """kill -9 of the postmaster."""

    name = "server: kill -9"
    signal = signal.SIGKILL
    forgets = True


class ImmediateStop(Stopped):
    """An immediate shutdown: the server recovers from its log."""

    name = "server: immediate stop"
    signal = signal.SIGQUIT
    forgets = True


class Restart(Stopped):
    """A restart, which ends all sessions."""

    name = "server: restart"


class Outage(Stopped):
    """The server is away for a while."""

    name = "server: outage"
    weight = 0.5

    def seconds(self, world: World, chance: random.Random) -> float:
        return world.scale.outage * chance.uniform(0.7, 1.0)


class KillBackend(Fault):
    """kill -9 of a session's process: the server ends all others and recovers from its log."""

    name, lane = "server: kill -9 of a session", SERVER

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, Effect.AWAY, Effect.FORGETS) as note:
            pids = [pid for (pid,) in world.cluster.query(SESSIONS)]
            if not pids:
                return
            started = started_at(world)
            try:
                psutil.Process(chance.choice(pids)).kill()
            except psutil.NoSuchProcess:
                return
            note.seen = world.until(lambda: started_at(world) != started, 10)


SESSIONS = "select pid from pg_stat_activity where usename = 'chaos'"


def started_at(world: World) -> object:
    """Return when the server's shared memory was made: anew after each crash."""
    try:
        return world.cluster.ask("select stats_reset from pg_stat_bgwriter")[0][0]
    except psycopg2.Error:
        return None


FAULTS: list[type[Fault]] = [KillServer, ImmediateStop, Restart, Outage, KillBackend]
