"""What a run found, as JSON; README.md explains the fields."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measures import Kind, Measure, Sample, Summary, summary_of
from benchmarks.workload import Workload

FORMAT = 1


@dataclass(slots=True)
class Outcome:
    """The rounds of one workload so far, and what ended it early, if anything did."""

    workload: Workload
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    error: str | None = None

    def add(self, samples: Mapping[str, Sample]) -> None:
        for name, sample in samples.items():
            self.samples.setdefault(name, []).append(sample)

    def measured(self) -> list[tuple[Measure, list[Sample], Summary]]:
        """Return the measures that have at least one round."""
        return [
            (measure, self.samples[measure.name], summary_of(self.samples[measure.name]))
            for measure in self.workload.measures
            if self.samples.get(measure.name)
        ]

    @property
    def is_met(self) -> bool:
        """Whether it ran, and every target is met."""
        return self.error is None and all(
            measure.target is None or measure.target.is_met_by(summary.median)
            for measure, _, summary in self.measured()
        )


def document(
    *,
    scale: str,
    repeat: int,
    machine: Mapping[str, Any],
    packages: Mapping[str, str],
    server: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    peers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return everything that a run found."""
    return {
        "format": FORMAT,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": scale,
        "repeat": repeat,
        "machine": dict(machine),
        "packages": dict(packages),
        "server": dict(server),
        "workloads": [_workload(outcome) for outcome in outcomes],
        "peers": [dict(peer) for peer in peers],
    }


def _workload(outcome: Outcome) -> dict[str, Any]:
    workload = outcome.workload
    return {
        "key": workload.key,
        "title": workload.title,
        "short": workload.short,
        "limit": workload.limit,
        "timed": workload.timed,
        "error": outcome.error,
        "measures": [_measure(*each) for each in outcome.measured()],
    }


def _measure(measure: Measure, samples: Sequence[Sample], summary: Summary) -> dict[str, Any]:
    target = measure.target
    return {
        "name": measure.name,
        "unit": measure.unit,
        "kind": measure.kind.value,
        "against": measure.against or None,
        "target": None if target is None else {"bound": target.bound, "at_least": target.at_least},
        "met": None if target is None else target.is_met_by(summary.median),
        "median": summary.median,
        "low": summary.low,
        "high": summary.high,
        "ours": summary.ours,
        "limit": summary.limit if measure.kind is Kind.RATIO else None,
        "samples": [{"ours": sample.ours, "limit": sample.limit} for sample in samples],
    }


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write a document, readable by people too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def is_finite(found: Mapping[str, Any]) -> bool:
    """Return whether every figure of every measure is a number that can be written."""
    return all(
        math.isfinite(measure[name])
        for workload in found["workloads"]
        for measure in workload["measures"]
        for name in ("median", "low", "high", "ours")
    )
