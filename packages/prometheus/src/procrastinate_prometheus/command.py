"""``procrastinate exporter``: serves what the database knows, for Prometheus."""

from __future__ import annotations

import click

from procrastinate.cli.options import option
from procrastinate.cli.settings import Settings, settings_of

PORT = 9812
#: Seconds that a scrape may take; the counts have less.
PATIENCE = 30.0


@click.command("exporter")
@option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=PORT,
    show_default=True,
    help="The port to listen on; 0: any that is free.",
)
@option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=PATIENCE - 10),
    default=3.0,
    show_default=True,
    help="Seconds that counting may take in one scrape.",
)
@option("--grafana", is_flag=True, help="Print a dashboard for Grafana, as JSON, and exit.")
@click.pass_context
def exporter(ctx: click.Context, /, host: str, port: int, timeout: float, grafana: bool) -> None:
    """Serve the state of the queues to Prometheus.

    GET /metrics asks the database: how many jobs are in which state, how long the oldest has been
    ready, how many workers are alive. Run one for each database. What workers count themselves is
    on their own port: worker --http-port.

    While the database is away, procrastinate_up is 0. SIGINT (Ctrl-C) or SIGTERM ends it.
    """
    if grafana:
        click.echo(dashboard(), nl=False)
        return
    _serve(settings_of(ctx), host, port, timeout)


def dashboard() -> str:
    """Return the dashboard for Grafana, as JSON."""
    from importlib import resources

    file = resources.files("procrastinate_prometheus").joinpath("grafana.json")
    return file.read_text("utf-8")


def _serve(settings: Settings, host: str, port: int, timeout: float) -> None:
    # Not at the top, because the list of commands imports this module.
    import asyncio
    import threading
    from http import HTTPStatus

    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    from procrastinate.observing.safe_log import SafeLog
    from procrastinate.worker.process.http_port import Answer, HttpPort, Route, text
    from procrastinate_entry.stopping import STOP
    from procrastinate_prometheus.database import DatabaseCollector, logger

    settings.default_level = "info"
    settings.configure_logging()
    with STOP.starting():
        app = settings.load_app()
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(app, timeout=timeout))

    async def metrics(accept: str) -> Answer:
        encode, content_type = choose_encoder(accept)
        body = await asyncio.to_thread(encode, registry)
        return Answer(HTTPStatus.OK, body, content_type)

    over = threading.Event()
    routes: dict[str, Route] = {
        "/metrics": metrics,
        "/healthz": lambda accept: text(HTTPStatus.OK, "ok"),
    }
    server = HttpPort(host, port, routes, patience=PATIENCE, log=SafeLog(logger))
    try:
        with STOP.told(lambda number: over.set()):
            server.start()
            over.wait()
    finally:
        server.close()
        app.close()
