from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg2.extras
import pytest
from psycopg2 import extensions
from psycopg2.extensions import connection as Connection
from psycopg2.pool import SimpleConnectionPool, ThreadedConnectionPool

from procrastinate.errors import (
    AppNotOpen,
    ConnectionFailed,
    ConnectionLost,
    InvalidOption,
    PoolTimeout,
)
from procrastinate_psycopg2 import Psycopg2Connector
from procrastinate_psycopg2.sessions import bound

from .helpers import INSERT, PID, once, pids, run, terminate, texts, until


def test_connections_are_kept_and_not_made_again(connector: Psycopg2Connector) -> None:
    first = set(pids(connector, 3))
    assert set(pids(connector, 3)) == first


def test_only_minconn_connections_are_made_at_first(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with admin.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and backend_type = 'client backend'"
        )
        assert cursor.fetchall() == [(2,)]  # admin's and ours


def test_the_environment_does_not_choose_the_encoding(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    connector = Psycopg2Connector(dsn=procrastinate_dsn)
    connector.open()
    sql = "select current_setting('client_encoding'), 'é'::text"
    assert once(connector, sql) == [("UTF8", "é")]
    connector.close()


def test_an_exhausted_pool_is_taken_as_it_is_and_refused_when_it_gives_a_connection(
    procrastinate_dsn: str,
) -> None:
    pool = ThreadedConnectionPool(1, 1, procrastinate_dsn, client_encoding="LATIN1")
    theirs = pool.getconn()
    connector = Psycopg2Connector()
    connector.open(pool)
    pool.putconn(theirs)
    with pytest.raises(InvalidOption, match="client_encoding=LATIN1"):
        once(connector, "select 1")
    assert pool.getconn() is theirs
    assert not theirs.closed
    connector.close()
    pool.closeall()


def test_an_exhausted_pool_says_so_after_its_timeout(procrastinate_dsn: str) -> None:
    connector = Psycopg2Connector(dsn=procrastinate_dsn, maxconn=1, pool_timeout=0.05)
    connector.open()
    with (
        connector.session(),
        pytest.raises(PoolTimeout, match=r"all 1 connections .* 0\.05 seconds"),
    ):
        connector.session().__enter__()
    assert once(connector, "select 1") == [(1,)]
    connector.close()


def test_a_waiting_thread_gets_the_connection_that_comes_back(procrastinate_dsn: str) -> None:
    connector = Psycopg2Connector(dsn=procrastinate_dsn, maxconn=1)
    connector.open()
    results: list[object] = []
    with connector.session() as session:
        (pid,) = run(session, PID)
        thread = threading.Thread(target=lambda: results.extend(once(connector, PID)))
        thread.start()
        pool = connector._source
        until(lambda: pool._waiting == 1)  # type: ignore[union-attr]
    thread.join(10)
    assert results == [pid]
    connector.close()


def test_many_threads_share_a_small_pool(connector: Psycopg2Connector, admin: Connection) -> None:
    def work(number: int) -> None:
        for turn in range(20):
            with connector.session(transaction=turn % 2 == 0) as session:
                run(session, INSERT, text=f"{number}-{turn}")

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(texts(admin)) == sorted(f"{n}-{t}" for n in range(8) for t in range(20))


def test_a_pool_full_of_dropped_connections_is_replaced_unnoticed(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    dropped = pids(connector, 3)
    terminate(admin, dropped)
    assert set(pids(connector, 3)).isdisjoint(dropped)


def test_a_connection_that_breaks_under_way_is_an_error_and_not_given_out_again(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with connector.session() as session:
        (pid,) = run(session, PID)
        terminate(admin, list(pid))
        with pytest.raises(ConnectionLost):
            run(session, INSERT, text="once")
    assert once(connector, PID) != [pid]
    assert texts(admin) == []


def test_after_a_failover_the_read_only_connections_are_all_replaced(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    leases = [connector._source.acquire() for _ in range(3)]  # type: ignore[union-attr]
    for lease in leases:
        with lease.connection.cursor() as cursor:
            cursor.execute("set default_transaction_read_only = on")
        connector._source.release(lease)  # type: ignore[union-attr]
    with pytest.raises(ConnectionLost) as caught:
        once(connector, INSERT, text="refused")
    assert caught.value.sqlstate == "25006"
    once(connector, INSERT, text="accepted")
    assert texts(admin) == ["accepted"]


BEGUN = "BEGIN READ ONLY"
BY_DEFAULT = "set default_transaction_read_only = on"


@pytest.mark.parametrize(
    ("before", "readonly", "reason"),
    [
        (BY_DEFAULT, None, "default_transaction_read_only is on"),
        (BEGUN, None, "begun as a read-only one"),
        ("select 1", True, "made read-only by an option of its driver, pool or engine"),
        (BY_DEFAULT, True, "made read-only by an option"),
    ],
)
def test_a_refused_write_says_who_made_the_session_read_only(
    procrastinate_dsn: str, admin: Connection, before: str, readonly: bool | None, reason: str
) -> None:
    connection = psycopg2.connect(procrastinate_dsn)
    connection.set_session(readonly=readonly, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(before)
    with pytest.raises(ConnectionLost, match=reason):
        run(bound(connection), INSERT, text="refused")
    connection.close()


def test_several_hosts_may_be_given(procrastinate_dsn: str) -> None:
    read = extensions.parse_dsn(procrastinate_dsn)
    host, port = read.get("host", "localhost"), read.get("port", "5432")
    connector = Psycopg2Connector(
        dsn=procrastinate_dsn,
        host=f"/nowhere,{host}",
        port=f"1,{port}",
        target_session_attrs="read-write",
    )
    connector.open()
    assert once(connector, "select 1") == [(1,)]
    connector.close()


def test_close_twice_and_open_again(connector: Psycopg2Connector) -> None:
    connector.open()
    connector.close()
    connector.close()
    with pytest.raises(AppNotOpen):
        connector.session()
    connector.open()
    assert once(connector, "select 1") == [(1,)]


def test_a_connection_in_use_while_closing_is_closed_when_it_comes_back(
    connector: Psycopg2Connector,
) -> None:
    with connector.session() as session:
        connector.close()
        assert run(session, "select 1") == [(1,)]
        connection = session._lease.connection  # type: ignore[attr-defined]
    assert connection.closed == 1


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"host": "127.0.0.1", "port": 1}, "port 1 failed"),
        ({"user": "stranger_to_it"}, "stranger_to_it"),
        ({"dbname": "no_such_database"}, "no_such_database"),
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid"),
        ({"sslmode": "sometimes"}, "sslmode"),
    ],
)
def test_a_connection_that_cannot_be_made_says_why_without_the_password(
    procrastinate_dsn: str, wrong: dict[str, object], said: str
) -> None:
    connector = Psycopg2Connector(**{"dsn": procrastinate_dsn, "password": "secret", **wrong})
    with pytest.raises(ConnectionFailed, match=said) as caught:
        connector.open()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(AppNotOpen):
        connector.session()


@pytest.fixture
def pool(procrastinate_dsn: str) -> Iterator[ThreadedConnectionPool]:
    """The application's pool of at most two connections that give dictionaries."""
    pool = ThreadedConnectionPool(
        1, 2, procrastinate_dsn, cursor_factory=psycopg2.extras.RealDictCursor
    )
    yield pool
    if not pool.closed:
        pool.closeall()


@pytest.fixture
def sharing(pool: ThreadedConnectionPool, admin: Connection) -> Iterator[Psycopg2Connector]:
    connector = Psycopg2Connector(pool_timeout=10)
    connector.open(pool)
    connector.open(pool)
    yield connector
    connector.close()


def test_a_pool_handed_in_is_used_and_left_open(
    pool: ThreadedConnectionPool, sharing: Psycopg2Connector, admin: Connection
) -> None:
    theirs = pool.getconn()
    pid = theirs.info.backend_pid
    pool.putconn(theirs)
    assert once(sharing, PID) == [(pid,)]
    sharing.close()
    assert not pool.closed
    assert pool.getconn().info.backend_pid == pid


def test_a_connection_given_back_to_its_pool_is_refused(
    pool: ThreadedConnectionPool, sharing: Psycopg2Connector
) -> None:
    """The pool gives the same object to the next user, whose transaction it would join."""
    theirs = pool.getconn()
    assert run(bound(theirs), "select 1") == [(1,)]
    pool.putconn(theirs)
    with pytest.raises(InvalidOption, match="was given back to its pool"):
        bound(theirs)
    assert pool.getconn() is theirs
    assert run(bound(theirs), "select 1") == [(1,)]


def test_connections_of_a_pool_handed_in_go_back_as_they_were(
    pool: ThreadedConnectionPool, sharing: Psycopg2Connector, admin: Connection
) -> None:
    once(sharing, INSERT, text="by itself")
    with pytest.raises(ZeroDivisionError), sharing.session(transaction=True) as session:
        run(session, INSERT, text="never")
        raise ZeroDivisionError
    with sharing.session(transaction=True) as session:
        run(session, INSERT, text="together")
    assert texts(admin) == ["by itself", "together"]
    connection = pool.getconn()
    assert connection.autocommit is False
    assert connection.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
    with connection.cursor() as cursor:
        cursor.execute("select 1 as one")
        assert cursor.fetchall() == [{"one": 1}]


def test_dropped_connections_of_a_pool_handed_in_are_replaced(
    pool: ThreadedConnectionPool, sharing: Psycopg2Connector, admin: Connection
) -> None:
    ((pid,),) = once(sharing, PID)
    terminate(admin, [pid])
    assert once(sharing, PID) != [(pid,)]


def test_a_pool_that_others_have_exhausted_is_waited_for(
    pool: ThreadedConnectionPool, sharing: Psycopg2Connector
) -> None:
    theirs = [pool.getconn(), pool.getconn()]
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.extend(once(sharing, "select 1")))
    thread.start()
    thread.join(0.1)
    assert results == []
    pool.putconn(theirs[0])
    thread.join(10)
    assert results == [(1,)]


