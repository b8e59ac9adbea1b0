"""Secrets in texts are known by their form, and by the names beside them."""

from __future__ import annotations

import pytest

from procrastinate.model.text.redacting import HIDDEN, Redaction


@pytest.mark.parametrize(
    "text, shown",
    [
        ("GET /a?token=s3cret&n=1 failed", "GET /a?token=•••&n=1 failed"),
        ("Authorization: Bearer s3cret-s3cret", "Authorization: Bearer •••"),
        ("'Authorization': 'Basic s3cretx=='", "'Authorization': '•••'"),
        ("sent Bearer s3cret.s3cret away", "sent Bearer ••• away"),
        ('{"password": "s3cret\\" s3cret", "n": 1}', '{"password": "•••", "n": 1}'),
        ("{'api_key': 's3cret', 'n': 1}", "{'api_key': '•••', 'n': 1}"),
        ('{"token": 53, "n": 1}', '{"token": •••, "n": 1}'),
        ("apiKey=s3cret my-session-id=s3cret", "apiKey=••• my-session-id=•••"),
        ("host=h PASSWORD = 's3 cret' port=1", "host=h PASSWORD = ••• port=1"),
        (
            "postgresql://ada:s3cret@h/d?sslpassword=s3cret",
            "postgresql://ada:•••@h/d?sslpassword=•••",
        ),
        ("iban=DE53", "iban=•••"),
    ],
)
def test_a_secret_is_hidden(text: str, shown: str) -> None:
    assert Redaction(["IBAN"]).text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "SyntaxError: unexpected token: x",
        "    token = get_token(x)",
        "if token == 3:",
        "the bearer of news",
        "a cookie was refused",
        "https://example.org:443/a?n=1",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert Redaction().text(text) == text


def test_a_given_text_may_stand_for_what_is_hidden() -> None:
    assert Redaction().text("token=s3cret", "*") == "token=*"
    assert HIDDEN not in Redaction().text("token=s3cret", "*")
