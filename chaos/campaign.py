"""One campaign from its first server to its last: what `books` then judges."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import procrastinate
import procrastinate_embedded
from chaos import closing, draw, ledger, stage, world
from chaos.calls import Caller
from chaos.census import Census
from chaos.connectors import OF_DEFERRERS
from chaos.faults.base import Fault
from chaos.fleet import Fleet
from chaos.guard import ROOT, Guard
from chaos.options import Options
from chaos.pulse import Pulse
from chaos.records import Campaign, Complaint, Effect, Spec, Terms, Trouble
from chaos.stage import Stage
from chaos.world import World

PROBES = 8
TRIES = 3  # of a fault whose effect is not seen
AHEAD = 0.05  # of its faults: what a lane may have done more than the slowest one
STARTING_MAY_TAKE = 60.0  # seconds
LOOK = 0.2  # seconds between two looks at processes
Say = Callable[[str], None]


@dataclass
class Result:
    """What a campaign has left: the books' input, and what was seen beside them."""

    campaign: Campaign
    complaints: list[Complaint]
    planned: int
    seconds: float
    workers: int
    logs: Path


@dataclass
class Lane:
    """The faults that strike one after the other, in a thread."""

    name: str
    faults: list[type[Fault]]
    done: int = 0
    thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def share(self) -> float:
        """How many of its faults have struck; 1.0 if it strikes no more."""
        has_ended = self.thread is not None and not self.thread.is_alive()
        return 1.0 if has_ended else self.done / len(self.faults)


def is_ahead(lane: Lane, lanes: Sequence[Lane]) -> bool:
    """Return whether a lane must wait. The slowest one never must."""
    return lane.share > min(each.share for each in lanes) + AHEAD


