"""A stop that is asked for at any moment is obeyed: exit code 0, no traceback, nothing left."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import psycopg2
import pytest
from lock_waits import COUNT_WAITING

import procrastinate_entry
from procrastinate.cli.exit_codes import ExitCode

Query = Callable[..., Any]

ROUNDS = int(os.environ.get("PROCRASTINATE_STOP_ROUNDS") or 16)
SEED = int(os.environ.get("PROCRASTINATE_STOP_SEED") or random.randrange(2**32))
AT_A_TIME = 4
LAST_MOMENT = 2.0  # seconds after the handler was installed

#: Modules with an app that a stop finds in the middle of something, by name.
APPS = {
    "plain": "",
    "swallowing": """
print("importing")
try:
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        time.sleep(0.001)
except:
    pass
""",
    "in_c": """
print("importing")
try:
    import sqlite3, decimal, lxml
except: pass
list(map(time.sleep, [0.3]))
""",
    "leaving_slowly": """
import atexit, threading
atexit.register(time.sleep, 0.3)
threading.Thread(target=time.sleep, args=(0.5,)).start()
""",
    "blocking": """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
""",
    "endless": "print('importing')\nwhile True: time.sleep(1)\n",
    "connecting": """
import psycopg2
print("importing")
try:
    psycopg2.connect(os.environ["SHOP_DSN"])
except:
    pass
""",
    "hearing_itself": """
import signal
def leave(*_): raise SystemExit(3)
signal.signal(signal.SIGTERM, leave)
""",
    "never_leaving": "import atexit; atexit.register(time.sleep, 1000)\n",
}
APP = """
import os, time
{code}
import procrastinate
app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=os.environ["SHOP_DSN"]))
"""


def write_apps(program: Program) -> None:
    for name, code in APPS.items():
        (program.folder / f"{name}.py").write_text(APP.format(code=code))


def wait_until_it_hears(process: subprocess.Popen[Any]) -> None:
    """Wait until the program's first lines have run: until then SIGTERM is Python's own affair."""
    status = Path(f"/proc/{process.pid}/status")
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        (mask,) = (line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.0005)


def start(program: Program, app: str, *args: str, module: bool = False) -> Any:
    """Start a worker of an app, and wait until it hears signals."""
    if module:
        program.command = [sys.executable, "-m", "procrastinate"]
    running = program.start("-a", f"{app}.app", "worker", *args)
    wait_until_it_hears(running.process)
    return running


def ended_well(running: Any, seconds: float = 30) -> bool:
    return running.ended(seconds) == 0 and "Traceback" not in running.output


# --- At any moment --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_stop_at_any_moment_ends_a_worker_with_0(
    program: Program, query: Query, report: Callable[[str], None]
) -> None:
    write_apps(program)
    report(f"{ROUNDS} moments, PROCRASTINATE_STOP_SEED={SEED}")
    chances = random.Random(SEED)
    rounds = [
        {
            "app": chances.choice(["plain", "swallowing", "in_c", "leaving_slowly"]),
            "args": chances.choice([[], [], ["--processes", "2"]]),
            "module": chances.random() < 0.5,
            "moments": [
                chances.uniform(0, LAST_MOMENT * chances.random())
                for _ in range(chances.choice([1, 1, 2, 3]))
            ],
            "number": chances.choice([signal.SIGTERM, signal.SIGINT]),
        }
        for _ in range(ROUNDS)
    ]

    def run(told: dict[str, Any]) -> str | None:
        running = start(program, told["app"], *told["args"], module=told["module"])
        for moment in told["moments"]:
            time.sleep(moment)
            if running.process.poll() is None:
                running.process.send_signal(told["number"])
        return None if ended_well(running) else f"{told}: {running.process}\n{running.output}"

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        failures = [failure for failure in threads.map(run, rounds) if failure]
    assert failures == []
    assert query("select count(*) from procrastinate_workers") == [(0,)]


@pytest.mark.parametrize("args", [[], ["--processes", "2"]], ids=["one", "two processes"])
@pytest.mark.parametrize("module", [False, True], ids=["console script", "python -m"])
def test_a_stop_at_the_first_moment_is_obeyed(
    program: Program, query: Query, args: list[str], module: bool
) -> None:
    write_apps(program)
    running = start(program, "plain", *args, module=module)
    running.process.send_signal(signal.SIGTERM)
    assert ended_well(running)
    assert running.output == ""
    assert query("select last_value, is_called from procrastinate_workers_id_seq") == [(1, False)]


# --- While it starts ------------------------------------------------------------------------------


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def dsn_of(server: socket.socket) -> str:
    return f"host=127.0.0.1 port={server.getsockname()[1]} user=somebody"


@pytest.mark.parametrize("app", ["swallowing", "in_c", "connecting"])
def test_an_app_that_catches_everything_does_not_swallow_the_stop(
    program: Program, app: str, silent_server: socket.socket
) -> None:
    write_apps(program)
    program.env["SHOP_DSN"] = dsn_of(silent_server)
    running = start(program, app)
    running.wait_for("importing")
    running.process.send_signal(signal.SIGTERM)
    assert ended_well(running)


@pytest.mark.parametrize("args", [[], ["--processes", "2"]], ids=["one", "two processes"])
@pytest.mark.parametrize("times", [1, 2])
def test_an_import_that_never_ends_does_not_hold_up_the_stop(
    program: Program, args: list[str], times: int
) -> None:
    write_apps(program)
    running = start(program, "endless", *args)
    running.wait_for("importing")
    for _ in range(times):
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert ended_well(running)


@pytest.mark.parametrize("args", [[], ["--processes", "2"]], ids=["one", "two processes"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_server_that_says_nothing_does_not_hold_up_the_stop(
    program: Program, silent_server: socket.socket, args: list[str], times: int
) -> None:
    write_apps(program)
    program.env["SHOP_DSN"] = dsn_of(silent_server)
    running = start(program, "plain", *args)
    connection, _ = silent_server.accept()
    for _ in range(times):
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    with connection:
        assert ended_well(running, 10)


@pytest.mark.parametrize("args", [[], ["--processes", "2"]], ids=["one", "two processes"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_stop_while_a_worker_registers_leaves_no_row(
    program: Program,
    query: Query,
    dsn: str,
    wait_until: Callable[..., None],
    args: list[str],
    times: int,
) -> None:
    write_apps(program)
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("lock table procrastinate_workers in share mode")
        running = start(program, "plain", *args)
        wait_until(lambda: query(COUNT_WAITING) == [(len(args) or 1,)])
        for _ in range(times):
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        connection.rollback()
        assert ended_well(running)
    assert query("select count(*) from procrastinate_workers") == [(0,)]


def test_a_stop_while_the_app_is_opened_closes_what_was_opened(program: Program) -> None:
    """Each unclosed connection would be told as a warning."""
    (program.folder / "opening.py").write_text(
        APP.format(
            code="""