def test_a_pool_that_stays_exhausted_is_a_timeout(pool: ThreadedConnectionPool) -> None:
    connector = Psycopg2Connector(pool_timeout=0.05)
    connector.open(pool)
    theirs = [pool.getconn(), pool.getconn()]
    with pytest.raises(PoolTimeout, match="all 2 connections"):
        connector.session().__enter__()
    assert [connection.closed for connection in theirs] == [0, 0]


def test_a_pool_closed_by_its_owner_says_so(
    pool: ThreadedConnectionPool, sharing: Psycopg2Connector
) -> None:
    with sharing.session() as session:
        pool.closeall()
        with pytest.raises(ConnectionLost):
            run(session, "select 1")
    with pytest.raises(ConnectionFailed, match="closed by its owner"):
        sharing.session().__enter__()


def test_only_an_open_threaded_pool_is_taken(
    procrastinate_dsn: str, pool: ThreadedConnectionPool
) -> None:
    connector = Psycopg2Connector()
    simple = SimpleConnectionPool(0, 1, procrastinate_dsn)
    with pytest.raises(InvalidOption, match="cannot be shared by threads"):
        connector.open(simple)
    with pytest.raises(InvalidOption, match="not str"):
        connector.open(procrastinate_dsn)
    pool.closeall()
    with pytest.raises(InvalidOption, match="is closed"):
        connector.open(pool)


def test_another_pool_needs_a_close_first(
    pool: ThreadedConnectionPool, connector: Psycopg2Connector
) -> None:
    with pytest.raises(InvalidOption, match="another pool"):
        connector.open(pool)
