"""Sockets, forks, arrays and errors."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from procrastinate.connector import Query
from procrastinate.connector_tools import failures, forks, literals, sockets
from procrastinate.connector_tools.arrays import array_text
from procrastinate.connector_tools.limits import LIMITS
from procrastinate.errors import InvalidOption


def test_a_socket_is_readable_once_something_has_come() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not sockets.readable(ours.fileno())
        theirs.send(b"x")
        assert sockets.readable(ours.fileno())


def test_a_hung_up_socket_is_readable() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert sockets.readable(ours.fileno())


def test_a_socket_that_was_shut_down_stays_its_owner_s() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sockets.shut_down(ours.fileno())
        assert theirs.recv(1) == b""
        assert ours.recv(1) == b""
        sockets.shut_down(ours.fileno())  # twice is harmless


def test_shutting_down_what_is_closed_or_no_socket_does_nothing(tmp_path: Any) -> None:
    ours, theirs = socket.socketpair()
    number = ours.detach()
    os.close(number)
    sockets.shut_down(number)
    sockets.shut_down(-1)
    with open(tmp_path / "file", "w") as file:
        sockets.shut_down(file.fileno())
        file.write("still open")
    assert (tmp_path / "file").read_text() == "still open"
    theirs.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes are forked")
def test_a_child_lets_go_of_what_is_its_parent_s() -> None:
    ours, theirs = socket.socketpair()

    class Connection:
        letting_go = 0

        def after_fork(self) -> None:
            self.letting_go += 1

    connection = Connection()
    forks.call_after_fork(connection)
    forks.detach_after_fork(ours, lambda it: it.fileno())
    with ours, theirs:
        child = os.fork()
        if child == 0:
            try:
                os.write(ours.fileno(), b"goodbye")
                os._exit(connection.letting_go)
            finally:
                os._exit(99)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 1
        assert connection.letting_go == 0
        ours.send(b"still here")
        assert theirs.recv(10) == b"still here"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "{}"),
        ([1, -2], "{1,-2}"),
        ([None, None], "{NULL,NULL}"),
        (["a", 'q"', "b\\", "NULL", ""], '{"a","q\\"","b\\\\","NULL",""}'),
        (["a", None], '{"a",NULL}'),
        ([1, None, True], "{1,NULL,True}"),
        ([datetime(2026, 1, 2, tzinfo=UTC)], '{"2026-01-02T00:00:00+00:00"}'),
        ([[1, 2], [3, 4]], "{{1,2},{3,4}}"),
    ],
)
def test_the_text_of_an_array(values: list[Any], expected: str) -> None:
    assert array_text(values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "NULL"),
        (-5, " E'-5'"),
        (True, " E'True'"),
        ("it's \\ 100%", " E'it''s \\\\ 100%'"),
        (b"\x00\xff", " E'\\\\x00ff'"),
        (["a", None], " E'{\"a\",NULL}'"),
        (datetime(2026, 1, 2, tzinfo=UTC), " E'2026-01-02 00:00:00+00:00'"),
    ],
)
def test_a_value_as_sql(value: Any, expected: str) -> None:
    assert literals.literal(value) == expected


def test_values_stand_in_the_place_of_their_placeholders() -> None:
    query = Query("q", "select %(a)s::text, 10 %% 4", {"a": "%(a)s"})
    assert literals.with_literals(query) == "select  E'%(a)s'::text, 10 % 4"
    assert literals.with_literals(Query("q", "select 10 % 4")) == "select 10 % 4"


def test_a_text_with_a_nul_is_no_sql() -> None:
    for value in ("a\0", ["\0"]):
        with pytest.raises(ValueError, match="NUL"):
            literals.literal(value)


def test_a_socket_of_tcp_gives_a_silent_peer_up() -> None:
    with socket.socket() as tcp:
        sockets.limit(tcp, LIMITS)
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sockets.limit(ours, LIMITS)
        assert not ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_what_the_server_reported_by_the_letters_of_the_protocol() -> None:
    error = failures.reported({"M": "taken", "C": "23505", "n": "c", "D": "Key (x)=(secret)"})
    assert (str(error), error.sqlstate, error.constraint) == ("taken", "23505", "c")


def test_the_detail_of_an_error_is_shown_unless_it_may_repeat_values() -> None:
    said = failures.server_error("no", sqlstate="42501", detail="because")
    assert str(said).startswith("no: because")
    hidden = failures.server_error(
        "no", sqlstate="23505", detail="Key (x)=(secret)", constraint="c"
    )
    assert str(hidden) == "no"
    assert hidden.constraint == "c"


def test_a_value_that_cannot_be_sent_is_named() -> None:
    query = Query("put", "", {"fine": 1, "bad": ["a\0"]})
    assert "parameter 'bad' of put" in str(failures.value_error(ValueError("NUL"), query))
    query = Query("get", "", {"fine": 1})
    assert "a value of get" in str(failures.value_error(ValueError("year 0"), query))


def test_another_encoding_is_refused() -> None:
    failures.check_encoding(None, "the pool")
    failures.check_encoding("UTF8", "the pool")
    with pytest.raises(InvalidOption, match="connections of the pool have client_encoding=LATIN1"):
        failures.check_encoding("LATIN1", "the pool")


def test_an_error_of_many_lines_is_shown_in_one() -> None:
    error = failures.cannot_connect(OSError("refused\n\tby all"), where="host=h", sqlstate="28P01")
    assert str(error) == "cannot connect to PostgreSQL (host=h): refused by all"
    assert error.sqlstate == "28P01"
    where = [failures.in_brackets(each) for each in ("", "(libpq defaults)", "asyncpg (not shown)")]
    assert where == ["", " (libpq defaults)", " (asyncpg, not shown)"]
    assert failures.one_line(OSError()) == "OSError"
