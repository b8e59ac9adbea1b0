"""What a variant of a connector's tests says is not said twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from connector_variants import said_twice

from procrastinate.connector import AsyncConnector, SyncConnector

MODULE = "packages/connector-x/tests/test_conformance.py"


class Plain(SyncConnector):
    contract = 2


class Asynchronous(AsyncConnector):
    contract = 2


def suite(name: str, connector: type) -> type:
    return type(name, (), {"adapter": SimpleNamespace(connector_class=connector)})


def a_test(cls: type | None, behaviours: str, name: str, way: str) -> Any:
    return SimpleNamespace(
        nodeid=f"{MODULE}::{cls.__name__ if cls else ''}::{name}[{way}]",
        cls=cls,
        function=SimpleNamespace(__module__=f"procrastinate_connector_testkit.{behaviours}"),
        callspec=SimpleNamespace(params={"way": way}),
    )


def left_of(*items: Any) -> list[str]:
    out = said_twice(items)
    return [each.nodeid.removeprefix(f"{MODULE}::") for each in items if each.nodeid not in out]


def test_of_plain_calls_through_an_asynchronous_connector_the_core_and_opening_remain() -> None:
    cls = suite("Test", Asynchronous)
    tests = [
        a_test(cls, "behaviours.values", "test_values_round_trip", "async"),
        a_test(cls, "behaviours.values", "test_values_round_trip", "sync"),
        a_test(cls, "behaviours.sessions", "test_sessions_leave_nothing", "sync"),
        a_test(cls, "behaviours.opening", "test_reopening_works", "sync"),
    ]
    assert left_of(*tests) == [
        "Test::test_values_round_trip[async]",
        "Test::test_sessions_leave_nothing[sync]",
        "Test::test_reopening_works[sync]",
    ]


def test_a_synchronous_connector_s_own_half_runs_whole() -> None:
    test = a_test(suite("Test", Plain), "behaviours.values", "test_values_round_trip", "sync")
    assert left_of(test) == ["Test::test_values_round_trip[sync]"]


def test_over_a_second_driver_all_remains_but_what_the_queue_s_statements_do() -> None:
    one, two = suite("TestOne", Asynchronous), suite("TestTwo", Asynchronous)
    tests = [
        a_test(cls, *test, "async")
        for cls in (one, two)
        for test in (
            ("behaviours.queue_locks", "test_locks_hold"),
            ("behaviours.queue_claim", "test_claims_never_overlap"),  # of the core
            ("behaviours.values", "test_values_round_trip"),
        )
    ]
    assert left_of(*tests) == [
        "TestOne::test_locks_hold[async]",
        "TestOne::test_claims_never_overlap[async]",
        "TestOne::test_values_round_trip[async]",
        "TestTwo::test_claims_never_overlap[async]",
        "TestTwo::test_values_round_trip[async]",
    ]


def test_another_connector_s_suite_is_no_second_one() -> None:
    tests = [
        a_test(suite("TestOne", Asynchronous), "behaviours.queue_locks", "test_locks", "async"),
        a_test(suite("TestTwo", Plain), "behaviours.queue_locks", "test_locks", "sync"),
    ]
    assert len(left_of(*tests)) == 2


def test_a_connector_s_own_tests_all_run() -> None:
    own = a_test(suite("Test", Asynchronous), "behaviours.values", "test_values_x", "sync")
    own.function.__module__ = "test_conformance"
    assert len(left_of(own, a_test(None, "behaviours.values", "test_values_x", "sync"))) == 2
