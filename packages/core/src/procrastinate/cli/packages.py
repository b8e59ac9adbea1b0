"""Commands of installed packages: the entry points of the group ``procrastinate.commands``.

An entry point's name is the command's name, its object a `click.Command`. The object is imported
when the command is called, and for its line in ``--help``; so its module should import what is
heavy inside of the command. It gets the app from `procrastinate.cli.settings.settings_of`.
"""

from __future__ import annotations

import click

from procrastinate import connectors
from procrastinate.errors import ConnectorBroken, ProcrastinateException
from procrastinate.model.text.printable import line, shown

GROUP = "procrastinate.commands"

#: The commands that this project publishes, and the packages to install for them.
PUBLISHED = {
    "dashboard": "procrastinate-dashboard[server]",
    "demo": "procrastinate-embedded",
    "exporter": "procrastinate-prometheus",
}


def names() -> list[str]:
    """Return the names of the commands of installed packages. Imports none of them."""
    return sorted(connectors.entry_points(GROUP))


def get(name: str) -> click.Command | None:
    """Return a command, importing only its own package; None if no package has one of this name.

    Raises `ConnectorConflict` if several packages have one, `ConnectorBroken` if it cannot be
    imported, and `click.UsageError` that names the package if this project publishes it.
    """
    found = connectors.entry_points(GROUP).get(name)
    if found is None:
        if name in PUBLISHED:
            raise click.UsageError(
                f"the command {name} is not installed: run `pip install '{PUBLISHED[name]}'`"
            )
        return None
    loaded = connectors.load(connectors.only_one(found, "command"), "command")
    if not isinstance(loaded, click.Command):
        raise ConnectorBroken(f"command {name!r} is no click command, but {shown(loaded)}")
    return loaded


def help_of(name: str) -> str:
    """Return a command's line in the list of commands; for a broken one, what is wrong with it."""
    try:
        command = get(name)
    except ProcrastinateException as exc:
        return line(f"(broken) {exc}", 200)
    return "" if command is None else command.get_short_help_str(200)
