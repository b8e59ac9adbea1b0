"""An exception as data, whatever the exception does."""

from __future__ import annotations

import traceback
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import nasty
import pytest

from procrastinate import json_codec
from procrastinate.errors import JobAborted
from procrastinate.model.text import failure
from procrastinate.model.text.failure import MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS, describe

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def raised(exception: BaseException) -> BaseException:
    """The exception with a frame of its own; some cannot even be raised without a surprise."""
    try:
        raise exception
    except BaseException as exc:
        return exc


@pytest.mark.parametrize("make", nasty.EXCEPTIONS.values(), ids=nasty.EXCEPTIONS)
def test_whatever_an_exception_does_it_becomes_short_texts(
    make: Callable[[], BaseException],
) -> None:
    error = describe(raised(make()), attempt=3, now=NOW)

    assert list(error) == ["attempt", "at", "type", "message", "traceback"]
    assert {key: type(value) for key, value in error.items()} == {
        "attempt": int,
        "at": str,
        "type": str,
        "message": str,
        "traceback": str,
    }
    assert len(error["type"]) < 2 * (failure.NAME_CHARACTERS + 50)
    assert len(error["message"]) < MESSAGE_CHARACTERS + 50
    assert len(error["traceback"]) < TRACEBACK_CHARACTERS + 50
    text = json_codec.dumps(error)
    assert "\0" not in text.encode().decode()
    frame = "in raised\n    raise exception\n"
    assert frame in error["traceback"] or "characters cut" in error["traceback"]


def test_an_exception_of_50_megabytes_is_not_copied() -> None:
    exception = raised(ValueError("x" * 50_000_000))
    tracemalloc.start()
    try:
        error = describe(exception, attempt=1, now=NOW)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most < 2_000_000
    assert error["message"].startswith("x" * 500 + "\n… 49998000 characters cut …\n")


def test_causes_contexts_groups_and_notes_are_told_in_the_order_of_their_happening() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ExceptionGroup("several", [ValueError("a"), TypeError("b\nc")]) from first
    except ExceptionGroup as group:
        group.add_note("a note")
        try:
            raise RuntimeError("last")
        except RuntimeError as last:
            lines = failure.traceback_of(last).splitlines()

    told = [line for line in lines if line and not line.startswith(("  File", "    "))]
    assert told == [
        "Traceback (most recent call last):",
        "KeyError: 'first'",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        "ExceptionGroup: several (2 sub-exceptions)",
        "a note",
        "  +---------------- 1 ----------------",
        "  | ValueError: a",
        "  +---------------- 2 ----------------",
        "  | TypeError: b",
        "  | c",
        "During handling of the above exception, another exception occurred:",
        "Traceback (most recent call last):",
        "RuntimeError: last",
    ]


def test_a_context_that_was_suppressed_is_not_told() -> None:
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("shown") from None
    except ValueError as exc:
        text = failure.traceback_of(exc)

    assert "hidden" not in text


def test_the_middle_of_many_frames_is_left_out() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom")
        dig(depth - 1)

    try:
        dig(200)
    except ValueError as exc:
        text = failure.traceback_of(exc)

    left_out = 202 - failure.FIRST_FRAMES - failure.LAST_FRAMES
    assert f"  … {left_out} frames are left out …\n" in text
    assert text.endswith("ValueError: bottom\n")


@pytest.mark.parametrize(
    ("exception", "expected"),
    [
        (JobAborted(), True),
        (ValueError(), False),
        (ExceptionGroup("g", [JobAborted(), ExceptionGroup("h", [JobAborted()])]), True),
        (ExceptionGroup("g", [JobAborted(), ExceptionGroup("h", [ValueError()])]), False),
    ],
)
def test_a_group_consists_of_what_all_of_its_members_are(
    exception: BaseException, expected: bool
) -> None:
    assert failure.consists_of(exception, JobAborted) is expected


@pytest.mark.parametrize("make", nasty.EXCEPTIONS.values(), ids=nasty.EXCEPTIONS)
def test_no_nasty_exception_passes_for_an_abortion(make: Callable[[], BaseException]) -> None:
    assert failure.consists_of(make(), JobAborted) is False


def test_a_place_that_fails_again_has_the_same_text_as_python_gives_it() -> None:
    def fail(n: int) -> int:
        return 1 // n if n == 0 else fail(n - 1)

    for depth in (0, 1, 2, 0, 1, 2):
        with pytest.raises(ZeroDivisionError) as raised:
            fail(depth)
        assert failure.traceback_of(raised.value) == "".join(
            traceback.format_exception(raised.value)
        )


def test_frames_that_repeat_are_counted_as_python_does() -> None:
    def fail(n: int) -> int:
        return 1 // n if n == 0 else fail(n - 1)

    with pytest.raises(ZeroDivisionError) as raised:
        fail(10)
    assert failure.traceback_of(raised.value) == "".join(traceback.format_exception(raised.value))


def test_no_more_places_are_remembered_than_it_is_said() -> None:
    for number in range(2 * failure.REMEMBERED):
        namespace: dict[str, Any] = {}
        exec(f"def fail():\n    raise ValueError({number})", namespace)
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            namespace["fail"]()
        failure.traceback_of(raised.value)
    assert len(failure._texts) <= failure.REMEMBERED


def test_equal_code_in_two_files_is_told_apart() -> None:
    texts = []
    for name in ("one.py", "two.py"):
        namespace: dict[str, Any] = {}
        exec(compile("def fail():\n    raise ValueError(1)", name, "exec"), namespace)
        with pytest.raises(ValueError, match="1") as raised:
            namespace["fail"]()
        texts.append(failure.traceback_of(raised.value))
    assert ["one.py" in texts[0], "two.py" in texts[1]] == [True, True]
