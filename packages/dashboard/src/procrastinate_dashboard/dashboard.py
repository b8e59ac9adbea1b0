"""The dashboard: from a request to a response, whichever door it came through."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from procrastinate import App, time_limit
from procrastinate.errors import InvalidOption
from procrastinate.model.text.printable import shown
from procrastinate_dashboard import guard, problems, routes, thresholds
from procrastinate_dashboard.messages import Access, Request, Response
from procrastinate_dashboard.redaction import Redact, Redaction
from procrastinate_dashboard.shared import NoAnswer
from procrastinate_dashboard.silence import ANSWER_WITHIN, CHANGE_WITHIN, LONG
from procrastinate_dashboard.site import ASSETS, Site, asset
from procrastinate_dashboard.thresholds import LATE_AFTER, LONG_AFTER

if TYPE_CHECKING:
    from procrastinate_dashboard.wsgi import Environ, StartResponse

#: What says who asks. A `Response`, such as a redirect to a login page, is sent as it is.
Answer: TypeAlias = Access | Response | None
AccessFunction: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]

#: Runs a function in a thread: ``await in_thread(function, *arguments)``.
InThread: TypeAlias = Callable[..., Awaitable[Response]]

_A_YEAR = "public, max-age=31536000, immutable"


class Dashboard:
    """The pages of one app, as an ASGI application; `wsgi` returns the WSGI one.

    ``access`` is asked about each request: it returns an `Access` with the user's name and what
    they may do (``"read"`` or ``"act"``), None to refuse, or a `Response` to send instead, such as
    a redirect to a login page. It may be ``async def`` if the dashboard is served by ASGI. The app
    must be open while the dashboard is served, by ``open`` or ``open_async``.

    ``redact`` hides more secrets in arguments, results and progress than the usual ones: a list of
    words that names of arguments contain, or a function of a job's task name and its arguments that
    returns what to show of them. ``hosts`` are the only hosts that requests may be for, such as
    ``{"localhost", "127.0.0.1"}``: without a login, that keeps out names that lead to this machine.
    ``title`` is the name in the head of each page.

    The overview tells of queues whose oldest ready job waits for longer than ``late_after``
    seconds, of jobs that run for longer than ``long_after`` seconds, and of those that hold a lock
    for longer than ``late_after`` while jobs wait behind locks in their queue.

    Raises `InvalidOption`, also without ``access``: pages show arguments, and change jobs.
    """

    def __init__(
        self,
        app: App,
        *,
        access: AccessFunction | None = None,
        redact: Redact | None = None,
        hosts: Collection[str] | None = None,
        title: str = "procrastinate",
        late_after: float = LATE_AFTER,
        long_after: float = LONG_AFTER,
    ) -> None:
        if not isinstance(app, App):
            raise InvalidOption(f"a dashboard is of an App, not of {shown(app)}")
        self._access = _checked_access(access)
        self._hosts = None if hosts is None else _checked_hosts(hosts)
        if not isinstance(title, str):
            raise InvalidOption(f"title must be a text, not {shown(title)}")
        self.site = Site(app, Redaction(redact), title, thresholds.checked(late_after, long_after))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve ASGI: mount this in Starlette or FastAPI, or give it to uvicorn."""
        from procrastinate_dashboard.asgi import serve  # it alone needs Starlette

        await serve(self, scope, receive, send)

    def wsgi(self) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
        """Return the WSGI application, for Flask's dispatcher, gunicorn and others.

        Raises `InvalidOption` if ``access`` is ``async def``.
        """
        from procrastinate_dashboard.wsgi import application

        if self.access_is_async:
            raise InvalidOption("a dashboard served by WSGI needs a plain function for access=")
        return application(self)

    @property
    def access_is_async(self) -> bool:
        """Whether ``access`` has to be awaited on the event loop."""
        called = getattr(self._access, "__call__", None)  # noqa: B004 - of an object with one
        return any(map(inspect.iscoroutinefunction, (self._access, called)))

    def respond(self, request: Request) -> Response:
        """Return the answer to a request. It waits for the database, and never raises."""
        return self.refusal(request) or self._respond(request)

    def _respond(self, request: Request) -> Response:
        try:
            answer = self._access(request)
        except Exception as exc:
            return _finished(request, problems.access_failed(self.site, request, exc))
        return self.respond_to(request, answer)

    async def respond_async(self, request: Request, in_thread: InThread) -> Response:
        """Return the answer to a request: ``in_thread`` runs what waits for the database.

        That may raise ``NoAnswer``, if it takes too long.
        """
        try:
            return await self._respond_async(request, in_thread)
        except NoAnswer as exc:
            return self.no_answer(request, exc)

    async def _respond_async(self, request: Request, in_thread: InThread) -> Response:
        early = self.refusal(request)  # here: all threads may wait for the database
        if early is not None:
            return early
        if not self.access_is_async:
            return await in_thread(self._respond, request)
        try:
            answer = await cast("Awaitable[Answer]", self._access(request))
        except Exception as exc:
            return _finished(request, problems.access_failed(self.site, request, exc))
        return await in_thread(self.respond_to, request, answer)

    def refusal(self, request: Request) -> Response | None:
        """Return the answer to what needs no database and no access: a wrong host, or a file.

        So is any page while the database is silent, but for one that tries whether it still is.
        """
        if not guard.is_for(self._hosts, request):
            return _finished(request, problems.wrong_host(self.site, request))
        name = request.path.removeprefix("/static/")
        if request.path.startswith("/static/") and name in ASSETS:
            return _finished(request, _file(self.site, request, name))
        if self.site.silence.refuses():
            return _finished(request, problems.still_silent(self.site, request))
        return None

    def respond_to(self, request: Request, answer: Any) -> Response:
        """Return the answer to a request of which ``access`` has said this. It never raises."""
        if isinstance(answer, Response):
            self.site.silence.asked_nothing()
            return _finished(request, answer)
        if not isinstance(answer, Access):
            self.site.silence.asked_nothing()
            return _finished(request, problems.no_access(self.site, request))
        token = request.token or guard.token_of(request)
        request = replace(request, access=answer, token=token)
        begun = time.monotonic()
        try:
            with time_limit(CHANGE_WITHIN if request.method == "POST" else ANSWER_WITHIN):
                return _finished(request, routes.answer(self.site, request))
        except Exception as exc:
            self.site.silence.failed(exc, time.monotonic() - begun)
            return _finished(request, problems.explain(self.site, request, exc))
        finally:
            self.site.silence.tried()

    def no_answer(self, request: Request, exc: Exception | None = None) -> Response:
        """Return the answer to a request that the database kept waiting for too long.

        It is remembered: pages say so at once for a moment. A door that runs `respond_to` under a
        time limit of its own, or asks the database for the user, calls this.
        """
        exc = exc or NoAnswer()
        self.site.silence.failed(exc, LONG)
        self.site.silence.tried()
        return _finished(request, problems.explain(self.site, request, exc))


