"""Locks that die with their holder."""

from __future__ import annotations

import os
from pathlib import Path

from procrastinate_embedded.locks import FileLock


def test_two_objects_exclude_each_other_in_one_process(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert (first.acquire(), second.acquire(), second.acquire(shared=True)) == (True, False, False)
    first.release()
    assert second.acquire()
    second.release()


def test_shared_holders_exclude_an_exclusive_one(tmp_path: Path) -> None:
    locks = [FileLock(tmp_path / "lock") for _ in range(3)]
    assert [lock.acquire(shared=True) for lock in locks[:2]] == [True, True]
    assert not locks[2].acquire()
    locks[0].release()
    assert not locks[2].acquire()
    locks[1].release()
    assert locks[2].acquire()
    locks[2].release()


def test_a_forked_child_neither_holds_nor_releases_its_parents_lock(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert lock.acquire()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        lock.release()
        os.read(read, 1)  # lives on until the parent closes its end
        os._exit(0)
    os.close(read)
    while_child_lives = other.acquire()
    lock.release()
    after_release = other.acquire()
    other.release()
    os.close(write)
    os.waitpid(child, 0)
    assert (while_child_lives, after_release) == (False, True)


def test_a_lock_on_a_file_that_was_removed_excludes_nobody(tmp_path: Path) -> None:
    old, new, third = (FileLock(tmp_path / "lock") for _ in range(3))
    assert old.acquire()
    (tmp_path / "lock").unlink()
    assert (new.acquire(), third.acquire()) == (True, False)
    for lock in (old, new):
        lock.release()
