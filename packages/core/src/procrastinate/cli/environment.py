"""The variables of the command line: their former names, and those that nothing reads.

A message never shows a value, which may be a secret.
"""

from __future__ import annotations

import re
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
_OF_APPLICATIONS = ("_DSN", "_URL")
#: What Kubernetes tells containers of a service that is called procrastinate, or procrastinate-...
_OF_A_SERVICE = re.compile(r"_SERVICE_HOST=|_SERVICE_PORT|_PORT_\d+_(TCP|UDP|SCTP)|_PORT=\w+://")

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
    try:
        return "0" if click.BOOL.convert(value, None, None) else "1"
    except click.BadParameter:
        return value  # the option says what is wrong with it


def unread(environ: Mapping[str, str], root: Root, ctx: click.Context) -> Iterator[str]:
    """Tell of each variable that looks like ours and that no option reads.

    Those of other commands than the one that is called are left to these.
    """
    of_program = _variables(root, PREFIX)
    for name in sorted(environ):
        if not name.startswith(PREFIX) or _is_of_others(name, environ[name]) or name in of_program:
            continue
        gone = _GONE.get(name.removeprefix(PREFIX))
        if gone is not None:
            yield f"{name} is not read any more, as it was in {RELEASE}: {gone}"
            continue
        command = _command_of(name, root, ctx)
        if command is None:
            yield _told(name, of_program)
        elif command == ctx.invoked_subcommand:
            yield from _told_beside(name, command, root, ctx)


def _told_beside(name: str, command_name: str, root: Root, ctx: click.Context) -> Iterator[str]:
    command = root.get_command(ctx, command_name)
    if command is None or (isinstance(command, click.Group) and not root.is_own(command_name)):
        return  # a package's group may read any
    known = _variables(command, _variable(command_name, ""))
    if name not in known:
        yield _told(name, known)


def _told(name: str, known: set[str]) -> str:
    return f"{name} is set, and nothing reads it{_suggestion(name, known)}"


def _suggestion(name: str, known: set[str]) -> str:
    from difflib import get_close_matches  # seldom needed

    short = name.removeprefix(PREFIX)
    near = get_close_matches(short, [each.removeprefix(PREFIX) for each in known], n=1)
    return f": is it {PREFIX}{near[0]}?" if near else ""


def _is_of_others(name: str, value: str) -> bool:
    if name.startswith(_FOR_TESTS) or name.endswith(_OF_APPLICATIONS):
        return True
    return _OF_A_SERVICE.search(f"{name}={value}"[:200]) is not None


def _command_of(name: str, root: Root, ctx: click.Context) -> str | None:
    """Return the command that a name is about, by its beginning."""
    found = [each for each in root.list_commands(ctx) if name.startswith(_variable(each, ""))]
    return max(found, key=len, default=None)


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
