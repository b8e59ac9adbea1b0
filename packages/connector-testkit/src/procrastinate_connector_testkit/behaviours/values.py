"""Values: what goes in as a parameter comes out as it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis
import pytest
from hypothesis import strategies as st

from procrastinate import errors
from procrastinate.connector import Value
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.databases import other_database
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Session, Subject

EXAMPLES = 40  # of up to 8 values each, for each kind

BIGINT = st.integers(-(2**63), 2**63 - 1)
INTEGER = st.integers(-(2**31), 2**31 - 1)
#: PostgreSQL has no NUL, and UTF-8 no surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
MOMENT = st.datetimes(
    datetime(2, 1, 1),
    datetime(9998, 12, 31),
    timezones=st.one_of(
        st.timezones(),
        st.builds(
            timezone,
            st.timedeltas(timedelta(hours=-15), timedelta(hours=15)).map(
                lambda offset: timedelta(minutes=offset // timedelta(minutes=1))
            ),
        ),
    ),
)

#: Of each kind of value: the cast that core gives its placeholders, and what to try.
KINDS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "bool": ("boolean", st.booleans()),
    "smallint": ("smallint", st.integers(-(2**15), 2**15 - 1)),
    "integer": ("integer", INTEGER),
    "bigint": ("bigint", BIGINT),
    "float": ("float8", st.floats()),
    "text": ("text", TEXT),
    "bytes": ("bytea", st.binary()),
    "timestamptz": ("timestamptz", MOMENT),
    "integer_list": ("integer[]", st.lists(st.none() | INTEGER)),
    "bigint_list": ("bigint[]", st.lists(st.none() | BIGINT)),
    "text_list": ("text[]", st.lists(st.none() | TEXT)),
}

#: Texts that mean something to some layer on the way to the server.
TRICKY_TEXTS = (
    *("", " ", "NULL", "null", "{}", "{NULL}", '{"a","b"}', "[]", '""', "''", "'", '"', "\\"),
    *("\\'", "\\\\", "\\N", "\\x41", "it's", "a,b", "a;b", "--", "/* */", "$1", "$$", "?", "??"),
    *("%", "%%", "%s", "%d", "%(x)s", "%%(x)s", "100%", ":x", ":name", "::text", "@x", "{x}"),
    *("a\nb", "a\r\nb", "\t", "\x01", "\x7f", "\u00a0", "\u2028", "\ufeff", "\ufffd"),
    *("é", "e\u0301", "İ", "ß", "日本語", "עברית", "🦆", "👩\u200d🚀", "\U0010ffff"),
)

MOMENTS = (
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 7, 1, 12, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(2026, 7, 1, 12, 30, tzinfo=timezone(-timedelta(hours=9, minutes=30))),
    # Both halves of an hour that the clocks show twice, and one that they leave out.
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2026, 3, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    # Local mean time: an offset with seconds.
    datetime(1850, 1, 1, 12, tzinfo=ZoneInfo("Europe/Amsterdam")),
)

#: Settings of a database (or role) that change how values look on the wire.
FOREIGN_SETTINGS = {
    "timezone": "Asia/Kathmandu",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "bytea_output": "escape",
}


def is_same(actual: Any, expected: Any) -> bool:
    """Whether two values are equal and of the same type; moments are compared in UTC."""
    if isinstance(expected, datetime):
        if not isinstance(actual, datetime) or actual.tzinfo is None:
            return False
        return actual.astimezone(UTC) == expected.astimezone(UTC)
    if isinstance(expected, float) and math.isnan(expected):
        return isinstance(actual, float) and math.isnan(actual)
    if isinstance(expected, list):
        return (
            type(actual) is list
            and len(actual) == len(expected)
            and all(is_same(*pair) for pair in zip(actual, expected, strict=True))
        )
    return type(actual) is type(expected) and bool(actual == expected)


async def round_trips(session: Session, cast: str, values: Sequence[Value]) -> None:
    """Send each value and assert that it comes back as it was."""
    for value in values:
        actual = await session.value(f"select %(x)s::{cast}", x=value)
        assert is_same(actual, value), (
            f"{_shown(value)} sent as {cast} came back as {_shown(actual)}"
        )


def _shown(value: Any) -> str:
    text = f"{value!r} ({type(value).__name__})"
    return text if len(text) < 400 else f"{text[:200]} … {text[-190:]}"


async def round_trips_once(db: Subject, cast: str, values: Sequence[Value]) -> None:
    async with entered(db.session()) as session:
        await round_trips(session, cast, values)


class Values:
    """Every kind of value that core sends."""

    @pytest.mark.parametrize("kind", KINDS)
    @behaviour(1, 2)
    def test_values_round_trip(self, db: Subject, kind: str) -> None:
        """Any value of the kind comes back equal, and of the same type."""
        cast, strategy = KINDS[kind]

        @hypothesis.settings(
            deadline=None,
            max_examples=EXAMPLES,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
        @hypothesis.given(st.lists(strategy, min_size=1, max_size=8))
        def each_of(values: list[Value]) -> None:
            db.run(round_trips_once(db, cast, values))

        each_of()

    @behaviour(1, 2)
    async def test_values_limits_of_numbers_round_trip(self, db: Subject) -> None:
        """The smallest one is a trap: ``-32768::smallint`` negates what is out of range."""
        for cast, bits in (("smallint", 15), ("integer", 31), ("bigint", 63)):
            await round_trips_once(db, cast, [2**bits - 1, -(2**bits), -1, 0])
        await round_trips_once(db, "bigint", [2**31, 2**53 + 1])
        floats = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]
        await round_trips_once(db, "float8", floats)

    @behaviour(1, 2)
    async def test_values_tricky_texts_round_trip(self, db: Subject) -> None:
        """Quotes, backslashes, percent signs, placeholders and all of Unicode mean themselves."""
        await round_trips_once(db, "text", TRICKY_TEXTS)
        await round_trips_once(db, "text[]", [[text] for text in TRICKY_TEXTS])
        await round_trips_once(db, "text[]", [list(TRICKY_TEXTS)])

    @behaviour(1, 2)
    async def test_values_moments_round_trip(self, db: Subject) -> None:
        """Aware datetimes stay the same moment, to the microsecond, from whatever zone."""
        await round_trips_once(db, "timestamptz", MOMENTS)

    @behaviour(1, 2)
    async def test_values_moments_are_the_same_to_the_server(self, db: Subject) -> None:
        """An error that is made on the way in and again on the way out does not hide."""
        moment = datetime(2026, 7, 1, 12, 30, 0, 7, timezone(timedelta(hours=5, minutes=45)))
        epoch = await db.value(
            "select (extract(epoch from %(x)s::timestamptz) * 1000000)::bigint", x=moment
        )
        expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        assert epoch == expected

    @behaviour(1, 2)
    async def test_values_none_is_null_of_every_type(self, db: Subject) -> None:
        async with entered(db.session()) as session:
            for cast, _ in KINDS.values():
                rows = await session.sql(f"select %(x)s::{cast}, %(x)s::{cast} is null", x=None)
                assert list(rows) == [(None, True)], f"None as {cast}"

    @behaviour(1, 2)
    async def test_values_empty_lists_and_lists_of_none_round_trip(self, db: Subject) -> None:
        for cast in ("integer[]", "bigint[]", "text[]"):
            await round_trips_once(db, cast, [[], [None], [None, None]])

    @behaviour(1, 2)
    async def test_values_large_ones_round_trip(self, db: Subject) -> None:
        """Lists of ten thousand, and texts and bytes of a megabyte."""
        await round_trips_once(db, "bigint[]", [list(range(10_000))])
        await round_trips_once(db, "text[]", [[f"lock {n}" for n in range(9_999)] + [None]])
        await round_trips_once(db, "text", ["é'\\%" * 200_000])
        await round_trips_once(db, "bytea", [bytes(range(256)) * 4_096])

    @behaviour(1)
    async def test_values_unnest_in_step(self, db: Subject) -> None:
        """Lists that are unnested together, as core sends batches."""
        rows = await db.sql(
            "select * from unnest(%(ids)s::bigint[], %(names)s::text[], %(flags)s::integer[]"
            "::boolean[])",
            ids=[1, 2, 3],
            names=["a", None, "%s"],
            flags=[1, 0, 1],
        )
        assert list(rows) == [(1, "a", True), (2, None, False), (3, "%s", True)]

    @behaviour(1, 2)
    async def test_values_json_travels_as_text(self, db: Subject) -> None:
        text = '{"a": [1, 2.5, null, true, "é\\n%(x)s\\"🦆"]}'
        assert await db.value("select %(x)s::jsonb::text", x=text) == text

    @pytest.mark.parametrize("setting", ["its own zone", "foreign settings"])
    @behaviour(1, 2)
    async def test_values_do_not_depend_on_settings(self, db: Subject, setting: str) -> None:
        """The settings of a database or role change nothing about values."""
        settings = {"timezone": "America/St_Johns"}
        if setting == "foreign settings":
            settings = FOREIGN_SETTINGS
        async with other_database(db, settings) as there, entered(there.session()) as session:
            await round_trips(session, "timestamptz", MOMENTS)
            await round_trips(session, "text", TRICKY_TEXTS)
            await round_trips(session, "text[]", [list(TRICKY_TEXTS)])
            await round_trips(session, "bytea", [bytes(range(256)), b"\\", b"'"])
            await round_trips(session, "float8", [0.1, -1.5])

    @pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "SJIS"])
    @behaviour(2)
    async def test_values_texts_travel_in_utf8(self, db: Subject, encoding: str) -> None:
        """Whatever encoding the settings of a database or role ask for."""
        texts = [*TRICKY_TEXTS, "é", "雪", "🦆"]
        async with (
            other_database(db, {"client_encoding": encoding}) as there,
            entered(there.session()) as session,
        ):
            await round_trips(session, "text", texts)
            await round_trips(session, "text[]", [texts])

    @pytest.mark.parametrize("where", ["text", "list"])
    @behaviour(6)
    async def test_values_nul_is_invalid_data(self, db: Subject, where: str) -> None:
        """A NUL character, which PostgreSQL cannot store, is refused; nothing is cut off."""
        async with entered(db.session()) as session:
            with pytest.raises(errors.InvalidData):
                if where == "text":
                    await session.sql("select %(x)s::text", x="a\0b")
                else:
                    await session.sql("select %(x)s::text[]", x=["a\0b"])
            assert await session.value("select 1") == 1

    @behaviour(6)
    async def test_values_surrogates_are_invalid_data(self, db: Subject) -> None:
        """Half of a surrogate pair cannot be sent. Neither the error nor its cause repeats it."""
        async with entered(db.session()) as session:
            with pytest.raises(errors.InvalidData) as caught:
                await session.sql("select %(x)s::text", x="canary\ud800")
            assert await session.value("select 1") == 1
        error: BaseException | None = caught.value
        while error is not None:
            assert "canary" not in str(error), f"{type(error)} repeats a value"
            error = error.__cause__
