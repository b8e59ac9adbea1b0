"""Secrets in arguments, results and messages are not shown to people: in the dashboard, in admins.

Names decide: see `WORDS`. In texts, the passwords of URLs and DSNs are found by their form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from procrastinate.errors import InvalidOption
from procrastinate.model.text.printable import shown

HIDDEN = "•••"
_DEEPEST = 60

#: Parts of names whose values are hidden.
WORDS = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "api_key", "apikey"),
    *("access_key", "private_key", "authorization", "credential", "cookie", "session_id"),
    *("credit_card", "card_number", "cvv", "cvc"),
)

#: More words, or a function of a job's task name and its arguments that returns what to show.
Redact: TypeAlias = Iterable[str] | Callable[[str, Any], Any]

_NAME = re.compile(r'"([^"\n]*)"\s*:\s*')  # of a value in JSON
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,}\]]+')
_IN_URL = re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@")
_IN_DSN = re.compile(r"\b(password|passwd|pwd)(\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'&;,)]+)", re.I)

#: ``Authorization: Bearer x``, with quotes or without.
_IN_HEADER = re.compile(
    r"\b(authorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|digest|token)\s+|bearer\s+)"
    r"([\w.~+/=-]{6,})",
    re.I,
)


class Redaction:
    """What hides secrets. Raises `InvalidOption` for words that are none."""

    def __init__(self, redact: Redact | None = None) -> None:
        self._function = redact if callable(redact) else None
        words = WORDS if callable(redact) else (*WORDS, *_words(redact))
        pattern = "|".join(_pattern(each) for each in words)
        self._name = re.compile(pattern, re.I)
        self._pair = _pair(pattern)
        self._beginnings = {each.lower().partition("_")[0] for each in (*words, "bearer")}

    def values(self, task_name: str, value: Any) -> Any:
        """Return arguments, or a result, without secrets; none of it if the function fails."""
        if self._function is not None:
            try:
                value = self._function(task_name, value)
            except Exception as exc:
                self.failed(task_name, exc)
                return HIDDEN
        return self._without(value, 0)

    def failed(self, task_name: str, exc: Exception) -> None:
        """Tell that the function of ``redact=`` raised for a job, of which nothing is shown."""

    def text(self, text: str, hidden: str = HIDDEN) -> str:
        """Return a message, or a traceback, without the secrets that are known by their form.

        They are the passwords of URLs and DSNs, what follows ``Bearer``, and values beside a secret
        name, as in ``?token=x`` and ``"password": "x"``.
        """
        text = _IN_URL.sub(rf"\1:{hidden}@", text)
        lowered = text.lower()  # most texts have no secret name: 294 us of 158 letters without this
        if not any(each in lowered for each in self._beginnings):
            return text
        text = _IN_DSN.sub(rf"\1\2{hidden}", text)
        text = _IN_HEADER.sub(rf"\1{hidden}", text)
        return self._pair.sub(lambda found: _hidden(found, hidden), text)

    def json(self, text: str) -> str:
        """Return JSON that could not be decoded without the values of secret names."""
        parts, at = [], 0
        for name in _NAME.finditer(text):
            value = _VALUE.match(text, name.end())
            if name.start() >= at and value is not None and self._name.search(name[1]):
                parts += [text[at : name.end()], f'"{HIDDEN}"']
                at = value.end()
        return self.text("".join([*parts, text[at:]]))

    def _without(self, value: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            return "…"
        if isinstance(value, dict):
            return {
                key: HIDDEN if self._hides(key, each) else self._without(each, depth + 1)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._without(each, depth + 1) for each in value]
        return self.text(value) if isinstance(value, str) else value

    def _hides(self, name: Any, value: Any) -> bool:
        return value is not None and self._name.search(str(name)) is not None


def _pattern(word: str) -> str:
    """Match a word as names write it: ``api_key``, ``api-key``, ``apiKey``."""
    return "[_ -]?".join(re.escape(part) for part in word.split("_"))


def _hidden(pair: re.Match[str], hidden: str) -> str:
    """Return a pair without its value, between the quotes that it has."""
    quote = pair["value"][0] if pair["value"][0] in "\"'" else ""
    return f"{pair[1]}{quote}{hidden}{quote}"


def _pair(names: str) -> re.Pattern[str]:
    """Match ``name=value`` of an URL or a form, and ``"name": "value"`` of JSON or of a dict.

    In a program, which a traceback shows, there are spaces around ``=`` and no quotes at a name.
    """
    name = rf"[\w-]{{0,40}}?(?:{names})[\w-]{{0,40}}"
    quoted = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
    return re.compile(
        rf"((?<![\w-]){name}=(?=[^\s=])|([\"']){name}\2\s*:\s*)(?P<value>{quoted}|[^\s&;,)\]}}'\"]+)",
        re.I,
    )


def _words(given: Iterable[str] | None) -> list[str]:
    words = [] if given is None else given
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise InvalidOption(f"redact must be a list of words or a function, not {shown(given)}")
    checked = list(words)
    for each in checked:
        if not isinstance(each, str) or not each:
            raise InvalidOption(f"redact must be a list of words, and has {shown(each)}")
    return checked
