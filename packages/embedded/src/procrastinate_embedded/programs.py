"""Programs that the server's user can run.

As root, the programs of a wheel may lie where that user cannot reach them, below a private home
folder for instance. Then they are copied, once for each version, to a cache folder that belongs
to root: PostgreSQL's own folder and the shared libraries, which the programs look for beside
their package. A copy appears by one rename, so that starts at the same time cannot meet half of
one.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path

from procrastinate_embedded.accounts import Account, blocking_folder
from procrastinate_embedded.failure import LaunchFailed
from procrastinate_embedded.installed import WHEEL, wheel_folder

_COPIED = ("bin", "lib", "share")
_CACHES = (Path("/var/cache"), Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))


def reachable(bin_dir: Path, account: Account | None) -> Path:
    """`bin_dir`, or a copy of it that `account` can use. Raises LaunchFailed."""
    libraries = bin_dir.parent.parent.with_suffix(".libs")
    folders = [bin_dir, libraries] if libraries.is_dir() else [bin_dir]
    blocking = [found for path in folders if (found := blocking_folder(path, account))]
    if account is None or not blocking:
        return bin_dir
    if not bin_dir.is_relative_to(wheel_folder()):
        raise LaunchFailed(
            f"PostgreSQL does not run as root, and the user {account.name!r}, who runs it "
            f"instead, cannot enter {blocking[0]}, where its programs are: install them elsewhere"
        )
    return _copy_of(bin_dir.parent, libraries, account) / "bin"


def _copy_of(install: Path, libraries: Path, account: Account) -> Path:
    label = f"{importlib.metadata.version(WHEEL)}-{install.name}-{platform.machine()}"
    for base in _CACHES:
        cache = base / "procrastinate-embedded"
        if not _is_trusted(cache, account):
            continue
        copy = cache / label
        if not copy.exists():
            _copy(install, libraries, copy)
        return copy / install.parent.name / install.name
    raise LaunchFailed(
        f"the user {account.name!r}, who runs PostgreSQL for root, cannot read {install}, and "
        f"there is no folder for a copy: make /var/cache or /tmp writable, or run as a normal user"
    )


def _is_trusted(cache: Path, account: Account) -> bool:
    """Whether only root can have put anything into the folder, and `account` can enter it."""
    try:
        cache.mkdir(mode=0o755)
        cache.chmod(0o755)  # ours, just made: whatever the umask is
    except FileExistsError:
        pass
    except OSError:
        return False
    status = cache.lstat()
    ours = status.st_uid == 0 and not status.st_mode & 0o022 and not cache.is_symlink()
    return ours and blocking_folder(cache, account) is None


def _copy(install: Path, libraries: Path, target: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        package = draft / install.parent.name
        for name in _COPIED:
            shutil.copytree(
                install / name,
                package / install.name / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("*.a", "pkgconfig"),
            )
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        _open_to_all(draft)
        draft.rename(target)
    except OSError as exc:
        shutil.rmtree(draft, ignore_errors=True)
        if not target.exists():  # it exists when another process was faster
            raise LaunchFailed(f"cannot copy PostgreSQL to {target}: {exc}") from exc


def _open_to_all(copy: Path) -> None:
    """Let everybody read the copy, whatever the umask was."""
    for folder, _, files in os.walk(copy):
        os.chmod(folder, 0o755)
        for path in (Path(folder) / name for name in files):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