import asyncio, signal
from procrastinate import AiopgConnector
class Opening(AiopgConnector):
    async def open_async(self, *args, **options):
        await super().open_async(*args, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
"""
        ).replace("procrastinate.AiopgConnector(", "Opening(")
    )
    program.env["PYTHONWARNINGS"] = "always"
    done = program("-a", "opening.app", "worker")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_that_goes_away_while_a_worker_is_stopped_at_its_start_is_no_error(
    program: Program,
) -> None:
    (program.folder / "failing.py").write_text(
        """
import asyncio, os, signal, procrastinate

class Failing(procrastinate.App):
    def worker(self, **options):
        worker = super().worker(**options)
        async def run():
            os.kill(os.getpid(), signal.SIGTERM)
            while not worker.is_stopping: await asyncio.sleep(0.001)
            raise procrastinate.ConnectorException("the server has gone away")
        worker.run_as_program = run
        return worker

app = Failing(connector=procrastinate.AiopgConnector(dsn=os.environ["SHOP_DSN"]))
"""
    )
    done = program("-a", "failing.app", "worker")
    assert (done.returncode, done.stderr) == (0, "")


# --- While it works and leaves --------------------------------------------------------------------


@pytest.mark.parametrize("app", ["leaving_slowly", "never_leaving"])
@pytest.mark.parametrize("times", [1, 2])
def test_another_signal_while_it_leaves_changes_nothing_or_ends_it(
    program: Program, query: Query, app: str, times: int
) -> None:
    write_apps(program)
    running = start(program, app)
    running.wait_for("starts: queues")
    running.process.send_signal(signal.SIGTERM)
    running.wait_for("has stopped")
    for _ in range(times):
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert ended_well(running)
    assert query("select count(*) from procrastinate_workers") == [(0,)]


def test_handlers_that_the_app_installed_while_it_was_imported_are_taken_back(
    program: Program,
) -> None:
    write_apps(program)
    running = start(program, "hearing_itself")
    running.wait_for("starts: queues")
    assert running.stop() == 0
    assert running.lines_with("has stopped")


@pytest.mark.parametrize("more", [[], ["--processes=2"]], ids=["alone", "processes"])
def test_an_app_that_blocks_the_signals_does_not_make_workers_deaf(
    program: Program, more: list[str]
) -> None:
    write_apps(program)
    running = start(program, "blocking", *more)
    running.wait_for("starts: queues")
    assert running.stop() == 0
    assert running.lines_with("has stopped")


@pytest.mark.parametrize(
    "handler", ["signal.SIG_IGN", "signal.SIG_DFL", "print"], ids=["ignored", "default", "own"]
)
def test_a_task_that_sets_a_handler_does_not_make_the_worker_deaf(
    program: Program, handler: str
) -> None:
    (program.folder / "taking.py").write_text(
        APP.format(code="import signal")
        + f"""
@app.task(name="take")
async def take():
    signal.signal(signal.SIGTERM, {handler})
"""
    )
    program("-a", "taking.app", "defer", "take")
    running = start(program, "taking")
    running.wait_for("a job has set a handler for SIGTERM")
    assert running.stop() == 0
    assert running.lines_with("has stopped")


def test_a_child_that_a_task_has_forked_is_not_the_worker(program: Program, query: Query) -> None:
    """Its signals are its own: SIGTERM ends it, and the worker hears nothing of it."""
    (program.folder / "forking.py").write_text(
        APP.format(code="import signal")
        + """
@app.task(name="fork")
async def fork():
    if not (child := os.fork()):
        signal.pause()
    os.kill(child, signal.SIGTERM)
    status = os.waitpid(child, 0)[1]
    os.write(1, f"child ended by {os.WTERMSIG(status)}\\n".encode())
"""
    )
    program("-a", "forking.app", "defer", "fork")
    running = start(program, "forking")
    running.wait_for("child ended by 15")
    program("-a", "forking.app", "defer", "fork")
    running.wait_for("child ended by 15", times=2)
    assert "stopping" not in running.output
    assert running.stop() == 0


def test_a_supervisor_that_is_asked_again_while_it_leaves_has_removed_its_folder_first() -> None:
    code = """
import os, signal, sys, time
from contextlib import contextmanager
from procrastinate.cli.processes import Supervisor
from procrastinate_entry.stopping import STOP

class Port:
    environment = {}
    def ended(self, number): pass
    @contextmanager
    def answering(self, children):
        yield
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        print("closed", flush=True)

STOP.listen()
Supervisor([sys.executable, "-c", ""], 1, one_shot=True, port=Port()).run()
"""
    assert python("-c", code) == "closed\n"


# --- Other commands, other programs ---------------------------------------------------------------


def test_ctrl_c_ends_other_commands_with_130_and_one_line(program: Program) -> None:
    """Also in their first moments, when nothing is imported yet."""
    write_apps(program)
    for wait in (0, 0.05, 0.2, 0.5):
        running = program.start("-a", "endless.app", "jobs")
        wait_until_it_hears(running.process)
        time.sleep(wait)
        assert running.press_ctrl_c() == ExitCode.INTERRUPTED, running.output
        lines = [line for line in running.output.splitlines() if line and line != "importing"]
        assert lines == ["error: interrupted"]


def test_sigterm_ends_other_commands_as_any_program(program: Program) -> None:
    write_apps(program)
    running = program.start("-a", "endless.app", "jobs")
    wait_until_it_hears(running.process)
    assert running.stop(signal.SIGTERM) == -signal.SIGTERM


def python(*args: str, **kwargs: Any) -> str:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=60, check=True, **kwargs
    ).stdout


def test_a_program_that_imports_the_library_keeps_its_handlers(tmp_path: Path) -> None:
    code = "import procrastinate, signal; print(signal.getsignal(signal.SIGTERM).name)"
    assert python("-c", code) == "SIG_DFL\n"
    (tmp_path / "other.py").write_text(code)
    assert python("-m", "other", "-m", "procrastinate", cwd=tmp_path) == "SIG_DFL\n"


def test_the_first_lines_import_nothing_that_takes_time() -> None:
    """A SIGTERM that comes meanwhile is lost."""
    code = "import os, sys; sys.path.insert(0, sys.argv[1]); old = {*sys.modules}\n"
    code += "import procrastinate_entry; print(*sorted({*sys.modules} - old))"
    folder = Path(procrastinate_entry.__file__).parents[1]
    assert python("-S", "-c", code, str(folder)) == "__future__ atexit procrastinate_entry\n"


def test_a_signal_is_heard_although_an_event_loop_has_taken_the_descriptor() -> None:
    code = (
        "import asyncio, os, signal, time\n"
        "from procrastinate_entry.stopping import STOP\n"
        "heard = []\n"
        "STOP.listen()\n"
        "async def main():\n"
        "    with STOP.told(heard.append):\n"
        "        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        while not heard: await asyncio.sleep(0.001)\n"
        "    print(heard)\n"
        "asyncio.run(main())\n"
    )
    assert python("-c", code) == "[15]\n"
