"""What the dashboard does while the database says nothing at all.

Rules

1. A question gets `ANSWER_WITHIN` seconds, then its connection is shut down (`time_limit`).
2. Once one has got no answer, pages say so at once, and one tries again, two at a time at most.
   Otherwise all threads of a server would wait, and files would wait for them.
3. An error that comes at once is no silence: it costs no request time.
4. A request that is refused by ``access`` has asked nothing, so it is no try: strangers, and probes
   without a login, would take each try from those who could hear that the database is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from procrastinate_dashboard.shared import NoAnswer, is_no_answer

ANSWER_WITHIN = 9.0  # seconds: less than the `PATIENCE` of doors, which give a request up
CHANGE_WITHIN = 60.0  # seconds: a change of many jobs takes a while
TRY_EVERY = 2.0  # seconds from the end of a try to the next
#: Seconds after which another one tries although the last one still waits. It may wait for a
#: connection that was silent from its start, and will not hear that the database is back.
ANOTHER_AFTER = 5.0
LONG = 2.0  # seconds after which no answer is silence
SAY_EVERY = 5.0  # seconds between two lines of the log that say the same


class Silence:
    """Whether the database was silent a moment ago (`is_on`). Any thread may ask it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.is_on = False
        self._try_at = 0.0
        self._said_at = float("-inf")

    def refuses(self) -> bool:
        """Whether a request should be told at once; if not, it may be the one that tries."""
        with self._lock:
            now = self._clock()
            if not self.is_on or now >= self._try_at:
                self._try_at = now + ANOTHER_AFTER
                return False
            return True

    def heard(self) -> None:
        """Note that the database has answered."""
        self.is_on = False

    def tried(self) -> None:
        """Note that a request has ended, whatever became of it: the next one may try soon."""
        with self._lock:
            self._try_at = self._clock() + TRY_EVERY

    def asked_nothing(self) -> None:
        """Note that a request has ended without a question: the next one may try at once."""
        with self._lock:  # rule 4
            self._try_at = self._clock()

    def failed(self, exc: Exception, took: float) -> None:
        """Note what a request has ended with, and after how many seconds."""
        if isinstance(exc, NoAnswer) or (is_no_answer(exc) and took >= LONG):
            self.is_on = True

    def is_news(self) -> bool:
        """Whether to log that there is no answer: once in a while is enough."""
        with self._lock:
            now = self._clock()
            is_news = now >= self._said_at + SAY_EVERY
            if is_news:
                self._said_at = now
            return is_news
