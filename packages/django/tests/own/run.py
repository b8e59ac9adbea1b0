"""Django's own tests of its tasks, with our backend: ``python run.py FOLDER-OF-DJANGOS-SOURCES``.

The folder is an unpacked sdist of the Django that is installed, 6.0 or newer. Its ``tests/tasks``
are copied into a temporary folder, where our backend takes the place of Django's; a worker runs
what Django's backend would run at once. What is left out is in `LEFT_OUT`, with the reason.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path

import django
from django.conf import settings

HERE = Path(__file__).parent
ALIAS = "default"

#: In the texts of the tests: Django's backends, and ours.
REPLACED: Mapping[str, str] = {
    "django.tasks.backends.dummy.DummyBackend": "own_backends.Keeping",
    "django.tasks.backends.immediate.ImmediateBackend": "own_backends.Immediate",
    "from django.tasks.backends.dummy import DummyBackend": (
        "from own_backends import Keeping as DummyBackend"
    ),
    "from django.tasks.backends.immediate import ImmediateBackend": (
        "from own_backends import Immediate as ImmediateBackend"
    ),
}
_WITHOUT_RESULTS = "it tests that the backend has no results, and ours has"
_AT_ONCE = "it tests that a task runs when it is enqueued, and ours run in a worker"
_IN_PLACE = "it changes the result that the backend keeps in memory, and ours is in the database"
_CUSTOM = "it tests a backend of the test's own"
LEFT_OUT: Mapping[str, str] = {
    "test_custom_backend": _CUSTOM,
    "test_cannot_get_result": _WITHOUT_RESULTS,
    "test_cannot_refresh_result": _WITHOUT_RESULTS,
    "test_cannot_pass_run_after": "it tests that the backend cannot defer, and ours can",
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result": _IN_PLACE,
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result_async": _IN_PLACE,
    "test_throws_keyboard_interrupt": _AT_ONCE,
    "test_doesnt_wait_until_transaction_commit_by_default": _AT_ONCE,
}


def copied(sources: Path, folder: Path) -> None:
    """Copy the tests, with our backends in place of Django's."""
    shutil.copytree(sources / "tests" / "tasks", folder / "tasks")
    shutil.copy(HERE / "backends.py", folder / "own_backends.py")
    for path in (folder / "tasks").glob("test_*.py"):
        text = path.read_text("utf-8")
        for theirs, ours in REPLACED.items():
            text = text.replace(theirs, ours)
        path.write_text(text, "utf-8")


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        else:
            yield each


def reason(test: unittest.TestCase) -> str | None:
    """Return why a test is left out, None if it runs."""
    return next((why for name, why in LEFT_OUT.items() if f".{name}." in f"{test.id()}."), None)


def set_up(dsn: str) -> None:
    """Set Django up on a database with our tables."""
    settings.configure(
        SECRET_KEY="tests",
        USE_TZ=True,
        DATABASES={ALIAS: {"ENGINE": "django.db.backends.postgresql", "NAME": "nowhere"}},
        INSTALLED_APPS=["procrastinate_django"],
        TASKS={ALIAS: {"BACKEND": "own_backends.Keeping", "QUEUES": []}},
    )
    sys.path.insert(0, str(HERE.parent))
    from databases import settings_of
    from django.core.management import call_command
    from django.db import connections
    from django.test import SimpleTestCase

    connections.settings[ALIAS] = settings_of(dsn)
    settings.DATABASES[ALIAS] = connections.settings[ALIAS]
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # tests ask for results in coroutines
    django.setup()
    call_command("migrate", verbosity=0)
    SimpleTestCase.databases = {ALIAS}  # Django's backends need no database


def main(sources: Path) -> int:
    import procrastinate_embedded

    with tempfile.TemporaryDirectory() as folder, procrastinate_embedded.server() as server:
        copied(sources, Path(folder))
        sys.path.insert(0, folder)
        set_up(server.create_database("own"))
        tests = list(
            tests_of(unittest.defaultTestLoader.discover(f"{folder}/tasks", top_level_dir=folder))
        )
        chosen = [each for each in tests if reason(each) is None]
        done = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(chosen))
        left_out = sorted(f"{each.id()}: {why}" for each in tests if (why := reason(each)))
        print(*left_out, sep="\n")
        print(f"{done.testsRun} tests ran, {len(left_out)} were left out")
        return int(not done.wasSuccessful())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
