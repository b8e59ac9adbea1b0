"""The options of ``procrastinate`` itself, and what commands get from them: the app and the log.

They may stand before the command or after it; both write into the same `Settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from procrastinate.cli import logs
from procrastinate.cli.options import Option
from procrastinate.errors import LoadFromPathError

if TYPE_CHECKING:
    from procrastinate.app.app import App


@dataclass
class Settings:
    """What was said before (or after) the command."""

    app: str | None = None
    verbose: int = 0
    log_level: str | None = None
    log_format: str = "text"
    #: The level where none was asked for: a worker tells what it does, other commands only trouble.
    default_level: str = "warning"
    #: The arguments as they were given.
    args: list[str] = field(default_factory=list)
    #: Whether this is the program and not a test: applications may look at `sys.argv`.
    shows_argv: bool = False
    #: What to tell the user before the command begins.
    warnings: list[str] = field(default_factory=list)
    #: The app that the interactive shell has opened, for all of its commands.
    opened: App | None = None

    def configure_logging(self) -> None:
        level = self.log_level or self.default_level
        logs.configure(level, self.log_format, self.verbose)

    def load_app(self) -> App:
        """Return the app given by ``--app``. Raises `LoadFromPathError` and `click.UsageError`."""
        from procrastinate.app.app import App

        if not self.app:
            raise click.UsageError(
                "no app was given: name its dotted path with --app or PROCRASTINATE_APP,"
                " for instance --app=package.module.app"
            )
        try:
            return App.from_path(self.app)
        except SystemExit as exc:
            raise LoadFromPathError(
                f"the module of {self.app!r} called sys.exit({exc.code!r}) while it was imported:"
                " keep that below `if __name__ == '__main__':`"
            ) from exc

    @contextmanager
    def open_app(self) -> Iterator[App]:
        """Give the app, open: for the length of the block, or as the shell has opened it."""
        if self.opened is not None:
            yield self.opened
            return
        app = self.load_app()
        with app.open():
            yield app


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings of this invocation."""
    return ctx.ensure_object(Settings)


def before_command() -> list[click.Parameter]:
    """Return the global options for ``procrastinate`` itself."""
    return _options(_remember)


def after_command() -> list[click.Parameter]:
    """Return the same for a command: not in its help, and without variables of their own."""
    return _options(_remember_and_apply, hidden=True, allow_from_autoenv=False)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    settings = settings_of(ctx)
    if value is None or param.name is None:
        return
    if param.name == "verbose":
        settings.verbose += value
    else:
        setattr(settings, param.name, value)


def _remember_and_apply(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        _remember(ctx, param, value)
        settings_of(ctx).configure_logging()


def _options(
    callback: Callable[[click.Context, click.Parameter, Any], None], **attrs: Any
) -> list[click.Parameter]:
    attrs |= {"callback": callback, "expose_value": False, "show_envvar": True}
    return [
        Option(
            ["-a", "--app"],
            metavar="DOTTED.PATH",
            help="Where the App is, such as package.module.app; the current folder is importable.",
            **attrs,
        ),
        Option(
            ["-v", "--verbose"],
            count=True,
            help="Show tracebacks and debug messages; -vv those of other libraries too.",
            **attrs,
        ),
        Option(
            ["--log-level"],
            type=click.Choice(logs.LEVELS, case_sensitive=False),
            help="What to log. By default info for a worker, else warning.",
            **attrs,
        ),
        Option(
            ["--log-format"],
            type=click.Choice(logs.FORMATS, case_sensitive=False),
            help="How to log, on stderr: text, or one JSON object a line. Default: text.",
            **attrs,
        ),
    ]