class Runner:
    """Runs one campaign in a folder of its own."""

    def __init__(self, options: Options, kinds: Sequence[type[Fault]], say: Say) -> None:
        self._options, self._kinds, self._say = options, kinds, say
        self._terms = Terms(
            stalled=timedelta(seconds=options.stalled),
            heartbeat=timedelta(seconds=options.heartbeat),
        )
        self._complaints: list[Complaint] = []
        self._deferrers: list[subprocess.Popen[str]] = []

    def run(self) -> Result:
        """Return what happened."""
        began = time.monotonic()
        with self._prepared() as self._world:
            pulse = Pulse(self._world.note)
            self._start()
            lanes = self._lanes()
            self._let_it_rain(lanes)
            self._calm_down()
            pulse.stop()
            campaign = self._close()
            return Result(
                campaign,
                [
                    *self._complaints,
                    *self._world.complaints,
                    *self._world.fleet.complaints,
                ],
                sum(len(lane.faults) for lane in lanes),
                time.monotonic() - began,
                self._world.fleet.started,
                self.logs,
            )

    # --- The stage ---

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[World]:
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        folder.chmod(0o711)
        self.logs = Path(tempfile.mkdtemp(prefix="chaos-logs-"))
        self.logs.chmod(0o711)
        guard = Guard(folder)
        settings = {"fsync": False, "max_connections": 400}
        try:
            with (
                procrastinate_embedded.server(settings=settings) as truth,
                self._stage_of(folder, guard) as self._stage,
            ):
                try:
                    yield self._world_of(guard, truth.create_database("ledger"))
                finally:
                    for deferrer in self._deferrers:
                        deferrer.kill()
        finally:
            guard.close()

    def _stage_of(self, folder: Path, guard: Guard) -> contextlib.AbstractContextManager[Stage]:
        if self._options.patroni:
            return stage.failing_over(folder, guard)
        return stage.plain(folder, guard, self.logs, with_debian=self._options.debian)

    def _world_of(self, guard: Guard, dsn: str) -> World:
        book = ledger.Ledger(dsn)
        book.make_tables()
        self._ledger_dsn = dsn
        fleet = Fleet(dsn, self.logs, guard, Census(book))
        fleet.plant = self._options.plant
        fleet.connector = self._options.connector
        self._caller = Caller(self._stage.cluster.dsn(), book)
        found = World(
            cluster=self._stage.cluster,
            proxy=self._stage.proxy,
            fleet=fleet,
            ledger=book,
            terms=self._terms,
            scale=world.LONG if self._options.long else world.SHORT,
            defer=self._caller.defer,
            bouncers=self._stage.bouncers,
            clock=self._stage.clock,
        )
        fleet.troubled = found.was_troubled
        fleet.exit_may_take = found.scale.exit
        return found

    def _start(self) -> None:
        connector = procrastinate.Psycopg2Connector(dsn=self._world.cluster.dsn())
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
        self._world.fleet.man(self._stage.posts(self._terms))
        self._until("the workers to start", self._all_run, STARTING_MAY_TAKE)
        self._probe()
        self._memory = closing.memory(self._world)
        self._start_deferrers()

    def _all_run(self) -> bool:
        """Whether each process of each post is registered in the database."""
        posts = sum(each.post.processes for each in self._world.fleet.workers())
        rows = self._world.cluster.query("select count(*) from procrastinate_workers")
        return bool(rows[0][0] >= posts)

    def _start_deferrers(self) -> None:
        connectors = (*OF_DEFERRERS, self._options.connector)
        share, extra = divmod(self._options.jobs, len(connectors))
        for number, connector in enumerate(connectors):
            description = {
                "connector": connector,
                "dsn": self._dsn_for(connector),
                "ledger": self._ledger_dsn,
                "seed": self._options.seed + number,
                "first": 1 + number * 1_000_000,
                "count": share + (extra if number == 0 else 0),
                "long_share": self._options.long_share,
                "plant": self._options.plant,
            }
            log = (self.logs / f"deferrer-{connector}.log").open("w")
            self._deferrers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "chaos.deferring", json.dumps(description)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                    text=True,
                    start_new_session=True,
                )
            )
            log.close()

    def _dsn_for(self, connector: str) -> str:
        """Return how the deferrer with a connector reaches the database."""
        if connector == "sqlalchemy":
            return self._world.cluster.dsn()
        if connector == "psycopg2" and "transaction" in self._stage.bouncers:
            return self._stage.bouncers["transaction"].dsn
        return self._stage.proxied

    # --- The faults ---

    def _lanes(self) -> list[Lane]:
        chance = random.Random(self._options.seed)
        drawn = draw.draw(self._kinds, self._options.faults, chance)
        lanes: dict[str, Lane] = {}
        for kind in drawn:
            lanes.setdefault(kind.lane, Lane(kind.lane, [])).faults.append(kind)
        return list(lanes.values())

    def _let_it_rain(self, lanes: Sequence[Lane]) -> None:
        began = time.monotonic()
        for number, lane in enumerate(lanes):
            chance = random.Random(f"{self._options.seed} {lane.name} {number}")
            lane.thread = threading.Thread(
                target=self._strike_all, args=(lane, lanes, chance), daemon=True
            )
            lane.thread.start()
        total = max(1, sum(len(lane.faults) for lane in lanes))
        told = 0.0
        share = 0.0
        while any(lane.thread and lane.thread.is_alive() for lane in lanes):
            now = time.monotonic()
            done = sum(lane.done for lane in lanes) / total
            by_time = (now - began) / self._options.seconds
            # Jobs arrive steadily, and not all at once when a fault is over.
            share = min(max(done, by_time), share + 0.004)
            self._allow(share)
            if now - began > self._options.seconds:
                self._world.over.set()
            self._look()
            if now - told > 5:
                told = now
                self._tell(began, lanes)
            time.sleep(LOOK)
        self._allow(1.0)

    def _strike_all(self, lane: Lane, lanes: Sequence[Lane], chance: random.Random) -> None:
        for kind in lane.faults:
            time.sleep(chance.uniform(0, self._world.scale.pause))
            self._wait_for_the_slowest(lane, lanes)
            if self._world.over.is_set():
                return
            self._strike(kind, chance)
            lane.done += 1

    def _wait_for_the_slowest(self, lane: Lane, lanes: Sequence[Lane]) -> None:
        """Spread the faults of a quick lane over the campaign, so that they meet all others."""
        while is_ahead(lane, lanes):
            if self._world.over.wait(LOOK):
                return

    def _strike(self, kind: type[Fault], chance: random.Random) -> None:
        """Let a fault strike, again if its effect is not seen."""
        before = self._seen(kind)
        for _ in range(TRIES):
            try:
                kind().strike(self._world, chance)
            except Exception:
                self._complaints.append(
                    Complaint("harness", f"{kind.name}: {traceback.format_exc()}")
                )
                return
            if self._seen(kind) > before or self._world.over.is_set():
                return

    def _seen(self, kind: type[Fault]) -> int:
        return sum(each.kind == kind.name and each.seen for each in self._world.troubles())

    def _allow(self, share: float) -> None:
        """Let the deferrers ask for a share of their jobs."""
        each = self._options.jobs / len(self._deferrers)
        for deferrer in self._deferrers:
            assert deferrer.stdin is not None
            with contextlib.suppress(OSError):
                deferrer.stdin.write(f"{int(each * share) + (3 if share == 1.0 else 0)}\n")
                deferrer.stdin.flush()

    # --- Looking ---

    def _look(self) -> None:
        """Keep the workers going."""
        self._world.census.look()
        self._world.fleet.keep_going()

    def _until(self, what: str, condition: Callable[[], Any], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self._complaints.append(Complaint("hung", f"waited {seconds:g} s for {what}"))
                return False
            self._look()
            time.sleep(LOOK)
        return True

    def _tell(self, began: float, lanes: Sequence[Lane]) -> None:
        done = ", ".join(f"{lane.name} {lane.done}/{len(lane.faults)}" for lane in lanes)
        counts = self._world.ledger.query(
            "select (select count(*) from answers), (select count(*) from began)"
        )
        self._say(
            f"{time.monotonic() - began:5.0f} s  faults: {done};"
            f" jobs asked for: {counts[0][0]}, runs: {counts[0][1]}"
        )

    # --- The end ---

    def _calm_down(self) -> None:
        self._say("calm: waiting for the last jobs")
        self._until(
            "the deferrers to end",
            lambda: all(each.poll() is not None for each in self._deferrers),
            self._world.scale.calm,
        )
        self._until("all jobs to end", self._all_ended, self._world.scale.calm)
        self._until("the workers to be complete", self._all_run, STARTING_MAY_TAKE)
        self._probe()
        self._complaints += closing.check_idle(self._world, self._memory)

    def _all_ended(self) -> bool:
        rows = self._world.cluster.query(
            "select exists (select from procrastinate_jobs"
            " where status in ('todo', 'doing') and task_name <> 'tick')"
        )
        return not rows[0][0]

    def _probe(self) -> None:
        """Defer jobs one by one, while nothing else happens: they must begin promptly."""
        for _ in range(PROBES):
            number = self._world.number()
            self._caller.defer(Spec(number, "on_the_loop", "red", probe=True))
            self._until("a probe", lambda: self._caller.has_begun(number), 20)  # noqa: B023

    def _close(self) -> Campaign:
        found = self._world
        self._say("stopping the workers")
        began = datetime.now(UTC)
        found.fleet.stop_all()
        found.census.look()
        ended = datetime.now(UTC)
        found.note(Trouble("the end", "", began, ended, frozenset({Effect.ENDS})))
        self._caller.close()
        self._stage.close_bouncers()
        self._complaints += closing.check_stopped(found)
        deaths: dict[str, datetime] = defaultdict(lambda: datetime.now(UTC), found.census.deaths)
        return Campaign(
            asked=ledger.read_asked(found.ledger),
            stored=closing.read_stored(found.cluster),
            runs=ledger.read_runs(found.ledger),
            waits=ledger.read_waits(found.ledger),
            troubles=[*found.troubles(), *ledger.read_deaths_by_jobs(found.ledger, deaths)],
            deaths=dict(deaths),
            terms=self._terms,
        )
