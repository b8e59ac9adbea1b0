"""Who is let in, and which POST is believed.

Rules

1. Nobody is let in unless ``access`` says who it is.
2. A POST must come from one of our own pages: the browser says so (``Sec-Fetch-Site``, else
   ``Origin``), and the form repeats the token that a cookie holds. A page of another site can read
   neither the cookie nor the form.
3. With ``hosts``, a request for any other host is refused. A name that an attacker has pointed at
   127.0.0.1 (DNS rebinding) is such a host.
4. No header of a proxy is believed here, except ``X-Forwarded-Host`` in rule 2: a page of another
   site cannot set it. A server may believe more, if it is told which proxy to believe (`serving`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from procrastinate_dashboard.messages import Request, Token

COOKIE = "procrastinate_token"
FIELD = "token"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_BYTES = 24
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,64}")

#: Styles, scripts and forms of our own, and nothing else from anywhere.
POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")),
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer, browsers would send "Origin: null" with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def is_for(hosts: Collection[str] | None, request: Request) -> bool:
    """Whether the request is for one of these hosts (None: any), whatever the port (rule 3)."""
    return hosts is None or _name_of(request.headers.get("host", "")) in hosts


def _name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # brackets that do not fit
        return None


def is_from_us(request: Request) -> bool:
    """Whether the browser says that one of our pages sent this (rule 2).

    What is no browser sends neither header, and cannot be tricked into sending a cookie.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or _authority_of(origin) in _own_authorities(request)


def _authority_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _own_authorities(request: Request) -> set[str]:
    headers = (request.headers.get(name) for name in ("host", "x-forwarded-host"))
    return {each.strip().lower() for each in headers if each}


def token_of(request: Request) -> Token:
    """Return the token for the forms of a page: the cookie's, or a new one."""
    given = request.cookies.get(COOKIE, "")
    return Token(FIELD, given if _may_be_token(given) else secrets.token_urlsafe(_TOKEN_BYTES))


def cookie_for(request: Request, token: Token) -> str | None:
    """Return the ``Set-Cookie`` that a page needs so that its forms are believed."""
    if request.cookies.get(COOKIE) == token.value:
        return None
    secure = "; Secure" if request.scheme == "https" else ""
    return f"{COOKIE}={token.value}; Path=/; HttpOnly; SameSite=Strict{secure}"


def has_token(request: Request) -> bool:
    """Whether the form repeats the cookie's token (rule 2)."""
    given, kept = request.form.get(FIELD, ""), request.cookies.get(COOKIE, "")
    return _may_be_token(kept) and secrets.compare_digest(given.encode(), kept.encode())


def _may_be_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None
