"""The command line."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from chaos.connectors import OF_WORKERS
from chaos.plants import PLANTS

RESULTS = Path(__file__).parent / "results"
BOUNDED_JOBS, BOUNDED_FAULTS, BOUNDED_SECONDS = 1_500, 40, 150.0


@dataclass(frozen=True)
class Options:
    """What a campaign is to be."""

    seed: int
    jobs: int
    faults: int
    seconds: float  # after which no more faults begin
    long: bool
    only: tuple[str, ...]
    connector: str
    plant: str
    plants: bool
    debian: bool
    patroni: bool
    json: Path
    markdown: Path | None
    keep: bool
    again: Path | None  # a campaign that was kept, whose books are checked again
    show_list: bool
    long_share: float = 0.05  # of jobs that take seconds

    @property
    def stalled(self) -> float:
        """The workers' stalled_worker_timeout, in seconds."""
        return 10.0 if self.long else 6.0

    @property
    def heartbeat(self) -> float:
        """The workers' update_heartbeat_interval, in seconds."""
        return 2.0 if self.long else 1.0


_OPTIONS: list[click.Parameter] = [
    click.Option(["--seed"], type=int, help="Draw the same jobs and faults again."),
    click.Option(["--jobs"], type=click.IntRange(1), default=BOUNDED_JOBS, show_default=True),
    click.Option(["--faults"], type=click.IntRange(0), default=BOUNDED_FAULTS, show_default=True),
    click.Option(["--seconds"], type=float, help="Begin no more faults after this time."),
    click.Option(
        ["--long/--short"],
        default=None,
        help="Whether faults last as long as in life: 40 s outages, 45 s locks."
        " Default: as more than 100 faults are asked for, or not.",
    ),
    click.Option(["--only"], multiple=True, help="Only faults whose name contains this."),
    click.Option(
        ["--connector"],
        type=click.Choice(OF_WORKERS),
        default=OF_WORKERS[0],
        show_default=True,
        help="What the workers, and one of those that defer, are connected by.",
    ),
    click.Option(["--plant"], type=click.Choice([*PLANTS]), default=None, help="Plant a bug."),
    click.Option(
        ["--plants"], is_flag=True, help="Plant each bug in turn, and fail if the books are silent."
    ),
    click.Option(["--debian"], is_flag=True, help="Also what needs root and packages of Debian's."),
    click.Option(
        ["--patroni"], is_flag=True, help="On two nodes under Patroni, with the faults of those."
    ),
    click.Option(
        ["--json"],
        type=Path,
        default=RESULTS / "chaos.json",
        help="Where to write what was found. Default: chaos/results/chaos.json",
    ),
    click.Option(["--markdown"], type=Path, help="Write the result as a page, too."),
    click.Option(["--keep"], is_flag=True, help="Keep the logs also if all is well."),
    click.Option(
        ["--again"],
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Only check the books of a campaign again: the file campaign.pickle beside its logs.",
    ),
    click.Option(["--list", "show_list"], is_flag=True, help="Show the kinds of faults, and end."),
]


def parse(arguments: Sequence[str]) -> Options | None:
    """Return the options; None if only help was asked for. Raises click's exceptions."""
    command = click.Command("chaos", params=_OPTIONS, help="Real workers, real faults, books.")
    try:
        with command.make_context("chaos", list(arguments)) as context:
            given = context.params
    except click.exceptions.Exit:
        return None
    long = given.pop("long")
    long = given["faults"] > 100 if long is None else long
    seed = given.pop("seed")
    seconds = given.pop("seconds")
    return Options(
        seed=random.SystemRandom().randrange(10**6) if seed is None else seed,
        seconds=(86_400.0 if long else BOUNDED_SECONDS) if seconds is None else seconds,
        long=long,
        plant=given.pop("plant") or "",
        only=tuple(given.pop("only")),
        **given,
    )
