"""What a task returned as text that PostgreSQL and Python can read: no value is too strange."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from procrastinate import json_codec
from procrastinate.model.endings.outcome import Finished
from procrastinate.model.endings.results import LARGEST, success_with
from procrastinate.model.job import Status
from procrastinate.model.text.json_text import DEEPEST, DIGITS


class Text(str):
    """Text that lies about itself."""

    def __len__(self) -> int:
        return 1

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"1"


class Number(enum.IntEnum):
    SEVEN = 7


class Nasty:
    def __repr__(self) -> str:
        raise SystemExit("no")

    @property
    def __class__(self) -> Any:
        raise GeneratorExit("no")


def cases(names: str, values: list[Any]) -> pytest.MarkDecorator:
    """Cases that are known by their numbers: the values are too long for names."""
    return pytest.mark.parametrize(names, values, ids=range(len(values)))


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def kept(text: str) -> Finished:
    return Finished(Status.SUCCEEDED, result=text)


def not_kept(kind: str, why: str) -> Finished:
    why = f"the result of type {kind} is not kept: {why}"
    return Finished(Status.SUCCEEDED, result_error=why)


@cases(
    "value, text",
    [
        (None, "null"),
        (False, "false"),
        (0, "0"),
        ("", '""'),
        ("é", '"é"'),
        ([1, 2.5, {"a": None}], '[1,2.5,{"a":null}]'),
        ((1, 2), "[1,2]"),
        ({1: "a", None: "b"}, '{"1":"a","null":"b"}'),
        (Number.SEVEN, "7"),
        ("\\u0000", '"\\\\u0000"'),  # a backslash, and no NUL
        ("NaN", '"NaN"'),
        (10 ** (DIGITS - 1), "1" + "0" * (DIGITS - 1)),
        (nested(DEEPEST), "[" * DEEPEST + "]" * DEEPEST),
        ("[" * 5_000, '"' + "[" * 5_000 + '"'),
        ("9" * 5_000, '"' + "9" * 5_000 + '"'),
        ("1e9999", '"1e9999"'),
        ("a\x1eb", '"a\\u001eb"'),  # what separates results in a batch
        ("a\x7fb", '"a\x7fb"'),
        ([[]] * 600, "[" + ",".join(["[]"] * 600) + "]"),
        ("x" * (LARGEST - 2), '"' + "x" * (LARGEST - 2) + '"'),
        ("é" * (LARGEST // 2 - 1), '"' + "é" * (LARGEST // 2 - 1) + '"'),
    ],
)
def test_what_json_can_say_is_kept(value: Any, text: str) -> None:
    assert success_with(value, json_codec.dumps) == kept(text)
    json.loads(text)


@cases(
    "value, expected",
    [
        (
            {1, 2},
            not_kept(
                "set",
                "encoding it raised TypeError: Object of type set is not JSON serializable",
            ),
        ),
        (
            {(1, 2): 3},
            not_kept(
                "dict",
                "encoding it raised TypeError:"
                " keys must be str, int, float, bool or None, not tuple",
            ),
        ),
        (
            [float("nan")],
            not_kept(
                "list",
                "encoding it raised ValueError: Out of range float values are not JSON compliant",
            ),
        ),
        (
            10**5_000,
            not_kept("int", f"encoding it raised ValueError: Exceeds the limit ({DIGITS} digits)"),
        ),
        ("a\0b", not_kept("str", "it has a NUL character, which PostgreSQL cannot store")),
        ({"a\0": 1}, not_kept("dict", "it has a NUL character, which PostgreSQL cannot store")),
        ("\ud800", not_kept("str", "it has half of a surrogate pair, which is no character")),
        (
            "x" * (LARGEST - 1),
            not_kept("str", "it is 262,145 bytes of JSON, and 262,144 is the limit"),
        ),
        (
            "é" * (LARGEST // 2),
            not_kept("str", "it is 262,146 bytes of JSON, and 262,144 is the limit"),
        ),
        (
            nested(DEEPEST + 1),
            not_kept("list", "its lists and objects are more than 200 levels deep"),
        ),
    ],
)
def test_what_cannot_be_kept_says_why_without_its_value(value: Any, expected: Finished) -> None:
    assert success_with(value, json_codec.dumps) == expected


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@cases("value", [circle(), nested(100_000)])
def test_what_never_ends_is_not_kept(value: Any) -> None:
    assert success_with(value, json_codec.dumps) == not_kept(
        "list", "encoding it raised RecursionError"
    )


def test_a_value_that_answers_nothing_is_not_kept() -> None:
    ending = success_with(Nasty(), json_codec.dumps)
    assert ending.result is None
    assert ending.result_error is not None
    assert ending.result_error.startswith(
        "the result of type Nasty is not kept: encoding it raised "
    )


# What an encoder of the user's own may return


@cases(
    "text, why",
    [
        (b"1", "json_dumps returned bytes, not str"),
        (None, "json_dumps returned NoneType, not str"),
        ("", "json_dumps returned 0 characters that are not JSON"),
        ("{'secret': 1}", "json_dumps returned 13 characters that are not JSON"),
        ("1 2", "json_dumps returned 3 characters that are not JSON"),
        ("1\x1e2", "json_dumps returned 3 characters that are not JSON"),
        ("[1,\x1e2]", "json_dumps returned 6 characters that are not JSON"),
        ('"1\x1e2"', "json_dumps returned 5 characters that are not JSON"),
        ("\ufeff1", "json_dumps returned 2 characters that are not JSON"),
        ('"a\0b"', "json_dumps returned 5 characters that are not JSON"),
        ('"\\u0000"', "it has a NUL character, which PostgreSQL cannot store"),
        ('"\\\\\\u0000"', "it has a NUL character, which PostgreSQL cannot store"),
        ("NaN", "it has the number NaN, which is not JSON"),
        ("[-Infinity]", "it has the number -Infinity, which is not JSON"),
        ('"\\ud800"', "it has half of a surrogate pair, which is no character"),
        ('["\\uDFFF"]', "it has half of a surrogate pair, which is no character"),
        ('"\udfff"', "it has half of a surrogate pair, which is no character"),
        ("9" * 5_000, "it has a number of more than 4,300 digits"),
        ("[-" + "9" * 4_301 + "]", "it has a number of more than 4,300 digits"),
        ("1e5000", "it has a number of more than 4,300 digits"),
        ("1E-5000", "it has a number of more than 4,300 digits"),
        ("9" * 4_000 + "e999", "it has a number of more than 4,300 digits"),
        ("1e" + "9" * 5_000, "it has a number of more than 4,300 digits"),
        ("1e" + "0" * 30 + "5000", "it has a number of more than 4,300 digits"),
        ("[-1.5E-" + "0" * 30 + "20000]", "it has a number of more than 4,300 digits"),
        ("1e+" + "0" * 30 + "4300", "it has a number of more than 4,300 digits"),
        # Keys that come twice: Python keeps the last one, and PostgreSQL reads both.
        ('{"1": "\\ud800", "1": 1}', "it has half of a surrogate pair, which is no character"),
        ('{"1": {"\\ud800": 2}, "1": 1}', "it has half of a surrogate pair, which is no character"),
        ('{"1": "\\u0000", "1": 1}', "it has a NUL character, which PostgreSQL cannot store"),
        ('{"1": 1e5000, "1": 1}', "it has a number of more than 4,300 digits"),
        ('{"1": NaN, "1": 1}', "it has the number NaN, which is not JSON"),
        ("[" * 3_000 + "]" * 3_000, "its lists and objects are more than 200 levels deep"),
        (
            '{"a":' * 3_000 + "1" + "}" * 3_000,
            "its lists and objects are more than 200 levels deep",
        ),
        ("[" * 100_000, "its lists and objects are more than 200 levels deep"),
        (" " * LARGEST + "1", "it is 262,145 bytes of JSON, and 262,144 is the limit"),
        (
            "[" + ",".join(["1e308"] * 4_000) + "]",
            "it is 1,256,001 characters without exponents, and 1,048,576 is the limit",
        ),
        (Text("x" * 300_000), "it is 300,000 bytes of JSON, and 262,144 is the limit"),
    ],
)
def test_an_encoder_that_gives_anything_else_costs_the_result_alone(text: Any, why: str) -> None:
    assert success_with({"secret": 1}, lambda value: text) == not_kept("dict", why)


@cases(
    "text",
    [
        '"\\ud83d\\ude00"',  # a whole pair
        '"\\\\ud800"',  # a backslash and letters
        '"\\\\u0000"',
        '{"a": [1, 2]}\n',
        "1e308",
        "-0.0",
        "1e-400",
        "1e-" + "0" * 5_000 + "4",
        '{"1": "\\ud83d\\ude00", "1": "\\\\ud800"}',
        '"' + "9" * 5_000 + '"',
        '"1e99999"',
        '"1e' + "9" * 5_000 + '"',
        "[" + ",".join(["1e308"] * 3_300) + "]",
        "[" + ",".join(['"1e308"'] * 30_000) + ",1e300]",
        "[" + ",".join(["1.25e-07"] * 20_000) + "]",
        "0." + "1" * 4_000,
    ],
)
def test_whatever_is_json_is_kept_as_the_encoder_wrote_it(text: str) -> None:
    assert success_with(None, lambda value: text) == kept(text)


def test_the_text_that_is_kept_is_a_plain_one() -> None:
    ending = success_with(None, lambda value: Text("[1]"))
    assert (ending, type(ending.result)) == (kept("[1]"), str)


class SecretError(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")


@cases(
    "exception, name",
    [
        (ValueError("'secret'"), "ValueError"),
        (SystemExit(1), "SystemExit"),
        (GeneratorExit(), "GeneratorExit"),
        (MemoryError(), "MemoryError"),
        (StopIteration(1), "StopIteration"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (SecretError(), f"{__name__}.SecretError"),
    ],
)
def test_what_an_encoder_raises_costs_the_result_alone(exception: BaseException, name: str) -> None:
    assert success_with(datetime.min, raising(exception)) == not_kept(
        "datetime", f"encoding it raised {name}"
    )


def test_an_interruption_goes_on() -> None:
    """Somebody pressed Ctrl-C; that this came while a result was encoded changes nothing."""
    with pytest.raises(KeyboardInterrupt):
        success_with(1, raising(KeyboardInterrupt()))


def raising(exception: BaseException) -> Callable[[Any], str]:
    def dumps(value: Any) -> str:
        raise exception

    return dumps
