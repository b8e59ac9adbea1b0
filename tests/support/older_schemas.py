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
