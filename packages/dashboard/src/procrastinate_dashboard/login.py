"""One user and one password, for the dashboard that the command serves: HTTP's basic scheme.

It needs no page, no session and no script, and browsers ask for the password by themselves. A
browser sends it along also with what another site makes it send: see rule 2 of `guard`. Who guesses
is slowed down by a `Brake`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import math
import secrets
from collections.abc import Callable
from typing import Literal

from procrastinate.model.text.printable import line
from procrastinate_dashboard.brake import MOST_GUESSES, Brake
from procrastinate_dashboard.messages import Access, Request, Response

logger = logging.getLogger("procrastinate.dashboard")

_ASK = {"www-authenticate": 'Basic realm="procrastinate", charset="UTF-8"'}
_PLAIN = "text/plain; charset=utf-8"


def by_password(
    user: str, password: str, may: Literal["read", "act"], brake: Brake | None = None
) -> Callable[[Request], Access | Response]:
    """Return an ``access`` function that lets in one user with a password.

    A right password of an address that has to wait is not looked at: it is answered as a guess.
    """
    key = secrets.token_bytes(32)
    brake = brake or Brake()

    def digest(credentials: bytes) -> bytes:
        """Return the same number of bytes for any, so that comparing takes the same time."""
        return hmac.digest(key, credentials, hashlib.sha256)

    expected = digest(f"{user}:{password}".encode())

    def access(request: Request) -> Access | Response:
        address = request.remote or "?"
        given = _credentials(request)
        if given is None:
            return Response(b"Log in to see the dashboard.\n", 401, _ASK, _PLAIN)
        wait = brake.wait(address)
        if wait:
            return _too_many(wait)
        guess = digest(given)
        if hmac.compare_digest(guess, expected):
            brake.right(address)
            return Access(user, may)
        _log(address, given, brake.wrong(address, guess))
        return Response(b"This is not the password.\n", 401, _ASK, _PLAIN)

    return access


def _too_many(wait: float) -> Response:
    seconds = str(math.ceil(wait))
    text = f"Too many wrong passwords. Try again in {seconds} s.\n"
    return Response(text.encode(), 429, {"retry-after": seconds}, _PLAIN)


def _log(address: str, given: bytes, number: int) -> None:
    """Log the first wrong password of an address, and the one after which it is refused."""
    name = line(given.partition(b":")[0].decode("utf-8", "replace"), 80)
    if number == 1:
        logger.warning("a login from %s as '%s' was refused", line(address, 100), name)
    elif number == MOST_GUESSES:
        logger.warning(
            "%d wrong passwords from %s, the last one for '%s': it has to wait",
            number,
            line(address, 100),
            name,
        )


def _credentials(request: Request) -> bytes | None:
    """Return ``user:password`` as it was sent, empty if it is malformed; None without any."""
    if "authorization" not in request.headers:
        return None
    scheme, _, encoded = request.headers["authorization"].partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
