"""``procrastinate worker --processes N``: a supervisor and its workers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.processes import MARK, Supervisor

Query = Callable[..., Any]


def pids(running: Any) -> list[int]:
    """The workers' process ids, as the supervisor told them."""
    return [int(line.rpartition(" ")[2]) for line in running.lines_with("has pid")]


def gone(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return _is_zombie(pid)
    return True


def _is_zombie(pid: int) -> bool:
    """Where nothing reaps orphans, as in a container, the dead stay in the list of processes."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"
    return False


def test_n_workers_with_numbered_names_share_the_jobs_and_end_with_one_signal(
    program: Program, query: Query
) -> None:
    supervisor = program.start("worker", "--processes", "2", "--name", "till")
    supervisor.wait_for("starts: queues", times=2)
    assert sorted(row[0] for row in query("select name from procrastinate_workers")) == [
        "till-1",
        "till-2",
    ]
    program("defer", "shop.pid", "-", stdin="{}\n" * 50)
    supervisor.wait_for("running in", times=50)
    assert {int(line.split()[-1]) for line in supervisor.lines_with("running in")} <= set(
        pids(supervisor)
    )
    assert supervisor.stop(signal.SIGTERM) == 0
    assert all(map(gone, pids(supervisor)))
    assert query("select count(*) from procrastinate_workers") == [(0,)]
    assert len(pids(supervisor)) == 2


def test_ctrl_c_in_a_terminal_reaches_each_worker_once(program: Program, query: Query) -> None:
    program("defer", "shop.nap", '{"seconds": 1}')
    supervisor = program.start("worker", "--processes", "2")
    supervisor.wait_for("starts: queues", times=2)
    supervisor.wait_for("napping")
    assert supervisor.press_ctrl_c() == 0
    assert query("select status::text from procrastinate_jobs") == [("succeeded",)]
    assert len(supervisor.lines_with("stopping: no more jobs")) == 2
    assert "stopping now" not in supervisor.output


def test_a_second_signal_aborts_running_jobs_in_the_workers(program: Program, query: Query) -> None:
    program("defer", "shop.nap", '{"seconds": 100}')
    supervisor = program.start("worker", "--processes", "2")
    supervisor.wait_for("starts: queues", times=2)
    supervisor.wait_for("napping")
    supervisor.process.send_signal(signal.SIGTERM)
    supervisor.wait_for("stopping: no more jobs", times=2)
    assert supervisor.stop(signal.SIGTERM) == 0
    assert query("select count(*) from procrastinate_jobs where status = 'doing'") == [(0,)]


def test_a_worker_that_is_killed_is_started_again(program: Program) -> None:
    supervisor = program.start("worker", "--processes", "2")
    supervisor.wait_for("starts: queues", times=2)
    os.kill(pids(supervisor)[0], signal.SIGKILL)
    supervisor.wait_for("worker process 1 was killed by SIGKILL; it is started again in 1 s")
    supervisor.wait_for("starts: queues", times=3)
    assert len(pids(supervisor)) == 3
    assert supervisor.stop() == 0
    assert all(map(gone, pids(supervisor)))


def test_workers_end_when_their_supervisor_is_killed(
    program: Program, wait_until: Callable[..., None], query: Query
) -> None:
    supervisor = program.start("worker", "--processes", "2")
    supervisor.wait_for("starts: queues", times=2)
    supervisor.process.kill()
    wait_until(lambda: all(map(gone, pids(supervisor))))
    assert query("select count(*) from procrastinate_workers") == [(0,)]
    assert len(supervisor.lines_with("the supervisor is gone: stopping")) == 2


def test_one_shot_workers_are_not_started_again(program: Program, query: Query) -> None:
    program("defer", "shop.add", "-", stdin='{"a": 1, "b": 2}\n' * 50)
    done = program("worker", "--processes", "2", "--one-shot")
    assert done.returncode == 0, done.stderr
    assert query("select distinct status::text from procrastinate_jobs") == [("succeeded",)]
    assert len(re.findall("has pid", done.stderr)) == 2


def test_what_is_wrong_for_every_worker_is_told_once_and_nothing_is_started(
    program: Program, query: Query
) -> None:
    query("delete from procrastinate_migrations")
    done = program("worker", "--processes", "3")
    assert done.returncode == ExitCode.SCHEMA_OUTDATED
    assert len(done.stderr.splitlines()) == 1
    too_long = program("worker", "--processes", "3", "--name", "x" * 127)
    assert too_long.returncode == ExitCode.ERROR
    assert "at most 128 characters" in too_long.stderr


UNFIT = """
import procrastinate

def middleware(call_next, context, worker): return call_next()

app = procrastinate.App(
    connector=procrastinate.AiopgConnector(), worker_defaults={"middleware": middleware}
)

@app.task(name="late")
async def late(): ...
"""


def test_what_only_a_worker_would_refuse_is_told_once_too(program: Program) -> None:
    (program.folder / "unfit.py").write_text(UNFIT)
    done = program("--app=unfit.app", "worker", "--processes", "3")
    assert done.returncode == ExitCode.ERROR
    (line,) = done.stderr.splitlines()
    assert re.search(r"unfit\.middleware .* 'late'", line)


ONCE = """
import os, pathlib, procrastinate

dsn = os.environ["SHOP_DSN"]
imported = pathlib.Path("imported")
if imported.exists():
    {failure}
imported.touch()
app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
"""


def test_workers_that_are_set_up_wrongly_are_not_started_again(program: Program) -> None:
    """Where the supervisor itself could find nothing wrong."""
    failure = 'procrastinate.App(connector="aiopg", worker_defaults={"concurrency": 0})'
    (program.folder / "once.py").write_text(ONCE.format(failure=failure))
    done = program("--app=once.app", "worker", "--processes", "2")
    assert done.returncode == ExitCode.ERROR
    assert "concurrency" in done.stderr
    assert "cannot start, and no other could: stopping" in done.stderr
    assert "started again" not in done.stderr


def test_workers_whose_module_raised_something_are_started_again(program: Program) -> None:
    """It may be able to do next time what it could not: ask a service, read a file."""
    failure = "imported.unlink(); raise OSError('come back later')"
    (program.folder / "once.py").write_text(ONCE.format(failure=failure))
    supervisor = program.start("--app=once.app", "worker", "--processes", "2")
    supervisor.wait_for("starts: queues", times=1)
    supervisor.wait_for("come back later")
    supervisor.wait_for("it is started again")
    supervisor.wait_for("starts: queues", times=2)
    assert supervisor.stop() == 0


def test_a_schema_that_fits_no_longer_ends_the_workers_gracefully(
    program: Program, query: Query
) -> None:
    supervisor = program.start("worker", "--processes", "2")
    supervisor.wait_for("starts: queues", times=2)
    query("delete from procrastinate_migrations")
    os.kill(pids(supervisor)[0], signal.SIGKILL)
    assert supervisor.ended() == ExitCode.SCHEMA_OUTDATED
    assert len(supervisor.lines_with("has stopped")) == 1
    assert len(pids(supervisor)) == 3


def test_workers_whose_role_lacks_a_grant_are_not_started_again(
    program: Program, query: Query
) -> None:
    query(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise insufficient_privilege using message = 'not for you'; end $$"
    )
    query(
        "create trigger refuse before insert on procrastinate_workers"
        " for each statement execute function refuse()"
    )
    done = program("worker", "--processes", "2")
    assert done.returncode == ExitCode.ERROR
    assert "not for you (grant the role what it needs)" in done.stderr
    assert "started again" not in done.stderr


def test_jobs_read_an_empty_standard_input(program: Program) -> None:
    program("defer", "shop.stdin")
    supervisor = program.start("worker", "--processes", "2")
    supervisor.wait_for("read ''")
    assert supervisor.stop() == 0


def test_a_child_that_cannot_start_is_tried_again_with_growing_pauses(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    script = (
        "import os, signal, sys\n"
        f"tries = open({str(tmp_path / 'tries')!r}, 'a+')\n"
        "if tries.tell() == 4:\n"
        "    os.kill(os.getppid(), signal.SIGTERM)\n"
        "    signal.pause()\n"
        "tries.write('.')\n"
        "sys.exit(7)"
    )
    caplog.set_level("INFO")
    assert Supervisor([sys.executable, "-c", script], 1, first_pause=0.01).run() == ExitCode.OK
    pauses = re.findall(r"exit code 7; it is started again in ([\d.]+) s", caplog.text)
    assert pauses == ["0.01", "0.02", "0.04", "0.08"]


@pytest.mark.parametrize("code, expected", [(0, ExitCode.OK), (3, ExitCode.ERROR)])
def test_a_child_that_ends_badly_after_the_signal_makes_the_exit_code(
    caplog: pytest.LogCaptureFixture, code: int, expected: ExitCode
) -> None:
    script = (
        "import os, signal, sys\n"
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "while True: signal.pause()"
    )
    caplog.set_level("INFO")
    assert Supervisor([sys.executable, "-c", script], 1).run() == expected
    assert (f"ended with exit code {code}" in caplog.text) is bool(code)


def test_a_child_that_cannot_start_ends_the_others_with_the_code_of_one_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = (
        "import os, signal, sys\n"
        "from procrastinate.cli import processes\n"
        "from procrastinate.errors import SchemaTooNew\n"
        f"if os.environ[{MARK!r}] == '2':\n"
        "    sys.exit(processes.refused(SchemaTooNew()))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "while True: signal.pause()"
    )
    supervisor = Supervisor([sys.executable, "-c", script], 3)
    assert supervisor.run() == ExitCode.SCHEMA_TOO_NEW
    told = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert told == ["worker process 2 cannot start, and no other could: stopping"]


@pytest.mark.parametrize("code", [1, 2, 5, 192, 198, 199, 255])
def test_an_exit_code_of_a_job_s_own_is_not_taken_for_a_refusal_to_start(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, code: int
) -> None:
    script = (
        "import os, signal, sys\n"
        f"tries = open({str(tmp_path / 'tries')!r}, 'a+')\n"
        "if tries.tell() == 1:\n"
        "    os.kill(os.getppid(), signal.SIGTERM)\n"
        "    signal.pause()\n"
        "tries.write('.'); tries.flush()\n"
        f"os._exit({code})"
    )
    assert Supervisor([sys.executable, "-c", script], 1, first_pause=0.01).run() == ExitCode.OK
    assert f"worker process 1 ended with exit code {code}; it is started again" in caplog.text


def test_an_orphan_whose_jobs_do_not_end_is_asked_twice_and_then_exits() -> None:
    script = (
        "import os, signal, time\n"
        "from procrastinate.cli import processes\n"
        "processes.ORPHAN_MAY_FINISH = processes.ORPHAN_MAY_ABORT = 1.0\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked to stop', flush=True))\n"
        "assert processes.adopted() == 7\n"
        "assert processes.MARK not in os.environ\n"
        "while True: time.sleep(0.01)"
    )
    orphan = subprocess.run(
        [sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, MARK: "7"},
        text=True,
        timeout=30,
    )
    assert (orphan.stdout, orphan.returncode) == ("asked to stop\n" * 2, ExitCode.ERROR)
