"""Every error of procrastinate, in one tree that says whose fault it is.

::

    ProcrastinateException
    ├── ConfigurationError                  your set-up does not fit together
    │   ├── ConnectorNotInstalled           no package provides this connector
    │   │   ├── ConnectorImportError        ... as met by an import (also ImportError)
    │   │   └── ConnectorAttributeError     ... as met by attribute access (also AttributeError)
    │   ├── ConnectorBroken                 its package fails to import (also ImportError)
    │   ├── ConnectorConflict               two packages claim one connector name
    │   ├── ConnectorVersionMismatch        built for another version of the connector contract
    │   ├── SyncConnectorConfigurationError a worker needs an asynchronous connector
    │   ├── LoadFromPathError               no App at this dotted path
    │   ├── InvalidOption                   an option is out of range, unknown or contradictory
    │   └── InvalidTimestamp                a naive or impossible date and time
    ├── AppNotOpen                          the app was used before ``open`` or after ``close``
    ├── TaskError                           the task or its arguments are wrong
    │   ├── TaskNotFound
    │   ├── TaskAlreadyRegistered
    │   ├── UnboundTaskError
    │   └── InvalidArguments                not JSON, or they do not fit the function's signature
    ├── AlreadyEnqueued                     a job with this queueing lock is waiting already
    ├── JobNotFound
    ├── JobUnsuccessful                     the job that was waited for has not succeeded
    │   ├── JobFailed
    │   ├── JobWasCancelled
    │   └── JobWasAborted
    ├── ResultNotKept                       the job succeeded, and its result was not stored
    ├── ResultLost                          the job was removed while it was waited for
    ├── JobAborted                          raised *by* a task to end its job as aborted
    ├── TaskTimeout                         an attempt took longer than the task's ``timeout``
    ├── WorkerFailed                        a worker ended although it was not told to stop
    ├── WorkerLost                          a worker died, and the job it held has ended
    └── ConnectorException                  the database, or the way to it
        ├── ConnectionFailed                no connection could be made
        ├── PoolTimeout                     every connection of the pool stayed in use
        ├── ConnectionLost                  the connection broke; a statement under way may have run
        ├── PartitionAway                   the part of a cluster that holds a job's partition
        ├── QueryCanceled                   the server cancelled the statement
        ├── UniqueViolation
        ├── InvalidData                     the server refused a value
        ├── InsufficientPrivilege           the role lacks a grant
        └── SchemaError
            ├── SchemaNotApplied            procrastinate's tables are missing
            ├── SchemaOutdated              the database needs ``procrastinate schema --migrate``
            ├── SchemaTooNew                the database was migrated by a newer procrastinate
            └── SchemaForeign               the tables are of a release up to 3.x
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from procrastinate import constraint_names

if TYPE_CHECKING:
    from procrastinate.model.job import Error, Job


class ProcrastinateException(Exception):
    """Root of all errors that procrastinate raises."""


class ConfigurationError(ProcrastinateException):
    """The parts of the set-up do not fit together."""


class ConnectorNotInstalled(ConfigurationError):
    """No installed package provides the connector; the message names the package to install.

    Python allows no class that is an ImportError and an AttributeError at once (their layouts
    conflict), so what is raised is one of the two subclasses.
    """


class ConnectorImportError(ConnectorNotInstalled, ImportError):
    """`ConnectorNotInstalled` as met by ``import``, `procrastinate.connectors.get` and ``App``."""


class ConnectorAttributeError(ConnectorNotInstalled, AttributeError):
    """`ConnectorNotInstalled` as met by ``procrastinate.SomeConnector``: ``hasattr`` is False."""


class ConnectorBroken(ConfigurationError, ImportError):
    """The connector's package is installed and cannot be imported; the cause says why."""


class ConnectorConflict(ConfigurationError):
    """Two installed packages provide a connector under the same name."""


class ConnectorVersionMismatch(ConfigurationError):
    """The connector was built for another version of the connector contract than this core's."""


class SyncConnectorConfigurationError(ConfigurationError):
    """The operation needs an asynchronous connector, and the app has a synchronous one."""


class LoadFromPathError(ConfigurationError):
    """The dotted path does not lead to an ``App``."""


class InvalidOption(ConfigurationError, ValueError):
    """An option's value is of the wrong type, out of range, unknown, or contradicts another."""


class InvalidTimestamp(ConfigurationError, ValueError):
    """A date and time without a time zone, or one that cannot be."""


class AppNotOpen(ProcrastinateException):
    """The app was used before it was opened, or after it was closed."""


class TaskError(ProcrastinateException):
    """A task, or the arguments given to it, are wrong."""


