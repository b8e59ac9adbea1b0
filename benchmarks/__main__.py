"""``python -m benchmarks``, which is what ``nox -s bench`` runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
import psycopg2
from rich.console import Console

from benchmarks import report, results
from benchmarks.against import NoOtherVersion, compared
from benchmarks.databases import Server, server
from benchmarks.machine import machine, versions
from benchmarks.options import Options, parse
from benchmarks.peers import PEERS
from benchmarks.workload import Bench, Workload
from benchmarks.workloads import WORKLOADS
from procrastinate_embedded import EmbeddedServerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if everything ran; whether targets are met does not count. 2 is a wrong option."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments, [*WORKLOADS], [*PEERS])
    except click.ClickException as exc:
        click.echo(f"bench: {exc.format_message()}", err=True)
        return 2
    if options is None:
        return 0
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    if options.show_list:
        list_all(console)
        return 0
    try:
        with server(options.dsn) as running:
            return run(options, running, console)
    except (EmbeddedServerError, psycopg2.OperationalError) as exc:
        click.echo(f"bench: no server to measure on: {str(exc).strip().splitlines()[0]}", err=True)
        return 1
    except NoOtherVersion as exc:
        click.echo(f"bench: {exc}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("bench: interrupted", err=True)
        return 130


def list_all(console: Console) -> None:
    """Print what there is to run."""
    for workload in WORKLOADS.values():
        targets = ", ".join(
            f"{measure.name} {measure.target}" for measure in workload.measures if measure.target
        )
        console.print(
            f"[bold]{workload.key:>4}[/bold]  {workload.title}: {targets}", highlight=False
        )
        console.print(f"      limit: {workload.limit}", style="dim", highlight=False)
        console.print(f"      timed: {workload.timed}", style="dim", highlight=False)
    for peer in PEERS.values():
        console.print(f"[bold]{peer.name}[/bold]  {peer.title} (--peers)", highlight=False)


def run(options: Options, running: Server, console: Console) -> int:
    """Measure what was asked for, and leave JSON and a chart behind."""
    about, settings = machine(), {"embedded": running.embedded, **running.settings()}
    report.print_machine(console, about, settings)
    outcomes: list[results.Outcome] = []
    peers: list[dict[str, Any]] = []
    try:
        if options.peers:
            from benchmarks.peers.running import compare

            compare(options, running, console, into=peers)
        elif options.against is not None:
            run_workloads(options, compared(options, running, console), running, console, outcomes)
        else:
            workloads = [WORKLOADS[key] for key in options.only]
            run_workloads(options, workloads, running, console, outcomes)
    finally:  # also what an interruption left
        found = results.document(
            scale=options.scale.name,
            repeat=options.repeat,
            machine=about,
            packages=versions(),
            server=settings,
            outcomes=outcomes,
            peers=peers,
        )
        keep(options, found, console)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    return 1 if failed else 0


def run_workloads(
    options: Options,
    workloads: Sequence[Workload],
    running: Server,
    console: Console,
    into: list[results.Outcome],
) -> None:
    """Run workloads one after the other, each for its rounds."""
    for workload in workloads:
        outcome = results.Outcome(workload)
        into.append(outcome)
        rounds = workload.rounds(options.repeat)
        for number in range(1, rounds + 1):
            title = f"{workload.key} {workload.title}, round {number} of {rounds}"
            with report.going_on(console, title) as say:
                try:
                    outcome.add(workload.run(Bench(running, options.scale, say)))
                except Exception as exc:  # the others shall run all the same
                    outcome.error = f"{type(exc).__name__}: {exc}"
                    break
        report.print_outcome(console, outcome)
    report.print_summary(console, into)


def keep(options: Options, found: dict[str, Any], console: Console) -> None:
    """Write the JSON and draw the chart."""
    results.write(options.json, found)
    written = [str(options.json)]
    if options.chart is not None and (found["workloads"] or found["peers"]):
        from benchmarks.chart import draw

        written += [str(path) for path in draw(found, options.chart)]
    console.print(f"written: {', '.join(written)}", style="dim", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
