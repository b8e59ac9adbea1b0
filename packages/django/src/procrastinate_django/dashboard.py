"""The dashboard as views: ``path("queue/", include("procrastinate_django.dashboard"))``.

Django's session says who asks. Members of the staff who may view jobs see it; those who may change
jobs act. Django's token protects the forms. The place in ``urlpatterns`` has to end in a slash.

Django's connections are asked under the dashboard's time limits, also for the session and the user.
A transaction for each request (``ATOMIC_REQUESTS``) is left out: it would have none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import NoReverseMatch, re_path, reverse
from django.views.decorators.csrf import csrf_protect

from procrastinate_django.conf import read_conf
from procrastinate_django.hurry import CONNECT_WITHIN, connecting_within, severing_after
from procrastinate_django.project import project_app

try:
    from procrastinate_dashboard import Access, Dashboard, Request, Response
    from procrastinate_dashboard.messages import Token
    from procrastinate_dashboard.silence import ANSWER_WITHIN
except ImportError as exc:
    raise ImproperlyConfigured(
        "the views of the dashboard need its package: run `pip install procrastinate-dashboard`"
    ) from exc

FIELD = "csrfmiddlewaretoken"
VIEW, CHANGE = "procrastinate_django.view_job", "procrastinate_django.change_job"


@functools.cache
def dashboard() -> Dashboard:
    """Return the dashboard of the project's app; the views below say who may see it."""
    redact = read_conf().redact
    return Dashboard(project_app(), access=lambda request: None, redact=redact)


def _outside_of_transactions(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    for alias in connections:
        view = transaction.non_atomic_requests(alias)(view)
    return view


@_outside_of_transactions
@csrf_protect
def serve(request: HttpRequest, rest: str) -> HttpResponse:
    """Answer a request for a page, or for a file of one."""
    asked = _asked(request, rest)
    found = dashboard().refusal(asked) or _page(request, asked)
    response = HttpResponse(found.body, status=found.status, content_type=found.content_type)
    for name, value in found.headers.items():
        response[name.title()] = value
    return response


def _page(request: HttpRequest, asked: Request) -> Response:
    """Answer with a page, whose forms have a token. Caches may keep files, so these have none."""
    with connecting_within(CONNECT_WITHIN):
        try:
            with severing_after(ANSWER_WITHIN):
                token, answer = Token(FIELD, get_token(request)), _answer(request)
        except (OperationalError, InterfaceError):
            return dashboard().no_answer(asked)
        return dashboard().respond_to(replace(asked, token=token), answer)


def _asked(request: HttpRequest, rest: str) -> Request:
    path = f"/{rest}"
    return Request(
        method=request.method,
        path=path,
        mount=request.path.removesuffix(path),
        query=request.GET.dict(),
        form=request.POST.dict(),
        headers={name.lower(): value for name, value in request.headers.items()},
        scheme=request.scheme,
        remote=request.META.get("REMOTE_ADDR"),
        native=request,
        token_is_checked=True,
    )


def _answer(request: HttpRequest) -> Access | Response | None:
    user: Any = request.user
    if not user.is_authenticated:
        where = redirect_to_login(request.get_full_path(), _login_url()).url
        return Response(status=302, headers={"location": where})
    if not (user.is_active and user.is_staff and user.has_perm(VIEW)):
        return None
    return Access(user.get_username(), may="act" if user.has_perm(CHANGE) else "read")


def _login_url() -> str | None:
    """Return the login of the admin, None for that of the settings if there is no admin."""
    try:
        return str(reverse("admin:login"))
    except NoReverseMatch:
        return None


app_name = "procrastinate_dashboard"
urlpatterns = [re_path(r"^(?P<rest>.*)$", serve, name="serve")]
