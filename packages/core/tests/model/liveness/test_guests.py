"""What a worker in somebody else's process may be given."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from procrastinate.errors import InvalidOption
from procrastinate.model.liveness.guests import MAY_FINISH, check_on_failure, for_block
from procrastinate.model.worker_options import WorkerArguments, WorkerOptions, worker_options


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, MAY_FINISH),
        ({"shutdown_graceful_timeout": 3.0}, 3.0),
        ({"shutdown_graceful_timeout": 0}, 0),
        ({"shutdown_graceful_timeout": None}, None),  # for ever, if that is what was asked for
    ],
)
def test_a_block_is_left_within_25_seconds_unless_another_time_was_given(
    given: dict[str, Any], seconds: float | None
) -> None:
    options = for_block(worker_options(**given), given)
    assert options == worker_options(
        shutdown_graceful_timeout=seconds, install_signal_handlers=False
    )


def test_a_time_from_the_defaults_of_the_app_holds_too() -> None:
    options = worker_options(shutdown_graceful_timeout=3.0)
    assert for_block(options, given=()).shutdown_graceful_timeout == 3.0


@pytest.mark.parametrize("given", [{"wait": False}, {"install_signal_handlers": True}])
def test_what_contradicts_a_block_is_named(given: dict[str, Any]) -> None:
    (option,) = given
    with pytest.raises(InvalidOption, match=option):
        for_block(worker_options(**given), given)


@pytest.mark.parametrize("value", ["restart", "cancel", "terminate", print, lambda exc: None])
def test_what_may_follow_a_failure(value: Any) -> None:
    assert check_on_failure(value) is value


class Text(str):
    """A text that lies about what it equals."""

    def __eq__(self, other: object) -> bool:
        raise ValueError

    __hash__ = str.__hash__


class Unshown:
    def __repr__(self) -> str:
        raise SystemExit


def test_a_text_of_a_class_of_its_own_becomes_a_plain_one() -> None:
    assert type(check_on_failure(Text("cancel"))) is str


@pytest.mark.parametrize(
    "value",
    ["", "Restart", "exit", 5, 10**5_000, True, ["restart"], (), b"cancel", Text("x"), Unshown()],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="on_failure"):
        check_on_failure(value)


def test_type_checkers_know_every_option() -> None:
    fields = {each.name for each in dataclasses.fields(WorkerOptions)}
    assert set(get_type_hints(WorkerArguments)) == fields | {"timeout"}
