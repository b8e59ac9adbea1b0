"""Which sessions wait for a lock that another transaction holds, also on the nodes of a cluster."""

from __future__ import annotations

import os

_ON_A_SERVER = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
"""
#: Other tests use the same database. A session of ours has locks on tables of our schema. What it
#: does on nodes has its number, which ends with the id of its process on the coordinator.
_ON_A_CLUSTER = """
select count(distinct global_pid) from citus_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and global_pid % 10000000000 in (
    select pid from pg_locks join pg_class as class on class.oid = pg_locks.relation
    where class.relnamespace = current_schema()::regnamespace
)
"""
#: Returns how many sessions wait.
COUNT_WAITING = _ON_A_CLUSTER if os.environ.get("PROCRASTINATE_TEST_CITUS_DSN") else _ON_A_SERVER
