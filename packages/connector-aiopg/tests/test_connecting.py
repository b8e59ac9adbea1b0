"""Making connections: errors, several hosts, event loops, forks; and the synchronous half."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import aiopg
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from procrastinate.connector import Query
from procrastinate.errors import AppNotOpen, ConfigurationError, ConnectionFailed, InvalidOption
from procrastinate_aiopg import AiopgConnector
from procrastinate_aiopg.connecting import ReadingConnection, chosen_host

ONE = Query("one", "select 1")
PID = Query("pid", "select pg_backend_pid()")
DATABASE = Query("database", "select current_database()")


async def _run(connector: AiopgConnector, query: Query) -> Any:
    async with connector.session_async() as session:
        return await session.execute(query)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# Errors


async def test_no_server_is_a_failed_connection() -> None:
    with pytest.raises(ConnectionFailed, match=r"host=127\.0\.0\.1 port=\d+ .*refused"):
        await AiopgConnector(host="127.0.0.1", port=1, password="secret").open_async()


async def test_an_unknown_database_is_a_failed_connection(procrastinate_dsn: str) -> None:
    with pytest.raises(ConnectionFailed, match="no_such_database"):
        await AiopgConnector(dsn=procrastinate_dsn, dbname="no_such_database").open_async()


async def test_a_silent_server_is_a_failed_connection_in_time(silent_port: int) -> None:
    connector = AiopgConnector(
        host="127.0.0.1", port=silent_port, timeout=0.2, sslmode="disable", gssencmode="disable"
    )
    with pytest.raises(ConnectionFailed, match=r"0\.2 seconds"):
        await connector.open_async()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_refused_password_is_a_failed_connection_that_does_not_show_it() -> None:
    refusal = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'
    message = b"E" + (len(refusal) + 4).to_bytes(4, "big") + refusal
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1024)
                client.sendall(message)

        refusing = threading.Thread(target=refuse)
        refusing.start()
        connector = AiopgConnector(
            host="127.0.0.1",
            port=server.getsockname()[1],
            user="me",
            password="opensesame",
            sslmode="disable",
            gssencmode="disable",
        )
        with pytest.raises(ConnectionFailed, match="password authentication failed") as caught:
            await connector.open_async()
        refusing.join()
    assert "opensesame" not in f"{caught.value} {caught.value.__cause__} {connector!r}"


async def test_connect_timeout_applies(silent_port: int) -> None:
    connector = AiopgConnector(
        host="127.0.0.1", port=silent_port, connect_timeout=1, sslmode="disable"
    )
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionFailed, match="in time"):
            await connector.open_async()


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"hots": "x"}, "hots"),
        ({"minsize": -1}, "minsize"),
        ({"maxsize": 2, "minsize": 3}, "maxsize"),
        ({"timeout": "soon"}, "timeout"),
        ({"pool_timeout": -1}, "pool_timeout"),
        ({"pool_recycle": None}, "pool_recycle"),
        ({"on_connect": 1}, "on_connect"),
        ({"listen_dsn": 1}, "listen_dsn"),
        ({"async_": True}, "async_"),
    ],
)
def test_impossible_arguments_are_refused_when_it_is_made(
    arguments: dict[str, Any], error: str
) -> None:
    with pytest.raises(InvalidOption, match=error):
        AiopgConnector(**arguments)


@pytest.mark.parametrize("argument", ["dsn", "listen_dsn"])
def test_a_malformed_dsn_is_refused_without_showing_it(argument: str) -> None:
    arguments: dict[str, Any] = {argument: "host=x password=se cret"}
    with pytest.raises(ConfigurationError) as caught:
        AiopgConnector(**arguments)
    assert "cret" not in str(caught.value)


def test_an_url_names_everything() -> None:
    connector = AiopgConnector.from_url("aiopg://me:pw@somehost:55/db?maxsize=3&schema=jobs")
    assert repr(connector) == "<AiopgConnector host=somehost port=55 dbname=db user=me>"
    assert connector.schema == "jobs"
    with pytest.raises(ConfigurationError):
        AiopgConnector.from_url("nonsense")


async def test_libpqs_environment_applies(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_dsn(procrastinate_dsn)
    for name, variable in {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER"}.items():
        if name in settings:
            monkeypatch.setenv(variable, settings[name])
    if "password" in settings:
        monkeypatch.setenv("PGPASSWORD", settings["password"])
    monkeypatch.setenv("PGDATABASE", settings["dbname"])
    connector = AiopgConnector()
    await connector.open_async()
    assert await _run(connector, DATABASE) == [(settings["dbname"],)]
    await connector.close_async()


async def test_on_connect_prepares_each_connection(procrastinate_dsn: str) -> None:
    async def prepare(connection: aiopg.Connection) -> None:
        async with connection.cursor() as cursor:
            await cursor.execute("set application_name = 'prepared'")

    connector = AiopgConnector(dsn=procrastinate_dsn, on_connect=prepare)
    await connector.open_async()
    name = await _run(connector, Query("name", "show application_name"))
    assert name == [("prepared",)]
    await connector.close_async()


# Statements that the server cancels while a connection is made: aiopg says CancelledError, which
# would end a worker as if its task had been cancelled


# The limit is that of the slow statement: one for the connection could end a quick one as well.
SLOW = "set local statement_timeout = 20; select pg_sleep(30)"


async def _slow(connection: aiopg.Connection) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(SLOW)


async def test_a_first_statement_that_the_server_cancels_is_a_failed_connection(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procrastinate_aiopg.connecting.FIRST_STATEMENT", SLOW)
    with pytest.raises(ConnectionFailed, match="statement timeout"):
        await AiopgConnector(dsn=procrastinate_dsn).open_async()


async def test_on_connect_that_the_server_cancels_is_a_failed_connection(
    procrastinate_dsn: str,
) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn, on_connect=_slow)
    with pytest.raises(ConnectionFailed, match="statement timeout"):
        await connector.open_async()


async def test_a_listening_connection_that_the_server_cancels_is_a_failed_connection(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn)
    await connector.open_async()
    monkeypatch.setattr("procrastinate_aiopg.connecting.FIRST_STATEMENT", SLOW)
    with pytest.raises(ConnectionFailed, match="statement timeout"):
        async with connector.listen(["procrastinate_jobs"]):
            pass
    await connector.close_async()


async def test_a_given_pool_whose_new_connection_is_cancelled_is_a_failed_connection(
    procrastinate_dsn: str,
) -> None:
    async with aiopg.create_pool(procrastinate_dsn, minsize=0, maxsize=2, on_connect=_slow) as pool:
        connector = AiopgConnector()
        with pytest.raises(ConnectionFailed, match="statement timeout"):
            await connector.open_async(pool)
            await _run(connector, ONE)


async def test_a_task_that_is_cancelled_while_it_connects_is_cancelled(
    procrastinate_dsn: str,
) -> None:
    begun = asyncio.Event()

    async def slow(connection: aiopg.Connection) -> None:
        begun.set()
        async with connection.cursor() as cursor:
            await cursor.execute("select pg_sleep(30)")

    connector = AiopgConnector(dsn=procrastinate_dsn, on_connect=slow)
    opening = asyncio.create_task(connector.open_async())
    await begun.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


# Several hosts


def _two_hosts(dsn: str, first_port: int, **more: Any) -> str:
    settings = parse_dsn(dsn)
    host, port = settings.get("host", "127.0.0.1"), settings.get("port", "5432")
    hosts = {"host": f"127.0.0.1,{host}", "port": f"{first_port},{port}"}
    return str(make_dsn(**{**settings, **hosts, **more}))


async def test_a_host_that_refuses_is_passed_over(procrastinate_dsn: str) -> None:
    dsn = _two_hosts(procrastinate_dsn, 1, target_session_attrs="read-write")
    connector = AiopgConnector(dsn=dsn)
    await connector.open_async()
    assert await _run(connector, ONE) == [(1,)]
    await connector.close_async()


async def test_a_host_that_does_not_answer_is_passed_over(
    procrastinate_dsn: str, silent_port: int
) -> None:
    dsn = _two_hosts(
        procrastinate_dsn, silent_port, connect_timeout=2, sslmode="disable", gssencmode="disable"
    )
    connector = AiopgConnector(dsn=dsn)
    async with asyncio.timeout(20):
        await connector.open_async()
    assert await _run(connector, ONE) == [(1,)]
    await connector.close_async()


async def test_a_server_of_the_wrong_kind_is_passed_over(procrastinate_dsn: str) -> None:
    """The first is refused for its session attributes, after the handshake."""
    port = int(parse_dsn(procrastinate_dsn).get("port", "5432"))
    dsn = _two_hosts(procrastinate_dsn, port, target_session_attrs="prefer-standby")
    connector = AiopgConnector(dsn=dsn, timeout=10)
    await connector.open_async()
    assert await _run(connector, ONE) == [(1,)]
    await connector.close_async()


async def test_no_suitable_host_is_a_failed_connection_at_once(procrastinate_dsn: str) -> None:
    port = int(parse_dsn(procrastinate_dsn).get("port", "5432"))
    dsn = _two_hosts(procrastinate_dsn, port, target_session_attrs="standby")
    async with asyncio.timeout(9):
        with pytest.raises(ConnectionFailed, match="standby"):
            await AiopgConnector(dsn=dsn).open_async()


@pytest.mark.parametrize(
    "settings, found, chosen",
    [
        ({"host": "a,b", "port": "1"}, ("b", "1"), {"host": "b", "port": "1"}),
        (
            {"host": "a,b", "hostaddr": "1.1.1.1,2.2.2.2", "port": "1,2"},
            ("b", "2"),
            {"host": "b", "hostaddr": "2.2.2.2", "port": "2"},
        ),
        (
            {"hostaddr": "1.1.1.1,2.2.2.2", "port": "1"},
            ("2.2.2.2", "1"),
            {"host": "", "hostaddr": "2.2.2.2", "port": "1"},
        ),
    ],
)
def test_the_host_that_libpq_chose_is_found_among_the_settings(
    settings: dict[str, str], found: tuple[str, str], chosen: dict[str, str]
) -> None:
    assert chosen_host(settings, *found) == chosen


# Event loops and processes


async def test_a_pool_without_connections_is_refused_when_it_makes_one(
    procrastinate_dsn: str,
) -> None:
    async with aiopg.create_pool(procrastinate_dsn, minsize=0, client_encoding="LATIN1") as pool:
        connector = AiopgConnector()
        await connector.open_async(pool)
        with pytest.raises(InvalidOption, match="client_encoding=LATIN1"):
            async with connector.session_async():
                pass
        with pytest.raises(InvalidOption, match="client_encoding=LATIN1"):
            async with connector.listen(["a"]):
                pass
        await connector.close_async()
        assert pool.freesize == pool.size == 1


async def test_a_pool_of_another_event_loop_is_refused(procrastinate_dsn: str) -> None:
    pool = await asyncio.to_thread(
        lambda: asyncio.run(_pool_without_connections(procrastinate_dsn))
    )
    with pytest.raises(InvalidOption, match="another event loop"):
        await AiopgConnector().open_async(pool)


async def _pool_without_connections(dsn: str) -> aiopg.Pool:
    return await aiopg.create_pool(dsn, minsize=0)


async def test_before_opening_there_is_a_clear_error() -> None:
    with pytest.raises(AppNotOpen, match="open_async"):
        AiopgConnector().session_async()


async def test_connecting_does_not_stop_the_event_loop(
    procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name resolution, which libpq does in the call, may take long."""
    import psycopg2

    release = threading.Event()
    real = psycopg2.connect

    def slow(*args: Any, **kwargs: Any) -> Any:
        makes_it = kwargs["connection_factory"] is ReadingConnection  # else it is handed to aiopg
        assert not makes_it or release.wait(10)
        return real(*args, **kwargs)

    monkeypatch.setattr(psycopg2, "connect", slow)
    connector = AiopgConnector(dsn=procrastinate_dsn)
    opening = asyncio.create_task(connector.open_async())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not opening.done()
    release.set()
    await opening
    await connector.close_async()


