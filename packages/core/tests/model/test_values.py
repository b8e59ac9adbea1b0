"""Frozen values that are changed by making others."""

from __future__ import annotations

import dataclasses

import pytest

from procrastinate.model.claiming.levels import Level
from procrastinate.model.claiming.scan_memory import FullScans, Half, Schedule, Vain
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.claiming.scans import ScanPlan
from procrastinate.model.values import replace

SCAN = Scan(Kind.FULL, 7, ("a",))
VALUES = [
    (SCAN, {"limit": 3, "queues": ()}),
    (Level(1, ("a",)), {"floor": 5}),
    (FullScans(at=1.0), {"owed": 2.0}),
    (Schedule(), {"failures": 1}),
    (Vain(), {"took": 1.0}),
    (Half(SCAN, (), 0.5), {"took": 1.0}),
    (ScanPlan(news=4), {"gap": 4, "heard": {"a": 4}}),
]


@pytest.mark.parametrize(("value", "changes"), VALUES, ids=lambda each: type(each).__name__)
def test_a_copy_is_what_dataclasses_would_make(value: object, changes: dict[str, object]) -> None:
    before = repr(value)
    changed = replace(value, **changes)  # type: ignore[type-var]
    assert changed == dataclasses.replace(value, **changes)  # type: ignore[type-var]
    assert type(changed) is type(value)
    assert repr(value) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.limit = 1  # type: ignore[attr-defined]
