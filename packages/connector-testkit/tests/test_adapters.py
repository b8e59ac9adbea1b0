"""What an adapter declares decides which tests there are; contradictions are said at once."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_connector import TinyConnector

from procrastinate.connector import Connector
from procrastinate.testing import InMemoryConnector
from procrastinate_connector_testkit import Adapter, Binds, suite_for
from procrastinate_connector_testkit.behaviour import rule_text
from procrastinate_connector_testkit.databases import dsn_for, url_for


class Tiny(Adapter):
    connector_class = TinyConnector

    def connector(self, dsn: str, **options: Any) -> Connector:
        return TinyConnector(dsn, **options)


class TinyThatBinds(Tiny, Binds):
    def connections(self) -> dict[str, Any]:
        return {}


class InMemory(Adapter):
    connector_class = InMemoryConnector

    def connector(self, dsn: str, **options: Any) -> Connector:
        return InMemoryConnector(**options)


def topics(adapter: Adapter) -> set[str]:
    """Return the modules of behaviours that a suite is made of."""
    parts = suite_for(adapter).__mro__
    return {
        part.__module__.rpartition(".")[2] for part in parts if ".behaviours." in part.__module__
    }


def test_nothing_is_tested_that_was_not_declared() -> None:
    assert topics(Tiny()) == {
        *("opening", "values", "results", "errors", "sessions", "losses", "threads", "forks"),
        *("limits", "plans", "waiting"),
        *("schema", "queue_defer", "queue_claim", "queue_locks", "queue_finish"),
        *("queue_recovery", "queue_by_hand", "queue_periodic", "queue_pauses", "queue_search"),
    }


def test_abilities_of_the_adapter_add_tests() -> None:
    assert topics(TinyThatBinds()) - topics(Tiny()) == {"bind"}


def test_type_of_the_connector_decides() -> None:
    """The in-memory connector listens, and runs no SQL."""
    assert topics(InMemory()) == {
        *("opening", "listening", "queue_defer", "queue_claim", "queue_locks", "queue_finish"),
        *("queue_recovery", "queue_by_hand", "queue_periodic", "queue_pauses", "queue_search"),
    }


def test_adapter_without_a_connector_s_class_is_refused() -> None:
    class Unfinished(Tiny):
        connector_class = Connector

    with pytest.raises(TypeError, match="connector_class must be a subclass of SyncConnector"):
        suite_for(Unfinished())


def test_rules_are_quoted_from_the_contract() -> None:
    assert rule_text(8) == (
        "rule 8 of procrastinate.connector: What a connector cannot do is absent from its type."
    )


@pytest.mark.parametrize(
    "dsn,expected",
    [
        ("", "dbname='kit'"),
        ("host=h dbname=x", "host=h dbname=x dbname='kit'"),
        ("postgresql://u:p@h:1/x", "postgresql://u:p@h:1/kit"),
        ("postgresql://", "postgresql:///kit"),
        ("postgresql://u@/x?host=/tmp/s&port=1", "postgresql://u@/kit?host=/tmp/s&port=1"),
        ("postgresql://h/?dbname=x&port=1", "postgresql://h/kit?port=1"),
    ],
)
def test_other_databases_of_the_same_server(dsn: str, expected: str) -> None:
    assert dsn_for(dsn, "kit") == expected


@pytest.mark.parametrize(
    "dsn,expected",
    [
        ("postgresql://u:p@h:1/x", "kit://u:p@h:1/x?schema=s"),
        ("postgresql:///x?port=1", "kit:///x?port=1&schema=s"),
        ("host=h dbname='a b' port=1", "kit:///?host=h&dbname=a%20b&port=1&schema=s"),
    ],
)
def test_urls_of_a_connector(dsn: str, expected: str) -> None:
    assert url_for(dsn, "kit", schema="s") == expected