class TaskNotFound(TaskError, LookupError):
    """No task is registered under this name."""


class TaskAlreadyRegistered(TaskError, ValueError):
    """Another task is registered under this name or alias."""


class UnboundTaskError(TaskError):
    """The task belongs to a Blueprint that no App has taken up yet."""


class InvalidArguments(TaskError, ValueError):
    """The arguments are not JSON, or do not fit the signature of the task's function."""


class AlreadyEnqueued(ProcrastinateException):
    """A job with the same queueing lock is waiting already; nothing was inserted."""


class JobNotFound(ProcrastinateException, LookupError):
    """There is no job with this id."""


class JobUnsuccessful(ProcrastinateException):
    """The job that was waited for, or whose result was asked for, has ended without success.

    ``job`` is the job as it had ended, and ``error`` the last entry of its ``errors``, or None.
    """

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job

    @property
    def error(self) -> Error | None:
        """The last entry of the job's ``errors``; None if no attempt failed."""
        return self.job.errors[-1] if self.job.errors else None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.job), self.__dict__


class JobFailed(JobUnsuccessful):
    """The job has failed: no attempt is left."""


class JobWasCancelled(JobUnsuccessful):
    """The job was cancelled before it succeeded."""


class JobWasAborted(JobUnsuccessful):
    """The job was aborted: on request, or because its task raised `JobAborted`."""


class ResultNotKept(ProcrastinateException):
    """The job has no result that could be returned, although it succeeded, or will.

    Its task was not registered with ``result=True``, or what it returned could not be stored, or
    cannot be decoded. With ``result="strict"``, what cannot be stored fails the job instead, and
    this is the type in its ``errors``.
    """


class ResultLost(ProcrastinateException):
    """The job was removed while it was waited for: its end is not known any more."""


class JobAborted(ProcrastinateException):
    """Raised by a task's code to end its job as ``aborted``."""


class TaskTimeout(ProcrastinateException, TimeoutError):
    """An attempt was told to end at the task's ``timeout``, and raised.

    What it raised is the ``__cause__``. For ``retry_exceptions``, and in a job's ``errors``.
    """


class WorkerFailed(ProcrastinateException):
    """A worker ended although it was not told to stop.

    The ``__cause__`` is what ended it, if that was an exception. Raised by `Worker.run`, and by
    leaving ``async with app.worker(on_failure="cancel")``.
    """


class WorkerLost(ProcrastinateException):
    """A job has ended because its worker died, or was not heard of for too long.

    Nothing raises it: it is a type in a job's ``errors``.
    """


