"""The functions that defer jobs for other languages, and the one that the check of jobs calls.

Their texts are in ``functions.sql`` and, for many partitions, in ``functions.distributed.sql``. A
database may have others instead: those of older versions, or of another schema.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from procrastinate.model.partitions import ONE, Partitions

FOLDER = Path(__file__).parent
_FUNCTION = re.compile(
    r"^create or replace function \{home\}\.(\w+)\((.*?)\$function\$(.*?)\$function\$",
    re.DOTALL | re.MULTILINE,
)
_FITS = re.compile(
    r"^create function \{schema\}\.(procrastinate_job_fits\(.*?\$fits\$(.*?)\$fits\$);",
    re.DOTALL | re.MULTILINE,
)
#: How a function's SET is written, and what the server says of it, in order.
_PINNED = {
    "set search_path =": "search_path=pg_catalog, pg_temp",
    "set plan_cache_mode =": "plan_cache_mode=force_custom_plan",
}
#: Functions of older versions, and how many parameters they had.
_OLDER = {
    ("procrastinate_defer_job", 7),
    ("procrastinate_defer_job", 8),
    ("procrastinate_defer_job_with_key", 9),
}
#: What the check of jobs calls: a worker goes on if it is not that of this code.
JOB_FITS = "procrastinate_job_fits"


def functions_script(partitions: Partitions = ONE) -> str:
    """Return the SQL that makes the functions anew, with markers for the schema's name."""
    script = (FOLDER / "functions.sql").read_text("utf-8").replace("{job_fits}", _job_fits()[1])
    if not partitions.are_many:
        return script
    values = ",".join(map(str, partitions.values))
    text = (FOLDER / "functions.distributed.sql").read_text("utf-8").replace("{values}", values)
    instead = {match[1]: match[0] for match in _FUNCTION.finditer(text)}
    return _FUNCTION.sub(lambda match: instead[match[1]], script)


def _job_fits() -> re.Match[str]:
    """Return the function that the check of jobs calls: its definition, and in it its body."""
    found = _FITS.search((FOLDER / "schema.sql").read_text("utf-8"))
    if found is None:
        raise ValueError(f"schema.sql lacks the function {JOB_FITS}")
    return found


@dataclass(frozen=True, slots=True)
class _Function:
    body: str
    traits: str  # as the statement schema_functions says them


def _pinned(head: str) -> str:
    return "; ".join(said for written, said in _PINNED.items() if written in head)


@functools.cache
def _functions(partitions: Partitions) -> dict[str, _Function]:
    found = {
        name: _Function(body, f"definer v {_pinned(head)}".strip())
        for name, head, body in _FUNCTION.findall(functions_script(partitions))
    }
    return {**found, JOB_FITS: _Function(_job_fits()[2], "invoker i")}


def function_body(name: str, home: str, partitions: Partitions = ONE) -> str:
    """Return the text of a function for the tables of a schema, given as a quoted name."""
    text_of_home = home.replace("'", "''")
    body = _functions(partitions)[name].body
    return body.replace("'{home}.", f"'{text_of_home}.").replace("{home}", home)


def function_traits(name: str, partitions: Partitions = ONE) -> str:
    """Return what the statement schema_functions says of a function that is as it should be."""
    return _functions(partitions)[name].traits


def function_names(partitions: Partitions = ONE) -> list[str]:
    """Return the names of all functions."""
    return list(_functions(partitions))


def stale_functions(
    rows: Sequence[tuple[str, str, str, str, int]], partitions: Partitions
) -> tuple[str, ...]:
    """Return the functions that are missing, or differ from the text of this code.

    Others of the same name may be the owner's, but not the one of older versions: with both, a
    call would be ambiguous.
    """
    ours = _functions(partitions)
    right = {
        name
        for name, home, body, traits, _ in rows
        if traits == ours[name].traits and body == function_body(name, home, partitions)
    }
    older = {name for name, *_, parameters in rows if (name, parameters) in _OLDER}
    return tuple(name for name in ours if name not in right or name in older)
