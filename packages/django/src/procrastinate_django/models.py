"""Jobs as a model of Django's, for reading: `app.job_manager` is what changes them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from procrastinate.model.states import State, Status, state_of
from procrastinate_django import conf

TABLE = "procrastinate_jobs"


def table_name() -> str:
    """Return the name of the table as Django quotes it, with the schema if one is set."""
    schema = None if conf.problems() else conf.read_conf().schema
    return TABLE if schema is None else f'"{schema}"."{TABLE}"'


class ReadOnly(TypeError):
    """Jobs were to be changed through the model."""

    def __init__(self) -> None:
        super().__init__(
            "the model is for reading: change jobs by procrastinate_django.app.job_manager, which"
            " knows of workers and locks"
        )


class JobQuerySet(models.QuerySet):
    """A query set that only reads."""

    def create(self, **values: Any) -> Any:
        raise ReadOnly

    def bulk_create(self, *args: Any, **options: Any) -> Any:
        raise ReadOnly

    def bulk_update(self, *args: Any, **options: Any) -> Any:
        raise ReadOnly

    def update(self, **values: Any) -> int:
        raise ReadOnly

    def delete(self) -> Any:
        raise ReadOnly

    delete.alters_data = True  # type: ignore[attr-defined]


_Reading: Any = models.Manager.from_queryset(JobQuerySet)


class JobManager(_Reading):
    """Reads from the database that holds the jobs."""

    def get_queryset(self) -> Any:
        return super().get_queryset().using(conf.read_conf().database)


class Job(models.Model):
    """A job, as the table has it. Times are aware if ``USE_TZ`` is on."""

    id = models.BigIntegerField(primary_key=True)
    status = models.TextField(choices=[(each.value, each.value) for each in Status])
    hold = models.TextField(null=True)
    queue = models.TextField(db_column="queue_name")
    task_name = models.TextField()
    task_kwargs = models.JSONField(db_column="args")
    priority = models.IntegerField()
    attempts = models.IntegerField()
    lock = models.TextField(null=True)
    queueing_lock = models.TextField(null=True)
    worker_id = models.BigIntegerField(null=True)
    deferred_at = models.DateTimeField()
    scheduled_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    errors = models.JSONField(null=True)
    result = models.JSONField(null=True)
    result_error = models.TextField(null=True)

    objects = JobManager()

    class Meta:
        managed = False
        db_table = table_name()
        default_permissions: ClassVar = ("view", "change")
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.task_name}[{self.pk}]"

    @property
    def state(self) -> State:
        """What the job does or waits for now, or how it ended."""
        return state_of(Status(self.status), self.hold)

    def save(self, *args: Any, **options: Any) -> None:
        raise ReadOnly

    def delete(self, *args: Any, **options: Any) -> Any:
        raise ReadOnly
