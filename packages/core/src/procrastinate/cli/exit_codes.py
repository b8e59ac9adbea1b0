"""What the command's exit codes mean, in one place."""

from __future__ import annotations

import enum

from procrastinate.errors import JobUnsuccessful, SchemaNotApplied, SchemaOutdated, SchemaTooNew


class ExitCode(enum.IntEnum):
    """The exit codes of every command; what they mean is in `MEANINGS`."""

    OK = 0
    ERROR = 1
    USAGE = 2
    SCHEMA_NOT_APPLIED = 3
    SCHEMA_OUTDATED = 4
    SCHEMA_TOO_NEW = 5
    JOB_UNSUCCESSFUL = 6
    NOT_IN_TIME = 7
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "all went well",
    ExitCode.ERROR: "an error, told in one line on stderr",
    ExitCode.USAGE: "the command line or an environment variable is wrong",
    ExitCode.SCHEMA_NOT_APPLIED: "the database lacks the tables: schema --apply",
    ExitCode.SCHEMA_OUTDATED: "the database lacks migrations: schema --migrate",
    ExitCode.SCHEMA_TOO_NEW: "the database needs a newer procrastinate",
    ExitCode.JOB_UNSUCCESSFUL: "the job failed, or was cancelled or aborted: defer --wait",
    ExitCode.NOT_IN_TIME: "the job has not ended in time: defer --wait --timeout",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}

_BY_ERROR: tuple[tuple[type[Exception], ExitCode], ...] = (
    (SchemaNotApplied, ExitCode.SCHEMA_NOT_APPLIED),
    (SchemaOutdated, ExitCode.SCHEMA_OUTDATED),
    (SchemaTooNew, ExitCode.SCHEMA_TOO_NEW),
    (JobUnsuccessful, ExitCode.JOB_UNSUCCESSFUL),
)


def code_for(exc: BaseException) -> ExitCode:
    """Return the exit code for an error that ended a command."""
    for kind, code in _BY_ERROR:
        if isinstance(exc, kind):
            return code
    return ExitCode.ERROR


def table(codes: tuple[ExitCode, ...] = tuple(ExitCode)) -> str:
    """Return exit codes and their meanings as a paragraph that click does not wrap."""
    return "\n".join(["\b", "Exit codes:", *(f"  {code:<4} {MEANINGS[code]}" for code in codes)])
