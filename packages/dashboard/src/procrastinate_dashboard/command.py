"""``procrastinate dashboard``: serve the dashboard of an app."""

from __future__ import annotations

import click

from procrastinate.cli.options import option
from procrastinate.cli.settings import settings_of
from procrastinate_dashboard.thresholds import LATE_AFTER, LONG_AFTER


@click.command("dashboard", short_help="Serve the dashboard: see jobs in a browser, and act.")
@option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8010,
    show_default=True,
    help="The port; 0 takes a free one.",
)
@option("--user", metavar="NAME", help="The name to log in with; asks for a password.")
@option("--read-only", is_flag=True, help="Show everything, and change nothing.")
@option(
    "--allow-host",
    metavar="NAME",
    multiple=True,
    help="A name under which a proxy on this machine serves it; may be given several times.",
)
@option(
    "--late-after",
    type=click.FloatRange(0, min_open=True),
    default=LATE_AFTER,
    show_default=True,
    metavar="SECONDS",
    help="Tell of a queue whose oldest ready job waits for longer than this.",
)
@option(
    "--long-after",
    type=click.FloatRange(0, min_open=True),
    default=LONG_AFTER,
    show_default=True,
    metavar="SECONDS",
    help="Tell of a job that runs for longer than this.",
)
@option(
    "--proxy",
    "proxies",
    metavar="ADDRESS",
    multiple=True,
    help="The address, or network, of a proxy whose X-Forwarded-For and X-Forwarded-Proto are"
    " believed; may be given several times.",
)
@click.pass_context
def dashboard(
    ctx: click.Context,
    /,
    host: str,
    port: int,
    user: str | None,
    read_only: bool,
    allow_host: tuple[str, ...],
    late_after: float,
    long_after: float,
    proxies: tuple[str, ...],
) -> None:
    """Serve the dashboard: see jobs, queues and workers in a browser, and act on them.

    The password is that of PROCRASTINATE_DASHBOARD_PASSWORD, or is asked for if --user is given.
    Without a password only this machine can see the dashboard; another --host is refused then.
    Use a proxy with TLS in front of it for others, since the password is sent with each request.
    An address that has sent five wrong passwords has to wait for the rest of the minute; name the
    proxy by --proxy, so that the address is the user's.
    """
    from procrastinate_dashboard.serving import Settings, serve

    settings = Settings(host, port, user, read_only, allow_host, proxies, late_after, long_after)
    with settings_of(ctx).open_app() as app:
        serve(app, settings)
