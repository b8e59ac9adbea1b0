"""What a fault can reach: the server, the network, the workers, and the list of what has struck."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chaos.cluster import Cluster, Database
from chaos.fleet import Fleet
from chaos.ledger import Ledger
from chaos.patroni import Patroni
from chaos.records import Complaint, Effect, Pause, Spec, Terms, Trouble

if TYPE_CHECKING:
    from chaos.bouncer import Bouncer
    from chaos.census import Census, Member
    from chaos.clock import Clock
    from chaos.proxy import Proxy

PROXIED = "through the proxy"


@dataclass(frozen=True, slots=True)
class Scale:
    """How long the faults last, in seconds."""

    outage: float
    table_lock: float
    black_hole: float
    exit: (
        float  # at most, from SIGTERM to the end of a process; on a busy machine imports take long
    )
    calm: float  # at most, until all jobs have ended after the last fault
    pause: float  # at most, between two faults of a lane


SHORT = Scale(outage=7, table_lock=7, black_hole=7, exit=60, calm=90, pause=0.6)
LONG = Scale(outage=40, table_lock=45, black_hole=25, exit=90, calm=300, pause=3)


@dataclass
class Note:
    """What a fault finds out about itself while it strikes."""

    seen: bool = False
    processes: set[str] | None = None
    effects: set[Effect] = field(default_factory=set)
    back_by: datetime | None = None
    awaited: int | None = None
    pause: Pause | None = None


class World:
    """One campaign's."""

    def __init__(
        self,
        *,
        cluster: Database,
        proxy: Proxy,
        fleet: Fleet,
        ledger: Ledger,
        terms: Terms,
        scale: Scale,
        defer: Callable[[Spec], None],
        bouncers: Mapping[str, Bouncer],
        clock: Clock | None,
    ) -> None:
        self.cluster, self.proxy, self.fleet, self.ledger = cluster, proxy, fleet, ledger
        self.bouncers, self.clock = bouncers, clock
        self.terms, self.scale, self.defer = terms, scale, defer
        self.over = threading.Event()  # set once no more faults are to strike
        self._lock = threading.Lock()
        self.complaints: list[Complaint] = []
        self._struck: list[Trouble] = []
        self._under_way: dict[int, tuple[datetime, Note]] = {}
        self._numbers = iter(range(10_000_000, 20_000_000))

    @property
    def server(self) -> Cluster:
        """The server, where it is a single one that can be stopped."""
        assert isinstance(self.cluster, Cluster)
        return self.cluster

    @property
    def patroni(self) -> Patroni:
        """The two nodes, where there are two."""
        assert isinstance(self.cluster, Patroni)
        return self.cluster

    @property
    def census(self) -> Census:
        """The worker processes."""
        return self.fleet.census

    # --- Striking ---

    @contextmanager
    def trouble(
        self, name: str, *effects: Effect, processes: Iterable[str] | None = None
    ) -> Iterator[Note]:
        """Note that a fault strikes while the block lasts, and what it does to whom."""
        note = Note(processes=None if processes is None else set(processes), effects=set(effects))
        began = datetime.now(UTC)
        with self._lock:
            self._under_way[id(note)] = (began, note)
        try:
            yield note
        finally:
            touched = None if note.processes is None else frozenset(note.processes)
            struck = Trouble(
                name=name,
                kind=name,
                began=began,
                ended=datetime.now(UTC),
                effects=frozenset(note.effects),
                processes=touched,
                seen=note.seen,
                back_by=note.back_by,
                awaited=note.awaited,
                pause=note.pause,
            )
            with self._lock:
                del self._under_way[id(note)]
                self._struck.append(struck)

    def note(self, trouble: Trouble) -> None:
        """Add a trouble that no fault has made."""
        with self._lock:
            self._struck.append(trouble)

    def complain(self, rule: str, text: str) -> None:
        """Add something that must not be, which the books cannot see."""
        with self._lock:
            self.complaints.append(Complaint(rule, text))

    def troubles(self) -> list[Trouble]:
        """Return all that has struck."""
        with self._lock:
            return list(self._struck)

    def was_troubled(self, since: datetime) -> bool:
        """Return whether a fault of the database struck since a moment, or shortly before."""
        since -= timedelta(seconds=5)
        with self._lock:
            if any(note.processes is None for _, note in self._under_way.values()):
                return True
            return any(
                each.ended >= since and (each.effects & {Effect.AWAY, Effect.FORGETS})
                for each in self._struck
            ) or any(Effect.AWAY in note.effects for _, note in self._under_way.values())

    # --- Waiting ---

    def until(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Wait for a condition; return whether it came true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def hold(self, seconds: float) -> None:
        """Let a fault last."""
        time.sleep(max(0.0, seconds))

    # --- Choosing ---

    def victim(self, chance: random.Random, seconds: float = 5.0) -> Member | None:
        """Return a process that runs jobs now; None if there is none for a while."""
        found: list[Member] = []

        def look() -> bool:
            found[:] = self.census.busy()
            return bool(found)

        return chance.choice(found) if self.until(look, seconds) else None

    def number(self) -> int:
        """Return a number for a job of the harness's own."""
        return next(self._numbers)
