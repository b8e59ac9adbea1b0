"""What to tell of tables that are in another schema of the database than the one that is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from procrastinate.storage.schema_parts import in_quotes


def moving_back(moved: Mapping[str, str], home: str) -> Iterator[str]:
    """Yield what to do about each relation that is in another schema than the rest.

    A table takes its own sequence along, which is said with the table.
    """
    for name, schema in moved.items():
        if any(name.startswith(f"{table}_") for table in moved):
            continue
        kind = "sequence" if name.endswith("_seq") else "table"
        yield (
            f"{name} is in the schema {schema}: if it is the one that is missing, run"
            f" `alter {kind} {in_quotes(schema)}.{name} set schema {in_quotes(home)}`"
        )


def not_here(schema: str | None) -> str:
    """Return what to add where no table is found, and another schema has a table of jobs."""
    if schema is None:
        return ""
    return (
        f". The schema {schema} has a table of jobs: if that is meant, name it by"
        f' `schema="{schema}"` for the connector, or put it on the search_path'
    )
