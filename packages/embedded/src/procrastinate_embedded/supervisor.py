"""The process that owns the server, and stops it when no process uses it any more.

It is the server's parent, and no child of the user's: whatever happens to the users, their locks
are released by the kernel, and this process sees that. Rules:

- It decides that no user is left only while it holds the start lock, under which users join.
- It never keeps ``users.lock``: a user who joins with the start lock in hand would wait for us.
- It dies only after the server. If it is killed all the same, Linux stops the server with it;
  elsewhere the next user, or the last one who leaves, does so (`remains.clear_remains`).
- It loads the standard library only, so that it starts fast and stays small.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from procrastinate_embedded import home as homes
from procrastinate_embedded import initdb, postmaster, remains
from procrastinate_embedded.failure import LaunchFailed
from procrastinate_embedded.home import Home
from procrastinate_embedded.locks import FileLock
from procrastinate_embedded.postmaster import Postmaster
from procrastinate_embedded.request import Request

# What can happen to a supervisor.
USERS_GONE, SERVER_GONE, TOLD_TO_STOP = "users gone", "server gone", "told to stop"

_held_to_the_end: list[FileLock] = []


def main() -> None:
    """Serve one request, read as JSON from stdin; reply with one line of JSON on stdout."""
    request = Request(**json.load(sys.stdin))
    if hasattr(os, "fork") and os.fork():
        os._exit(0)  # the user's process is not to have a child that it must wait for
    os.umask(0o077)
    os.chdir("/" if sys.platform != "win32" else request.bin_dir)
    supervise(request)


def supervise(request: Request) -> None:
    """Start the server, say so, and stay until it has to be stopped."""
    events: SimpleQueue[str] = SimpleQueue()
    _listen_to_signals(events)
    home = Home(Path(request.home), temporary=request.temporary)
    alive = home.supervisor_lock()
    if not alive.acquire(
        timeout=1
    ):  # not at once: another process may just be looking whether this one lives
        reply({"busy": True})
        return
    try:
        server = launch(request, home)
    except Exception as exc:
        is_expected = isinstance(exc, LaunchFailed)
        message = str(exc) if is_expected else f"supervisor failed:\n{traceback.format_exc()}"
        alive.release()  # before the reply, which is when the one who asked clears up
        if not reply({"error": message}):
            _remove_if_unused(home)
        return
    reply({"ready": True})
    watch(server, home, events)
    alive.release()


def launch(request: Request, home: Home) -> Postmaster:
    """Clear up after a crash, make the cluster if there is none, and start the server."""
    remains.clear_remains(home)
    initdb.make_cluster(request, home)
    server = postmaster.start(request, home)
    try:
        home.publish(server.running)
    except BaseException:
        server.stop(home.data)
        raise
    return server


def reply(message: dict[str, Any]) -> bool:
    """Tell the process that started us, if it still lives, and let go of its pipes."""
    try:
        os.write(1, json.dumps(message).encode() + b"\n")
        told = True
    except OSError:
        told = False
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return told


def watch(server: Postmaster, home: Home, events: SimpleQueue[str]) -> None:
    """Wait for the end of the users, of the server, or of our own permission to run."""
    _in_background(lambda: server.process.wait(), SERVER_GONE, events)
    _in_background(home.users_lock().wait_until_free, USERS_GONE, events)
    while (event := events.get()) == USERS_GONE:
        if _retired(server, home):
            return
        _in_background(home.users_lock().wait_until_free, USERS_GONE, events)
    if event == TOLD_TO_STOP:
        server.stop(home.data)
    # Not under the start lock: a user who is joining holds it, and asks us for nothing.
    home.retract()
    homes.remove_socket_folder(server.running.host)
    _remove_if_unused(home)


def _retired(server: Postmaster, home: Home) -> bool:
    """Stop the server unless a user joined meanwhile, and say whether it was stopped."""
    start, users = home.start_lock(), home.users_lock()
    try:
        # No answer within the time: a start or a stop hangs, and the question is asked again.
        if not start.acquire(timeout=600) or not users.acquire():
            return False
        # Kept until this process ends, which tells a process that leaves that it is the last one.
        home.retract()
        server.stop(home.data)
        homes.remove_socket_folder(server.running.host)
        if home.temporary:
            home.remove()
    except FileNotFoundError:  # the whole directory was removed: no process can use it any more
        server.stop(home.data)
        homes.remove_socket_folder(server.running.host)
    finally:
        start.release()
    _held_to_the_end.append(users)
    return True


def _remove_if_unused(home: Home) -> None:
    users = home.users_lock()
    if home.temporary and home.path.exists() and users.acquire():
        home.remove()
        users.release()


def _listen_to_signals(events: SimpleQueue[str]) -> None:
    for name in ("SIGINT", "SIGHUP"):  # a terminal's; the users of the server decide
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)  # unlike SIG_IGN, not inherited
    signal.signal(signal.SIGTERM, lambda *_: events.put(TOLD_TO_STOP))


def _in_background(wait: Callable[[], object], event: str, events: SimpleQueue[str]) -> None:
    def run() -> None:
        with contextlib.suppress(FileNotFoundError):  # the directory was removed
            wait()
        events.put(event)

    threading.Thread(target=run, daemon=True).start()
