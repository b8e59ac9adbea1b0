"""The options that every connector has are checked when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from procrastinate import errors, json_codec
from procrastinate.connector_options import SCHEMA_BYTES, check_function, check_schema
from procrastinate.storage.statements import quoted


class Text(str):
    def __str__(self) -> str:
        return "other"

    def encode(self, *args: Any) -> bytes:
        raise AssertionError("its own methods are not asked")


@pytest.mark.parametrize("name", ["jobs", "Jobs 2", "é" * 31, "s" * SCHEMA_BYTES, "a.b", "€;--"])
def test_names_of_schemas_stay_as_they_are(name: str) -> None:
    assert (check_schema(name), quoted(name)) == (name, f'"{name}"')


def test_subclasses_of_str_become_plain_texts() -> None:
    assert type(check_schema(Text("jobs"))) is str
    assert check_schema(Text("jobs")) == "jobs"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "a name of 1 to 63 bytes, not '': leave it out for the first schema"),
        ("s" * 64, f"a name of 1 to 63 bytes, not '{'s' * 64}'"),
        ("é" * 32, "a name of 1 to 63 bytes"),
        ("s" * 100_000, f"not '{'s' * 80}…'"),
        ("a\0b", r"a NUL character: 'a\x00b'"),
        ("\ud800", r"valid Unicode text: '\ud800'"),
        ("100%", "percent signs or braces: '100%'"),
        ("{schema}", "percent signs or braces"),
        (b"jobs", "a str, not bytes"),
        (7, "a str, not int"),
    ],
)
def test_names_that_no_schema_can_have_are_refused(name: Any, message: str) -> None:
    with pytest.raises(errors.InvalidOption, match=r"^schema must ") as caught:
        check_schema(name)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["json", 0, False, "", object()])
def test_functions_that_cannot_be_called_are_refused(value: Any) -> None:
    with pytest.raises(errors.InvalidOption, match=r"^json_dumps must be a function, not "):
        check_function("json_dumps", value, json_codec.dumps)


def test_functions_that_are_left_out_are_the_default() -> None:
    assert check_function("json_dumps", None, json_codec.dumps) is json_codec.dumps
    assert check_function("json_dumps", str, json_codec.dumps) is str
