"""What to write instead of names that releases up to 3.x had and this one has not."""

from __future__ import annotations

from collections.abc import Mapping

_CONTRACT = (
    "connectors implement another contract here, procrastinate.connector.SyncConnector or"
    " AsyncConnector; users open, give and close them, and no more"
)
_ITS_OWN_WAY = "it was a part of the worker, and workers do it by themselves"
_OWN_CONNECTION = (
    "run SQL of your own on a connection of your own; connection= lets a job be deferred on it"
)

#: Of classes by name, and of those that they derive from.
ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "Blueprint": {
        "periodic_registry": "job_manager.list_schedules() shows the schedules",
        "will_configure_task": "a blueprint's task raises UnboundTaskError by itself",
    },
    "Task": {
        "blueprint": "the app is context.app in a task, and task.owner elsewhere",
        "full_path": "it is the task's name, unless name= was given",
        "task_middleware": "it is task.definition.middleware",
        "add_namespace": "call app.add_tasks_from(blueprint, namespace=...)",
        "get_retry_exception": "ask task.retry_strategy.get_retry_decision(exception=, job=)",
    },
    "JobDeferrer": {
        "job": "what will be deferred is in .options",
        "job_manager": "use app.job_manager",
        "connection": "it is .options.connection",
        "make_new_job": "defer() makes the job, and returns its id",
    },
    "JobManager": {
        "connector": "it is app.connector",
        "check_connection": "call app.check_connection()",
        "check_connection_async": "await app.check_connection_async()",
        "defer_job": "call app.configure_task(name, queue=..., lock=...).defer(...)",
        "defer_job_async": "await app.configure_task(name, queue=...).defer_async(...)",
        "batch_defer_jobs": "call app.configure_task(name, ...).batch_defer({...}, {...})",
        "batch_defer_jobs_async": "await app.configure_task(name, ...).batch_defer_async({...})",
        "defer_periodic_job": _ITS_OWN_WAY,
        "fetch_job": _ITS_OWN_WAY,
        "finish_job": "the worker writes the end of a job; to end one, cancel_job_by_id(job.id)",
        "finish_job_by_id_async": (
            "the worker writes the end of a job; to end one, cancel_job_by_id_async(id)"
        ),
        "listen_for_jobs": _ITS_OWN_WAY,
        "list_jobs_to_abort_async": _ITS_OWN_WAY,
        "register_worker": _ITS_OWN_WAY,
        "unregister_worker": _ITS_OWN_WAY,
        "update_heartbeat": _ITS_OWN_WAY,
        "prune_stalled_workers": _ITS_OWN_WAY,
    },
    "Job": {
        "asdict": "write dataclasses.asdict(job)",
        "evolve": "write dataclasses.replace(job, ...)",
        "from_row": "app.job_manager.get_job(id) returns a job",
        "log_context": "records about jobs carry job_id, task_name, queue and attempt",
        "abort_requested": "in a task, ask context.should_abort()",
        "worker_id": "it is job.worker",
        "queue_name": "it is job.queue",
        "args": "it is job.task_kwargs",
    },
    "JobContext": {
        "worker_queues": "the job's own queue is context.job.queue",
        "queues_display": "the job's own queue is context.job.queue",
        "evolve": "contexts cannot be changed; give additional_context to the worker",
        "job_result": "context.start_timestamp says when the attempt began",
    },
    "Worker": {
        "queues": "it is worker.options.queues",
        "worker_name": "it is worker.name",
    },
    "Connector": {
        "get_sync_connector": "app.open() and synchronous calls find it by themselves",
        "get_worker_connector": "run `manage.py procrastinate worker`; in a program of yours,"
        " procrastinate_django.worker_app.app is the app with the connector of workers",
        "pool": "the connector keeps its connections to itself; give app.open(pool) one of yours",
        **dict.fromkeys(
            (
                "execute_query",
                "execute_query_one",
                "execute_query_all",
                "execute_query_async",
                "execute_query_one_async",
                "execute_query_all_async",
            ),
            _OWN_CONNECTION,
        ),
        "listen_notify": _ITS_OWN_WAY,
    },
    "KeepsJobs": {
        "finished_jobs": "look at what there is: connector.jobs, each with its status",
        "current_locks": "look at what there is: connector.jobs, each with its lock and status",
        "events": "a job has deferred_at, started_at, finished_at, status and errors",
        "queries": "look at what there is: connector.jobs",
        "workers": "app.job_manager.list_workers() shows them",
        "periodic_defers": "app.job_manager.list_schedules() shows the last ticks",
        "table_exists": "the tables are always there",
        "states": "it is always open",
    },
    "JobList": {
        "values": "it is a list of jobs, in order of id",
        "items": "it is a list of jobs, in order of id: each has job.id",
        "keys": "it is a list of jobs, in order of id: [job.id for job in connector.jobs]",
        "get": "it is a list of jobs: app.job_manager.get_job(id) finds one by id",
    },
}

