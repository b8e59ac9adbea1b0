"""Somebody who looks at a dashboard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from procrastinate_dashboard import Dashboard, Request, Response

HOST = "queue.example.org"


@dataclass
class Browser:
    """Asks for pages as a browser does: it keeps cookies, and sends what forms have."""

    dashboard: Dashboard
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, address: str, **headers: str) -> Response:
        return self._send("GET", address, {}, headers)

    def post(self, address: str, form: Mapping[str, str], **headers: str) -> Response:
        return self._send("POST", address, form, headers)

    def submit(self, address: str, **fields: str) -> Response:
        """Look at the form at an address, fill it in, and send it."""
        page = self.get(address)
        assert page.status == 200, text_of(page)
        sent = {**hidden_fields(page), **fields}
        return self.post(address, sent, **{"sec-fetch-site": "same-origin"})

    def _send(
        self, method: str, address: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> Response:
        request = self.request(method, address, form, headers)
        response = self.dashboard.respond(request)
        if "set-cookie" in response.headers:
            name, _, rest = response.headers["set-cookie"].partition("=")
            self.cookies[name] = rest.partition(";")[0]
        return response

    def request(
        self,
        method: str,
        address: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        parts = urlsplit(address)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {"host": HOST, **({"cookie": cookies} if cookies else {})}
        sent |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        query = dict(parse_qsl(parts.query))
        return Request(method, parts.path, query=query, form=form or {}, headers=sent)


def text_of(response: Response) -> str:
    return response.body.decode()


def hidden_fields(response: Response) -> dict[str, str]:
    found = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', text_of(response))
    return {name: unescape(value) for name, value in found}


def address(page: str, **fields: Any) -> str:
    return f"{page}?{urlencode(fields)}"
