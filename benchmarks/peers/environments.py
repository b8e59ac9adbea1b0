"""An environment for each peer, below the one that the benchmark itself runs in."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.peers import Peer

SCRIPTS = Path(__file__).parent / "scripts"
ROOT = Path(sys.prefix) / "peers"
INSTALLING_MAY_TAKE = 600.0  # seconds


class NotInstalled(Exception):
    """A peer cannot be installed here; says why."""


def command_for(peer: Peer) -> tuple[list[str], dict[str, str]]:
    """Return how to start a peer's script, installing it first, and variables for it.

    Raises `NotInstalled`.
    """
    script = str(SCRIPTS / peer.script)
    if peer.runtime == "here":
        return [sys.executable, script], {}
    folder = ROOT / peer.name
    if peer.runtime == "node":
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise NotInstalled("node and npm were not found")
        if not _is_there(folder, peer):
            folder.mkdir(parents=True, exist_ok=True)
            _run(npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder),
                 *peer.requirements)  # fmt: skip
            _mark(folder, peer)
        return [node, script], {"NODE_PATH": str(folder / "node_modules")}
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not _is_there(folder, peer):
        _make_environment(folder, python, peer)
        _mark(folder, peer)
    return [str(python), script], {}


def version_of(peer: Peer) -> str:
    """Return the version that is pinned; ours is told by the package itself."""
    if peer.runtime == "here":
        from benchmarks.machine import versions

        return versions()[peer.package]
    return peer.requirements[0].replace("@", "==").rpartition("==")[2]


def _make_environment(folder: Path, python: Path, peer: Peer) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        _run(uv, "pip", "install", "--quiet", "--python", str(python), *peer.requirements)
    else:
        venv.create(folder, with_pip=True)
        _run(str(python), "-m", "pip", "install", "--quiet", *peer.requirements)


def _marker(folder: Path) -> Path:
    return folder / "requirements.txt"


def _is_there(folder: Path, peer: Peer) -> bool:
    try:
        return _marker(folder).read_text(encoding="utf-8").split() == list(peer.requirements)
    except FileNotFoundError:
        return False


def _mark(folder: Path, peer: Peer) -> None:
    _marker(folder).write_text("\n".join(peer.requirements) + "\n", encoding="utf-8")


def _run(*command: str) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=INSTALLING_MAY_TAKE
        )
    except subprocess.CalledProcessError as exc:
        lines = (exc.stderr or exc.stdout or "").strip().splitlines() or ["no output"]
        raise NotInstalled(f"{Path(command[0]).name} failed: {lines[-1]}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotInstalled(f"{Path(command[0]).name}: {exc}") from exc
