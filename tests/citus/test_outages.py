"""Servers go away and come while jobs are deferred and run: all acknowledged ones run, once.

Commands of a shell, in the environment, stop and start servers, since no test knows how a cluster
is run: see `COMMANDS`. The worker is a real process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate.errors import ConnectorException
from procrastinate.storage import nodes

#: What each is for. Those of the nodes are about one that takes shards; the third begins with one
#: that was not in the cluster (and takes it back first, if it was left there).
COMMANDS = {
    "a node": ("PROCRASTINATE_CITUS_NODE_DOWN", "PROCRASTINATE_CITUS_NODE_UP"),
    "the coordinator": (
        "PROCRASTINATE_CITUS_COORDINATOR_DOWN",
        "PROCRASTINATE_CITUS_COORDINATOR_UP",
    ),
    "one node more": ("PROCRASTINATE_CITUS_NODE_ADD", "PROCRASTINATE_CITUS_NODE_REMOVE"),
}
BATCH = 50
AWAY = 5.0  # seconds
PATIENCE = 300.0  # seconds for a phase

APP = """
import os, procrastinate
app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=os.environ["DSN"]))
book = os.open(os.environ["BOOK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@app.task(name="enter")
async def enter(n):
    os.write(book, b"%d\\n" % n)
"""


class Deferrer(threading.Thread):
    """Defers batches until it is stopped, and remembers which were acknowledged."""

    def __init__(self, app: procrastinate.App, first: int) -> None:
        super().__init__(daemon=True)
        self._app = app
        self._next = first
        self._ended = threading.Event()
        self.acknowledged: list[int] = []
        self.failed = 0

    def run(self) -> None:
        while not self._ended.wait(0.02):
            numbers = range(self._next, self._next + BATCH)
            self._next += BATCH
            try:
                self._app.configure_task("enter").batch_defer(*({"n": n} for n in numbers))
            except ConnectorException:
                self.failed += 1
            else:
                self.acknowledged += numbers

    def stop(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def deferrers(app: procrastinate.App) -> Iterator[list[Deferrer]]:
    made = [Deferrer(app, n * 10**9) for n in range(2)]
    for each in made:
        each.start()
    yield made
    for each in made:
        each.stop()


@pytest.fixture
def books(tmp_path: Path, empty: str, app: procrastinate.App) -> Iterator[list[Path]]:
    """The books of two workers, which run and enter each job in theirs."""
    (tmp_path / "booked.py").write_text(APP)
    found = [tmp_path / f"book{n}" for n in range(2)]
    program = [
        sys.executable,
        "-m",
        "procrastinate",
        "--app=booked.app",
        "worker",
        "--concurrency=20",
    ]
    workers = [
        subprocess.Popen(program, cwd=tmp_path, env={**os.environ, "DSN": empty, "BOOK": str(book)})
        for book in found
    ]
    yield found
    for worker in workers:
        worker.terminate()
    assert [worker.wait(60) for worker in workers] == [0, 0]


def run(variable: str) -> None:
    """Run the command of a variable. Raises if it fails."""
    subprocess.run(os.environ[variable], shell=True, check=True, timeout=PATIENCE)


def wait_for(what: str, condition: Callable[[], object], within: float = PATIENCE) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within:g} s"
        time.sleep(0.1)


def entered(books: list[Path]) -> Counter[int]:
    """How often each job was run, as the workers say."""
    texts = [book.read_text() for book in books if book.exists()]
    return Counter(int(line) for text in texts for line in text.splitlines())


@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize("what", COMMANDS)
def test_every_acknowledged_job_runs_once(
    deferrers: list[Deferrer], books: list[Path], query: Callable[..., Any], what: str
) -> None:
    there, back = COMMANDS[what]
    missing = [each for each in (there, back) if not os.environ.get(each)]
    assert not missing, f"set {missing} to commands for {what}"

    def acknowledged() -> int:
        return sum(len(each.acknowledged) for each in deferrers)

    def waiting() -> int | None:
        with contextlib.suppress(psycopg2.Error):
            ((count,),) = query(
                "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
            )
            return int(count)
        return None

    wait_for("jobs run", lambda: len(entered(books)) > 1_000)
    run(there)
    if what == "one node more":
        query("select citus_rebalance_start(shard_transfer_mode := 'force_logical')")
        query("select citus_rebalance_wait()")
    else:
        time.sleep(AWAY)  # how long it is away, for which there is nothing to wait
        run(back)
    before = acknowledged()
    wait_for("more is deferred", lambda: acknowledged() > before + 2_000)
    for each in deferrers:
        each.stop()
    wait_for("all ended", lambda: waiting() == 0)
    ran = entered(books)
    said = [n for each in deferrers for n in each.acknowledged]
    assert [n for n in said if not ran[n]] == [], "lost"
    assert [n for n, times in ran.items() if times > 1] == [], "run twice"
    if what == "one node more":
        run(back)


SILENCE = ("PROCRASTINATE_CITUS_NODE_SILENT", "PROCRASTINATE_CITUS_NODE_AWAKE")
#: After which the others go on. A call that waits for the node ends after 5 s at the most, and then
#: each node is asked.
NOTICED_WITHIN = 12.0  # seconds
#: How often each of the others ticks meanwhile. How fast is the machine's affair.
TICKS = 3

SILENCE_APP = """
import os, time, procrastinate
from procrastinate.model.partitions import Partitions
app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=os.environ["DSN"]))
book = os.open(os.environ["BOOK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def enter(name):
    os.write(book, f"{name} {time.time()}\\n".encode())

@app.task(name="enter")
async def note(key):
    enter(key)

locks = {}
for n in range(1_000):
    locks.setdefault(Partitions(64).of_key(f"l{n}"), f"l{n}")
for partition, lock in locks.items():
    @app.periodic(cron="* * * * * *", lock=lock, periodic_id=f"{partition}", max_delay=60)
    @app.task(name=f"tick{partition}", pass_context=True)
    async def tick(context, timestamp):
        enter(context.task.name)
"""


@pytest.mark.timeout(PATIENCE)
def test_the_jobs_and_ticks_of_other_nodes_go_on_while_one_is_silent(
    app: procrastinate.App, empty: str, tmp_path: Path, query: Callable[..., Any]
) -> None:
    """Its processes stand still: nothing refuses, and nothing answers."""
    missing = [each for each in SILENCE if not os.environ.get(each)]
    assert not missing, f"set {missing} to commands that let a node stand still, and go on"
    (tmp_path / "silence.py").write_text(SILENCE_APP)
    book, log = tmp_path / "book", tmp_path / "log"
    with log.open("w") as stderr:
        worker = subprocess.Popen(
            [sys.executable, "-m", "procrastinate", "--app=silence.app", "worker"],
            cwd=tmp_path,
            env={**os.environ, "DSN": empty, "BOOK": str(book)},
            stderr=stderr,
        )
    groups = app._gateway.run(nodes.partitions_by_node())

    def ticked(since: float) -> dict[int, list[float]]:
        """The times at which jobs of schedules ran, by partition."""
        found: dict[int, list[float]] = {each: [] for group in groups for each in group}
        for line in book.read_text().splitlines() if book.exists() else ():
            name, at = line.split()
            if float(at) >= since:
                found[int(name.removeprefix("tick"))].append(float(at))
        return found

    def going_on() -> list[Sequence[int]]:
        """The partitions of each node whose schedules have all ticked since it was noticed."""
        found = ticked(began + NOTICED_WITHIN)
        return [group for group in groups if min(len(found[each]) for each in group) >= TICKS]

    try:
        wait_for("all schedules tick", lambda: all(ticked(0).values()))
        began = time.time()
        run(SILENCE[0])
        try:
            wait_for("the others go on", lambda: len(going_on()) == len(groups) - 1, within=120)
            (silent,) = (group for group in groups if group not in going_on())
            woke = time.time()
        finally:
            run(SILENCE[1])
        during = ticked(began + NOTICED_WITHIN)
        assert [at for each in silent for at in during[each] if at < woke] == []
        back = time.time()
        wait_for("all tick again", lambda: all(ticked(back).values()))
        wait_for("what was missed is made up for", lambda: len(query(ENDED)) == 0)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    assert query(TWICE) == []
    told = [line for line in log.read_text().splitlines() if "does not answer" in line]
    assert len(told) <= 4, told


#: Ticks that have passed and are not followed by the next one: a schedule that has a gap.
ENDED = """
select task_name, tick from (
    select task_name, (args->>'timestamp')::bigint as tick,
        lead((args->>'timestamp')::bigint) over (
            partition by task_name order by (args->>'timestamp')::bigint
        ) as next_tick
    from procrastinate_jobs
) as ticks
where next_tick <> tick + 1
"""
TWICE = """
select task_name, args->>'timestamp' from procrastinate_jobs group by 1, 2 having count(*) > 1
"""
