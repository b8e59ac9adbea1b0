"""What pages are given and what they return, whichever door a request came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Literal
from urllib.parse import parse_qsl, quote

from procrastinate.errors import InvalidOption
from procrastinate.model.text.printable import shown

#: A larger form is refused: the forms of the dashboard have a few short fields.
LARGEST_FORM = 64 * 1024  # bytes
MOST_FIELDS = 100
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Access:
    """Who asks, and what they may do: only look, or also act. Raises `InvalidOption`."""

    user: str
    may: Literal["read", "act"] = "read"

    def __post_init__(self) -> None:
        if not isinstance(self.user, str):
            raise InvalidOption(f"the user must be a name, not {shown(self.user)}")
        if self.may not in ("read", "act"):
            raise InvalidOption(f"a user may 'read' or 'act', not {shown(self.may)}")

    @property
    def may_act(self) -> bool:
        """Whether this user may change jobs and queues."""
        return self.may == "act"


@dataclass(frozen=True)
class Token:
    """The field of a form that proves that one of our pages sent it."""

    field: str
    value: str


@dataclass(frozen=True)
class Request:
    """A request, as all doors hand it in.

    ``path`` begins with a slash and is what follows ``mount``, the place where the dashboard is; it
    is empty if the slash after that is missing.
    Names of ``headers`` are in lower case. ``native`` is the framework's own request: that of
    Starlette, a WSGI environ, or one of Django's. ``access`` is set once somebody was let in, and
    then ``token`` too. A door whose framework has tokens of its own sets ``token`` by itself, and
    ``token_is_checked``: it has refused each POST without it.
    """

    method: str
    path: str
    mount: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    scheme: str = "http"
    remote: str | None = None
    native: Any = field(default=None, repr=False)
    access: Access | None = None
    token: Token | None = field(default=None, repr=False)
    token_is_checked: bool = False

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name, those that browsers send against the standard too.

        ``SimpleCookie`` reads none if one of them is, for instance, JSON.
        """
        pairs = (each.partition("=") for each in self.headers.get("cookie", "").split(";"))
        return {name.strip(): _unquoted(value.strip()) for name, equals, value in pairs if equals}

    @property
    def root(self) -> str:
        """The way from this page to the dashboard's first one, as a relative link.

        All links are relative: they hold behind any prefix, also one that only a proxy knows.
        """
        return "../" * (self.path.count("/") - 1) or "./"


@dataclass(frozen=True)
class Response:
    """What a page answers. Names of ``headers`` are in lower case."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = HTML


def _unquoted(value: str) -> str:
    """Return the value of a cookie without the quotes around it."""
    if not value.startswith('"'):
        return value
    read = SimpleCookie(f"name={value}").get("name")
    return value if read is None else read.value


def to_slash(request: Request) -> Response:
    """Return the answer to a request without the slash after the mount, for links are relative."""
    return redirect(f"./{quote(request.mount.rpartition('/')[2])}/")


def redirect(location: str) -> Response:
    """Return the answer to a POST that was done: look there."""
    return Response(status=303, headers={"location": location})


def fields(encoded: str) -> dict[str, str]:
    """Return the fields of a query or a form; the last one counts if one is given twice.

    Raises `ValueError` if there are too many.
    """
    return dict(parse_qsl(encoded, keep_blank_values=True, max_num_fields=MOST_FIELDS))
