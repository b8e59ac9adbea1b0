"""The doors: the same pages come through each of them, at any prefix."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from threading import Event
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

import procrastinate
from procrastinate.errors import InvalidOption
from procrastinate_dashboard import Access, Dashboard, Request, Response, asgi

PAGES = ["/", "/jobs?state=failed", "/jobs/2", "/queues", "/workers", "/nowhere", "/jobs?since=x"]

Ask = Callable[..., tuple[int, str, dict[str, str]]]


@pytest.mark.parametrize("access_is_async", [False, True])
@pytest.mark.parametrize("method, said", [("GET", "comes back"), ("POST", "may still be done")])
def test_asgi_answers_while_the_database_does_not(
    app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    access_is_async: bool,
    method: str,
    said: str,
):
    goes_on = Event()
    monkeypatch.setattr(asgi, "PATIENCE", 0.01)
    monkeypatch.setattr(asgi, "PATIENCE_OF_CHANGES", 0.01)
    monkeypatch.setattr(Dashboard, "respond_to", lambda *given: goes_on.wait())

    async def access(request: Request) -> Access:
        return Access("ada")

    granted = access if access_is_async else lambda request: Access("ada")
    served = _letting_go(Dashboard(app, access=granted), goes_on)
    status, html, headers = OverASGI(served)(method, "/jobs", {} if method == "POST" else None)
    assert (status, headers["retry-after"]) == (503, "2")
    assert "The database does not answer" in html
    assert said in html


def _letting_go(dashboard: Dashboard, event: Event) -> Any:
    """Let threads that hang go on after the answer: the loop waits for them at its end."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await dashboard(scope, receive, send)
        event.set()

    return served


class OverASGI:
    """Asks an ASGI application, and keeps its cookies."""

    def __init__(self, served: Any, root_path: str = "", **cookies: str) -> None:
        self.transport = httpx.ASGITransport(served, root_path=root_path)
        self.cookies = httpx.Cookies(cookies)

    def __call__(
        self, method: str, path: str, data: dict[str, str] | None = None
    ) -> tuple[int, str, dict[str, str]]:
        answer = asyncio.run(self._ask(method, path, data))
        return answer.status_code, answer.text, dict(answer.headers)

    async def _ask(self, method: str, path: str, data: dict[str, str] | None) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=self.transport, base_url="http://testserver", cookies=self.cookies
        ) as client:
            answer = await client.request(method, path, data=data)
            self.cookies.update(client.cookies)
            return answer


def over_wsgi(served: Any) -> Ask:
    client = Client(served)

    def ask(method: str, path: str, data: dict[str, str] | None = None) -> Any:
        answer = client.open(path, method=method, data=data, base_url="http://testserver")
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status_code, answer.text, headers

    return ask


def in_fastapi(dashboard: Dashboard) -> Ask:
    web = FastAPI()
    web.mount("/deep/queue", dashboard)
    return OverASGI(web)


def in_starlette(dashboard: Dashboard) -> Ask:
    return OverASGI(Starlette(routes=[Mount("/deep/queue", dashboard)]))


def in_flask(dashboard: Dashboard) -> Ask:
    web = Flask(__name__)
    web.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        web.wsgi_app, {"/deep/queue": dashboard.wsgi()}
    )
    return over_wsgi(web.wsgi_app)


DOORS: dict[str, tuple[Callable[[Dashboard], Ask], str]] = {
    "asgi": (OverASGI, ""),
    "wsgi": (lambda dashboard: over_wsgi(dashboard.wsgi()), ""),
    "fastapi": (in_fastapi, "/deep/queue"),
    "starlette": (in_starlette, "/deep/queue"),
    "flask": (in_flask, "/deep/queue"),
}
doors = pytest.mark.parametrize("door", DOORS)


class Recording(Dashboard):
    """Remembers what it was asked for last, and what it answered."""

    last: tuple[Request, Response]

    def respond_to(self, request: Request, answer: Any) -> Response:
        response = super().respond_to(request, answer)
        self.last = request, response
        return response


@pytest.fixture
def dashboard(full: procrastinate.App) -> Recording:
    return Recording(full, access=lambda request: Access("ada", "act"))


@doors
@pytest.mark.parametrize("page", PAGES)
def test_every_door_hands_on_what_was_asked_and_answered(
    dashboard: Recording, door: str, page: str
):
    make, prefix = DOORS[door]
    status, text, headers = make(dashboard)("GET", prefix + page)
    request, response = dashboard.last
    path, _, query = page.partition("?")
    name, _, value = query.partition("=")
    assert (request.path, request.mount) == (path, prefix)
    assert request.query == ({name: value} if query else {})
    assert (request.method, request.scheme) == ("GET", "http")
    assert request.headers["host"] == "testserver"
    assert (status, text) == (response.status, response.body.decode())
    assert headers["content-type"] == response.content_type
    assert {name: headers[name] for name in response.headers} == response.headers


