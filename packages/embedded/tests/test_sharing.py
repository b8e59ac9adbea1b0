"""Several processes, and processes that die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from procrastinate_embedded import EmbeddedServerError, binaries, launch, server
from procrastinate_embedded.locks import FileLock

Query = Callable[[str, str], str]
WaitUntil = Callable[[Callable[[], object], str], None]
IsGone = Callable[[int], bool]


def test_the_last_process_that_leaves_stops_the_server(
    user: Callable[..., Any], place: Path, query: Query, is_gone: IsGone
) -> None:
    first, second = user(directory=str(place / "pg")), user(directory=str(place / "pg"))
    assert first.server_pid == second.server_pid
    first.leave()
    assert query(second.dsn, "SELECT 1") == "1"
    second.leave()
    assert is_gone(second.server_pid)


@pytest.mark.slow
def test_twenty_processes_that_start_at_once_share_one_server(
    user: Callable[..., Any], place: Path
) -> None:
    users = [user(directory=str(place / "pg")) for _ in range(20)]
    assert len({each.server_pid for each in users}) == 1
    for each in users:
        each.leave()


def test_a_supervisor_that_sees_the_last_user_go_is_not_taken_for_another_user(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_gone: IsGone,
    leftovers: Callable[[], list[str]],
) -> None:
    """It holds the users' lock for an instant, which here is the one at which the user looks."""
    can_be_held = launch._can_be_held
    looks: list[bool] = []

    def busy_at_first(lock: FileLock, *, shared: bool = False) -> bool:
        looks.append(shared)
        held = len(looks) > 1 and can_be_held(lock, shared=shared)
        if len(looks) == 3:
            supervisor.resume()  # after the look: it holds the lock once, which was the first look
        return held

    with server(durable=False) as pg:
        supervisor = supervisor_of(next((place / "tmp").iterdir()))
        supervisor.suspend()  # lest it really hold the lock
        monkeypatch.setattr(launch, "_can_be_held", busy_at_first)
    supervisor.resume()
    assert (is_gone(pg.pid or 0), leftovers()) == (True, [])
    assert looks[:3] == [False, True, False]


def test_nothing_is_left_of_a_killed_owner(
    user: Callable[..., Any],
    place: Path,
    wait_until: WaitUntil,
    is_gone: IsGone,
    below: Callable[[Path], list[str]],
    leftovers: Callable[[], list[str]],
) -> None:
    owner = user()
    assert not is_gone(owner.server_pid)
    owner.kill()
    wait_until(lambda: is_gone(owner.server_pid), "the server is gone")
    wait_until(lambda: leftovers() == [], "the temporary cluster is gone")
    wait_until(lambda: below(place) == [], "the supervisor is gone")


def test_nothing_is_left_of_an_owner_killed_during_the_start(
    user: Callable[..., Any],
    place: Path,
    wait_until: WaitUntil,
    below: Callable[[Path], list[str]],
    leftovers: Callable[[], list[str]],
) -> None:
    def has_begun() -> bool:  # on a busy machine, initdb may be over before it was seen
        return any("initdb" in each or "postgres" in each for each in below(place))

    owner = user()
    wait_until(has_begun, "initdb runs")
    owner.kill()
    wait_until(lambda: below(place) == [] and leftovers() == [], "nothing is left")


def test_the_starter_may_be_killed_while_another_uses_the_server(
    user: Callable[..., Any], place: Path, query: Query, is_gone: IsGone
) -> None:
    first = user(directory=str(place / "pg"))
    assert first.server_pid > 0
    second = user(directory=str(place / "pg"))
    assert second.server_pid == first.server_pid
    first.kill()
    assert query(second.dsn, "SELECT 1") == "1"
    second.leave()
    assert is_gone(second.server_pid)


def test_committed_data_survives_a_killed_owner(
    user: Callable[..., Any], place: Path, query: Query
) -> None:
    owner = user(directory=str(place / "pg"), durable=True)
    query(owner.dsn, "CREATE TABLE t AS SELECT 42 AS answer")
    owner.kill()
    with server(place / "pg") as pg:
        assert query(pg.dsn, "SELECT answer FROM t") == "42"


def supervisor_of(directory: Path) -> psutil.Process:
    name = f"procrastinate-embedded supervisor of {directory}"
    processes = psutil.process_iter(["cmdline"])
    (found,) = [each for each in processes if name in (each.info["cmdline"] or ())]
    return found


def test_a_killed_supervisor_takes_the_server_with_it_and_the_next_user_starts_another(
    user: Callable[..., Any], place: Path, query: Query, wait_until: WaitUntil, is_gone: IsGone
) -> None:
    first = user(directory=str(place / "pg"))
    assert first.server_pid > 0
    supervisor_of(place / "pg").kill()
    wait_until(lambda: is_gone(first.server_pid), "the system stopped the server")
    second = user(directory=str(place / "pg"))
    assert second.server_pid != first.server_pid
    assert query(second.dsn, "SELECT 1") == "1"
    first.leave()
    second.leave()


def test_the_last_user_clears_up_after_a_killed_supervisor(
    user: Callable[..., Any], place: Path, is_gone: IsGone, leftovers: Callable[[], list[str]]
) -> None:
    owner = user()
    assert owner.server_pid > 0
    (home,) = leftovers()
    supervisor_of(place / "tmp" / home).kill()
    owner.leave()
    assert (is_gone(owner.server_pid), leftovers()) == (True, [])


