-- Periodic tasks: one row for each schedule.
-- compatible-from: 1

-- Which ticks of a schedule are settled: those up to done_until are deferred, or given up.
create table {schema}.procrastinate_periodic (
    task_name varchar(128) not null,
    periodic_id varchar(128) not null,
    partition smallint not null default 0,
    done_until timestamptz not null,
    last_tick timestamptz,  -- of the latest job, with the next column
    job_id bigint,
    seen_at timestamptz not null default statement_timestamp(),  -- by code that has it, to the day
    constraint procrastinate_periodic_pkey primary key (task_name, periodic_id, partition)
);
