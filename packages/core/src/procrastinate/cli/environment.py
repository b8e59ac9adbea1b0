"""The variables of the command line: their former names, and those that nothing reads.

A message never shows a value, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

import click

from procrastinate.cli import PROGRAM
from procrastinate.former import RELEASE

if TYPE_CHECKING:
    from procrastinate.cli.groups import Root

PREFIX = f"{PROGRAM.upper()}_"

#: Set for a worker that a supervisor has started: its number.
CHILD = "_PROCRASTINATE_WORKER_PROCESS"

#: Of this project's tests.
_FOR_TESTS = f"{PREFIX}TEST_"
#: How applications call the way to their database.
_OF_APPLICATIONS = "_DSN"

#: The present name of each variable that had another one in releases up to 3.x.
_RENAMED = {
    "WORKER_FETCH_JOB_POLLING_INTERVAL": "WORKER_POLLING_INTERVAL",
    "WORKER_ABORT_JOB_POLLING_INTERVAL": "WORKER_ABORT_POLLING_INTERVAL",
    "WORKER_TIMEOUT": "WORKER_POLLING_INTERVAL",
    "WORKER_WAIT": "WORKER_ONE_SHOT",
}
_OPPOSITE = "WORKER_WAIT"  # means what its present name does not

#: What to do instead of setting these.
_GONE = {
    "DEFER_JSON_ARGS": "give the arguments on the command line, or on stdin with -",
    "LOG_FORMAT_STYLE": f"{PREFIX}LOG_FORMAT is text or json",
}


def bring_up_to_date(environ: MutableMapping[str, str]) -> list[str]:
    """Give variables their present names, unless these are set; return what to tell the user."""
    return [
        _rename(environ, former, now)
        for former, now in _RENAMED.items()
        if PREFIX + former in environ
    ]


def _rename(environ: MutableMapping[str, str], former: str, now: str) -> str:
    value = environ.pop(PREFIX + former)
    if value:  # an empty one was as good as none
        environ.setdefault(PREFIX + now, _opposite(value) if former == _OPPOSITE else value)
    turned = ", and means the opposite" if former == _OPPOSITE else ""
    return f"{PREFIX}{former} is called {PREFIX}{now} now{turned}"


def _opposite(value: str) -> str:
    return "1" if value[0].lower() in "0nf" else "0"


def unread(environ: Mapping[str, str], root: Root, ctx: click.Context) -> Iterator[str]:
    """Tell of each variable that looks like ours and that no option reads."""
    for name in sorted(environ):
        if not name.startswith(PREFIX) or _is_of_others(name):
            continue
        gone = _GONE.get(name.removeprefix(PREFIX))
        if gone is not None:
            yield f"{name} is not read any more, as it was in {RELEASE}: {gone}"
            continue
        known = _known_beside(name, root, ctx)
        if known is not None and name not in known:
            yield f"{name} is set, and nothing reads it{_suggestion(name, known)}"


def _suggestion(name: str, known: set[str]) -> str:
    from difflib import get_close_matches  # seldom needed

    short = name.removeprefix(PREFIX)
    near = get_close_matches(short, [each.removeprefix(PREFIX) for each in known], n=1)
    return f": is it {PREFIX}{near[0]}?" if near else ""


def _is_of_others(name: str) -> bool:
    return name.startswith(_FOR_TESTS) or name.endswith(_OF_APPLICATIONS)


def _known_beside(name: str, root: Root, ctx: click.Context) -> set[str] | None:
    """Return the variables of the command that a name is about; None if it may have any."""
    found = [each for each in root.list_commands(ctx) if name.startswith(_variable(each, ""))]
    if not found:
        return _variables(root, PREFIX)
    command_name = max(found, key=len)
    command = root.get_command(ctx, command_name)
    if command is None or (isinstance(command, click.Group) and not root.is_own(command_name)):
        return None
    return _variables(command, _variable(command_name, ""))


def _variable(command: str, option: str) -> str:
    return f"{PREFIX}{command.upper().replace('-', '_')}_{option}"


def _variables(command: click.Command, prefix: str) -> set[str]:
    """Return the variables of a command's options, and those that its help names."""
    options = [each for each in command.params if isinstance(each, click.Option)]
    own = {f"{prefix}{each.name.upper()}" for each in options if each.name and each.show_envvar}
    explicit = {
        name
        for each in options
        if each.envvar is not None
        for name in ([each.envvar] if isinstance(each.envvar, str) else each.envvar)
    }
    words = (command.help or "").replace(",", " ").replace(".", " ").split()
    return own | explicit | {word for word in words if word.startswith(PREFIX)}
