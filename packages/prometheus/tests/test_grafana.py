"""The dashboard, and the alerts on the page: each query is about metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procrastinate_prometheus import command, names

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "monitoring.md"
KNOWN = {each.name: each for each in (*names.OF_WORKERS, *names.OF_DATABASE)}
_METRIC = re.compile(r"\b(procrastinate_\w+)(?:\{([^}]*)\})?")
_PART = re.compile(r"_(bucket|count|sum)$")


def queries() -> Iterator[str]:
    dashboard = json.loads(command.dashboard())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (each["query"]["query"] for each in dashboard["templating"]["list"][1:])
    if PAGE.exists():  # not where the package is tested without the repository
        yield from re.findall(r"^ +expr: (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("query", list(queries()))
def test_each_query_names_what_there_is(query: str) -> None:
    used = _METRIC.findall(query)
    assert used, query
    for metric, conditions in used:
        name = metric if metric in KNOWN else _PART.sub("", metric)
        assert name in KNOWN, query
        assert (name != metric) == (KNOWN[name].kind == "histogram"), query
        labels = set(re.findall(r"(\w+)\s*(?:=|!)", conditions))
        assert labels <= set(KNOWN[name].labels), query
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        labels = {label for metric, _ in used for label in labels_of(metric)}
        assert set(re.findall(r"\w+", grouped)) <= labels | {"le"}, query


def labels_of(metric: str) -> tuple[str, ...]:
    return KNOWN[metric if metric in KNOWN else _PART.sub("", metric)].labels


def test_each_metric_is_on_the_dashboard() -> None:
    shown = {_PART.sub("", metric) for query in queries() for metric, _ in _METRIC.findall(query)}
    assert shown == set(KNOWN)


def test_panels_lie_beside_each_other() -> None:
    dashboard: dict[str, Any] = json.loads(command.dashboard())
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        own = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
