"""Plots as SVG, drawn by the server: bars on each other, and lines.

They have classes and no colours, for the style sheet knows the theme and the page's policy allows
no style in an element. Each bar and point has a ``<title>``, which browsers show and readers read.
The page has the same numbers as a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from procrastinate_dashboard.showing import DAY, HOUR, MINUTE, lasting

WIDTH, HEIGHT = 420, 160
LEFT, RIGHT, TOP, BOTTOM = 52, 6, 8, 22
LINES = 4  # across the plot, with a number each
LABELS = 5  # below the plot, at most


@dataclass(frozen=True)
class Series:
    """One kind of number over time: its name, its class, and a value for each step.

    A value of None is not known: a line has a gap there.
    """

    name: str
    css: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Plot:
    """What is drawn: a label for each step, the series, and how a value is written."""

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    unit: str = ""

    def shows(self, series: Series) -> bool:
        """Whether a series has anything to see; the first one always counts as such."""
        return series is self.series[0] or any(series.values)

    def said(self, value: float | None) -> str:
        """Return a value with its unit."""
        if value is None:
            return "\N{EN DASH}"
        if self.unit != "s":
            return f"{value:,.0f}"
        if value >= MINUTE:
            return lasting(value)
        if value >= 1:
            return f"{value:,.1f} s"
        return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.2g} ms"


def bars(plot: Plot) -> Markup:
    """Draw the series as bars that stand on each other."""
    sums = [sum(each.values[at] or 0 for each in plot.series) for at in range(len(plot.labels))]
    top = nice_top(max(sums, default=0))
    step = (WIDTH - LEFT - RIGHT) / max(len(plot.labels), 1)
    drawn = []
    for at in range(len(plot.labels)):
        drawn += _stack(plot, at, top, step)
    return _svg(plot, top, drawn, step)


def _stack(plot: Plot, at: int, top: float, step: float) -> list[Markup]:
    below, drawn = 0.0, []
    gap = min(1.0, step / 5)
    for series in plot.series:
        value = series.values[at] or 0
        if not value:
            continue
        height = max(_height(value, top), 1.0)
        drawn.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>').format(
                f"fill-{series.css}",
                *_rounded(LEFT + at * step + gap / 2, HEIGHT - BOTTOM - below - height),
                *_rounded(step - gap, height),
                _title(plot, series, at),
            )
        )
        below += height
    return drawn


def lines(plot: Plot) -> Markup:
    """Draw each series as a line, with a point where it has no neighbour."""
    known = [value for each in plot.series for value in each.values if value is not None]
    top = nice_top(max(known, default=0), plot.unit)
    step = (WIDTH - LEFT - RIGHT) / max(len(plot.labels), 1)
    drawn = []
    for series in plot.series:
        for run in _runs(series.values):
            points = " ".join(
                "{},{}".format(*_rounded(_middle(at, step), _y(value, top))) for at, value in run
            )
            shape = Markup('<polyline class="line-{}" points="{}"/>')
            drawn.append(shape.format(series.css, points))
            alone = " alone" if len(run) == 1 else ""
            drawn += [_point(plot, series, at, value, top, step, alone) for at, value in run]
    return _svg(plot, top, drawn, step)


def _point(
    plot: Plot, series: Series, at: int, value: float, top: float, step: float, alone: str
) -> Markup:
    """Draw a point: it is seen if it has no line, or while it is pointed at."""
    x, y = _rounded(_middle(at, step), _y(value, top))
    return Markup('<circle class="point point-{}{}" cx="{}" cy="{}" r="3">{}</circle>').format(
        series.css, alone, x, y, _title(plot, series, at)
    )


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Split a series at the values that are not known."""
    runs: list[list[tuple[int, float]]] = [[]]
    for at, value in enumerate(values):
        if value is not None:
            runs[-1].append((at, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def nice_top(largest: float, unit: str = "") -> float:
    """Return the top of a scale whose lines have round numbers: 4, 8, 20, 40, 80 …

    Of many seconds they are round numbers of minutes, hours or days.
    """
    if unit == "s" and math.isfinite(largest):
        for length in (DAY, HOUR, MINUTE):
            if largest >= LINES * length:
                return nice_top(largest / length) * length
    if largest <= 0 or not math.isfinite(largest):
        return float(LINES)
    exponent = 10.0 ** math.floor(math.log10(largest / LINES))
    for factor in (1, 2, 5, 10):
        if factor * exponent * LINES >= largest * 0.999999:
            return factor * exponent * LINES
    raise AssertionError("ten times the power of ten below is above")


def _svg(plot: Plot, top: float, drawn: Sequence[Markup], step: float) -> Markup:
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>'
    ).format(
        WIDTH,
        HEIGHT,
        plot.title,
        Markup("").join(_grid(plot, top)),
        Markup("").join(drawn),
        Markup("").join(_labels(plot.labels, step)),
    )


def _grid(plot: Plot, top: float) -> list[Markup]:
    drawn = []
    whole = plot.unit != "s" and top < LINES  # there are no halves of a job
    for line in range(LINES + 1):
        value = top * line / LINES
        y = _rounded(_y(value, top))[0]
        drawn.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, WIDTH - RIGHT, y, y
            )
        )
        if not whole or value == int(value):
            text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
            drawn.append(text.format(LEFT - 6, y + 4, plot.said(value) if value else "0"))
    return drawn


def _labels(labels: Sequence[str], step: float) -> list[Markup]:
    every = max(1, math.ceil(len(labels) / LABELS))
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
    return [
        text.format(_rounded(_middle(at, step))[0], HEIGHT - 6, label)
        for at, label in enumerate(labels)
        if at % every == every // 2
    ]


def _title(plot: Plot, series: Series, at: int) -> Markup:
    said = plot.said(series.values[at])
    return Markup("<title>{} · {}: {}</title>").format(plot.labels[at], series.name, said)


def _height(value: float, top: float) -> float:
    return (HEIGHT - TOP - BOTTOM) * min(value / top, 1.0)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - _height(value, top)


def _middle(at: int, step: float) -> float:
    return LEFT + (at + 0.5) * step


def _rounded(*numbers: float) -> list[float]:
    return [round(each, 1) for each in numbers]