#: Keys of rows that are attributes of another name.
KEYS: Mapping[str, str] = {"args": "task_kwargs", "queue_name": "queue", "worker_id": "worker"}

_NOW_INVALID_OPTION = "procrastinate.errors.InvalidOption is raised"

#: Of modules.
MODULES: Mapping[str, Mapping[str, str]] = {
    "procrastinate": {
        "BaseConnector": _CONTRACT,
        "PostgresConnector": "it is PsycopgConnector, or AiopgConnector",
        "metadata": 'importlib.metadata.metadata("procrastinate") says it, and'
        " procrastinate.__version__ the version",
    },
    "procrastinate.connector": {"BaseConnector": _CONTRACT, "BaseAsyncConnector": _CONTRACT},
    "procrastinate.exceptions": {
        "NoResult": "procrastinate.JobNotFound is raised if there is no such job",
        "JobRetry": "raise any exception: the task's retry= decides what follows",
        "MiddlewareKindMismatch": _NOW_INVALID_OPTION,
        "FunctionPathError": _NOW_INVALID_OPTION,
        "MissingApp": "the command line says so, and exits with 2",
        "RunTaskError": "procrastinate.WorkerFailed is raised if a worker ends by itself",
        "CallerModuleUnknown": "nothing raises it",
        "MovedElsewhere": "nothing raises it",
    },
    "procrastinate.jobs": {
        "DeleteJobCondition": 'delete_jobs= takes "never", "successful" or "always"',
        "JobInserted": _ITS_OWN_WAY,
        "AbortJobRequested": _ITS_OWN_WAY,
        "Notification": _ITS_OWN_WAY,
    },
    "procrastinate.tasks": {"configure_task": "call app.configure_task(name, ...)"},
    "procrastinate.retry": {
        "get_retry_strategy": "task.retry_strategy is what retry= stands for",
    },
    "procrastinate.utils": {
        **dict.fromkeys(
            ("async_to_sync", "sync_to_async"),
            "synchronous calls work in plain code; asyncio.to_thread() runs them in a thread",
        ),
        "parse_datetime": "datetime.datetime.fromisoformat() reads such a time",
        "load_from_path": "call procrastinate.App.from_path(path)",
        "import_all": "call app.perform_import_paths()",
        "get_full_path": "it is a task's name, unless name= was given",
        "add_namespace": 'it was f"{namespace}:{name}"',
        "queues_display": 'write ", ".join(queues)',
    },
    "procrastinate.job_context": {
        "JobResult": "procrastinate keeps results: task(result=True), task.wait_for(id)",
    },
    "procrastinate.periodic": {
        "PeriodicTask": "job_manager.list_schedules() shows the schedules",
        "PeriodicRegistry": "job_manager.list_schedules() shows the schedules",
        "PeriodicDeferrer": _ITS_OWN_WAY,
        "croniter": "cronsim reads cron expressions here",
    },
    "procrastinate.builtin_tasks": {
        "builtin": "every app has the builtin tasks, without a blueprint",
    },
}

#: Of the command line.
OPTIONS: Mapping[str, str] = {
    "--timeout": "it is --polling-interval",
    "-t": "it is --polling-interval",
    "-w": "it is --wait",
    "-l": "it is --listen-notify",
    "--log-format-style": "--log-format is text or json, and no template",
}
