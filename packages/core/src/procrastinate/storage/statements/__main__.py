"""Prints the statements as they are sent, and writes them down for review.

Without a name it lists all. With ``--renew`` it writes each into ``storage/sql/flat``; a test
compares these files with what is sent. They are not in the installed package.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from procrastinate.model.queue_names import EVERY_QUEUE, SPARED
from procrastinate.storage.statements import (
    KNOWN,
    ON_CLUSTERS_ONLY,
    UNPAUSED,
    UNPAUSED_ALIASES,
    Statement,
    load,
    load_distributed,
)

FLAT = Path(__file__).parent.parent / "sql" / "flat"
_TIED = "\x00"  # a space at which no line may end
USAGE = "usage: python -m procrastinate.storage.statements [NAME | --renew]"


def files() -> dict[str, str]:
    """Return the flat files, by name; those of a distributed database only if they differ."""
    usual = {f"{name}.sql": flat(each) for name, each in load().items()}
    distributed = {
        f"{name}.distributed.sql": flat(each, "-- This is its text for a distributed database.\n")
        for name, each in load_distributed().items()
        if each.text != load()[name].text
    }
    return usual | distributed


def flat(statement: Statement, note: str = "") -> str:
    """Return a whole statement with its comments, and a note, for tables on the search path."""
    text = statement.commented.replace("{schema}.", "")
    head = f"-- name: {statement.name} :{statement.kind}\n{note}{_settings(statement)}"
    if "{known}" in text:
        head += f"-- {{known}} stands for nothing, or for: {KNOWN.strip()}\n"
    for alias in UNPAUSED_ALIASES:
        if f"{{unpaused {alias}}}" in text:
            head += f"-- {{unpaused {alias}}} stands for nothing, or for:\n"
            head += "".join(f"--     {part}\n" for part in _parts(UNPAUSED.format(alias=alias)))
            head += f"-- (A pause of all queues, '{EVERY_QUEUE}', spares the queue {SPARED}.)\n"
    return f"{head}{text}\n"


def _settings(statement: Statement) -> str:
    """Return with which settings a statement runs, in words, without a break in one of them."""
    if not statement.settings:
        return ""
    tied = {
        name: f"{name} = {value}".replace(" ", _TIED) for name, value in statement.settings.items()
    }
    on_clusters = [text for name, text in tied.items() if name in ON_CLUSTERS_ONLY]
    words = f"It runs with {', '.join(text for text in tied.values() if text not in on_clusters)}"
    words += f", and on a Citus cluster with {', '.join(on_clusters)}." if on_clusters else "."
    lines = textwrap.wrap(words, 103, initial_indent="-- ", subsequent_indent="--     ")
    return "".join(f"{line}\n" for line in lines).replace(_TIED, " ")


def _parts(condition: str) -> list[str]:
    """Return the lines of a condition, each of which begins with its ``and``."""
    return [f"and {part}" for part in condition.strip().removeprefix("and ").split(" and ")]


def renew() -> None:
    """Write the flat files of all statements, and remove all others."""
    if not FLAT.is_dir():
        raise SystemExit(f"{FLAT} is missing: an installed package has no flat files")
    for file in FLAT.glob("*.sql"):
        file.unlink()
    for name, text in files().items():
        (FLAT / name).write_text(text, "utf-8")


def main(args: Sequence[str]) -> None:
    """Do what the command line says. Raises SystemExit if it says nothing known."""
    statements = load()
    if not args:
        for each in statements.values():
            sys.stdout.write(f"{each.name} :{each.kind} {' '.join(each.settings)}".rstrip() + "\n")
    elif list(args) == ["--renew"]:
        renew()
    elif len(args) == 1 and args[0] in statements:
        sys.stdout.write(flat(statements[args[0]]))
    else:
        raise SystemExit(USAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
