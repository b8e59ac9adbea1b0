"""Prints the statements as they are sent, and writes them down for review.

Without a name it lists all. With ``--renew`` it writes each into ``storage/sql/flat``; a test
compares these files with what is sent. They are not in the installed package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from procrastinate.storage.statements import (
    KNOWN,
    UNPAUSED,
    UNPAUSED_ALIASES,
    Statement,
    load,
    load_distributed,
)

FLAT = Path(__file__).parent.parent / "sql" / "flat"
USAGE = "usage: python -m procrastinate.storage.statements [NAME | --renew]"


def files() -> dict[str, str]:
    """Return the flat files, by name; those of a distributed database only if they differ."""
    usual = {f"{name}.sql": flat(each) for name, each in load().items()}
    distributed = {
        f"{name}.distributed.sql": flat(each)
        for name, each in load_distributed().items()
        if each.text != load()[name].text
    }
    return usual | distributed


def flat(statement: Statement) -> str:
    """Return a whole statement with its comments, for tables on the search path."""
    text = statement.commented.replace("{schema}.", "")
    head = f"-- name: {statement.name} :{statement.kind}\n"
    if "{known}" in text:
        head += f"-- {{known}} stands for nothing, or for: {KNOWN.strip()}\n"
    for alias in UNPAUSED_ALIASES:
        if f"{{unpaused {alias}}}" in text:
            head += f"-- {{unpaused {alias}}} stands for nothing, or for:\n"
            head += "".join(f"--     {part}\n" for part in _parts(UNPAUSED.format(alias=alias)))
    return f"{head}{text}\n"


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
