"""A fork: child and parent both go on, and neither uses the other's connections."""

from __future__ import annotations

import os
import select
import signal
import warnings
from collections.abc import Callable

from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.losses import fill_pool
from procrastinate_connector_testkit.driving import entered, run_unsuspended
from procrastinate_connector_testkit.subject import Subject, SyncSubject, synchronous

PATIENCE = 30.0  # seconds for a child


class Forks:
    """Where the system can fork."""

    @behaviour("SyncConnector: a fork gives the child its own pool", ways="own")
    def test_forks_give_the_child_its_own_connections(self, db: Subject) -> None:
        """In the midst of the parent's transaction, which goes on as if nothing had been."""
        subject = SyncSubject(db.adapter, db.dsn, synchronous(db.adapter.connector(db.dsn)))
        subject.run(subject.open())
        try:
            subject.run(_forked_within(subject))
            assert subject.run(subject.value("select 1")) == 1
        finally:
            subject.run(subject.end())


async def _forked_within(subject: Subject) -> None:
    parents = await fill_pool(subject)
    async with entered(subject.session(transaction=True)) as session:
        await session.sql("create temp table kit_parent (x integer) on commit drop")
        answer = in_child(lambda: run_unsuspended(_used_and_closed(subject)))
        assert answer.replace(" ", "").isdigit(), f"the child failed: {answer}"
        parents.add(await session.value("select pg_backend_pid()"))
        used = {int(pid) for pid in answer.split()}
        assert not used & parents, "the child used the parent's connections"
        assert await session.value("select count(*) from kit_parent") == 0


async def _used_and_closed(subject: Subject) -> str:
    pids = await fill_pool(subject)
    await subject.close()
    return " ".join(map(str, pids))


def in_child(work: Callable[[], str]) -> str:
    """Return what a function returns in a forked process, or the error that it ends with."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking beside threads is what is tested
        child = os.fork()
    if child == 0:
        _answer_and_exit(writable, work)
    os.close(writable)
    try:
        ready, _, _ = select.select([readable], [], [], PATIENCE)
        if not ready:
            os.kill(child, signal.SIGKILL)
            return f"no answer within {PATIENCE:g} seconds"
        return os.read(readable, 4096).decode(errors="replace")
    finally:
        os.close(readable)
        os.waitpid(child, 0)


def _answer_and_exit(writable: int, work: Callable[[], str]) -> None:
    try:
        answer = work()
    except BaseException as exc:
        answer = repr(exc)
    try:
        os.write(writable, answer.encode()[:4096] or b"?")
    finally:
        os._exit(0)


FORKS: tuple[type, ...] = (Forks,) if hasattr(os, "fork") else ()
