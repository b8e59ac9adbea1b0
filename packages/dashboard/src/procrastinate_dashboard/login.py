"""One user and one password, for the dashboard that the command serves: HTTP's basic scheme.

It needs no page, no session and no script, and browsers ask for the password by themselves. A
browser sends it along also with what another site makes it send: see rule 2 of `guard`.
"""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
from collections.abc import Callable
from typing import Literal

from procrastinate_dashboard.messages import Access, Request, Response

logger = logging.getLogger("procrastinate.dashboard")

_ASK = {"www-authenticate": 'Basic realm="procrastinate", charset="UTF-8"'}


def by_password(
    user: str, password: str, may: Literal["read", "act"]
) -> Callable[[Request], Access | Response]:
    """Return an ``access`` function that lets in one user with a password."""
    expected = f"{user}:{password}".encode()

    def access(request: Request) -> Access | Response:
        if secrets.compare_digest(_credentials(request), expected):
            return Access(user, may)
        if "authorization" in request.headers:
            logger.warning("a login from %s was refused", request.remote or "?")
        text = b"Log in to see the dashboard.\n"
        return Response(text, 401, _ASK, "text/plain; charset=utf-8")

    return access


def _credentials(request: Request) -> bytes:
    """Return ``user:password`` as it was sent, or nothing."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
