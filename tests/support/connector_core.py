"""Which of a connector's tests run on the Pythons on which it does not run whole.

Each connector runs whole on one Python, and each Python runs at least one connector whole. What is
left are pairs in which only a core runs: the behaviours of the test kit that meet the driver, the
event loop and the interpreter in every way that there is, each in the first of its variants.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

#: How the names of the core's tests begin, after ``test_``.
CORE = (
    *("autocommit", "cancellation", "claims", "defer", "finish", "forks", "listening", "losing"),
    *("pools", "sessions", "settings", "severing", "threads", "transactions"),
)
_OF_A_CONNECTOR = re.compile(
    r"packages/(connector-(?!testkit/)[^/]+)/tests/(\S+?)::(.*)", re.DOTALL
)
_OF_THE_CORE = re.compile(rf"\w+::test_(?:{'|'.join(CORE)})_")


def left_out(tests: Sequence[str], whole: Collection[str]) -> set[str]:
    """Return those of some tests (pytest's node ids) that do not run.

    ``whole`` are the folders below packages/ of the connectors that run whole.
    """
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for test in tests:
        match = _OF_A_CONNECTOR.fullmatch(test)
        if match is None or match[1] in whole:
            continue
        behaviour = match[1], match[3].partition("[")[0]
        is_core = match[2] == "test_conformance.py" and _OF_THE_CORE.match(match[3])
        if not is_core or behaviour in seen:
            found.add(test)
        seen.add(behaviour)
    return found
