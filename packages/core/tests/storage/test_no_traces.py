"""What core sends leaves nothing on a connection that its next user would see (rule 3)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import procrastinate.storage

FOLDER = Path(procrastinate.storage.__file__).parent
#: Settings, prepared statements, LISTEN, temporary tables, and advisory locks of the session.
TRACES = re.compile(
    r"""(?: \A | ; ) (?: \s | --[^\n]*\n | /\*.*?\*/ )*
        (?: set \s+ (?! local\b | constraints\b | transaction\b )
          | (?: reset | prepare | listen | load | discard | declare ) \s
          | create \s+ (?: (?: local | global ) \s+ )? temp )
      | set_config \s* \( [^()]* , \s* false \s* \)
      | pg_(?: try_ )? advisory_lock (?: _shared )? \s* \(
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("set search_path = x", True),
        ("-- why\n  SET search_path = x", True),
        ("select 1; listen a", True),
        ("create temp table t ()", True),
        ("select set_config('a.b', 'c', false)", True),
        ("select pg_advisory_lock(1)", True),
        ("set local statement_timeout = 1; select 1", False),
        ("update notes\nset text = 'a'", False),
        ("select set_config('a.b', 'c', true)", False),
        ("select pg_advisory_xact_lock(1)", False),
    ],
)
def test_statements_that_leave_traces_are_known(sql: str, expected: bool) -> None:
    assert bool(TRACES.search(sql)) is expected


def test_no_statement_of_core_leaves_traces() -> None:
    """Also of those that stand in Python, where a file of SQL has no place for them."""
    texts = {each: each.read_text("utf-8") for each in FOLDER.rglob("*.sql")}
    strings = re.compile(r'"""(.*?)"""|"((?:[^"\\\n]|\\.)*)"', re.DOTALL)
    for each in FOLDER.rglob("*.py"):
        code = each.read_text("utf-8")
        texts |= {
            each / str(number): found[1] or found[2] or ""
            for number, found in enumerate(strings.finditer(code))
            if re.search(r"\b(select|set_config|prepare|listen)\b", found[0], re.IGNORECASE)
        }
    assert len(texts) > 40
    assert [str(name) for name, text in texts.items() if TRACES.search(text)] == []
