"""The tables of releases up to 3.x: whether they are there, and which they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from procrastinate.connector import Rows
from procrastinate.drive import Flow, Script
from procrastinate.errors import ConnectorException, SchemaError
from procrastinate.storage.looking import NOT_SUPPORTED
from procrastinate.storage.schema import check_schema
from procrastinate.storage.statements import quoted

#: The columns of the old tables that are read, in every release from 0.33 to 3.x.
_READ: Mapping[str, Collection[str]] = {
    "procrastinate_jobs": {
        *("id", "queue_name", "task_name", "lock", "queueing_lock", "args", "status"),
        *("scheduled_at", "attempts"),
    },
    "procrastinate_events": {"job_id", "type", "at"},
    "procrastinate_periodic_defers": {"task_name", "periodic_id", "defer_timestamp", "job_id"},
}
#: Those that some of these releases have besides.
_KNOWN: Collection[str] = {"priority", "abort_requested", "worker_id"}
_LABELS: Collection[str] = {
    *("todo", "doing", "succeeded", "failed", "cancelled", "aborting", "aborted"),
}


#: Why this release cannot take a job, whatever its status; null if it can. (See `schema.sql`.)
_MISFIT = """
        case
            when old.queue_name = '' or old.task_name = '' then 'its queue or its task has no name'
            when jsonb_typeof(old.args) <> 'object' then 'its arguments are not a JSON object'
            when char_length(old.lock) > 512 or char_length(old.queueing_lock) > 512
                then 'its lock or its queueing lock is longer than 512 characters'
            when old.scheduled_at < '0001-01-03 00:00+00'
                or old.scheduled_at > '9999-12-29 00:00+00'
                then 'it is scheduled for a time that not every driver can read'
        end"""

#: The same for a job that waits.
_REASON = f"""
        coalesce({_MISFIT},
        case
            when exists (select from {{schema}}.procrastinate_jobs as job where job.id = old.id)
                then 'another job here has its id'
            when exists (
                select from {{schema}}.procrastinate_jobs as job
                where job.queueing_lock = old.queueing_lock and job.status = 'todo'
            ) then 'a job with the same queueing lock waits here'
        end)"""


@dataclass(frozen=True, slots=True)
class OldTables:
    """Tables of releases up to 3.x in a schema, and the schema of the app's own tables."""

    schema: str
    own_schema: str
    has_priority: bool
    knows_cancelled: bool

    def sql(self, text: str, *, qualified: bool = False) -> str:
        """Return SQL with this schema and these columns in the place of its markers.

        If it is ``qualified``, the app's own names have a schema too, whatever the connector's is.
        """
        for marker, value in {
            "{old}.": f"{quoted(self.schema)}.",
            "{old_schema}": quoted(self.schema),
            "{priority}": "old.priority" if self.has_priority else "0",
            "{taken}": "cancelled" if self.knows_cancelled else "failed",
            "{reason}": _REASON,
            "{misfit}": _MISFIT,
        }.items():
            text = text.replace(marker, value)
        if not qualified:
            return text
        own_schema = self.own_schema.replace('"', '""')
        return text.replace("{schema}.", f'"{own_schema}".')


def look(source: str) -> Flow[OldTables]:
    """Return what is known of the old tables. Raises `SchemaError` if they cannot be imported."""
    state = yield from check_schema(whole=True)
    if state.partitions.are_many:
        raise SchemaError(
            "the jobs here are distributed over partitions, and ids of old jobs say none: import"
            " into a schema whose jobs are not distributed, and distribute them then"
        )
    try:
        ((is_there, is_ours, own_schema),) = yield Script("the old schema", _text(_THERE, source))
    except ConnectorException as exc:
        if exc.sqlstate != NOT_SUPPORTED:
            raise
        raise SchemaError("a connector in memory has no other schema to import from") from exc
    if not is_there:
        raise SchemaError(f"there is no schema named {source} in this database")
    if is_ours:
        raise SchemaError(
            f"the tables in the schema {source} are those of this app: name the schema of the old"
            " release's tables"
        )
    columns = yield Script("the old columns", _text(_COLUMNS, source))
    labels = yield Script("the old statuses", _text(_LABELS_OF, source))
    return old_tables(source, own_schema, columns, [label for (label,) in labels])


def old_tables(source: str, own_schema: str, columns: Rows, labels: Collection[str]) -> OldTables:
    """Return what tables are, by their columns (table, column) and the statuses of jobs.

    Raises `SchemaError` if they are not those of a release from 0.33 to 3.x.
    """
    found: dict[str, set[str]] = {}
    for table, column in columns:
        found.setdefault(table, set()).add(column)
    jobs = found.get("procrastinate_jobs", set())
    if not jobs:
        raise SchemaError(f"the schema {source} has no table procrastinate_jobs")
    if "partition" in jobs:
        raise SchemaError(
            f"the tables in the schema {source} are of this design already, not of release 3.x or"
            " older"
        )
    missing = [
        f"{table}.{column}"
        for table, read in _READ.items()
        for column in sorted({*read} - found.get(table, set()))
    ]
    if missing:
        raise SchemaError(
            f"the tables in the schema {source} lack {', '.join(missing)}: they are of a release"
            " before 0.33, or not all of their migrations have run. Run these first, with the old"
            " release"
        )
    unknown = sorted({*jobs} - {*_READ["procrastinate_jobs"]} - {*_KNOWN})
    unknown += [f"the status {label!r}" for label in sorted({*labels} - {*_LABELS})]
    if unknown:
        raise SchemaError(
            f"the tables in the schema {source} have {', '.join(unknown)}, which this release does"
            " not know: they are of a newer one. Upgrade the package procrastinate"
        )
    return OldTables(source, own_schema, "priority" in jobs, "cancelled" in labels)


def _text(text: str, source: str) -> str:
    return text.replace("{source}", quoted(source)[1:-1])


_THERE = """
select
    (to_regnamespace('"{source}"') is not null)::integer,
    coalesce(
        to_regclass('"{source}".procrastinate_jobs') = to_regclass('{schema}.procrastinate_jobs'),
        false
    )::integer,
    (
        select home.nspname::text
        from pg_catalog.pg_class as class
        join pg_catalog.pg_namespace as home on home.oid = class.relnamespace
        where class.oid = to_regclass('{schema}.procrastinate_jobs')
    )
"""

_COLUMNS = f"""
select class.relname::text, had.attname::text
from pg_catalog.pg_class as class
join pg_catalog.pg_namespace as home on home.oid = class.relnamespace
join pg_catalog.pg_attribute as had
    on had.attrelid = class.oid and had.attnum > 0 and not had.attisdropped
where home.nspname = '{{source}}'
    and class.relname in ({", ".join(f"'{name}'" for name in _READ)})
"""

_LABELS_OF = """
select label.enumlabel::text
from pg_catalog.pg_enum as label
join pg_catalog.pg_type as type on type.oid = label.enumtypid
join pg_catalog.pg_namespace as home on home.oid = type.typnamespace
where home.nspname = '{source}' and type.typname = 'procrastinate_job_status'
"""