def test_a_supervisor_told_to_stop_stops_the_server(
    user: Callable[..., Any], place: Path, wait_until: WaitUntil, is_gone: IsGone
) -> None:
    owner = user(directory=str(place / "pg"))
    assert owner.server_pid > 0
    supervisor_of(place / "pg").terminate()
    wait_until(lambda: is_gone(owner.server_pid), "the server is gone")
    owner.leave()


def test_a_terminals_signals_do_not_reach_the_server(
    user: Callable[..., Any], place: Path, query: Query
) -> None:
    """Ctrl-C goes to all processes of a session's foreground group."""
    owner = user(directory=str(place / "pg"), popen={"start_new_session": True})
    assert os.getpgid(owner.server_pid) != os.getpgid(owner.process.pid)
    supervisor = supervisor_of(place / "pg")
    supervisor.send_signal(signal.SIGINT)
    supervisor.send_signal(signal.SIGHUP)
    assert query(owner.dsn, "SELECT 1") == "1"
    owner.leave()


def removed(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)  # the server may still write to it
    return not path.exists()


def test_a_directory_removed_under_a_server_ends_it_with_its_user(
    user: Callable[..., Any], place: Path, wait_until: WaitUntil, is_gone: IsGone
) -> None:
    owner = user(directory=str(place / "pg"))
    assert owner.server_pid > 0
    wait_until(lambda: removed(place / "pg"), "the directory is removed")
    owner.kill()
    wait_until(lambda: is_gone(owner.server_pid), "the server is gone")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any of this."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def write_pid_file(directory: Path, pid: int, started: int) -> None:
    lines = [pid, directory / "data", started, 5432, "/tmp", "", "  0  0", "ready"]
    (directory / "data" / "postmaster.pid").write_text("\n".join(map(str, lines)) + "\n")


def test_a_process_that_a_stale_pid_file_names_is_left_alone(
    place: Path, query: Query, bystander: subprocess.Popen[bytes]
) -> None:
    with server(place / "pg", durable=False):
        record = json.loads((place / "pg" / "server.json").read_text())
    write_pid_file(place / "pg", bystander.pid, record["started"])
    (place / "pg" / "server.json").write_text(json.dumps({**record, "pid": bystander.pid}))
    with server(place / "pg", durable=False) as pg:
        assert (query(pg.dsn, "SELECT 1"), pg.pid != bystander.pid) == ("1", True)
    assert bystander.poll() is None


def test_a_server_of_another_directory_is_left_alone(place: Path, query: Query) -> None:
    with server(place / "other", durable=False) as other:
        with server(place / "pg", durable=False):
            record = json.loads((place / "pg" / "server.json").read_text())
        assert other.pid is not None
        started = json.loads((place / "other" / "server.json").read_text())["started"]
        write_pid_file(place / "pg", other.pid, started)
        forged = {**record, "pid": other.pid, "started": started}
        (place / "pg" / "server.json").write_text(json.dumps(forged))
        with server(place / "pg", durable=False) as pg:
            assert query(pg.dsn, "SELECT 1") == "1"
        assert query(other.dsn, "SELECT 1") == "1"


def test_a_server_that_somebody_else_started_here_is_left_alone_and_refused(
    place: Path, wait_until: WaitUntil
) -> None:
    with server(place / "pg", durable=False):
        pass
    data = place / "pg" / "data"
    sockets = place / "tmp"
    foreign = subprocess.Popen(
        [binaries() / "postgres", "-D", data, "-c", "listen_addresses=", "-k", sockets],
        cwd="/",
        stderr=subprocess.DEVNULL,
        user=data.stat().st_uid if os.geteuid() == 0 else None,
    )
    try:
        wait_until(lambda: (sockets / ".s.PGSQL.5432").exists(), "the foreign server runs")
        with (
            pytest.raises(EmbeddedServerError, match=f"process {foreign.pid}.*stop it first"),
            server(place / "pg", durable=False),
        ):
            pass
        assert foreign.poll() is None
    finally:
        foreign.send_signal(signal.SIGINT)
        foreign.wait(30)


def test_an_orphaned_server_of_ours_is_recognised_and_stopped(
    place: Path, wait_until: WaitUntil, is_gone: IsGone
) -> None:
    """Where the system does not stop a server with its supervisor."""
    with server(place / "pg", durable=False):
        record = json.loads((place / "pg" / "server.json").read_text())
    data = place / "pg" / "data"
    orphan = subprocess.Popen(
        [binaries() / "postgres", "-D", data, "-c", "listen_addresses=", "-k", place / "tmp"],
        cwd="/",
        stderr=subprocess.DEVNULL,
        user=data.stat().st_uid if os.geteuid() == 0 else None,
    )
    wait_until(lambda: (place / "tmp" / ".s.PGSQL.5432").exists(), "the orphan runs")
    started = int((data / "postmaster.pid").read_text().splitlines()[2])
    forged = {**record, "pid": orphan.pid, "started": started}
    (place / "pg" / "server.json").write_text(json.dumps(forged))
    with server(place / "pg", durable=False) as pg:
        assert (is_gone(orphan.pid), pg.pid != orphan.pid) == (True, True)
    orphan.wait(30)


def test_a_later_start_is_fast(place: Path) -> None:
    """About 0.1 s on an idle machine; the bound only catches a start that waits for something."""
    with server(place / "pg", durable=False):
        pass
    begin = time.monotonic()
    with server(place / "pg", durable=False):
        took = time.monotonic() - begin
    assert took < 10
