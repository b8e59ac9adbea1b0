"""One app's way to its database: which half of the connector runs a flow, and whether it may.

Rules

- Synchronous calls always run on the synchronous connector: the app's own, or the counterpart of
  its asynchronous one. It makes no difference what else is open.
- Asynchronous calls run on the asynchronous connector; with a synchronous one they run in a thread.
- A call inside the caller's transaction (``connection=``) needs neither an open app nor a pool, and
  it makes no difference which connector the app has: that gives the schema and the functions for
  JSON. What runs on the connection is found by its class (`procrastinate.binders`). A synchronous
  connection runs in a thread in asynchronous calls.
- A connector that runs no SQL keeps the jobs of any connection. Nothing goes through it.
- What finds jobs needs to know into how many partitions the database has put them. That is read
  from it when it is first asked for, and again after `SETTINGS_LAST`: `schema --distribute` may
  have changed it. Defers need it not: the functions that insert jobs know it.
"""

from __future__ import annotations

from procrastinate.gateway.gateway import Gateway as Gateway
