"""The names of all metrics, with their labels and what they say. Durations are seconds."""

from __future__ import annotations

from typing import NamedTuple


class Named(NamedTuple):
    """A metric: its name, its kind, its labels and its help."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


# Of workers

PROCESSED = Named(
    "procrastinate_jobs_processed_total",
    "counter",
    ("queue", "task", "outcome"),
    "Attempts whose outcome is written: succeeded, failed, cancelled, aborted, or retried if they"
    " failed and are tried again.",
)
DURATION = Named(
    "procrastinate_job_duration_seconds",
    "histogram",
    ("queue", "task"),
    "How long attempts took.",
)
QUEUE_TIME = Named(
    "procrastinate_job_queue_time_seconds",
    "histogram",
    ("queue", "task"),
    "How long jobs had waited for their first claim, since they were due.",
)
SLOTS = Named("procrastinate_worker_slots", "gauge", (), "How many jobs could run at once.")
SLOTS_BUSY = Named("procrastinate_worker_slots_busy", "gauge", (), "How many jobs run.")
LEASES_LOST = Named(
    "procrastinate_leases_lost_total",
    "counter",
    (),
    "Jobs that were taken from workers which others took for dead.",
)

# Of the database

UP = Named("procrastinate_up", "gauge", (), "Whether the database answered: 1, else 0.")
JOBS = Named(
    "procrastinate_jobs",
    "gauge",
    ("queue", "state"),
    "Jobs in each state. A state that could not be counted in time is absent.",
)
LATENCY = Named(
    "procrastinate_queue_latency_seconds",
    "gauge",
    ("queue",),
    "How long the job has been ready that has waited longest; 0 if none is ready.",
)
PAUSED = Named("procrastinate_queue_paused", "gauge", ("queue",), "Whether a queue is paused.")
WORKERS = Named("procrastinate_workers", "gauge", (), "Workers that give signs of life.")

OF_WORKERS = (PROCESSED, DURATION, QUEUE_TIME, SLOTS, SLOTS_BUSY, LEASES_LOST)
OF_DATABASE = (UP, JOBS, LATENCY, PAUSED, WORKERS)
