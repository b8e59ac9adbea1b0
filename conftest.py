"""What the tests of all packages inherit, where they keep their files, in which order they run.

Variables of the shell that change what a program prints are dropped (`surroundings`): a test that
needs one would pass on this machine only.

Temporary files are kept in memory where the system has a folder for that. Every test's database is
some three hundred new files, which cost a file system on a disk ten times the processor time that
they cost in memory. A TMPDIR in the environment decides otherwise.

A connector's tests may run in part: PROCRASTINATE_TEST_WHOLE names the folders of those that run
whole, with commas between them; of those, variants that say the same twice are left out
(`connector_variants`). Of the others the core runs (`connector_core`). If it is not set, everything
runs. With PROCRASTINATE_TEST_PYTHON=another, what runs on one Python only is left out
(`one_python`). With PROCRASTINATE_TEST_PARTITIONS=64 the suites run what is about the queue.

Hypothesis does not judge by time how long an example takes, or is drawn: the machine may be busy.
"""

from __future__ import annotations

import os
import signal
import tempfile

import pytest
from connector_core import left_out
from connector_variants import said_twice
from hypothesis import HealthCheck, settings
from one_python import runs_on_one_python
from surroundings import not_inherited

IN_MEMORY = "/dev/shm"
#: Those of the test kit's suites, in packages of connectors.
SUITES = "tests/test_conformance.py"
ENOUGH = 4 * 2**30  # bytes: servers with their logs; containers often have 64 MB there


def has_room(folder: str) -> bool:
    """Whether the tests can keep their files in a folder, and run programs from it."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # no such folder, or Windows
        return False
    return found.f_bavail * found.f_frsize >= ENOUGH and not found.f_flag & os.ST_NOEXEC


for name in not_inherited(list(os.environ)):
    del os.environ[name]

# A shell ignores SIGINT in what it starts in the background, and every child would inherit that. A
# handler of Python's own becomes the default in a child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "TMPDIR" not in os.environ and has_room(IN_MEMORY):
    os.environ["TMPDIR"] = IN_MEMORY
    tempfile.tempdir = None  # pytest itself has asked already

settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def run_elsewhere(items: list[pytest.Item]) -> set[str]:
    """Return the node ids of those tests that another session runs, or that say nothing new."""
    tests = [item.nodeid for item in items]
    whole = os.environ.get("PROCRASTINATE_TEST_WHOLE")
    found = set() if whole is None else left_out(tests, whole.split(",")) | said_twice(items)
    if os.environ.get("PROCRASTINATE_TEST_PYTHON") == "another":
        found |= set(filter(runs_on_one_python, tests))
    return found


def is_the_same_on_partitions(item: pytest.Item) -> bool:
    """Whether a test of a suite has nothing to do with the queue, nor with its partitions."""
    return SUITES in item.nodeid and "queue" not in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what other Pythons run, and begin with what takes a minute.

    Else all processes but one would wait for that at the end.
    """
    others = run_elsewhere(items)
    if int(os.environ.get("PROCRASTINATE_TEST_PARTITIONS") or 1) > 1:
        others |= {each.nodeid for each in items if is_the_same_on_partitions(each)}
    if others:
        config.hook.pytest_deselected(items=[each for each in items if each.nodeid in others])
        items[:] = [each for each in items if each.nodeid not in others]
    items.sort(key=lambda item: item.get_closest_marker("first") is None)
