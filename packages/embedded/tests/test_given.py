"""A server that the user gives is used instead of an embedded one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procrastinate_embedded import EmbeddedServerError, Server, server, server_or_given
from procrastinate_embedded.databases import dsn_for

Query = Callable[[str, str], str]


@pytest.fixture
def given(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with server(durable=False, version=16) as pg:
        monkeypatch.setenv("PROCRASTINATE_TEST_DSN", pg.dsn)
        yield pg


def test_a_given_server_is_used_and_not_stopped(
    given: Server, query: Query, leftovers: Callable[[], list[str]]
) -> None:
    before = leftovers()
    with server_or_given() as pg:
        assert (pg.dsn, pg.version, pg.pid, leftovers()) == (given.dsn, 16, None, before)
        with pg.database() as dsn:
            assert query(dsn, "SELECT current_database()").startswith("procrastinate_")
    assert query(given.dsn, "SELECT 1") == "1"


def test_without_a_given_server_an_embedded_one_starts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCRASTINATE_TEST_DSN", "")
    with server_or_given(durable=False) as pg:
        assert pg.pid is not None


def test_a_given_server_that_does_not_answer_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCRASTINATE_TEST_DSN", f"host={place} password=secret")
    with pytest.raises(EmbeddedServerError) as caught, server_or_given():
        pass
    assert "the server that PROCRASTINATE_TEST_DSN names cannot be used" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn, expected",
    [
        ("postgresql://u:p@h:1,i:2/a?x=y", "postgresql://u:p@h:1,i:2/n%20m?x=y"),
        ("postgres://h", "postgres://h/n%20m"),
        ("postgresql:///a?dbname=b&host=/s", "postgresql:///n%20m?host=/s"),
        ("host=h dbname=a", "host=h dbname=a dbname='n m'"),
    ],
)
def test_the_database_of_a_dsn_is_replaced_and_the_rest_kept(dsn: str, expected: str) -> None:
    assert dsn_for(dsn, "n m") == expected


def test_a_keyword_dsn_leads_to_the_new_database(
    given: Server, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = given.dsn.split("host=")[1].split("&")[0]
    monkeypatch.setenv("PROCRASTINATE_TEST_DSN", f"host={host} user=postgres dbname=postgres")
    with server_or_given() as pg:
        dsn = pg.create_database("it's")
        assert query(dsn, "SELECT current_database()") == "it's"
