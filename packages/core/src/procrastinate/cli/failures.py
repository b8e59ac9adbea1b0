"""How a command ends that cannot go on: one line on stderr, and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import click

from procrastinate.cli.exit_codes import ExitCode, code_for
from procrastinate.errors import ProcrastinateException
from procrastinate.model.text.failure import headline


def report(exc: BaseException, *, verbose: bool) -> ExitCode:
    """Tell of the error that ended a command, and return the exit code."""
    if isinstance(exc, BrokenPipeError) or getattr(exc, "errno", None) == errno.EPIPE:
        silence_stdout()
        return ExitCode.ERROR
    if isinstance(exc, click.exceptions.Abort | KeyboardInterrupt):
        _print_error("interrupted")
        return ExitCode.INTERRUPTED
    if isinstance(exc, click.UsageError):
        _print_error(exc.format_message() + _formerly(exc) + _where_to_look(exc.ctx))
        return ExitCode.USAGE
    if verbose:
        traceback.print_exception(exc)
    if isinstance(exc, click.ClickException):
        _print_error(exc.format_message())
        return ExitCode.ERROR
    if isinstance(exc, ProcrastinateException):
        _print_error(str(exc))
        return code_for(exc)
    hint = "" if verbose else " (-v shows where)"
    _print_error(f"unexpected {headline(type(exc).__name__, exc)}{hint}")
    return ExitCode.ERROR


def silence_stdout() -> None:
    """Send what is still to be written to nowhere, its reader being gone.

    Else the interpreter would complain of it when it ends.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no file behind it, as in a test
        return


def one_line(text: str) -> str:
    """Return a text, such as a server's message of several lines, as one line."""
    return " ".join(text.split())


def _formerly(exc: click.UsageError) -> str:
    """Say what to write instead of an option that releases up to 3.x had."""
    from procrastinate.former import RELEASE, names

    text = names.OPTIONS.get(exc.option_name) if isinstance(exc, click.NoSuchOption) else None
    return "" if text is None else f" {RELEASE} had it: {text}."


def _where_to_look(ctx: click.Context | None) -> str:
    if ctx is None:
        return ""
    return f" (see `{ctx.command_path} --help`)" if ctx.command_path else " (see `help`)"


def _print_error(message: str) -> None:
    click.echo(f"error: {one_line(message)}", err=True)
