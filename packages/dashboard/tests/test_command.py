"""``procrastinate dashboard``: where it listens, and whom it lets in."""

from __future__ import annotations

import base64
import os
import signal
import socket
import threading
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner

import procrastinate
from procrastinate.cli.root import root
from procrastinate.testing import InMemoryConnector
from procrastinate_dashboard import Dashboard, Request, serving
from procrastinate_dashboard.serving import PASSWORD, Settings, dashboard_for, password_for

from .helpers import Browser

app = procrastinate.App(connector=InMemoryConnector())
APP = f"--app={__name__}.app"


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(PASSWORD, raising=False)


@pytest.mark.parametrize(
    "host, is_loopback",
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.org", False),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(host: str, is_loopback: bool):
    assert Settings(host).is_loopback is is_loopback


def test_this_machine_needs_no_password():
    assert password_for(Settings()) is None


@pytest.mark.parametrize("settings", [Settings("0.0.0.0"), Settings(user="ops"), Settings("::")])
def test_others_need_a_password(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(click.UsageError, match=f"set {PASSWORD}"):
        password_for(settings)
    monkeypatch.setenv(PASSWORD, "")
    with pytest.raises(click.UsageError, match=f"set {PASSWORD}"):
        password_for(settings)
    monkeypatch.setenv(PASSWORD, "s3cret")
    assert password_for(settings) == "s3cret"


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "authorization, status",
    [
        (basic("ops:pässword:x"), 200),
        (basic("ops:pässword:x").replace("Basic", "basic"), 200),
        (basic("ops:pässword"), 401),
        (basic("root:pässword:x"), 401),
        (basic(""), 401),
        ("Basic ???", 401),
        ("Basic ä", 401),
        ("Bearer x", 401),
        ("", 401),
    ],
)
def test_a_password_is_asked_for(authorization: str, status: int, caplog: pytest.LogCaptureFixture):
    browser = Browser(dashboard_for(app, Settings("0.0.0.0", user="ops"), "pässword:x"))
    response = browser.get("/", authorization=authorization)
    assert response.status == status
    assert ("www-authenticate" in response.headers) is (status == 401)
    assert ("a login from ? as " in caplog.text) is (status == 401)


def test_without_a_password_only_hosts_of_this_machine_are_served():
    browser = Browser(dashboard_for(app, Settings(allowed_hosts=("queue.corp",)), None))
    hosts = ("localhost:8010", "127.0.0.1", "queue.corp", "evil.org")
    assert [browser.get("/", host=host).status for host in hosts] == [200, 200, 200, 421]


@pytest.mark.parametrize("read_only, status", [(True, 403), (False, 200)])
def test_it_can_be_for_reading_only(read_only: bool, status: int):
    browser = Browser(dashboard_for(app, Settings(read_only=read_only), None))
    assert browser.get("/queues/pause?queue=q", host="localhost").status == status


@pytest.mark.parametrize(
    "proxies, seen",
    [((), "127.0.0.1"), (("127.0.0.0/8",), "192.0.2.7"), (("10.0.0.1",), "127.0.0.1")],
)
async def test_a_users_address_is_that_of_a_known_proxy(proxies: tuple[str, ...], seen: str):
    asked: list[str | None] = []

    def access(request: Request) -> None:
        asked.append(request.remote)

    config = serving.server_of(Dashboard(app, access=access), proxies).config
    config.load()
    transport = httpx.ASGITransport(config.loaded_app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        forged = {"x-forwarded-for": "198.51.100.1, 192.0.2.7"}
        assert (await client.get("/", headers=forged)).status_code == 403
    assert asked == [seen]


def run(*arguments: str, **env: str) -> Any:
    return CliRunner().invoke(root, [APP, "dashboard", *arguments], env=env)


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(f"--port={port}")
    assert done.exit_code == 1
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 is taken: choose another with --port\n"
    )


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["--host=0.0.0.0"], 2, f"address 0.0.0.0 needs a password: set {PASSWORD}"),
        (["--host=no-such-host.invalid", "--user=x"], 2, "user x needs a password"),
        (["--port=65536"], 2, "--port"),
        (["--port=x"], 2, "--port"),
        (["--late-after=0"], 2, "--late-after"),
        (["--proxy=nginx"], 2, "--proxy 'nginx' is no address"),
        (["--host=203.0.113.7"], 2, "needs a password"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments: list[str], code: int, said: str):
    done = run(*arguments)
    assert done.exit_code == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_address_that_is_not_ours_is_told():
    done = run("--host=203.0.113.7", "--port=0", **{PASSWORD: "x"})
    assert done.exit_code == 1
    assert done.stderr.startswith("error: cannot listen on 203.0.113.7, port 0: ")


def test_it_serves_until_it_is_told_to_stop(monkeypatch: pytest.MonkeyPatch):
    served: list[int] = []

    def ask(server: Any, bound: socket.socket, said: str) -> None:
        """Ask for a page from a thread, then end the server as Ctrl-C does."""
        port = bound.getsockname()[1]

        def look() -> None:
            try:
                served.append(httpx.get(f"http://127.0.0.1:{port}/jobs", timeout=60).status_code)
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=look)
        thread.start()
        run_server(server, bound, said)
        thread.join()

    run_server = serving.run
    monkeypatch.setattr(serving, "run", ask)
    done = run("--port=0")
    assert (done.exit_code, served) == (0, [200])
    assert done.stdout.startswith("The dashboard is at http://127.0.0.1:")


def test_it_is_served_beside_other_work():
    with serving.served(app) as address:
        assert httpx.get(f"{address}jobs", timeout=60).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, timeout=60)
