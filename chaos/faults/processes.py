"""Faults of worker processes: killed, stopped for a while, told to stop."""

from __future__ import annotations

import os
import random
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import jobs
from chaos.faults.base import PROCESSES, Fault
from chaos.fleet import Worker
from chaos.nasty import DEEDS
from chaos.records import Effect

if TYPE_CHECKING:
    from chaos.census import Member
    from chaos.world import World

DEED_MAY_TAKE = 20.0  # seconds until a job that is to do something nasty has begun
DEATH_MAY_TAKE = 10.0  # seconds from the deed to the end of its process
HEARS_WITHIN = 10.0  # seconds from the start of a process until it handles SIGTERM
ORPHAN_MAY_TAKE = 60.0  # seconds that the children of a killed parent may take


class Kill(Fault):
    """kill -9 of a process that runs jobs."""

    name, lane = "kill -9", PROCESSES

    def strike(self, world: World, chance: random.Random) -> None:
        victim = world.victim(chance)
        if victim is None:
            return
        with world.trouble(self.name, Effect.ENDS, processes=[victim.process]) as note:
            world.fleet.harm(victim)
            note.seen = signalled(victim.pid, signal.SIGKILL)
            world.until(lambda: world.census.is_dead(victim.process), 5)


class Stop(Fault):
    """SIGSTOP, and SIGCONT before anybody may take the process for dead: nothing may happen."""

    name, lane = "stop briefly", PROCESSES

    def seconds(self, world: World, chance: random.Random) -> float:
        return chance.uniform(0.3, 0.8) * world.terms.lets_go.total_seconds()

    def strike(self, world: World, chance: random.Random) -> None:
        victim = world.victim(chance)
        if victim is None:
            return
        with world.trouble(self.name, Effect.STILL, processes=[victim.process]) as note:
            note.seen = signalled(victim.pid, signal.SIGSTOP)
            try:
                world.hold(self.seconds(world, chance))
            finally:
                signalled(victim.pid, signal.SIGCONT)


class StopLong(Stop):
    """SIGSTOP for longer than the timeout: others take the process's jobs, and it comes back."""

    name = "stop for long"
    weight = 0.6

    def seconds(self, world: World, chance: random.Random) -> float:
        return world.terms.stalled.total_seconds() * chance.uniform(1.2, 1.8)


class Term(Fault):
    """SIGTERM to a worker that runs jobs: it ends them, or hands them back, and exits with 0."""

    name, lane = "term", PROCESSES
    again = False

    def strike(self, world: World, chance: random.Random) -> None:
        victim = world.victim(chance)
        worker = None if victim is None else world.fleet.worker_of(victim)
        if worker is not None:
            self.stop(world, chance, worker)

    def stop(self, world: World, chance: random.Random, worker: Worker) -> None:
        world.until(lambda: hears(worker.pid), HEARS_WITHIN)
        with world.trouble(self.name, Effect.ENDS, processes=()) as note:
            world.fleet.tell_to_stop(worker)
            if self.again:
                world.hold(chance.uniform(0.01, 1))
                world.fleet.tell_to_stop(worker)
            note.seen = gone(world, worker)
            # Not before: the children of one that was starting have come since.
            note.processes = {each.process for each in world.fleet.members(worker)}


class TermTwice(Term):
    """SIGTERM, and again: running jobs are aborted or handed back."""

    name = "term twice"
    again = True


class TermImporting(Term):
    """SIGTERM at a random moment while the application is imported, which swallows it."""

    name = "term during import"

    def strike(self, world: World, chance: random.Random) -> None:
        workers = world.fleet.workers()
        if not workers:
            return
        post = replace(chance.choice(workers).post, name="importing", slow_import=1.0)
        worker = world.fleet.launch(post, at_its_post=False)
        world.until(lambda: hears(worker.pid), HEARS_WITHIN)
        world.hold(chance.uniform(0, 1.5))
        self.again = chance.random() < 0.3
        self.stop(world, chance, worker)


class KillParent(Fault):
    """kill -9 of the parent of several workers: they stop by themselves, and nothing is lost."""

    name, lane = "kill the parent", PROCESSES
    weight = 0.6

    def strike(self, world: World, chance: random.Random) -> None:
        parents = [each for each in world.fleet.workers() if each.post.processes > 1]
        if not parents:
            return
        parent = chance.choice(parents)
        with world.trouble(self.name, Effect.ENDS, processes=()) as note:
            had = self.living(world, parent)
            parent.harmed = True
            signalled(parent.pid, signal.SIGKILL)
            ended = world.until(lambda: not self.living(world, parent), ORPHAN_MAY_TAKE)
            # Not before: children may have come since.
            note.processes = {each.process for each in world.fleet.members(parent)}
            note.seen = ended and any(each.pid != parent.pid for each in had)
            if not ended:
                left = self.living(world, parent)
                world.complain("hung", f"children of a killed parent live on: {left}")

    def living(self, world: World, parent: Worker) -> list[Member]:
        """Return those of a parent's processes that live."""
        family = world.fleet.members(parent)
        return [each for each in family if not world.census.is_dead(each.process)]


class Nasty(Fault):
    """A job that does something to its own process; the ledger knows what it has ended."""

    lane = PROCESSES
    weight = 0.7
    deed: str

    def strike(self, world: World, chance: random.Random) -> None:
        spec = jobs.nasty(chance, world.number(), self.deed)
        _, kills = DEEDS[self.deed]
        with world.trouble(self.name, processes=()) as note:
            world.defer(spec)
            note.seen = world.until(lambda: doers(world, spec.n), DEED_MAY_TAKE)
            if kills and note.seen:
                note.seen = world.until(lambda: self._is_done(world, spec.n), DEATH_MAY_TAKE)

    def _is_done(self, world: World, n: int) -> bool:
        return all(world.census.is_dead(each) for each in doers(world, n))


def doers(world: World, n: int) -> list[str]:
    """Return the processes that a job has harmed."""
    rows = world.ledger.query("select process from nasty where n = %s", n)
    return [process for (process,) in rows]


def nasty(deed: str) -> type[Fault]:
    """Return the fault of one deed."""
    return type("Nasty", (Nasty,), {"name": f"job: {deed}", "deed": deed})


def gone(world: World, worker: Worker) -> bool:
    """Wait until a worker that was told to stop has ended, and return whether it has."""
    return world.until(lambda: worker.process.poll() is not None, world.fleet.exit_may_take)


def hears(pid: int) -> bool:
    """Return whether a process handles SIGTERM by now: none can before its first line.

    True if it is gone, or if the system does not tell.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return caught is None or bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def signalled(pid: int, number: signal.Signals) -> bool:
    """Send a signal; return whether there was a process to receive it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


FAULTS: list[type[Fault]] = [
    Kill,
    Stop,
    StopLong,
    Term,
    TermTwice,
    TermImporting,
    KillParent,
    *(nasty(deed) for deed in DEEDS),
]
