"""The default encoding of arguments: as the standard library's, by an encoder that is kept."""

from __future__ import annotations

import json
from collections import OrderedDict
from enum import IntEnum
from typing import Any

import pytest

from procrastinate import json_codec


class Number(IntEnum):
    SEVEN = 7


class Text(str): ...


VALUES: list[Any] = [
    {},
    {"n": 1, "é": ["\\", '"', "\u2028", "\x01", "😀"], "nested": {"a": [[], {}, [None, True]]}},
    {0: "int", 1.5: "float", True: "bool", None: "none", Text("key"): Text("value")},
    [1e22, -0.5, 10**30, -(2**63), 0.1 + 0.2, Number.SEVEN],
    (1, [2]),
    OrderedDict(b=1, a=2),
    "text",
    Text("text"),
    None,
    7,
]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_encoded_as_by_the_standard_library(
    monkeypatch: pytest.MonkeyPatch, value: Any, kept: bool
) -> None:
    """Also by a Python that has no encoder to keep."""
    if not kept:
        monkeypatch.setattr(json_codec, "_encode_parts", None)
    expected = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert json_codec.dumps(value) == expected
    assert json_codec.loads(expected) == json.loads(expected)


class Loud(str):
    """A text that is formatted otherwise than it is written."""

    def __format__(self, spec: str) -> str:
        return "LOUD"

    def isascii(self) -> bool:
        return True


@pytest.mark.parametrize("number", range(0x110))
def test_each_character_of_a_text_is_encoded_as_by_the_standard_library(number: int) -> None:
    for text in (chr(number), f"a{chr(number)}b", Loud(f"a{chr(number)}")):
        assert json_codec.dumps(text) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {1, 2}, {"x": object()}, {(): 1}])
def test_what_is_not_json_is_refused_and_leaves_the_encoder_as_it_was(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        json_codec.dumps(value)
    assert json_codec.dumps({"n": [1]}) == '{"n":[1]}'


def test_a_circle_is_refused_and_leaves_the_encoder_as_it_was() -> None:
    circle: list[Any] = []
    circle.append({"again": circle})
    with pytest.raises((ValueError, RecursionError)):
        json_codec.dumps(circle)
    assert json_codec.dumps({"n": [1]}) == '{"n":[1]}'
