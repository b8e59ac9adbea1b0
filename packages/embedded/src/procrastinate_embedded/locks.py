"""Locks between processes, which the kernel releases when their holder dies.

Rules:

- A lock belongs to one object. Two objects on one path exclude each other, also in one process.
- A holder that is killed with ``kill -9`` has let go: nothing has to be cleaned up by anybody.
- A forked child does not hold its parent's locks, and cannot release them.
- A lock on a file that was removed or replaced meanwhile excludes no process: ``acquire`` looks
  again after it got one, and starts over.

On Windows, which was not tested, a shared lock is a lock on one byte chosen at random and an
exclusive one is a lock on all bytes.
"""

from __future__ import annotations

import os
import random
import sys
import time
import weakref
from pathlib import Path

POLL = 0.01  # seconds between two attempts

if sys.platform == "win32":
    import msvcrt

    _ALL_BYTES = 2**31 - 1

    def _lock(fd: int, shared: bool, wait: bool) -> bool:
        start, length = (random.randrange(_ALL_BYTES), 1) if shared else (0, _ALL_BYTES)
        while True:
            os.lseek(fd, start, os.SEEK_SET)
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, length)
            except OSError:
                if not wait:
                    return False
                time.sleep(POLL)
            else:
                return True

    def _unlock(fd: int) -> None:
        """Closing the file is what releases it."""

else:
    import fcntl

    def _lock(fd: int, shared: bool, wait: bool) -> bool:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        # Said aloud, because a child between fork and exec may hold a copy of the descriptor.
        fcntl.flock(fd, fcntl.LOCK_UN)


class FileLock:
    """One holder's view of the lock file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False, timeout: float = 0) -> bool:
        """Take the lock within `timeout` seconds (0: now or never), and say whether it is held.

        Raises OSError when the file cannot be made, FileNotFoundError if its folder is gone.
        """
        deadline = time.monotonic() + timeout
        while not self._try(shared):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL)
        return True

    def wait_until_free(self) -> None:
        """Block until no process holds the lock, shared or not, without keeping it."""
        fd = _open(self.path)
        try:
            _lock(fd, shared=False, wait=True)
            _unlock(fd)
        finally:
            os.close(fd)

    def release(self) -> None:
        """Let go; nothing happens if the lock is not held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _held.discard(self)
            _unlock(fd)
            os.close(fd)

    def _try(self, shared: bool) -> bool:
        fd = _open(self.path)
        if _lock(fd, shared, wait=False) and _is_still(self.path, fd):
            self._fd = fd
            _held.add(self)
            return True
        os.close(fd)
        return False

    def _forget_after_fork(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_all_after_fork() -> None:
    for lock in list(_held):
        lock._forget_after_fork()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_after_fork)


def _open(path: Path) -> int:
    # As root the folder may belong to the server's user: never follow a link out of it.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    give_to_folder_owner(fd, path.parent)
    return fd


def give_to_folder_owner(fd: int, folder: Path) -> None:
    """As root, make the open file belong to whom its folder belongs to."""
    if sys.platform != "win32" and os.geteuid() == 0:
        owner = os.stat(folder)
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
