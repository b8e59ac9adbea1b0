"""The chart of a run, drawn from its JSON: ``python -m benchmarks.chart bench.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.report import figure

MET, MISSED, PLAIN = "#2a7f62", "#c8553d", "#5b6b7b"
INK, FAINT, GRID = "#22303c", "#7b8794", "#e4e8ec"
ROW = 0.34  # inches
LONGEST = 2.2  # what lies beyond is cut off, with an arrow
OURS = "procrastinate"

pyplot.rcParams.update(
    {
        "font.size": 9.5,
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": FAINT,
        "ytick.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "procrastinate",
    }
)


def draw(found: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw a document of `benchmarks.results` as PATH.png and PATH.svg, and return these paths."""
    drawing = _peers(found) if found["peers"] else _workloads(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    for each in paths:
        drawing.savefig(each, dpi=150, facecolor="white")
    pyplot.close(drawing)
    return paths


# --- workloads ------------------------------------------------------------------------------------


class Row:
    """One measure of a chart: its values as shares of a scale that all rows of the panel have."""

    def __init__(self, workload: Mapping[str, Any], measure: Mapping[str, Any]) -> None:
        self.key = workload["key"]
        self.label = workload["short"]
        if len(workload["measures"]) > 1:
            self.label += f": {measure['name']}"
        self.measure = measure
        self.target: float = measure["target"]["bound"]
        self.at_least: bool = measure["target"]["at_least"]
        self.color = MET if measure["met"] else MISSED

    @property
    def is_ratio_of_speeds(self) -> bool:
        return self.at_least and bool(self.measure["kind"] == "ratio")

    def values(self) -> tuple[float, float, float, float]:
        """Return low, median, high and the target: ratios, or shares of what is allowed."""
        values = [self.measure[name] for name in ("low", "median", "high")]
        if self.is_ratio_of_speeds:
            return values[0], values[1], values[2], self.target
        if self.target == 0:
            return values[0], values[1], values[2], 1.0  # shown as it is: none is allowed
        return values[0] / self.target, values[1] / self.target, values[2] / self.target, 1.0

    def text(self) -> str:
        measure = self.measure
        if self.is_ratio_of_speeds:
            return f"{figure(measure['median'])}   {figure(measure['ours'])} {measure['unit']}"
        if measure["kind"] == "ratio":
            return (
                f"{figure(measure['median'])} times {figure(measure['limit'])} {measure['unit']}"
                f" (at most {figure(self.target)})"
            )
        unit = f" {measure['unit']}".rstrip()
        return f"{figure(measure['median'])}{unit} (at most {figure(self.target)})"


def _workloads(found: Mapping[str, Any]) -> Any:
    rows = [
        Row(workload, measure)
        for workload in found["workloads"]
        for measure in workload["measures"]
        if measure["target"] is not None
    ]
    panels = [
        ("Speed, as a ratio to the limit of the same run: more is better",
         [row for row in rows if row.is_ratio_of_speeds]),
        ("Delay and cost, as a share of what is allowed: less is better",
         [row for row in rows if not row.is_ratio_of_speeds]),
    ]  # fmt: skip
    panels = [(title, rows) for title, rows in panels if rows]
    drawing, all_axes = _figure_for([len(rows) for _, rows in panels], found)
    for axes, (title, panel_rows) in zip(all_axes, panels, strict=False):
        _draw_panel(axes, title, panel_rows)
    return drawing


def _draw_panel(axes: Axes, title: str, rows: Sequence[Row]) -> None:
    top = max([1.15, *(max(row.values()[2], row.values()[3]) * 1.08 for row in rows)])
    top = min(top, LONGEST)
    for place, row in enumerate(rows):
        low, median, high, target = row.values()
        axes.barh(place, min(median, top), height=0.56, color=row.color, alpha=0.22, zorder=2)
        axes.plot(
            [min(low, top), min(high, top)], [place, place], color=row.color, lw=2.2, zorder=3
        )
        beyond = median > top
        axes.plot(
            min(median, top), place, ">" if beyond else "o", color=row.color, ms=6, zorder=4,
            clip_on=False,
        )  # fmt: skip
        axes.plot([target, target], [place - 0.4, place + 0.4], color=INK, lw=1.6, zorder=5)
        axes.annotate(
            row.text(), (1.015, place), xycoords=("axes fraction", "data"), va="center",
            color=row.color, fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"{row.label}   {row.key:>3}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, top)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=8)
    _plain(axes)


# --- peers ----------------------------------------------------------------------------------------

_PEER_PANELS = (
    ("drain", "Drain, jobs/s: more is better"),
    ("enqueue", "Enqueue one by one, jobs/s: more is better"),
    ("latency_p50", "Idle latency p50, ms: less is better"),
)


def _peers(found: Mapping[str, Any]) -> Any:
    peers = [peer for peer in found["peers"] if peer["figures"]]
    drawing, all_axes = _figure_for([len(peers)] * len(_PEER_PANELS), found, left=0.22, right=0.88)
    for axes, (name, title) in zip(all_axes, _PEER_PANELS, strict=False):
        measured = [peer for peer in peers if name in peer["figures"]]
        measured.sort(key=partial(_median, name), reverse=not name.startswith("latency"))
        for place, peer in enumerate(measured):
            values = peer["figures"][name]
            color = MET if peer["name"] == OURS else PLAIN
            axes.barh(place, values["median"], height=0.56, color=color, alpha=0.3, zorder=2)
            axes.plot(
                [values["low"], values["high"]], [place, place], color=color, lw=2.2, zorder=3
            )
            axes.plot(values["median"], place, "o", color=color, ms=6, zorder=4)
            axes.annotate(
                figure(values["median"]), (1.015, place), xycoords=("axes fraction", "data"),
                va="center", color=color,
            )  # fmt: skip
        axes.set_yticks(
            range(len(measured)), [f"{peer['title']} {peer['version']}" for peer in measured]
        )
        axes.set_ylim(len(peers) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=8)
        _plain(axes)
    return drawing


def _median(name: str, peer: Mapping[str, Any]) -> float:
    return float(peer["figures"][name]["median"])


# --- both -----------------------------------------------------------------------------------------


def _figure_for(
    rows: Sequence[int], found: Mapping[str, Any], left: float = 0.27, right: float = 0.74
) -> Any:
    """A figure with one panel for each number of rows, and what it was measured on below."""
    heights = [max(1, count) for count in rows] or [1]
    height = sum(heights) * ROW + 0.75 * len(heights) + 0.75
    drawing, axes = pyplot.subplots(
        len(heights), 1, figsize=(11.5, height), height_ratios=heights, squeeze=False
    )
    drawing.subplots_adjust(
        left=left, right=right, top=1 - 0.45 / height, bottom=0.75 / height,
        hspace=0.75 * len(heights) / (sum(heights) * ROW),
    )  # fmt: skip
    drawing.text(0.012, 0.16 / height, _measured_on(found), color=FAINT, fontsize=8)
    return drawing, list(axes[:, 0])


def _measured_on(found: Mapping[str, Any]) -> str:
    about, server = found["machine"], found["server"]
    return (
        f"{found['taken_at'][:10]}, {found['scale']} size, {found['repeat']} rounds: the dot is the"
        f" median, the line from the lowest to the highest. {about['cpu']}, {about['cores']} cores,"
        f" Python {about['python']}, PostgreSQL {server['server_version']}, fsync {server['fsync']}"
    )


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=GRID, zorder=0)
    axes.set_axisbelow(True)


def main() -> None:
    """Draw the chart of a file again, beside it."""
    path = Path(sys.argv[1])
    draw(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(""))


if __name__ == "__main__":
    main()
