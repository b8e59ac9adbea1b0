"""What a request to stop does: while the program starts, while it works, and while it leaves.

Rules

1. No request is forgotten. Those that came before there was a worker are told to it first.
2. A thread reads them. The main thread cannot while it is inside a C function, for instance while
   it connects to a server that does not answer.
3. While the program starts or leaves, no exception is raised for a request. A bare ``except:`` or
   the import of a C module would swallow it. The program looks at `StopSignals.asked` instead.
4. If the program does not end by itself within `PATIENCE`, or is asked again, it ends by
   `os._exit`. No job is lost by that: none was claimed yet, or all were given back.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import procrastinate_entry as entry

PATIENCE = 2.0  # seconds from a request to the end, while the program starts or leaves
LEAVING_MAY_TAKE = 15.0  # seconds from the worker's end to the program's, if a stop was asked for


class StopSignals:
    """The requests to stop that this process has heard, and what each of them does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: list[int] = []
        self._reader: threading.Thread | None = None
        self._tell: Callable[[int], None] | None = None
        self._exit_code: int | None = None  # None: requests are only remembered
        self._phase = 0  # a new number for each, so that a late timer ends nothing
        self._is_ending = False
        # Times at which to end, each with its phase and its exit code, for the thread that does it.
        # That one is started early, because Python starts no thread any more when it is leaving.
        self._orders: queue.SimpleQueue[tuple[float, int, int]] = queue.SimpleQueue()
        self._undertaker: threading.Thread | None = None

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for since the process began."""
        return bool(self._heard)

    def listen(self) -> None:
        """Hear signals, and act on them in a thread. Only the main thread may call this."""
        descriptor = entry.hear()
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
            self._reader.start()
        if self._undertaker is None or not self._undertaker.is_alive():  # not in a forked child
            self._undertaker = threading.Thread(target=self._end_in_time, daemon=True)
            self._undertaker.start()

    def release(self) -> None:
        """Let signals do what they do in any Python program; those that came meanwhile, too."""
        if not entry.is_hearing():
            return
        self.listen()
        self._stop_reading()
        while self._heard:
            signal.raise_signal(self._heard.pop(0))

    @contextmanager
    def starting(self) -> Iterator[None]:
        """A block in which nothing is lost: after a request the program exits with 0.

        It does so at the end of the block, whatever the block raises, or else by rule 4.
        """
        self.listen()
        self._enter(exit_code=0)
        if self.asked:
            self._end_later(PATIENCE)
        try:
            yield
        except BaseException:
            if not self.asked:
                raise
        if self.asked:
            raise SystemExit(0)

    @contextmanager
    def told(self, tell: Callable[[int], None]) -> Iterator[None]:
        """A block in which a function is told of each request, beginning with the earlier ones.

        The function is called with the signal's number, in a thread, and must not wait. After the
        block the program leaves, with 0, or 1 if the block raised.
        """
        was_hearing = entry.is_hearing()
        self.listen()
        self._enter(tell=tell)
        code = 1
        try:
            yield
            code = 0
        finally:
            if was_hearing:
                self.leave_with(code)
            else:  # the process is not ours
                self._stop_reading()
                self._enter()
                self._heard.clear()

    def leave_with(self, code: int) -> None:
        """Say which code the program will exit with, by itself or by rule 4."""
        self._enter(exit_code=code)
        if self.asked:
            self._end_later(LEAVING_MAY_TAKE)

    def _enter(
        self, *, tell: Callable[[int], None] | None = None, exit_code: int | None = None
    ) -> None:
        with self._lock:
            self._phase += 1
            self._is_ending = False
            self._tell, self._exit_code = tell, exit_code
            if tell is not None:
                for number in self._heard:
                    tell(number)

    def _read(self, descriptor: int) -> None:
        while numbers := os.read(descriptor, 100):
            for number in numbers:
                if number in entry.SIGNALS:  # others with a handler in Python are written too
                    self._hear(number)
        os.close(descriptor)

    def _hear(self, number: int) -> None:
        with self._lock:
            self._heard.append(number)
            if self._tell is not None:
                self._tell(number)
            elif self._exit_code is not None:
                if self._is_ending:
                    os._exit(self._exit_code)
                self._is_ending = True
                self._end_later(PATIENCE)

    def _end_later(self, seconds: float) -> None:
        assert self._exit_code is not None
        self._orders.put((time.monotonic() + seconds, self._phase, self._exit_code))

    def _end_in_time(self) -> None:
        orders: list[tuple[float, int, int]] = []
        while True:
            first = min(orders, default=None)
            try:
                wait = None if first is None else max(0.0, first[0] - time.monotonic())
                orders.append(self._orders.get(timeout=wait))
            except queue.Empty:
                assert first is not None
                _, phase, code = first
                if phase == self._phase:
                    os._exit(code)
                orders.remove(first)

    def _stop_reading(self) -> None:
        entry.forget()
        if self._reader is not None:
            self._reader.join()
            self._reader = None


#: The signals of this process.
STOP = StopSignals()
