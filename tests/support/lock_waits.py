"""Which sessions wait for a lock that another transaction holds, also on the nodes of a cluster."""

from __future__ import annotations

import os

_ON_A_SERVER = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
"""
#: What a node runs names the schema; other tests use the same database.
_ON_A_CLUSTER = """
select count(*) from citus_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
    and strpos(query, current_schema()) > 0
"""
#: Returns how many sessions wait. Those of the coordinator do not wait for locks of a node's.
COUNT_WAITING = _ON_A_CLUSTER if os.environ.get("PROCRASTINATE_TEST_CITUS_DSN") else _ON_A_SERVER
