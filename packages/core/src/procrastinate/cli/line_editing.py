"""Line editing at the prompt, where Python has readline: completion, and history.

What is completed is what click completes for a shell, by the same functions.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import ShellComplete, split_arg_string

from procrastinate.cli import PROGRAM
from procrastinate.cli.settings import Settings

try:
    import readline
except ImportError:  # on Windows, and in a Python built without it
    readline = None  # type: ignore[assignment]

REMEMBERED = 1_000  # lines
DELIMITERS = " \t="


def read_line(prompt: str) -> str:
    """Read a line from the terminal, and remember it. Raises EOFError and KeyboardInterrupt."""
    line = input(prompt)
    if readline is not None and line.strip():
        readline.add_history(line)
    return line


@contextmanager
def enabled(commands: click.Group, settings: Settings) -> Iterator[None]:
    """Complete commands and remember lines, also until the next time, for a ``with`` block."""
    if readline is None:
        yield
        return
    readline.set_auto_history(False)  # an answer to a question is no command
    readline.set_completer_delims(DELIMITERS)
    readline.set_completer(Completer(commands, settings).complete)
    readline.parse_and_bind(
        "bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete"
    )
    history = history_file()
    with suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        readline.set_completer(None)
        _write_history(history)


def history_file() -> Path:
    """Return where lines are kept, by the XDG rules: ~/.local/state/procrastinate/history."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, PROGRAM, "history")


def _write_history(history: Path) -> None:
    with suppress(OSError):
        history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        history.touch(mode=0o600)
        readline.set_history_length(REMEMBERED)
        readline.write_history_file(history)


class Completer:
    """Completes the word before the cursor as click would for a shell."""

    def __init__(self, commands: click.Group, settings: Settings) -> None:
        self._commands = commands
        self._settings = settings
        self._found: list[str] = []

    def complete(self, text: str, state: int) -> str | None:
        """Return the completion of that number, or None after the last: readline's protocol."""
        if state == 0:
            end = readline.get_endidx()
            self._found = self.candidates(readline.get_line_buffer()[:end])
        return self._found[state] if state < len(self._found) else None

    def candidates(self, line: str) -> list[str]:
        """Return what the last word of a line may become, each with the space that follows it."""
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        return [f"{shlex.quote(item.value)} " for item in self._items(words, incomplete)]

    def _items(self, words: list[str], incomplete: str) -> list[Any]:
        complete = ShellComplete(self._commands, {"obj": self._settings}, "", "")
        try:
            return list(complete.get_completions(words, incomplete))
        except Exception:  # while somebody types, nothing is told
            return []
