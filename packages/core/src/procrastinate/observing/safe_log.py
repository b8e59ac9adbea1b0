"""A log that never raises.

A handler, filter, formatter or record factory of a user's own may raise anything, and the standard
handlers let `RecursionError` and every `BaseException` through. If that reached the worker, a line
in the log could keep a slot, end a helper or end the worker.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from procrastinate.model.text import failure, printable


class SafeLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose methods never raise."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log as `logging.Logger.log` does. What raises is named on stderr, and no more."""
        try:
            if self.logger.isEnabledFor(level):
                kwargs["stacklevel"] = (
                    kwargs.get("stacklevel", 1) + 1
                )  # not this method, its caller
                self.logger.log(level, msg, *args, **kwargs)
        except BaseException as broken:
            _complain(broken)

    def failure(
        self,
        level: int,
        msg: str,
        *args: object,
        exception: BaseException,
        traceback: str,
        extra: Mapping[str, object],
    ) -> None:
        """Log an exception together with its traceback, which is formatted already.

        Handlers get the exception too. But no standard formatter formats it once more, because
        that might take as long and as much memory as the exception wants.
        """
        try:
            if self.logger.isEnabledFor(level):
                path, line, function, _ = self.logger.findCaller(False, 2)
                about = (type(exception), exception, failure.frames_of(exception))
                record = self.logger.makeRecord(
                    self.logger.name, level, path, line, msg, args, about, function, extra
                )
                record.exc_text = printable.block(traceback)
                self.logger.handle(record)
        except BaseException as broken:
            _complain(broken)


def _complain(broken: BaseException) -> None:
    """Say on stderr what is wrong with the log, if that is possible at all."""
    try:
        if logging.raiseExceptions and sys.stderr is not None:
            what = failure.headline_of(broken)
            sys.stderr.write(f"procrastinate: the log failed with {printable.line(what)}\n")
    except BaseException:
        pass  # there is nowhere left to say it
