"""Pure values and decisions: no I/O, no clock, no logging.

At the top is what a job and a task are. The rooms

- `claiming`: what a worker scans and claims next, and how long it keeps what it has claimed;
- `endings`: what becomes of an attempt, and what those are told who wait for it;
- `liveness`: whether a worker lives, is trusted, and is to blame for a death;
- `monitoring`: what people ask about jobs, queues and workers;
- `text`: values and exceptions as text that is safe to store, to log and to show.
"""
