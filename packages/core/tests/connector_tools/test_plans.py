"""What the server keeps for a connection: which messages are sent, and when that ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from procrastinate.connector import GENERIC, Query, Rows
from procrastinate.connector_tools import plans
from procrastinate.connector_tools.plans import ASK, USUAL, Permission, Plans
from procrastinate.drive import Request
from procrastinate.errors import ConnectorException
from procrastinate.storage.statements import Statements, load

SQL = "select call(%(text)s::text, %(number)s::integer)"
CALL = Query("call", SQL, {"text": "a", "number": 1}, dict(USUAL))
LOCAL = CALL.set_local()
SET = "SET jit = 'off';SET default_transaction_isolation = 'read committed';"
PREPARE = "PREPARE procrastinate_call_{} (text,integer) AS select call($1::text, $2::integer);"
EXECUTE = "EXECUTE procrastinate_call_{}(%(text)s,%(number)s)"


class Sender:
    """Notes what is sent on a connection."""

    def __init__(self, *, pid: int = 7, in_transaction: bool = False) -> None:
        self.in_transaction = in_transaction
        self.server_pid = 7
        self.sent: list[str] = []
        self.errors: list[ConnectorException] = []
        self._pid = pid

    def send(self, query: Query, front: str, sql: str) -> Rows:
        self.sent.append(front + sql)
        if self.errors:
            raise self.errors.pop()
        return [(self._pid,)]


class AsyncSender(Sender):
    async def send(self, query: Query, front: str, sql: str) -> Rows:  # type: ignore[override]
        return Sender.send(self, query, front, sql)


def by_thread(sender: Sender, kept: Plans, query: Query, begin: str = "") -> None:
    plans.run(sender, kept, query, begin)


def by_coroutine(sender: Sender, kept: Plans, query: Query, begin: str = "") -> None:
    again = AsyncSender(pid=sender._pid, in_transaction=sender.in_transaction)
    again.sent, again.errors = sender.sent, sender.errors
    asyncio.run(plans.run_async(again, kept, query, begin))


Run = Callable[..., None]


@pytest.fixture(params=[by_thread, by_coroutine])
def run(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_call_is_prepared_the_second_time_and_brings_no_settings_from_then_on(run: Run) -> None:
    sender, kept = Sender(), Plans(Permission())
    for begin in ("", "", "", "BEGIN;"):
        run(sender, kept, CALL, begin)
    assert sender.sent == [
        LOCAL + SQL,
        ASK.sql,
        SET + LOCAL + PREPARE.format(1) + EXECUTE.format(1),
        EXECUTE.format(1),
        "BEGIN;" + EXECUTE.format(1),
    ]


def test_of_many_texts_of_a_name_the_first_are_prepared_while_there_is_room(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a cluster, which name their partition."""
    monkeypatch.setattr(plans, "AT_MOST", 2)
    sender, kept = Sender(), Plans(Permission())
    often = {"plan_cache_mode": GENERIC}
    for number in (1, 2, 2, 3, 3, 3, 1):
        run(sender, kept, Query("claim", f"select {number}, %(n)s::integer", {"n": 0}, often))
    sent = [re.findall("PREPARE|EXECUTE", each)[:1] for each in sender.sent if each != ASK.sql]
    assert sent == [["PREPARE"], ["PREPARE"], ["EXECUTE"], [], [], [], ["EXECUTE"]]


def test_what_cannot_be_planned_without_its_values_is_sent_as_it_is_from_then_on(run: Run) -> None:
    """On all connections of the pool. The server may be a coordinator of another version."""
    sender, kept = Sender(), Plans(Permission())
    often = Query("claim", SQL, {"text": "a", "number": 1}, {"plan_cache_mode": GENERIC})
    sender.errors = [no_error := ConnectorException("no plan"), ConnectorException("no plan")]
    for each in sender.errors:
        each.sqlstate = "0A000"
    kept.permission.learn(True)
    with pytest.raises(ConnectorException):
        run(sender, kept, often)
    assert "PREPARE" in sender.sent[0]
    assert kept.refused(no_error)  # nothing may be known of the connection
    sender.errors.clear()
    run(sender, Plans(kept.permission), often)
    assert sender.sent[1:] == [often.set_local() + SQL]


