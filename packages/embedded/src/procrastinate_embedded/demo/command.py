"""The command ``procrastinate demo``.

What it needs is imported when it is called, because the list of commands imports this module.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from procrastinate.cli.options import option

if TYPE_CHECKING:
    from rich.console import Console

_LIBRARY = sysconfig.get_paths()["stdlib"]
_NOT_OF_THE_LIBRARY = (b"site-packages", b"dist-packages")

_EPILOG = """\b
Exit codes:
  0    every file was read, or its job failed with an error that is shown
  1    an error; or a file was lost, or a finished job ran again
  2    the command line is wrong
  130  interrupted (Ctrl-C); nothing is left running"""


@click.command("demo", epilog=_EPILOG, short_help="Watch real jobs go by.")
@option(
    "--path",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=bytes),
    help=f"The folder of the files to read. Default: Python's standard library, {_LIBRARY}.",
)
@option(
    "--dsn",
    envvar="PROCRASTINATE_DEMO_DSN",
    metavar="DSN",
    help="The PostgreSQL server to use, as libpq's URL or keywords. The demo works in a schema of"
    " its own there and drops it at the end. Default: a server is started for the demo.",
)
@option(
    "--crash",
    is_flag=True,
    help="Kill the worker with SIGKILL half-way, start another, and prove that nothing was lost.",
)
@option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="How many files the worker reads at the same time.",
)
@option("--limit", type=click.IntRange(1), metavar="N", help="Read the first N files only.")
@option(
    "--dashboard",
    is_flag=True,
    help="Serve the dashboard meanwhile, and afterwards with more jobs, until Ctrl-C.",
)
@option("--keep", is_flag=True, help="Leave the tables, to be looked at afterwards.")
@click.pass_context
def command(ctx: click.Context, /, path: bytes | None, **options: Any) -> None:
    """Watch real jobs go through a real PostgreSQL: one for every file below a folder.

    A worker process reads each file and stores its size, lines and digest. A file that cannot be
    read is tried three times; then its job has failed, and is shown with its error.
    """
    from procrastinate_embedded.demo import story

    # A server that does not answer at all would else be waited for for minutes.
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    chosen = story.Options(
        folder=os.path.abspath(path or os.fsencode(_LIBRARY)),
        without=() if path else _NOT_OF_THE_LIBRARY,
        **options,
    )
    with _cleaning_up_on_signals():
        good = story.tell(chosen, _console())
    ctx.exit(0 if good else 1)


def _console() -> Console:
    from rich.console import Console

    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a file's name may not fit into its encoding
    return Console(highlight=False)


@contextmanager
def _cleaning_up_on_signals() -> Iterator[None]:
    """Let the first signal that ends the demo be a KeyboardInterrupt, and ignore those after it.

    What cleans up takes a few seconds at the most, and would else be interrupted itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # One that is ignored, as by nohup, stays so.
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
