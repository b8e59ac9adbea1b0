"""What the tests do not inherit from the shell that starts them.

Rules

1. A variable that changes what Python, PostgreSQL's programs or a terminal do is not passed on.
   With PYTHONUNBUFFERED set, for instance, a worker whose prints never arrive passes every test.
2. A test that depends on such a variable sets it for itself.
3. The signals that a shell ignores for what runs in the background are heard all the same; the top
   conftest.py sees to that.
4. The list stands here only. The sessions of the noxfile use it before they start pytest, and the
   top conftest.py uses it for a pytest that was started by hand.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Beginnings of names: Python's own variables, and those of the locale.
PREFIXES = ("PYTHON", "LC_")

NAMES = {
    *("LANG", "LANGUAGE", "TZ"),
    *("TERM", "COLORTERM", "COLUMNS", "LINES"),
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PY_COLORS"),
    *("TTY_COMPATIBLE", "TTY_INTERACTIVE", "UNICODE_VERSION"),  # of rich
    *("PAGER", "EDITOR", "VISUAL", "INPUTRC", "XDG_STATE_HOME"),
}


def not_inherited(names: Iterable[str]) -> list[str]:
    """Return the names of those environment variables that the tests must not see."""
    return [name for name in names if name in NAMES or name.startswith(PREFIXES)]