@pytest.mark.parametrize(("begin", "in_transaction"), [("BEGIN;", False), ("", True)])
def test_nothing_is_set_for_the_session_in_a_transaction_that_may_be_rolled_back(
    run: Run, begin: str, in_transaction: bool
) -> None:
    sender, kept = Sender(in_transaction=in_transaction), Plans(Permission())
    for _ in range(3):
        run(sender, kept, CALL, begin)
    sender.in_transaction = False
    run(sender, kept, CALL)
    assert sender.sent == [
        begin + LOCAL + SQL,
        ASK.sql,
        begin + LOCAL + PREPARE.format(1) + EXECUTE.format(1),
        begin + LOCAL + EXECUTE.format(1),
        SET + LOCAL + EXECUTE.format(1),
    ]


def test_after_an_error_nothing_counts_as_set_or_prepared(run: Run) -> None:
    sender, kept = Sender(), Plans(Permission())
    run(sender, kept, CALL)
    kept.permission.learn(True)
    sender.errors = [ConnectorException("no", sqlstate="42883")]
    with pytest.raises(ConnectorException):
        run(sender, kept, CALL)
    run(sender, kept, CALL)
    assert sender.sent[1:] == [SET + LOCAL + PREPARE.format(n) + EXECUTE.format(n) for n in (1, 2)]


def test_behind_a_pooler_nothing_is_kept_and_that_is_said_once(run: Run) -> None:
    said: list[str] = []
    permission = Permission(lambda: said.append("pooler"))
    sender = Sender(pid=8)
    for _ in range(3):
        run(sender, Plans(permission), CALL)
        kept = Plans(permission)
        for _ in range(3):
            run(sender, kept, CALL)
    assert set(sender.sent) == {LOCAL + SQL, ASK.sql}
    assert sender.sent.count(ASK.sql) == len(said) == 1


@pytest.mark.parametrize("sqlstate", ["26000", "42P05"])
def test_the_whole_pool_stops_if_a_pooler_was_not_found(sqlstate: str) -> None:
    sender, permission = Sender(), Permission()
    kept, others = Plans(permission), Plans(permission)
    for each in (kept, others):
        by_thread(sender, each, CALL)
        by_thread(sender, each, CALL)
    assert kept.refused(ConnectorException("no", sqlstate=sqlstate))
    for each in (kept, others, Plans(permission)):
        by_thread(sender, each, CALL)
        assert sender.sent[-1] == LOCAL + SQL


@pytest.mark.parametrize(("begin", "in_transaction"), [("", False), ("BEGIN;", False), ("", True)])
def test_a_call_that_is_missing_is_sent_as_it_is_unless_that_ended_a_transaction(
    run: Run, begin: str, in_transaction: bool
) -> None:
    sender, kept = Sender(), Plans(Permission())
    run(sender, kept, CALL)
    run(sender, kept, CALL)
    del sender.sent[:]
    sender.in_transaction = in_transaction
    sender.errors = [ConnectorException("no", sqlstate="26000")]
    if begin or in_transaction:
        with pytest.raises(ConnectorException):
            run(sender, kept, CALL, begin)
        assert sender.sent == [begin + EXECUTE.format(1)]
    else:
        run(sender, kept, CALL)
        assert sender.sent == [EXECUTE.format(1), LOCAL + SQL]


def test_a_query_with_settings_of_its_own_brings_them_all(run: Run) -> None:
    limited = Query("call", SQL, CALL.params, {**USUAL, "statement_timeout": "100"})
    planned = Query("plan", SQL, CALL.params, {**USUAL, "plan_cache_mode": GENERIC})
    sender, kept = Sender(), Plans(Permission())
    for query in (CALL, CALL, limited, planned):
        run(sender, kept, query)
    assert sender.sent[-2:] == [
        limited.set_local() + EXECUTE.format(1),
        planned.set_local() + EXECUTE.format(1),
    ]


def test_calls_of_functions_keep_their_plans_and_have_the_usual_settings() -> None:
    calls = {name for name, each in load().items() if each.settings == USUAL}
    assert {"defer_job", "defer_job_in", "defer_job_with_key", "defer_alike"} <= calls
    for name in calls:
        assert Statements()(Request(name)).keeps_plan, name