async def test_a_cancelled_connect_leaves_no_connection(
    procrastinate_dsn: str, observer: Any
) -> None:
    connector = AiopgConnector(dsn=procrastinate_dsn)
    opening = asyncio.create_task(connector.open_async())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await asyncio.sleep(0.1)
    observer.until(lambda: observer.others() == 0)
    with pytest.raises(AppNotOpen):
        connector.session_async()


# The synchronous half


async def test_the_synchronous_half_has_the_same_database_codec_and_schema(
    procrastinate_dsn: str,
) -> None:
    connector = AiopgConnector(
        dsn=procrastinate_dsn,
        json_dumps=str,
        json_loads=len,
        schema="jobs",
        maxsize=3,
        timeout=10,
        enable_json=True,
        echo=True,
        pool_recycle=5,
    )
    half = connector.sync_connector()
    assert (half.json_dumps, half.json_loads, half.schema) == (str, len, "jobs")
    half.open()
    with half.session() as session:
        assert session.execute(DATABASE) == [(parse_dsn(procrastinate_dsn)["dbname"],)]
    half.close()


async def test_with_a_given_pool_the_synchronous_half_goes_where_the_pool_goes(
    pool: aiopg.Pool, procrastinate_dsn: str
) -> None:
    connector = AiopgConnector()
    await connector.open_async(pool)
    half = connector.sync_connector()
    half.open()
    with half.session() as session:
        assert session.execute(DATABASE) == [(parse_dsn(procrastinate_dsn)["dbname"],)]
    half.close()
    await connector.close_async()


async def test_a_pool_that_does_not_say_where_it_goes_is_an_error(pool: aiopg.Pool) -> None:
    connector = AiopgConnector()
    await connector.open_async(pool)
    dsn = vars(pool).pop("_dsn")
    with pytest.raises(ConfigurationError, match="dsn="):
        connector.sync_connector()
    vars(pool)["_dsn"] = dsn
    await connector.close_async()
