"""A worker in memory whose one job forks: the program of `test_forking`.

Arguments: where the job forks, and what the child does. Prints the child's exit code, runs one more
job, and works until SIGTERM. The worker is a guest of this program, unless the first argument
begins with "own", or a thread forks that does not know of the job: then the process is its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import procrastinate
from procrastinate.testing import InMemoryConnector

warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
KIND, DOES = sys.argv[1:]
OWN = KIND in ("executor", "pool") or KIND.startswith("own ")
KIND = KIND.removeprefix("own ")


class Forks(procrastinate.BaseRetryStrategy, procrastinate.Observer):
    """Code around a job that forks."""

    def get_retry_decision(self, *, exception: BaseException, job: Any) -> None:
        if KIND == "strategy":
            fork_and_say()

    def on_ended(self, event: Any) -> None:
        if KIND == "observer" and event.attempts[0].job.task_name == "forks":
            fork_and_say()

    def on_claimed(self, event: Any) -> None:
        if KIND == "claim observer" and event.jobs[0].task_name == "forks":
            fork_and_say()

    def on_deferred(self, event: Any) -> None:
        if KIND == "tick observer" and event.jobs[0].task_name == "tick" and not ticked:
            ticked.append(event)
            fork_and_say()


ticked: list[Any] = []
around = Forks()
app = procrastinate.App(connector=InMemoryConnector(), observers=[around])
PARENT = os.getpid()


def say(*words: Any) -> None:
    print(*words, flush=True)


def child() -> Any:
    """What the child of `os.fork` does."""
    if DOES == "returns":
        return None
    if DOES == "exits":
        sys.exit(7)
    if DOES == "raises":
        raise ValueError("no")
    if DOES == "ends by SIGTERM":
        time.sleep(60)
    raise AssertionError(DOES)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked() -> int | None:
    """Fork; return the child's exit code in the parent, and None in the child."""
    pid = os.fork()
    if pid == 0:
        return None
    if DOES == "ends by SIGTERM":
        os.kill(pid, signal.SIGTERM)
    return exit_code(pid)


def target() -> None:
    sys.exit(7)


OTHERS: dict[str, Callable[[], int]] = {
    "subprocess": lambda: subprocess.call([sys.executable, "-c", "raise SystemExit(7)"]),
    "subprocess with preexec": lambda: subprocess.call(
        [sys.executable, "-c", "raise SystemExit(7)"], preexec_fn=lambda: None
    ),
    "system": lambda: os.waitstatus_to_exitcode(os.system("exit 7")),
    "multiprocessing fork": lambda: of_multiprocessing("fork"),
    "multiprocessing spawn": lambda: of_multiprocessing("spawn"),
    "multiprocessing terminated": lambda: terminated(),
    "pool": lambda: pooled(),
}


def of_multiprocessing(method: str) -> int:
    process = multiprocessing.get_context(method).Process(target=target)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def terminated() -> int:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def pooled() -> int:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, [-3, -4]))


def fork_and_say() -> Any:
    if DOES in OTHERS:
        return say("child", OTHERS[DOES]())
    code = forked()
    return child() if code is None else say("child", code)


if KIND == "thread":

    @app.task(name="forks")
    def forks() -> Any:
        return fork_and_say()

elif KIND in ("strategy", "observer", "claim observer"):

    @app.task(name="forks", retry=around)
    def forks() -> None:
        if KIND == "strategy":
            raise ValueError("no")

elif KIND == "tick observer":

    @app.periodic(cron="* * * * * *", seconds="first")
    @app.task(name="tick")
    def tick(timestamp: int) -> None: ...

    @app.task(name="forks")
    def forks() -> None: ...

elif KIND == "middleware":

    async def middle(call_next: Any, context: Any, worker: Any) -> Any:
        fork_and_say()
        return await call_next()

    @app.task(name="forks", middleware=[middle])
    async def forks() -> None: ...

elif KIND == "plain middleware":

    def middle(call_next: Any, context: Any, worker: Any) -> Any:
        fork_and_say()
        return call_next()

    @app.task(name="forks", middleware=[middle])
    def forks() -> None: ...

elif KIND == "to_thread":

    @app.task(name="forks")
    async def forks() -> Any:
        return await asyncio.to_thread(fork_and_say)

elif KIND == "executor":

    @app.task(name="forks")
    async def forks() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, fork_and_say)

elif KIND == "pool":

    @app.task(name="forks")
    def forks() -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(fork_and_say).result()

else:

    @app.task(name="forks")
    async def forks() -> Any:
        if DOES in OTHERS:
            return say("child", OTHERS[DOES]())
        code = forked()
        if code is not None:
            return say("child", code)
        if DOES == "awaits":
            await asyncio.sleep(0)
        if DOES == "awaits long":
            await asyncio.sleep(60)
        if DOES == "awaits in a task of its own":
            await asyncio.create_task(asyncio.sleep(0))
        return child()


@app.task(name="innocent")
async def innocent() -> None:
    assert os.getpid() == PARENT
    say("innocent", "ran")


async def as_guest() -> None:
    async with app.open_async():
        await forks.defer_async()
        await innocent.defer_async()
        await app.run_worker_async(shutdown_graceful_timeout=5)


if __name__ == "__main__":
    if OWN:
        forks.defer()
        innocent.defer()
        app.run_worker(shutdown_graceful_timeout=5)
    else:
        asyncio.run(as_guest())
    say("worker", "stopped")
