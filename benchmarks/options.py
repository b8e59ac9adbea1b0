"""The options of ``nox -s bench``, and errors in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.workload import FULL, QUICK, TINY, Scale

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Options:
    """What to run, how, and where to leave what was found."""

    only: tuple[str, ...]
    scale: Scale
    repeat: int
    dsn: str | None
    json: Path
    chart: Path | None
    peers: bool
    against: Path | None
    show_list: bool


class Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A comma-separated list of known names, in any case."""

    name = "names"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = {name.lower(): name for name in known}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = [name.strip().lower() for name in str(value).split(",") if name.strip()]
        if not names:
            self.fail("names at least one", param, ctx)
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is none of {', '.join(self.known.values())}", param, ctx)
        return tuple(self.known[name] for name in names)


def command(workloads: Sequence[str], peers: Sequence[str]) -> click.Command:
    """Return the command line, whose callback returns `Options`."""

    @click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
    @click.option(
        "--only",
        type=Names([*workloads, *peers]),
        help="Run these only: workloads (W1,W6) or, with --peers, peers.",
    )
    @click.option("--quick", is_flag=True, help="Smaller sizes and fewer rounds: five minutes.")
    @click.option("--tiny", is_flag=True, help="To see that it runs; the figures mean nothing.")
    @click.option("--repeat", type=click.IntRange(1, 100), help="Rounds of each workload.")
    @click.option("--dsn", help="A server to use; its user must be allowed to create databases.")
    @click.option(
        "--json",
        "json_",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where to write what was found. Default: {bench,peers,against}.json in results.",
    )
    @click.option(
        "--chart",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where to draw it, as .png and .svg. Default: beside the JSON.",
    )
    @click.option("--no-chart", is_flag=True, help="Draw nothing.")
    @click.option("--peers", "with_peers", is_flag=True, help="Compare with other queues.")
    @click.option(
        "--against",
        type=click.Path(exists=True, path_type=Path),
        help="Compare with another version: a folder of wheels, or a Python that has it.",
    )
    @click.option("--list", "show_list", is_flag=True, help="Say what there is, and run nothing.")
    def bench(
        only: tuple[str, ...] | None,
        quick: bool,
        tiny: bool,
        repeat: int | None,
        dsn: str | None,
        json_: Path | None,
        chart: Path | None,
        no_chart: bool,
        with_peers: bool,
        against: Path | None,
        show_list: bool,
    ) -> Options:
        """Measure procrastinate beside plain SQL, or beside other queues."""
        if quick and tiny:
            raise click.UsageError("--quick and --tiny are two sizes: give one")
        if no_chart and chart is not None:
            raise click.UsageError("--chart and --no-chart contradict each other")
        if not (dsn is None or dsn.strip()):
            raise click.UsageError("--dsn is empty")
        if against is not None and with_peers:
            raise click.UsageError("--against and --peers are two comparisons: give one")
        known = peers if with_peers else workloads
        for name in only or ():
            if name not in known:
                kind = "peer" if with_peers else "workload (it needs --peers)"
                raise click.UsageError(f"--only: {name!r} is no {kind}: {', '.join(known)}")
        scale = TINY if tiny else QUICK if quick else FULL
        name = "peers" if with_peers else "bench" if against is None else "against"
        path = json_ or RESULTS / f"{name}.json"
        return Options(
            only=tuple(only or known),
            scale=scale,
            repeat=repeat or scale.repeat,
            dsn=dsn,
            json=path,
            chart=None if no_chart else (chart or path).with_suffix(""),
            peers=with_peers,
            against=against,
            show_list=show_list,
        )

    return bench


def parse(
    arguments: Sequence[str], workloads: Sequence[str], peers: Sequence[str]
) -> Options | None:
    """Return the options; None where help was asked for. Raises `click.ClickException`."""
    found = command(workloads, peers).main(
        list(arguments), prog_name="bench", standalone_mode=False
    )
    return found if isinstance(found, Options) else None