def _file(site: Site, request: Request, name: str) -> Response:
    try:
        problems.check_method(request, "GET", "HEAD")
    except (problems.Refused, problems.Allowed) as exc:
        return problems.explain(site, request, exc)
    return Response(asset(name), 200, {"cache-control": _A_YEAR}, ASSETS[name])


def _finished(request: Request, response: Response) -> Response:
    """Return a response with what all have: the policy, a cookie for forms, an ETag."""
    headers = {**guard.HEADERS, "cache-control": "private, no-cache", **response.headers}
    if request.token is not None and not request.token_is_checked:
        cookie = guard.cookie_for(request, request.token)
        headers |= {} if cookie is None else {"set-cookie": cookie}
    if response.status != 200 or request.method not in ("GET", "HEAD"):
        return replace(response, headers=headers)
    etag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    headers["etag"] = etag
    if etag in request.headers.get("if-none-match", ""):
        return Response(b"", 304, headers)
    return replace(response, headers=headers)


def _checked_access(access: Any) -> AccessFunction:
    if access is None:
        raise InvalidOption(
            "a dashboard shows the arguments of jobs and changes them: say who may see it with"
            " access=, a function of the request that returns Access(user, may='read' or 'act'),"
            " or None to refuse"
        )
    if not callable(access):
        raise InvalidOption(f"access must be a function of the request, not {shown(access)}")
    return access  # type: ignore[no-any-return]


def _checked_hosts(hosts: Any) -> frozenset[str]:
    if isinstance(hosts, str) or not isinstance(hosts, Collection):
        raise InvalidOption(f"hosts must be a list of names of hosts, not {shown(hosts)}")
    for each in hosts:
        if not isinstance(each, str) or not each:
            raise InvalidOption(f"hosts must be names of hosts, and has {shown(each)}")
    return frozenset(each.lower() for each in hosts)
