"""Which of a connector's tests run on the Pythons on which it does not run whole.

Each connector runs whole on one Python, and each Python runs at least one connector whole. What is
left are pairs in which only a core runs: the behaviours of the test kit that meet the driver, the
event loop and the interpreter in every way that there is, each in the first of its variants. What
of a connector that runs whole would say the same twice is left out too (`connector_variants`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

#: How the names of the core's tests begin, after ``test_``.
CORE = (
    *("autocommit", "cancellation", "claims", "defer", "finish", "forks", "listening", "losing"),
    *("pools", "sessions", "settings", "severing", "threads", "transactions"),
)
#: The modules that run the test kit.
SUITES = ("test_conformance.py", "test_tiny.py", "test_pg8000.py")
_OF_A_CONNECTOR = re.compile(
    r"packages/(connector-(?!testkit/)[^/]+)/tests/(\S+?)::(.*)"
    # The test kit's examples are two more, in modules of their own.
    r"|packages/(connector-testkit)/tests/(test_tiny\.py)::(.*)"
    # That of the documentation runs whole in `matrix` only.
    r"|packages/connector-testkit/tests/(?=(test_pg8000))(test_pg8000\.py)::(.*)",
    re.DOTALL,
)
_OF_THE_CORE = re.compile(rf"\w+::test_(?:{'|'.join(CORE)})_")


def is_of_the_core(test: str) -> bool:
    """Whether a test of a connector (pytest's node id) is one of those that run on each Python."""
    module, _, name = test.partition("::")
    return module.endswith(SUITES) and _OF_THE_CORE.match(name) is not None


def left_out(tests: Sequence[str], whole: Collection[str]) -> set[str]:
    """Return those of some tests (pytest's node ids) that do not run.

    ``whole`` are the folders below packages/ of the connectors that run whole.
    """
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for test in tests:
        match = _OF_A_CONNECTOR.fullmatch(test)
        if match is None:
            continue
        connector, _, name = filter(None, match.groups())
        if connector in whole:
            continue
        behaviour = connector, name.partition("[")[0]
        if not is_of_the_core(test) or behaviour in seen:
            found.add(test)
        seen.add(behaviour)
    return found
