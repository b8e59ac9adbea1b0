"""Opening and closing, and what a connector is by its type. Needs no SQL."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from procrastinate import connector as contract
from procrastinate import errors, json_codec
from procrastinate.drive import Request
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.databases import url_for
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.queue import Queue
from procrastinate_connector_testkit.subject import Subject, SyncSubject


def fresh(db: Subject, **options: Any) -> Subject:
    """Return another connector of the same kind, not opened yet."""
    return db.another(db.adapter.connector(db.dsn, **options))


#: Values that options of the contract cannot have.
NO_SCHEMAS: tuple[Any, ...] = ("", "s" * 64, "é" * 32, "a\0b", 'a"b', "\ud800", b"kit", 0)
NO_FUNCTIONS: tuple[Any, ...] = ("json", 0, {})


class Opening:
    """The life of a connector."""

    @behaviour("Connector.contract")
    async def test_type_names_the_version_of_the_contract(self, db: Subject) -> None:
        assert type(db.connector).contract == contract.CONTRACT_VERSION

    @behaviour("Connector", ways="own")
    async def test_type_is_the_one_declared(self, db: Subject) -> None:
        """The adapter makes connectors of the class by which the tests were chosen."""
        assert isinstance(db.connector, db.adapter.connector_class)

    @behaviour(8)
    async def test_type_is_complete(self, db: Subject) -> None:
        """There is no abstract method left, and one kind of connector is not also the other."""
        assert not inspect.isabstract(type(db.connector))
        kinds = (contract.SyncConnector, contract.AsyncConnector)
        assert sum(isinstance(db.connector, kind) for kind in kinds) == 1

    @behaviour("Connector.__init__")
    async def test_options_of_the_contract_have_defaults(self, db: Subject) -> None:
        connector = fresh(db).connector
        assert connector.schema is None
        assert connector.json_dumps({"é": [1, None]}) == json_codec.dumps({"é": [1, None]})
        assert connector.json_loads('{"a": 1.5}') == {"a": 1.5}

    @behaviour("Connector.__init__")
    async def test_options_of_the_contract_are_kept(self, db: Subject) -> None:
        """Also by the synchronous counterpart of an asynchronous connector."""

        def dumps(value: Any) -> str:
            return "dumped"

        def loads(text: str) -> Any:
            return "loaded"

        connector = fresh(db, schema="kit", json_dumps=dumps, json_loads=loads).connector
        kept = (connector.schema, connector.json_dumps, connector.json_loads)
        assert kept == ("kit", dumps, loads)

    @behaviour("Connector.__init__", ways="own")
    async def test_options_that_cannot_be_are_refused_at_once(self, db: Subject) -> None:
        """When the connector is made: before there is an app, or anything is deferred."""
        impossible = {
            "schema": NO_SCHEMAS,
            "json_dumps": NO_FUNCTIONS,
            "json_loads": NO_FUNCTIONS,
        }
        for option, values in impossible.items():
            for value in values:
                with pytest.raises(errors.InvalidOption, match=f"^{option} must "):
                    fresh(db, **{option: value})

    @behaviour("Connector.from_url", ways="own")
    async def test_urls_that_cannot_be_are_a_configuration_error(self, db: Subject) -> None:
        for url in ("", "not a url", "://", "x://host:port/database"):
            with pytest.raises(errors.ConfigurationError):
                db.adapter.connector_class.from_url(url)

    @behaviour("open: twice is harmless")
    async def test_opening_twice_is_harmless(self, db: Subject, queue: Queue) -> None:
        await db.open()
        assert await queue.ids() == []

    @behaviour("close: twice is harmless, also when it was never open")
    async def test_closing_twice_is_harmless(self, db: Subject) -> None:
        subject = fresh(db)
        await subject.close()
        await subject.open()
        await subject.close()
        await subject.close()

    @behaviour("close: it may be opened again")
    async def test_reopening_works(self, db: Subject, queue: Queue) -> None:
        for _ in range(3):
            assert await queue.ids() == []
            await db.close()
            await db.open()
        assert await queue.ids() == []

    @behaviour(3)
    async def test_read_only_sessions_defer_nothing(self, db: Subject, queue: Queue) -> None:
        with pytest.raises(errors.ConnectorException) as caught:
            async with entered(db.session(transaction=True, read_only=True)) as session:
                await session.flow(queue.defer_flow())
        assert caught.value.sqlstate == "25006"
        assert await queue.ids() == []

    @behaviour("session: read_only needs a transaction")
    async def test_read_only_sessions_need_a_transaction(self, db: Subject) -> None:
        with pytest.raises(ValueError, match="transaction"):
            async with entered(db.session(read_only=True)):
                pass

    @behaviour("AsyncConnector.sync_connector: new and unopened", ways="own")
    async def test_counterparts_are_new_ones(self, db: Subject) -> None:
        """Closing the synchronous counterpart leaves the connector open, and each is its own."""
        if isinstance(db.connector, contract.SyncConnector):
            assert isinstance(db, SyncSubject)
            return
        assert isinstance(db.connector, contract.AsyncConnector)
        one, two = db.connector.sync_connector(), db.connector.sync_connector()
        assert one is not two
        one.open()
        one.close()
        two.close()
        async with entered(db.session()) as session:  # of a database without our tables, maybe
            assert await session.execute(Queue(db).statements(Request("ping"))) == [(1,)]


class NeedsOpening:
    """Of connectors that have something to connect to."""

    @behaviour("session: before open")
    async def test_sessions_before_open_are_an_error(self, db: Subject) -> None:
        await assert_not_open(fresh(db))

    @behaviour("session: after close")
    async def test_sessions_after_close_are_an_error(self, db: Subject) -> None:
        subject = fresh(db)
        await subject.open()
        await subject.close()
        await assert_not_open(subject)

    @behaviour("open: what is refused leaves it closed", ways="own")
    async def test_objects_that_are_no_pools_are_refused(self, db: Subject) -> None:
        """Also by a connector that takes no pool; it may be opened without one."""
        subject = fresh(db)
        for given in (object(), "a pool", 0):
            with pytest.raises(errors.InvalidOption):
                await subject.open(given)
            await assert_not_open(subject)
        await subject.open()
        with pytest.raises(errors.InvalidOption):
            await subject.open(object())
        await subject.open()

    @behaviour("close: once is enough, however often it was opened")
    async def test_closing_once_is_enough(self, db: Subject) -> None:
        subject = fresh(db)
        await subject.open()
        await subject.open()
        await subject.close()
        await assert_not_open(subject)


class HasUrls:
    """Of connectors that are known by a name."""

    @behaviour("Connector.from_url", ways="own")
    async def test_urls_name_the_database(self, db: Subject) -> None:
        """The connection string that the kit was given, with the connector's name for a scheme."""
        url = url_for(db.dsn, str(db.adapter.name))
        subject = db.another(db.adapter.connector_class.from_url(url))
        await subject.open()
        here = await db.value("select current_database()::text")
        assert await subject.value("select current_database()::text") == here

    @behaviour("Connector.from_url", ways="own")
    async def test_urls_may_name_the_schema(self, db: Subject) -> None:
        url = url_for(db.dsn, str(db.adapter.name), schema="kit")
        assert db.adapter.connector_class.from_url(url).schema == "kit"


async def assert_not_open(subject: Subject) -> None:
    """Assert that a session is refused, by an error of the tree."""
    with pytest.raises((errors.AppNotOpen, errors.ConnectorException)):
        async with entered(subject.session()) as session:
            await session.execute(Queue(subject).statements(Request("ping")))