@doors
def test_every_door_acts(full: procrastinate.App, dashboard: Dashboard, door: str):
    make, prefix = DOORS[door]
    ask = make(dashboard)
    _, text, _ = ask("GET", f"{prefix}/jobs/2/retry")
    token = re.findall('name="token" value="([^"]*)"', text)[0]
    status, _, headers = ask("POST", f"{prefix}/jobs/2/retry", {"token": token})
    assert (status, headers["location"]) == (303, "../../jobs/2?done=retry")
    assert full.job_manager.get_job(2).status == "todo"


@doors
def test_every_door_refuses_what_is_too_much(dashboard: Dashboard, door: str):
    make, prefix = DOORS[door]
    ask = make(dashboard)
    assert ask("POST", f"{prefix}/jobs/2/retry", {"token": "x" * 100_000})[0] == 400
    many = "&".join(f"a{number}=1" for number in range(500))
    assert ask("GET", f"{prefix}/jobs?{many}")[0] == 400


@doors
def test_every_door_answers_head_and_knows_its_pages(dashboard: Dashboard, door: str):
    make, prefix = DOORS[door]
    ask = make(dashboard)
    status, text, headers = ask("HEAD", f"{prefix}/schedules")
    assert (status, text) == (200, "")
    assert headers["content-length"] == ask("GET", f"{prefix}/schedules")[2]["content-length"]
    assert ask("GET", f"{prefix}/static/dashboard.css")[2]["content-type"].startswith("text/css")
    assert headers["etag"]


@doors
def test_every_door_says_what_is_allowed(dashboard: Dashboard, door: str):
    make, prefix = DOORS[door]
    ask = make(dashboard)
    status, text, headers = ask("OPTIONS", f"{prefix}/queues/pause")
    assert (status, text, headers["allow"]) == (204, "", "GET, HEAD, POST, OPTIONS")
    assert "content-length" not in headers
    status, _, headers = ask("POST", f"{prefix}/jobs", {})
    assert (status, headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_the_mount_without_a_slash_leads_on(dashboard: Dashboard):
    status, _, headers = in_flask(dashboard)("GET", "/deep/queue")
    assert (status, headers["location"]) == (303, "./queue/")
    status, _, headers = in_starlette(dashboard)("GET", "/deep/queue")
    assert (status, headers["location"]) == (307, "http://testserver/deep/queue/")


def test_a_server_may_leave_the_root_path_out_of_the_path(full: procrastinate.App):
    dashboard = Dashboard(full, access=lambda request: Access("ada"))
    ask = OverASGI(dashboard, root_path="/queue")
    assert ask("GET", "/jobs")[0] == 200
    assert ask("GET", "/queue/jobs")[0] == 200


def test_access_sees_the_frameworks_request(full: procrastinate.App):
    seen: list[Any] = []

    def access(request: Request) -> Access:
        seen.append(request.native)
        return Access(request.cookies["user"])

    dashboard = Dashboard(full, access=access)
    assert "ada" in OverASGI(dashboard, user="ada")("GET", "/")[1]
    Client(dashboard.wsgi()).get("/", headers={"Cookie": "user=ada"})
    assert isinstance(seen[0], StarletteRequest)
    assert seen[1]["wsgi.version"] == (1, 0)


def test_access_may_be_a_coroutine_over_asgi_alone(full: procrastinate.App):
    async def access(request: Request) -> Access | None:
        return Access("ada") if "user" in request.cookies else None

    dashboard = Dashboard(full, access=access)
    assert OverASGI(dashboard)("GET", "/")[0] == 403
    assert OverASGI(dashboard, user="1")("GET", "/")[0] == 200
    with pytest.raises(InvalidOption, match="plain function"):
        dashboard.wsgi()


def test_a_coroutine_that_fails_lets_nobody_in(full: procrastinate.App):
    async def access(request: Request) -> Access:
        raise LookupError("session")

    assert OverASGI(Dashboard(full, access=access))("GET", "/")[0] == 500


async def test_files_wait_for_no_thread(full: procrastinate.App):
    async def no_thread(function: Any, *arguments: Any) -> Response:
        raise AssertionError("all threads wait for the database")

    dashboard = Dashboard(full, access=lambda request: None)
    request = Request("GET", "/static/dashboard.css")
    assert (await dashboard.respond_async(request, no_thread)).status == 200


async def test_it_starts_and_stops_as_an_application(full: procrastinate.App):
    said: list[str] = []
    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(events)}

    async def send(message: dict[str, str]) -> None:
        said.append(message["type"])

    dashboard = Dashboard(full, access=lambda request: Access("ada"))
    await dashboard({"type": "lifespan"}, receive, send)
    await dashboard({"type": "websocket"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
