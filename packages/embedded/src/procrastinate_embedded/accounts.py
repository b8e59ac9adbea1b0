"""Who the server runs as, and what that user can reach.

PostgreSQL refuses to run as root, so root hands it to an unprivileged user who exists already:

- a directory that belongs to an ordinary user: that user;
- otherwise ``postgres``, ``nobody`` or ``daemon``, the first that the system has.

No account is made and no folder's permissions are changed. What that user cannot reach is either
copied to where it can (the programs) or refused with the name of the folder that is in the way.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from procrastinate_embedded.failure import LaunchFailed

_CANDIDATES = ("postgres", "nobody", "daemon")
_ROOM_FOR_SOCKET = 50  # bytes; a socket's whole path must stay below about 100


@dataclass(frozen=True)
class Account:
    """An unprivileged user of the system, for root to run programs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def is_root() -> bool:
    """Whether PostgreSQL would refuse to run as the current user."""
    return sys.platform != "win32" and os.geteuid() == 0


def account_for(home: Path | None) -> Account | None:
    """The user to run the server in `home` as; None for the current one."""
    if not is_root():
        return None
    for path in [home / "data", home] if home else []:
        if path.exists() and path.stat().st_uid != 0:
            return _account_of(path)
    return _default_account()


if sys.platform == "win32":

    def _account_of(path: Path) -> Account:
        raise NotImplementedError("there is no root on Windows")

    def _default_account() -> Account:
        raise NotImplementedError("there is no root on Windows")

else:
    import pwd

    def _account_of(path: Path) -> Account:
        uid = path.stat().st_uid
        try:
            return _account(pwd.getpwuid(uid))
        except KeyError:
            raise LaunchFailed(
                f"{path} belongs to user id {uid}, which has no account on this system: "
                f"chown it to an existing unprivileged user"
            ) from None

    def _default_account() -> Account:
        for name in _CANDIDATES:
            try:
                return _account(pwd.getpwnam(name))
            except KeyError:
                continue
        raise LaunchFailed(
            f"PostgreSQL does not run as root, and none of the users {', '.join(_CANDIDATES)} "
            f"exists to run it: run as an ordinary user, or give a directory that belongs to one"
        )

    def _account(entry: pwd.struct_passwd) -> Account:
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)


def blocking_folder(path: Path, account: Account | None) -> Path | None:
    """The first folder on the way to `path`, itself included, that `account` cannot enter."""
    if account is None:
        return None
    for folder in [*reversed(path.parents), path]:
        if not _may(account, os.stat(folder), 0o1):
            return folder
    return None


def _may(account: Account, status: os.stat_result, bit: int) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & (bit << 6))
    if status.st_gid in (account.gid, *account.groups):
        return bool(status.st_mode & (bit << 3))
    return bool(status.st_mode & bit)


def short_folder(account: Account | None) -> Path:
    """A folder for temporary files whose path is short and which `account` can enter."""
    candidates = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    for path in map(Path, candidates[:1] if sys.platform == "win32" else candidates):
        if _is_fit(path.resolve(), account):
            return path.resolve()
    raise LaunchFailed(
        f"no folder for temporary files: none of {', '.join(dict.fromkeys(candidates))} is "
        f"writable, with a short path, and open to the user that runs PostgreSQL; set TMPDIR"
    )


def _is_fit(path: Path, account: Account | None) -> bool:
    if not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
        return False
    if sys.platform == "win32":
        return True
    plain = re.fullmatch(r"[\w/.+-]+", str(path), re.ASCII) is not None
    short = len(os.fsencode(path)) <= _ROOM_FOR_SOCKET
    return plain and short and blocking_folder(path, account) is None