class ConnectorException(ProcrastinateException):
    """The database, or the way to it, failed.

    ``sqlstate`` is the server's five-character code (None where no server answered), and
    ``constraint`` the name of the violated constraint, if any. The driver's own exception is
    the ``__cause__``.
    """

    def __init__(
        self,
        message: str = "the database operation failed",
        *,
        sqlstate: str | None = None,
        constraint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


class ConnectionFailed(ConnectorException):
    """No connection to the server could be made."""


class PoolTimeout(ConnectorException):
    """No connection of the pool became free in time."""


class ConnectionLost(ConnectorException):
    """The connection broke. A statement that was under way may or may not have been executed."""


class PartitionAway(ConnectorException):
    """The database answers, but the node that has the partition of these jobs does not.

    Only a distributed database raises it. A statement that was under way may or may not have been
    executed on that node. If the node stopped while the transaction was committed, it is not known
    whether its changes were made, such as jobs inserted. The connection is still in order.
    """


class QueryCanceled(ConnectorException):
    """The server cancelled the statement (``statement_timeout``, ``pg_cancel_backend``)."""


class UniqueViolation(ConnectorException):
    """A unique constraint or index, named by ``constraint``, was violated."""


class InvalidData(ConnectorException):
    """The server refused a value: SQLSTATE class 22 (a NUL character), or a check constraint."""


class InsufficientPrivilege(ConnectorException):
    """The database role lacks a privilege."""


class SchemaError(ConnectorException):
    """Procrastinate's tables and this version of the code do not fit."""


class SchemaNotApplied(SchemaError):
    """Procrastinate's tables are not in the database (or not on the search path)."""


class SchemaOutdated(SchemaError):
    """The database lacks migrations that this code needs."""


class SchemaTooNew(SchemaError):
    """The database was migrated by a newer procrastinate that this code does not fit."""


class SchemaForeign(SchemaError):
    """The tables are of a release up to 3.x, an earlier design under the same name."""


_SCHEMA_HINT = "run `procrastinate schema --apply`, or check the search_path and `schema=`"

_READ_ONLY = "the server is a standby, or the session is read-only"

#: What ends a connection comes with the severity FATAL. As an ERROR it is about a connection that
#: the server itself has, to a node of its cluster.
_OF_ANOTHER = ("080", "57P")

# The server's own codes (PostgreSQL manual, appendix A), longest prefix first.
_BY_SQLSTATE: tuple[tuple[str, type[ConnectorException], str], ...] = (
    ("23505", UniqueViolation, ""),
    ("57014", QueryCanceled, ""),
    ("42501", InsufficientPrivilege, "grant the role what it needs"),
    ("42P01", SchemaNotApplied, _SCHEMA_HINT),  # undefined_table
    ("42883", SchemaNotApplied, _SCHEMA_HINT),  # undefined_function
    ("42704", SchemaNotApplied, _SCHEMA_HINT),  # undefined_object
    ("3F000", SchemaNotApplied, _SCHEMA_HINT),  # invalid_schema_name
    ("PQS01", SchemaOutdated, "run `procrastinate schema --migrate`"),  # storage/functions.sql
    ("42703", SchemaOutdated, "run `procrastinate schema --migrate`"),  # undefined_column
    ("25P03", ConnectionLost, ""),  # idle_in_transaction_session_timeout
    ("25P04", ConnectionLost, ""),  # transaction_timeout
    ("57P", ConnectionLost, ""),  # admin_shutdown, crash_shutdown, cannot_connect_now
    ("25006", ConnectionLost, _READ_ONLY),  # read_only_sql_transaction
    ("08", ConnectionLost, ""),
    ("23514", InvalidData, ""),  # check_violation
    ("22", InvalidData, ""),
)


#: What Citus itself says when a node went away in the middle of a commit, or of a copy. It has no
#: translations, and its SQLSTATE says less.
_NODE_FAILED = {
    "XX000": "failure on connection marked as essential",
    "58030": "failed to complete COPY on ",
}


def database_error(
    message: str,
    *,
    sqlstate: str | None = None,
    constraint: str | None = None,
    reason: str = "",
    severity: str | None = None,
) -> ConnectorException:
    """Return the error for what a server reported: the one place that gives SQLSTATEs a meaning.

    For connectors: ``raise database_error(...) from driver_exception``. Without a SQLSTATE the
    result is a plain `ConnectorException`; raise `ConnectionFailed` or `ConnectionLost` where
    the driver says that the connection itself failed. ``reason`` is what the connector knows of
    its connection that explains the error: see `why_read_only`. A constraint of ours that was
    violated on another node has the name that it has in the schema. Its node names it in the
    message only; the name is the same in every language. The kind of the constraint also gives the
    SQLSTATE if the coordinator has lost it.
    """
    sqlstate, constraint = constraint_names.as_in_the_schema(message, sqlstate, constraint)
    message = message.strip() or "the database operation failed"
    what_citus_says = _NODE_FAILED.get(sqlstate or "")
    if what_citus_says is not None and what_citus_says in message:
        return PartitionAway(message, sqlstate=sqlstate, constraint=constraint)
    for prefix, kind, hint in _BY_SQLSTATE:
        if sqlstate is not None and sqlstate.startswith(prefix):
            if kind is ConnectionLost and severity == "ERROR" and sqlstate.startswith(_OF_ANOTHER):
                kind = PartitionAway
            hint = reason or hint
            text = f"{message} ({hint})" if hint else message
            return kind(text, sqlstate=sqlstate, constraint=constraint)
    return ConnectorException(message, sqlstate=sqlstate, constraint=constraint)


#: "Internal error": what Citus says after a failure inside of a transaction.
INTERNAL_ERROR = "XX000"


def may_be_of_one_node(exc: BaseException) -> bool:
    """Return whether an error of a distributed database may be about one of its nodes only.

    A node that is silent lets the statement run into its limit.
    """
    return isinstance(exc, PartitionAway | QueryCanceled) or (
        isinstance(exc, ConnectorException) and exc.sqlstate == INTERNAL_ERROR
    )


def why_read_only(
    *, in_hot_standby: str | None, by_default: str | None, by_client: bool | None
) -> str:
    """Return the ``reason`` for SQLSTATE 25006 (a write in a read-only transaction).

    The first two are the values that the server reports of its parameters ``in_hot_standby`` and
    ``default_transaction_read_only`` (None: it does not); ``by_client`` says whether the driver or
    an engine's option made the session read-only.
    """
    if in_hot_standby == "on":
        return "the server is a standby"
    if by_client:
        return "the connection was made read-only by an option of its driver, pool or engine"
    if by_default == "on":
        return "default_transaction_read_only is on: look at the role, the database and the server"
    if in_hot_standby == by_default == "off":
        return "the transaction was begun as a read-only one"
    return ""
