"""Which worker processes there are: what the ledger was told, beside the system's own list."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from chaos.ledger import Ledger

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Member:
    """One process that has imported the application."""

    process: str
    pid: int
    parent: int
    route: str
    since: datetime  # when it told the ledger of itself


class Census:
    """Kept up to date by `look`, a few times a second."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._looked: datetime = datetime.now(UTC)
        self._routes: dict[int, str] = {}
        self._created: dict[str, float] = {}
        self._deaths: dict[str, datetime] = {}
        self._members: dict[str, Member] = {}

    def expect(self, pid: int, route: str) -> None:
        """Say how a process that was started reaches the database, and its children do."""
        with self._lock:
            self._routes[pid] = route

    def look(self) -> None:
        """Note who has come, and who has gone."""
        rows = self._ledger.query("select process, pid, parent, at from processes")
        with self._lock:
            for process, pid, parent, at in rows:
                if process not in self._members:
                    route = self._routes.get(pid) or self._routes.get(parent) or UNKNOWN
                    self._members[process] = Member(process, pid, parent, route, at)
            for process, member in self._members.items():
                if process not in self._deaths and not self._is_alive(member):
                    self._deaths[process] = datetime.now(UTC)

    def _is_alive(self, member: Member) -> bool:
        try:
            found = psutil.Process(member.pid)
            created = found.create_time()
            if found.status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.Error:
            return False
        return abs(self._created.setdefault(member.process, created) - created) < 0.05

    # --- Asking ---

    @property
    def deaths(self) -> dict[str, datetime]:
        """Who is gone, and since when."""
        with self._lock:
            return dict(self._deaths)

    def alive(self) -> list[Member]:
        """Return who is there."""
        return self._those(lambda member: member.process not in self._deaths)

    def family(self, pid: int, since: datetime) -> list[Member]:
        """Return a process that was started at a moment, and all children that it has had."""
        return self._those(lambda each: pid in (each.pid, each.parent) and each.since >= since)

    def on(self, route: str) -> frozenset[str]:
        """Return all that ever went this way to the database."""
        return frozenset(each.process for each in self._those(lambda each: each.route == route))

    def _those(self, condition: Callable[[Member], bool]) -> list[Member]:
        with self._lock:
            return [each for each in self._members.values() if condition(each)]

    def is_dead(self, process: str) -> bool:
        """Return whether a process is gone."""
        with self._lock:
            return process in self._deaths

    def busy(self) -> list[Member]:
        """Return who has runs under way."""
        rows = self._ledger.query(
            "select distinct process from began where at > clock_timestamp() - interval '60 s'"
            " and not exists (select from ended where ended.token = began.token)"
        )
        names = {name for (name,) in rows}
        return [each for each in self.alive() if each.process in names]

    def was_nasty(self, pid: int, since: datetime) -> bool:
        """Return whether a job has harmed the process that was started at a moment."""
        return self._tells("nasty", pid, since)

    def has_run(self, pid: int, since: datetime) -> bool:
        """Return whether the process that was started at a moment has begun a run."""
        return self._tells("began", pid, since)

    def _tells(self, table: str, pid: int, since: datetime) -> bool:
        sql = f"select exists (select from {table} where process = %s)"
        itself = self._those(lambda each: each.pid == pid and each.since >= since)
        return any(self._ledger.query(sql, each.process)[0][0] for each in itself)
