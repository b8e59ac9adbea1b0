"""``procrastinate demo``: one job for every file below a folder, through a real PostgreSQL.

It is also an example of an application, to be read in this order: `tasks` (the task and the app),
`worker_process` (a worker), `story` (deferring, and watching the jobs), `crash` (what a dead
worker leaves behind, and the proof that nothing is lost). `tables` holds the application's own
tables.
"""
