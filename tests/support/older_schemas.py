"""Databases as older schema versions have left them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from procrastinate.storage import migrating, schema
from procrastinate.storage.statements import Statements

RECORD = """
    insert into procrastinate_migrations (version, name, compatible_from) values (%s, %s, %s)
"""


def make(version: int, query: Callable[..., Any]) -> None:
    """Make the tables of a schema version, in the first schema of the search_path."""
    for migration in schema.migrations()[:version]:
        texts = migrating.statements_of(migration) if migration.outside else [migration.text]
        for text in texts:
            query(Statements().render(text))
        query(RECORD, migration.version, migration.name, migration.compatible_from)


def undo_9(query: Callable[..., Any]) -> None:
    """Take the latest tables back to schema version 8, whatever their partitions are.

    For databases with many: `make` makes none of these.
    """
    for table in ("waits", "progress", "queues", "minutes"):
        query(f"drop table procrastinate_{table}")
    query("alter table procrastinate_jobs drop constraint procrastinate_jobs_row_check")
    for table, columns in _SINCE_9.items():
        for column in columns:
            query(f"alter table procrastinate_{table} drop column {column}")
    for name, condition in _UNTIL_9.items():
        check = f"procrastinate_jobs_{name}_check check ({condition})"
        query(f"alter table procrastinate_jobs add constraint {check}")
    query("drop function procrastinate_job_fits")
    query("delete from procrastinate_migrations where version > 8")


_SINCE_9 = {
    "jobs": ("first_started_at", "meta", "result", "result_error"),
    "workers": ("pid", "version", "queues", "busy", "blocked_since", "trusted"),
    "periodic": ("cron", "timezone", "queue_name"),
}
_UNTIL_9 = {
    "names": "char_length(queue_name) between 1 and 128"
    " and char_length(task_name) between 1 and 128",
    "args": "jsonb_typeof(args) = 'object'",
    "locks": "char_length(lock) <= 512 and char_length(queueing_lock) <= 512",
    "scheduled_at": "scheduled_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'",
    "hold": "case hold when 'schedule' then scheduled_at is not null"
    " when 'lock' then lock is not null end",
    "errors": "jsonb_typeof(errors) = 'array'",
}


#: The tables of release 3, as far as they matter to someone who meets them.
RELEASE_3 = """
    create type procrastinate_job_status as enum (
        'todo', 'doing', 'succeeded', 'failed', 'cancelled', 'aborting', 'aborted'
    );
    create table procrastinate_workers (
        id bigint primary key generated always as identity,
        last_heartbeat timestamptz not null default now()
    );
    create table procrastinate_jobs (
        id bigserial primary key,
        queue_name character varying(128) not null,
        task_name character varying(128) not null,
        priority integer default 0 not null,
        lock text,
        queueing_lock text,
        args jsonb default '{}' not null,
        status procrastinate_job_status default 'todo' not null,
        scheduled_at timestamptz,
        attempts integer default 0 not null,
        abort_requested boolean not null default false,
        worker_id bigint
    );
    create table procrastinate_periodic_defers (
        id bigserial primary key,
        task_name character varying(128) not null,
        defer_timestamp bigint,
        job_id bigint references procrastinate_jobs(id),
        periodic_id character varying(128) not null default ''
    );
    create function procrastinate_defer_job(
        queue_name character varying, task_name character varying, priority integer, lock text,
        queueing_lock text, args jsonb, scheduled_at timestamptz
    ) returns bigint language sql as 'select 1::bigint';
"""


#: What those tables need besides, to be imported: when something happened to a job.
EVENTS = """
    create type procrastinate_job_event_type as enum (
        'deferred', 'started', 'deferred_for_retry', 'failed', 'succeeded', 'cancelled',
        'abort_requested', 'aborted', 'scheduled', 'retried'
    );
    create table procrastinate_events (
        id bigserial primary key,
        job_id bigint not null references procrastinate_jobs on delete cascade,
        type procrastinate_job_event_type,
        at timestamptz default now()
    );
    create index on procrastinate_events (job_id);
    create unique index on procrastinate_jobs (queueing_lock) where status = 'todo';
    create function note_event() returns trigger language plpgsql as $$
    begin
        if new.status = 'todo'::procrastinate_job_status and tg_op = 'UPDATE' then
            return new;
        end if;
        insert into procrastinate_events (job_id, type)
        values (new.id, case when tg_op = 'INSERT' then 'deferred' else 'cancelled' end
            ::procrastinate_job_event_type);
        return new;
    end $$;
    create trigger note after insert on procrastinate_jobs
        for each row execute function note_event();
    create trigger note_change after update of status on procrastinate_jobs for each row
        when (old.status = 'todo') execute function note_event();
"""


def release(number: str) -> str:
    """Return the SQL that makes the tables of an old release, as far as an import reads them.

    Before 2 there were no priorities, and four statuses.
    """
    text = RELEASE_3 + EVENTS
    if number.startswith("3"):
        return text
    if number.startswith("2"):
        drop = "alter table procrastinate_jobs drop column abort_requested, drop column worker_id;"
        return text + drop
    text = text.replace(", 'cancelled', 'aborting', 'aborted'\n    );", "\n    );", 1)
    columns = ("priority", "abort_requested", "worker_id")
    return text + "".join(f"alter table procrastinate_jobs drop column {each};" for each in columns)
