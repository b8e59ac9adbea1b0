"""Running the peers' scripts, in turn, round after round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2 import extensions
from rich.console import Console

from benchmarks import report
from benchmarks.databases import Server
from benchmarks.lengths import mean_of
from benchmarks.measures import quantile
from benchmarks.options import Options
from benchmarks.peers import PEERS, Peer
from benchmarks.peers.environments import NotInstalled, command_for, version_of
from benchmarks.workloads.timed import LINES

DRAIN = 50_000
ENQUEUE = 2_000
LATENCY = 300
#: W15's jobs that all take equally long, without threads.
WORK = [line for line in LINES if line.is_even and not line.threads]
SCRIPT_MAY_TAKE = 600.0  # seconds
_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
}


class ScriptFailed(Exception):
    """A peer's script failed; says how."""


class Entrant:
    """One peer in a comparison: how to start it, and its figures so far."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.samples: dict[str, list[float]] = {}
        self.errors: dict[str, str] = {}
        self.command: list[str] = []
        self.variables: dict[str, str] = {}

    def install(self) -> bool:
        """Return whether it could be installed."""
        try:
            self.command, self.variables = command_for(self.peer)
        except NotInstalled as exc:
            self.errors["install"] = str(exc)
        return not self.errors

    def take(self, server: Server, name: str, action: str, *numbers: int) -> None:
        """Run one action, unless it failed before, and keep its figures by this name."""
        if name in self.errors or action not in self.peer.actions:
            return
        try:
            with server.empty_database() as dsn:
                self._call(dsn, "setup", 0)
                found = self._call(dsn, action, *numbers)
        except ScriptFailed as exc:
            self.errors[name] = str(exc)
            return
        for figure, value in _figures(name, numbers[0], found).items():
            self.samples.setdefault(figure, []).append(value)

    def _call(self, dsn: str, action: str, *numbers: int) -> dict[str, Any]:
        environment = {**os.environ, **self.variables, **_environment(dsn)}
        try:
            done = subprocess.run(
                [*self.command, action, *map(str, numbers)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=SCRIPT_MAY_TAKE,
            )
        except subprocess.TimeoutExpired:
            raise ScriptFailed(f"{action} took more than {SCRIPT_MAY_TAKE:g} s") from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ScriptFailed(f"{action} failed: {last}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    def document(self) -> dict[str, Any]:
        """Return what is written to the JSON."""
        return {
            "name": self.peer.name,
            "title": self.peer.title,
            "version": version_of(self.peer),
            "settings": self.peer.note,
            "errors": self.errors,
            "figures": {name: _summary(values) for name, values in self.samples.items()},
        }


def compare(options: Options, server: Server, console: Console, into: list[dict[str, Any]]) -> None:
    """Take all rounds of all peers. Those that cannot be installed are reported, and left out."""
    entrants = [Entrant(PEERS[name]) for name in options.only]
    with report.going_on(console, "installing") as say:
        installed = []
        for entrant in entrants:
            say(entrant.peer.title)
            if entrant.install():
                installed.append(entrant)
    try:
        for number in range(1, options.repeat + 1):
            _take_round(options, server, console, installed, f"round {number} of {options.repeat}")
    finally:
        into += [entrant.document() for entrant in entrants]
        report.print_peers(console, into)


def _take_round(
    options: Options, server: Server, console: Console, entrants: Sequence[Entrant], title: str
) -> None:
    sizes = {"drain": DRAIN, "enqueue": ENQUEUE, "latency": LATENCY}
    for action, full in sizes.items():
        for entrant in entrants:
            share = entrant.peer.share if action == "drain" else 1.0
            count = max(20, round(options.scale.of(full) * share))
            with report.going_on(console, f"{title}, {action}") as say:
                say(f"{count:,} jobs, {entrant.peer.title}")
                entrant.take(server, action, action, count)
    for line in WORK:
        count = line.count(options.scale)
        for entrant in entrants:
            with report.going_on(console, f"{title}, {line.name}") as say:
                say(f"{count:,} jobs, {entrant.peer.title}")
                milliseconds = round(mean_of(line.lengths) * 1e3)
                entrant.take(server, line.name, "work", count, line.slots, milliseconds)


def _figures(name: str, count: int, found: Mapping[str, Any]) -> dict[str, float]:
    if name != "latency":
        return {name: count / found["seconds"]}
    values = found["milliseconds"]
    return {"latency_p50": quantile(values, 0.5), "latency_p99": quantile(values, 0.99)}


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "samples": list(values),
    }


def _environment(dsn: str) -> dict[str, str]:
    parts = extensions.parse_dsn(dsn)
    return {name: str(parts[key]) for key, name in _VARIABLES.items() if key in parts}
