"""``procrastinate worker --reload``: workers that start again when a Python file changes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli import reloading
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.reloading import Reloader, changed, files_below

Query = Callable[..., Any]

APP = """
import os
import procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=os.environ["SHOP_DSN"]))

@app.task(name="say")
def say(): print("{word}")
"""


def write(program: Program, text: str) -> None:
    (program.folder / "talk.py").write_text(text)


def test_a_changed_file_is_what_the_next_job_runs(program: Program, query: Query) -> None:
    program.env["PROCRASTINATE_APP"] = "talk.app"
    write(program, APP.format(word="one"))
    program("defer", "say")
    worker = program.start("worker", "--reload", "--name", "dev")
    worker.wait_for("one")
    assert query("select name from procrastinate_workers") == [("dev",)]

    write(program, APP.format(word="two"))  # of the same size, perhaps within the same second
    worker.wait_for("talk.py changed: reloading")
    worker.wait_for("starts: queues", times=2)
    program("defer", "say")
    worker.wait_for("two")

    write(program, APP.format(word="three") + "import")
    worker.wait_for("SyntaxError")
    worker.wait_for("worker process 1 ended with exit code")
    worker.wait_for("started again when a file changes")

    write(program, APP.format(word="four"))
    program("defer", "say")
    worker.wait_for("four")
    assert worker.press_ctrl_c() == 0
    assert "Traceback" not in worker.output
    assert query("select count(*) from procrastinate_workers") == [(0,)]


def test_one_that_does_not_wait_cannot_reload(bare_program: Program) -> None:
    done = bare_program("-a", "shop.app", "worker", "--reload", "--one-shot")
    assert done.returncode == ExitCode.USAGE
    assert "--reload is for workers that wait" in done.stderr


def reload_until_told_to_stop(folder: Path, script: str, *, processes: int = 1) -> ExitCode:
    """Run a reloader of a script that may touch files, and sends its parent SIGTERM at the end."""
    command = [sys.executable, "-c", script]
    return Reloader(command, processes, folder=str(folder)).run()


def test_a_worker_that_does_not_end_is_asked_again_and_then_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reloading, "INTERVAL", 0.01)
    # Two signals that come before the first one is handled would be heard as one.
    monkeypatch.setattr(reloading, "JOBS_MAY_TAKE", 1.0)
    monkeypatch.setattr(reloading, "ABORTING_MAY_TAKE", 1.0)
    starts, asked = tmp_path / "starts", tmp_path / "asked"
    script = f"""
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: open({str(asked)!r}, "a").write("."))
with open({str(starts)!r}, "a") as file:
    file.write(".")
    second = file.tell() == 2
if second:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getppid(), signal.SIGTERM)
else:
    pathlib.Path({str(tmp_path / "new.py")!r}).touch()
while True: time.sleep(1)
"""
    caplog.set_level("INFO")
    assert reload_until_told_to_stop(tmp_path, script) == ExitCode.OK
    assert starts.read_text() == ".."
    assert asked.read_text() == ".."
    assert "new.py changed: reloading" in caplog.text


def test_one_that_ends_by_itself_waits_for_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it ended with; also one that could not start, which ends a plain supervisor."""
    monkeypatch.setattr(reloading, "INTERVAL", 0.01)
    file = tmp_path / "app.py"
    script = f"import sys; sys.exit(193 if not len(open({str(file)!r}).read()) else 0)"
    file.touch()

    def go_on() -> None:
        for text, code in (("x = 1", 193), ("", 0)):
            while f"ended with exit code {code}; it is started again when" not in caplog.text:
                assert not over.wait(0.01)
            file.write_text(text)
        while caplog.text.count("exit code 193") < 2:
            assert not over.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    over = threading.Event()
    going = threading.Thread(target=go_on)
    going.start()
    try:
        assert reload_until_told_to_stop(tmp_path, script) == ExitCode.OK
    finally:
        over.set()
        going.join()


def test_the_files_are_python_files_outside_of_environments_and_hidden_folders(
    tmp_path: Path,
) -> None:
    for name in (
        "app.py", "shop/tasks.py", "shop/page.html", ".git/hook.py", "env/pyvenv.cfg",
        "env/lib/x.py", "shop/__pycache__/x.py", "node_modules/x.py", "lib/site-packages/x.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.py").symlink_to("nowhere")
    assert sorted(files_below(str(tmp_path))) == ["app.py", os.path.join("shop", "tasks.py")]


def test_what_changed_between_two_looks() -> None:
    before = {"a": (1, 1), "b": (1, 1), "c": (1, 1)}
    assert changed(before, dict(before)) == []
    assert changed(before, {"a": (2, 1), "b": (1, 2), "d": (1, 1)}) == ["a", "b", "c", "d"]
