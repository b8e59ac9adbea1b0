"""``procrastinate connectors``: what is installed, what it can do, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

import click

from procrastinate import binders
from procrastinate import connectors as discovery
from procrastinate.cli.failures import one_line
from procrastinate.cli.options import option
from procrastinate.connector import Connector, capabilities


@dataclass(frozen=True)
class Line:
    """What is known of one connector; ``problem`` says why it cannot be used, if so."""

    name: str
    class_name: str
    package: str
    version: str | None = None
    contract: int | None = None
    capabilities: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    problem: str | None = None
    install: str | None = None


@click.command("connectors")
@option(
    "--json",
    "as_json",
    envvar="PROCRASTINATE_CONNECTORS_JSON",
    is_flag=True,
    allow_from_autoenv=False,
    show_envvar=True,
    help="Print a JSON list, one object a connector.",
)
def connectors(as_json: bool) -> None:
    """Show which connectors are installed, and which could be.

    Needs no app. A connector that cannot be used is shown with its problem.
    """
    lines = [*_installed(), *_others()]
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2, ensure_ascii=False))
    else:
        _print_table(lines)


def _installed() -> Iterator[Line]:
    for name, entry_points in sorted(discovery._found().items()):
        found = _loaded(name)
        for entry_point in entry_points:
            yield _line(entry_point, found)


def _loaded(name: str) -> type[Connector] | str:
    """Return a connector's class, or what is wrong with it: a stranger's module may do anything."""
    try:
        return discovery.get(name)
    except (Exception, SystemExit) as exc:
        return one_line(str(exc)) or type(exc).__name__


def _line(entry_point: metadata.EntryPoint, found: type[Connector] | str) -> Line:
    package, version = discovery._distribution(entry_point)
    if isinstance(found, str):
        return Line(entry_point.name, entry_point.attr, package, version, problem=found)
    return Line(
        name=entry_point.name,
        class_name=entry_point.attr,
        package=package,
        version=version,
        contract=found.contract,
        capabilities=capabilities(found),
        binds=_binds(package),
    )


def _binds(package: str) -> tuple[str, ...]:
    """Return what ``connection=`` takes by a connector's package; nothing if that is broken."""
    try:
        return binders.words_of(package)
    except (Exception, SystemExit):  # a call with such a connection will say what is wrong
        return ()


def _others() -> Iterator[Line]:
    """The published connectors that are not installed."""
    installed = discovery.available()
    for name, (class_name, package) in discovery.PUBLISHED.items():
        if name not in installed:
            yield Line(name, class_name, package, install=f"pip install {package}")


def _print_table(lines: list[Line]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    # All that identifies one stands below each other: beside each other, the names leave too
    # little of 80 characters to what it can do, and break the command that is to be copied.
    table.add_column("name, class and package", no_wrap=True)
    table.add_column("what it can do", overflow="fold")
    for line in lines:
        package = line.install or f"{line.package} {line.version or ''}".rstrip()
        style = "red" if line.problem else "dim" if line.install else ""
        identity = Text.assemble((line.name, "bold"), f"\n{line.class_name}\n{package}")
        table.add_row(identity, Text(_about(line), style))
    Console().print(table)


def _about(line: Line) -> str:
    if line.problem:
        return f"cannot be used: {line.problem}"
    if line.install:
        return "not installed"
    takes = f"connection= takes: {', '.join(line.binds)}\n" if line.binds else ""
    return f"{', '.join(line.capabilities)}\n{takes}contract {line.contract}"
