"""JSON, and codecs that a connection's owner has changed, for connectors over asyncpg."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from procrastinate.connector import Query
from procrastinate.connector_tools import asyncpg_values
from procrastinate.connector_tools.asyncpg_values import (
    fetch_by_usual_codecs,
    has_changed_codecs,
    with_json_as_text,
)


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember nothing of these codecs: asyncpg's own are the same for the whole process."""
    monkeypatch.setattr(asyncpg_values, "_usual", [])


class Connection:
    """As much of an asyncpg connection as is asked for."""

    def __init__(self, *records: dict[str, Any], changed: int | None = None) -> None:
        self.changed = changed
        self.records = records
        self.sent: list[tuple[Any, ...]] = []

    def is_closed(self) -> bool:
        return False

    def get_settings(self) -> Any:
        return SimpleNamespace(get_data_codec=self._codec)

    def _codec(self, oid: int, *, ignore_custom_codec: bool = False) -> str:
        return "the owner's" if oid == self.changed and not ignore_custom_codec else "usual"

    async def _execute(self, sql: str, values: Any, *_: Any, ignore_custom_codec: bool) -> Any:
        assert ignore_custom_codec
        self.sent.append((sql, values))
        return self.records


def test_json_goes_as_text() -> None:
    assert with_json_as_text("select $1::jsonb, $2::json, $3::text, '1'::jsonb") == (
        "select $1::text::jsonb, $2::text::json, $3::text, '1'::jsonb"
    )


@pytest.mark.parametrize(("oid", "is_ours"), [(20, True), (1184, True), (3802, False)])
def test_only_codecs_of_our_types_matter(oid: int, is_ours: bool) -> None:
    assert not has_changed_codecs(Connection())
    assert has_changed_codecs(Connection(changed=oid)) is is_ours


async def test_arrays_are_sent_as_text_past_the_owners_codecs() -> None:
    connection = Connection({"id": 1}, changed=20)
    assert has_changed_codecs(connection)

    records = await fetch_by_usual_codecs(connection, "select $1::bigint[], $2::int", [[1, 2], 3])

    assert records == ({"id": 1},)
    assert connection.sent == [("select $1::text::bigint[], $2::int", ["{1,2}", 3])]


async def test_an_array_in_a_row_is_refused_by_the_name_of_the_codec() -> None:
    connection = Connection({"ids": [1]}, changed=20)
    assert has_changed_codecs(connection)

    with pytest.raises(ValueError, match="codecs for int8"):
        await fetch_by_usual_codecs(connection, "select", [])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"jit": "off", "plan_cache_mode": "auto"}, False),
        ({"jit": "off", "enable_sort": "off"}, True),
    ],
)
def test_a_query_says_whether_its_settings_are_for_the_planner(
    settings: dict[str, str], expected: bool
) -> None:
    assert Query("name", "select 1", settings=settings).is_for_the_planner is expected
