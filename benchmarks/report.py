"""What a person sees: what is going on, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measures import Kind, Measure, Summary
from benchmarks.results import Outcome


def figure(value: float) -> str:
    """Return a number with three digits that count."""
    if abs(value) >= 1_000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def print_machine(console: Console, machine: Mapping[str, Any], server: Mapping[str, Any]) -> None:
    """Say what is measured on."""
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, PostgreSQL"
        f" {server['server_version']}, fsync {server['fsync']}, synchronous_commit"
        f" {server['synchronous_commit']}, load {machine['load_before']}",
        style="dim",
        highlight=False,
    )


@contextmanager
def going_on(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Show what is under way. The screen is written to rarely, as it costs time, too."""
    with console.status(title, refresh_per_second=2) as status:
        if console.is_terminal:
            yield lambda text: status.update(f"{title}: {text}")
        else:
            yield lambda text: None


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Print the figures of one workload."""
    workload = outcome.workload
    console.print(f"[bold]{workload.key:>4}[/bold]  {workload.title}", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    for width in (4, 31, 8, 17, 9, 30):
        table.add_column(min_width=width, no_wrap=width != 30)
    for measure, _, summary in outcome.measured():
        table.add_row("", measure.name, *_figures(measure, summary))
    if outcome.measured():
        console.print(table)
    if outcome.error is not None:
        console.print(f"      [red]failed:[/red] {outcome.error}", highlight=False)


def _figures(measure: Measure, summary: Summary) -> list[Text | str]:
    unit = "" if measure.kind is Kind.RATIO else f" {measure.unit}".rstrip()
    spread = f"{figure(summary.low)} to {figure(summary.high)}"
    beside = ""
    if summary.limit is not None:
        beside = (
            f"{figure(summary.ours)} beside {figure(summary.limit)} {measure.unit}"
            f" ({measure.against})"
        )
    return [f"{figure(summary.median)}{unit}", spread, _verdict(measure, summary), beside]


def _verdict(measure: Measure, summary: Summary) -> Text:
    if measure.target is None:
        return Text("")
    met = measure.target.is_met_by(summary.median)
    return Text(f"{'pass' if met else 'miss'} {measure.target}", style="green" if met else "red")


def print_peers(console: Console, peers: Sequence[Mapping[str, Any]]) -> None:
    """Print how the peers did, each workload's medians."""
    table = Table("", "drain, jobs/s", "enqueue, jobs/s", "latency p50, ms", "p99", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for peer in peers:
        if not peer["figures"].keys() & {"drain", "enqueue", "latency_p50"}:
            continue
        cells = [
            figure(peer["figures"][name]["median"]) if name in peer["figures"] else "-"
            for name in ("drain", "enqueue", "latency_p50", "latency_p99")
        ]
        table.add_row(f"{peer['title']} {peer['version'] or ''}", *cells)
    console.print(table)
    _print_work(console, peers)
    for peer in peers:
        for what, reason in peer["errors"].items():
            console.print(f"[red]{peer['title']}, {what}:[/red] {reason}", highlight=False)


def _print_work(console: Console, peers: Sequence[Mapping[str, Any]]) -> None:
    """Print the rates of jobs that take time; their names say slots and lengths."""
    names = list(dict.fromkeys(name for peer in peers for name in peer["figures"] if " x " in name))
    if not names:
        return
    table = Table("jobs/s", *names, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for peer in peers:
        figures = peer["figures"]
        if any(name in figures for name in names):
            table.add_row(
                f"{peer['title']} {peer['version'] or ''}",
                *(figure(figures[name]["median"]) if name in figures else "-" for name in names),
            )
    console.print(table)


def print_summary(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Say how many workloads met their targets."""
    missed = [outcome.workload.key for outcome in outcomes if not outcome.is_met]
    met = len(outcomes) - len(missed)
    text = f"{met} of {len(outcomes)} workloads meet their targets"
    console.print(f"{text}; not {', '.join(missed)}" if missed else text, highlight=False)
