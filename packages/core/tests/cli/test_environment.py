"""Variables of the command line that have other names now, and those that nothing reads."""

from __future__ import annotations

from typing import Any

import click
import pytest

from procrastinate.cli import environment
from procrastinate.cli.root import root


def unread(command: str = "worker", /, **variables: str) -> list[str]:
    with click.Context(root) as ctx:
        ctx.invoked_subcommand = command
        return list(environment.unread(variables, root, ctx))  # type: ignore[arg-type]


def test_a_former_name_is_read_and_told() -> None:
    environ = {"PROCRASTINATE_WORKER_FETCH_JOB_POLLING_INTERVAL": "3", "HOME": "/"}

    (told,) = environment.bring_up_to_date(environ)

    assert told == (
        "PROCRASTINATE_WORKER_FETCH_JOB_POLLING_INTERVAL is called"
        " PROCRASTINATE_WORKER_POLLING_INTERVAL now"
    )
    assert environ == {"PROCRASTINATE_WORKER_POLLING_INTERVAL": "3", "HOME": "/"}
    assert environment.bring_up_to_date(environ) == []


def test_the_present_name_holds() -> None:
    environ = {
        "PROCRASTINATE_WORKER_TIMEOUT": "3",
        "PROCRASTINATE_WORKER_POLLING_INTERVAL": "4",
    }
    assert len(environment.bring_up_to_date(environ)) == 1
    assert environ == {"PROCRASTINATE_WORKER_POLLING_INTERVAL": "4"}


@pytest.mark.parametrize(
    ("wait", "one_shot"),
    [
        *(("0", "1"), ("no", "1"), ("False", "1"), ("off", "1")),
        *(("1", "0"), ("y", "0"), ("on", "0")),
        ("perhaps", "perhaps"),  # the option refuses it
    ],
)
def test_wait_is_the_opposite_of_one_shot(wait: str, one_shot: str) -> None:
    environ = {"PROCRASTINATE_WORKER_WAIT": wait}

    (told,) = environment.bring_up_to_date(environ)

    assert told.endswith("PROCRASTINATE_WORKER_ONE_SHOT now, and means the opposite")
    assert environ == {"PROCRASTINATE_WORKER_ONE_SHOT": one_shot}


def test_an_empty_former_variable_is_none() -> None:
    environ = {"PROCRASTINATE_WORKER_WAIT": ""}
    environment.bring_up_to_date(environ)
    assert environ == {}


@pytest.mark.parametrize(
    ("command", "name", "near"),
    [
        ("worker", "PROCRASTINATE_WORKER_QUEUE", "PROCRASTINATE_WORKER_QUEUES"),
        ("jobs", "PROCRASTINATE_APPS", "PROCRASTINATE_APP"),
        ("defer", "PROCRASTINATE_DEFER_LOCKS", "PROCRASTINATE_DEFER_LOCK"),
        ("jobs", "PROCRASTINATE_JOBS_RETRY_LIMIT", "PROCRASTINATE_JOBS_LIMIT"),  # no verb reads any
    ],
)
def test_a_variable_that_nothing_reads_is_told(command: str, name: str, near: str) -> None:
    told = unread(command, **{name: "secret"})
    assert told == [f"{name} is set, and nothing reads it: is it {near}?"]


def test_variables_of_another_command_are_left_to_it() -> None:
    assert unread("healthchecks", PROCRASTINATE_WORKER_QUEUE="mail") == []


def test_one_that_resembles_none_is_told_too() -> None:
    assert unread(PROCRASTINATE_XYZZY="secret") == [
        "PROCRASTINATE_XYZZY is set, and nothing reads it"
    ]


def test_one_that_is_gone_says_what_to_do() -> None:
    (told,) = unread(PROCRASTINATE_LOG_FORMAT_STYLE="{")
    assert told.endswith("as it was in Procrastinate 3: PROCRASTINATE_LOG_FORMAT is text or json")


def test_what_is_read_is_not_told() -> None:
    read = {
        "PROCRASTINATE_APP": "shop.app",
        "PROCRASTINATE_VERBOSE": "1",
        "PROCRASTINATE_LOG_LEVEL": "info",
        "PROCRASTINATE_WORKER_ONE_SHOT": "1",
        "PROCRASTINATE_WORKER_LISTEN_NOTIFY": "1",
        "PROCRASTINATE_DEFER_IN": "3",
        "PROCRASTINATE_DSN": "postgresql://",  # the application's
        "PROCRASTINATE_DATABASE_URL": "postgresql://",
        "PROCRASTINATE_TEST_DSN": "postgresql://",
        "_PROCRASTINATE_COMPLETE": "bash_source",
        "PGHOST": "localhost",
    }
    assert unread("worker", **read) == unread("defer", **read) == []


def test_what_kubernetes_says_of_a_service_of_that_name_is_not_told() -> None:
    told = {
        "PROCRASTINATE_SERVICE_HOST": "10.0.0.1",
        "PROCRASTINATE_SERVICE_PORT": "80",
        "PROCRASTINATE_SERVICE_PORT_HTTP": "80",
        "PROCRASTINATE_PORT": "tcp://10.0.0.1:80",
        "PROCRASTINATE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "PROCRASTINATE_PORT_80_TCP_ADDR": "10.0.0.1",
        "PROCRASTINATE_WORKER_SERVICE_HOST": "10.0.0.1",
        "PROCRASTINATE_WORKER_PORT": "tcp://10.0.0.1:80",
    }
    assert unread(**told) == []
    assert len(unread(PROCRASTINATE_WORKER_PORT="80")) == 1


def test_each_present_name_is_read() -> None:
    """Or the former one would be told to lead to nothing."""
    now: Any = set(environment._RENAMED.values())
    assert unread(**{environment.PREFIX + name: "1" for name in now}) == []
