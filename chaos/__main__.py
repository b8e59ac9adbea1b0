"""``python -m chaos``, which is what ``nox -s chaos`` runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from chaos import books, debian, faults, report
from chaos.campaign import Result, Runner
from chaos.faults.base import Fault
from chaos.known import is_known
from chaos.options import Options, parse
from chaos.plants import PLANTS
from chaos.records import Complaint

TRIES = 3  # to find a planted bug: it depends on what a fault meets


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the books balance, 1 if they do not, 2 for a wrong option."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        if options is None:
            return 0
        kinds = chosen(options)
    except click.ClickException as exc:
        click.echo(f"chaos: {exc.format_message()}", err=True)
        return 2
    if options.show_list:
        for kind in kinds:
            click.echo(f"{kind.name}: {kind.__doc__}")
        return 0
    if options.again:
        return check_again(report.kept(options.again))
    try:
        return run_plants(options) if options.plants else run(options, kinds)
    except KeyboardInterrupt:
        click.echo("chaos: interrupted", err=True)
        return 130


def chosen(options: Options) -> list[type[Fault]]:
    """Return the kinds of faults that may strike."""
    kinds = list(faults.PLAIN)
    if options.debian or options.patroni:
        debian.check()
    if options.patroni:
        kinds = list(faults.PATRONI)
    elif options.debian:
        kinds += faults.DEBIAN
    if options.only:
        kinds = [each for each in kinds if any(word in each.name for word in options.only)]
    if not kinds:
        raise click.UsageError(f"no fault is called like {', '.join(options.only)}; see --list")
    return kinds


def run(options: Options, kinds: Sequence[type[Fault]]) -> int:
    """Run a campaign, and show what the books say. Return 1 if they complain of something new."""
    return 1 if fails(judged(options, kinds)) else 0


def run_plants(options: Options) -> int:
    """Plant each bug in turn. Return 1 if the books do not complain of it, in several tries."""
    silent = [name for name in PLANTS if not any(is_found(options, name) for _ in range(TRIES))]
    say(f"not found: {', '.join(silent)}" if silent else "each planted bug was found")
    return 1 if silent else 0


def is_found(options: Options, name: str) -> bool:
    """Plant a bug, and return whether the books complain of it."""
    plant = PLANTS[name]
    planted = replace(
        options,
        plant=name,
        only=plant.faults,
        jobs=plant.jobs,
        faults=6,
        long_share=plant.long_share,
    )
    return bool({each.rule for each in judged(planted, chosen(planted))} & plant.rules)


def judged(options: Options, kinds: Sequence[type[Fault]]) -> list[Complaint]:
    """Run a campaign, and return what the books say."""
    plant = f", planted: {options.plant}" if options.plant else ""
    faults_of = f"{options.faults} faults of {len(kinds)} kinds"
    say(f"seed {options.seed}: {options.connector}, {options.jobs} jobs, {faults_of}{plant}")
    result = Runner(options, kinds, say).run()
    report.keep(result)
    complaints = all_complaints(result)
    found = report.document(options, result, complaints)
    report.write(options, found)
    for line in report.lines(found, complaints):
        say(line)
    say(f"seed {options.seed}, {result.seconds:.0f} s; written: {options.json}")
    if options.keep or fails(complaints):
        say(f"logs: {result.logs}")
    else:
        shutil.rmtree(result.logs, ignore_errors=True)
    return complaints


def all_complaints(result: Result) -> list[Complaint]:
    """Return what was seen to be wrong while a campaign ran, and what its books say."""
    return [*result.complaints, *books.check(result.campaign)]


def check_again(result: Result) -> int:
    """Check the books of a campaign that was kept. Return 1 if they complain of something new."""
    complaints = all_complaints(result)
    for each in complaints:
        say(f"{each.rule}: {each.text}")
    say(f"complaints: {len(complaints)}")
    return 1 if fails(complaints) else 0


def fails(complaints: Sequence[Complaint]) -> bool:
    """Return whether the books complain of something new."""
    return any(not is_known(each) for each in complaints)


def say(text: str) -> None:
    """Show progress at once, also in a pipe."""
    click.echo(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
